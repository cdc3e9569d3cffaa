"""
XCLIENT: a proxy that is trusted with it says whom it speaks for.

By Postfix's description of it (XCLIENT_README); there is no RFC. The server's
half only: a client of ours speaks for itself.

Rule 1: it is offered to clients of some networks, and obeyed from nowhere else.
Who has said ADDR is a client of that address from then on, so whoever is behind
a proxy that passes everything on can't say it again.

Rule 2: all that the proxy has said for itself is forgotten: its EHLO, its AUTH.
A new greeting follows, from a new session; checks are asked about the client
from the start.

Rule 3: a value is what it says it is, or the whole command is refused. Names end
up in logs and in Received lines.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, NamedTuple

from smtpfw.errors import ConfigError, SMTPError, SyntaxProblem
from smtpfw.networks import Network, Networks, networks_of_proxies
from smtpfw.wire.config import HOSTNAME_PATTERN
from smtpfw.wire.dialect import Extension
from smtpfw.wire.grammar import decode_xtext, encode_xtext
from smtpfw.wire.phases import GREETED, READY, Verb

if TYPE_CHECKING:
    from collections.abc import Iterable

    from smtpfw.wire.server import ServerConnection

__all__ = ["ClientAttributes", "XClient", "parse_xclient"]

#: What stands in the place of a SASL mechanism where LOGIN has said who the client is.
_MECHANISM = "XCLIENT"

#: Values of an attribute that is not known, for good and for now.
_UNKNOWN = frozenset({"[UNAVAILABLE]", "[TEMPUNAVAIL]"})

#: RFC 5321 section 4.5.3.1.2 for names; user names are as long as those of AUTH may be.
_MAX_NAME = 255
#: Three of them, each octet encoded as three, and the rest.
_MAX_LINE = 4096


class ClientAttributes(NamedTuple):
    """
    What one XCLIENT says; None for an attribute that it does not mention.

    :ivar name: the name of the client's address; empty if it has none, or none that is known.
    :ivar addr: its IP address; empty if it is not known.
    :ivar port: its port; 0 if it is not known.
    :ivar helo: what the client has called itself; empty if that is not known. It stands in the place of what EHLO,
        which follows, says: some proxies introduce themselves there.
    :ivar login: who it has authenticated as; empty if it has not.
    :ivar dest_addr, dest_port: what it has connected to.
    """

    name: str | None = None
    addr: str | None = None
    port: int | None = None
    helo: str | None = None
    login: str | None = None
    dest_addr: str | None = None
    dest_port: int | None = None


def parse_xclient(argument: bytes) -> ClientAttributes:
    """
    Read what follows ``XCLIENT ``: ``ADDR=192.0.2.1 NAME=[UNAVAILABLE]``.

    :raises SyntaxProblem: 501 5.5.4, naming the attribute that is not known, or not what it should be.
    """
    if not argument.isascii():
        raise SyntaxProblem("What is not ASCII is written as xtext")
    values: dict[str, Any] = {}
    # At spaces only: what else Python splits at may stand in a value that somebody has not encoded.
    for word in filter(None, argument.decode("ascii").split(" ")):
        keyword, _, text = word.partition("=")
        keyword = keyword.upper()
        known = _ATTRIBUTES.get(keyword)
        if known is None or not text:
            raise SyntaxProblem(f"XCLIENT takes ATTRIBUTE=value; the attributes are {' '.join(_ATTRIBUTES)}")
        field, read = known
        if field in values:
            raise SyntaxProblem(f"{keyword} stands there twice")
        value = _decoded(text)
        try:
            values[field] = read("" if value.upper() in _UNKNOWN else value)
        except ValueError as error:
            raise SyntaxProblem(f"{keyword}: {error}") from None
    if not values:
        raise SyntaxProblem("XCLIENT needs an attribute")
    # EHLO, HELO or LHLO, which follows, says the same, and is believed.
    values.pop("proto", None)
    return ClientAttributes(**values)


def _decoded(text: str) -> str:
    """
    Xtext; or the text itself, where nobody would have written that.

    nginx writes LOGIN=joe+tag as it is. So LOGIN=a+41 is a user of that name: nobody encodes a letter, and taken for
    xtext it would be another user, aA.
    """
    try:
        value = decode_xtext(text)
    except ValueError:
        return text
    return value if encode_xtext(value) == text else text


def _read_address(value: str) -> str:
    if not value:
        return ""
    try:
        address = ip_address(value[5:] if value[:5].upper() == "IPV6:" else value)
    except ValueError:
        raise ValueError("an IPv4 address is expected, or IPV6: and an IPv6 address") from None
    mapped = getattr(address, "ipv4_mapped", None)
    if "%" in value:
        raise ValueError("a zone means nothing on another machine")
    return str(mapped or address)


def _read_port(value: str) -> int:
    if not value:
        return 0
    if not (value.isascii() and value.isdigit() and len(value) <= 5 and int(value) <= 65535):
        raise ValueError("a port is a number up to 65535")
    return int(value)


def _read_name(value: str) -> str:
    if value and not HOSTNAME_PATTERN.fullmatch(value):
        raise ValueError("a host name is expected")
    return value


def _read_word(value: str) -> str:
    # As parse_hello: anything that is printable, and one word.
    if not value.isprintable() or " " in value or len(value) > _MAX_NAME:
        raise ValueError("one printable word is expected")
    return value


def _read_login(value: str) -> str:
    if not value.isprintable() or len(value) > _MAX_NAME:
        raise ValueError("a printable name is expected")
    return value


def _read_protocol(value: str) -> str:
    # Postfix knows two; the third is what Dovecot's proxy of LMTP says.
    if value.upper() not in ("SMTP", "ESMTP", "LMTP", ""):
        raise ValueError("SMTP, ESMTP or LMTP is expected")
    return value.upper()


#: Attribute -> the field of :class:`ClientAttributes`, and what reads its value, decoded; in the order in which EHLO
#: names them.
_ATTRIBUTES: dict[str, tuple[str, Callable[[str], Any]]] = {
    "NAME": ("name", _read_name),
    "ADDR": ("addr", _read_address),
    "PORT": ("port", _read_port),
    "PROTO": ("proto", _read_protocol),
    "HELO": ("helo", _read_word),
    "LOGIN": ("login", _read_login),
    "DESTADDR": ("dest_addr", _read_address),
    "DESTPORT": ("dest_port", _read_port),
}


class XClient(Extension):
    """
    XCLIENT for the clients of some networks::

        SMTPServerFactory(backend, config, extensions=[*STANDARD, XClient("10.0.0.5")])

    :param networks: whose clients are trusted with it: ``10.0.0.0/8``, ``2001:db8::1``, ``unix`` for Unix sockets; one
        or several. They can pass for anybody, from anywhere.
    :raises ConfigError: if there are none, one is no network, or they are everybody.
    """

    keyword = "XCLIENT"

    def __init__(self, networks: Networks | Iterable[Network] | Network) -> None:
        try:
            self.networks = networks_of_proxies(networks)
        except ValueError as error:
            raise ConfigError(f"extension XCLIENT: {error}") from None
        self.verbs = (
            Verb(
                "XCLIENT",
                frozenset({GREETED, READY}),
                last_in_group=True,
                after_helo=True,
                max_line=_MAX_LINE,
                serve=self._serve,
            ),
        )

    def advertise(self, connection: ServerConnection) -> str | None:
        return " ".join(_ATTRIBUTES) if self._trusts(connection) else None

    def _trusts(self, connection: ServerConnection) -> bool:
        return self.networks.include(connection.application.client)

    def _serve(self, connection: ServerConnection, argument: bytes) -> None:
        if not self._trusts(connection):
            raise SMTPError(550, (5, 7, 0), "XCLIENT is not for you")
        told = parse_xclient(argument)
        connection.application.end_session("xclient", same_client=False)
        login, hello_name = told.login, told.helo
        # Of a second address it is another client: nothing that was said of the first is said of that one.
        if not (told.addr is not None and connection.context.get(self)):
            if login is None and connection.mechanism == _MECHANISM:
                login = connection.identity
            if hello_name is None:
                hello_name = connection.told_name
        if told.addr is not None:
            connection.context[self] = True
        connection.begin_anew(hello_name=hello_name or "", identity=login or "", mechanism=_MECHANISM if login else "")
        # Whether there will be a session, and so a greeting, is for the application to find out.
        connection.application.speak_for(told)
