"""
Every setting of a server, in one table.

A setting has one name, everywhere: ``max_message_bytes`` is the field of
:class:`~smtpfw.wire.config.ServerConfig`, the key in a file, and, with hyphens,
the option ``--max-message-bytes``. Options and help are generated from this
table; what is a field of ``ServerConfig`` takes its default from there.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, time
from typing import Any

from smtpfw.config import units
from smtpfw.networks import Networks
from smtpfw.wire.config import HOSTNAME_PATTERN, LMTP, SMTP, ServerConfig
from smtpfw.wire.profiles import PROFILES, Profile

__all__ = ["BY_NAME", "SERVER_NAMES", "SETTINGS", "Kind", "Setting", "default_hostname", "nearest"]


def nearest(word: str, known: Iterable[str]) -> str:
    """A half-sentence that proposes the known word nearest to ``word``; empty when none is near."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def default_hostname() -> str:
    """
    The machine's full name if it has one, or else its short name.

    DNS is not asked: this is found out at SIGHUP as well, and a name server that is silent would stop the service.
    """
    # Not above: it is needed only where no name is given.
    from smtpfw.client.own_name import full_name

    return full_name() or socket.gethostname()


def _parse_hostname(text: str) -> str:
    if HOSTNAME_PATTERN.fullmatch(text) is None:
        raise ValueError(f"{text!r} is no host name; write one as mx.example.org, or an address as [192.0.2.1]")
    return text


def _parse_protocol(text: str) -> str:
    if text.lower() not in (SMTP, LMTP):
        raise ValueError(f"{text!r} is neither {SMTP} nor {LMTP}")
    return text.lower()


def _parse_profile(text: str) -> Profile:
    try:
        return PROFILES[text]
    except KeyError:
        raise ValueError(f"{text!r} is none of {', '.join(PROFILES)}{nearest(text, PROFILES)}") from None


def _parse_word(text: str, *words: str) -> str:
    if text not in words:
        raise ValueError(f"{text!r} is none of {', '.join(words)}{nearest(text, words)}")
    return text


def _parse_workers(text: str) -> int:
    number = units.parse_count(text)
    if not 1 <= number <= MAX_WORKERS:
        raise ValueError(f"{text!r} is no number of workers; write 1 to {MAX_WORKERS}")
    return number


def _parse_umask(text: str) -> int:
    if re.fullmatch("[0-7]{1,4}", text) is None or int(text, 8) > 0o777:
        raise ValueError(f"{text!r} is no umask; write three octal digits, as 027")
    return int(text, 8)


def _parse_network(text: str) -> str:
    Networks(text)
    return text


def _parse_text(text: str) -> str:
    if not text:
        raise ValueError("it is empty")
    return text


#: More than any machine has use for: a number with too many digits should start no thousand processes.
MAX_WORKERS = 512


@dataclass(frozen=True, slots=True)
class Kind:
    """
    A kind of value.

    :ivar metavar: stands for the value in the help.
    :ivar parse: text to value; a ValueError says what is expected.
    :ivar format: value to the text that ``parse`` reads back.
    :ivar plain: types of TOML beside text that it may be written as, ``10`` for ``"10"``.
    :ivar example: how it may be written in a file.
    :ivar words: whether it is several words, which may be a list in a file.
    """

    metavar: str
    parse: Callable[[str], Any]
    format: Callable[[Any], str] = str
    plain: tuple[type, ...] = ()
    example: str = ""
    words: bool = False

    def read(self, value: Any) -> Any:
        """
        Read what stands in a file.

        :raises ValueError: saying what is expected.
        """
        if self.metavar == "":
            if isinstance(value, bool):
                return value
            raise ValueError(f"{show(value)} is neither true nor false")
        if isinstance(value, str):
            return self.parse(value)
        if isinstance(value, bool) and bool in self.plain:
            return value
        # A bool is an int to Python, and no number to anybody else.
        if isinstance(value, self.plain) and not isinstance(value, bool):
            return self.parse(str(value))
        if self.words and isinstance(value, list) and all(isinstance(word, str) for word in value):
            return self.parse(" ".join(value))
        raise ValueError(f"it is {show(value)}; it is written as {self.example or self.metavar}")


#: Characters of a value that are shown to who wrote it.
_SHOWN = 80


def show(value: Any) -> str:
    """A value of TOML, for who wrote it."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value) if isinstance(value, (date, time)) else repr(value)
    return text if len(text) < _SHOWN else f"{text[:_SHOWN]}..."


SIZE = Kind("SIZE", units.parse_size, units.format_size, (int,), example='"10M"')
RATE = Kind("SIZE", lambda text: float(units.parse_size(text)), units.format_size, (int,), example='"1K"')
TIME = Kind("TIME", units.parse_duration, units.format_duration, (int, float), example='"5m"')
COUNT = Kind("N", units.parse_count, plain=(int,), example="100")
HOSTNAME = Kind("NAME", _parse_hostname, example='"mx.example.org"')
PROTOCOL = Kind("NAME", _parse_protocol, example='"lmtp"')
PROFILE = Kind("NAME", _parse_profile, lambda profile: str(profile.name), example='"strict"')
FLAG = Kind("", bool, example="true")
SWITCH = Kind("yes/no", units.parse_yes_no, plain=(bool,), example="true")
WORKERS = Kind("N", _parse_workers, plain=(int,), example="2")
# A number of TOML would be taken for a decimal one.
UMASK = Kind("MASK", _parse_umask, lambda mask: f"{mask:03o}", example='"027"')
ACCOUNT = Kind("NAME", _parse_text, plain=(int,), example='"smtpfw"')
LISTENER = Kind("ENDPOINT", _parse_text, example='"tcp:25"')
BACKEND = Kind("BACKEND", _parse_text, example='"maildir:/var/mail/inbox"')
CHECKER = Kind("CHECKER", _parse_text, example='"htpasswd:users"')
CHECK = Kind("CHECK", _parse_text, example='"rate:ip=30/m"')
NETWORK = Kind("NETWORK", _parse_network, example='"10.0.0.5"')
EXTENSION = Kind("EXTENSION", _parse_text, example='"-DSN"')
WORDS = Kind("NAMES", _parse_text, example='"SCRAM-SHA-256 PLAIN"', words=True)
CERTIFICATE = Kind("CERT[:KEY]", _parse_text, example='"cert.pem:key.pem"')
TLS_VERSION = Kind("VERSION", lambda text: _parse_word(text, "1.2", "1.3"), plain=(float,), example='"1.3"')
CERTIFICATE_FILE = Kind("FILE", _parse_text, example='"clients.pem"')
LOG_FORMAT = Kind("NAME", lambda text: _parse_word(text, "text", "json"), example='"json"')
LOG_LEVEL = Kind("NAME", lambda text: _parse_word(text, "debug", "info", "warn", "error", "critical"), example='"warn"')
LOG_FILE = Kind("FILE", _parse_text, example='"protocol.log"')
CONFIG_FILE = Kind("FILE", _parse_text, example='"smtpfw.toml"')
FOLDER = Kind("DIR", _parse_text, example='"lib"')

_FIELDS = {field.name: field for field in dataclasses.fields(ServerConfig)}


@dataclass(frozen=True, slots=True)
class Setting:
    """
    One setting.

    :ivar name: as in ``ServerConfig``.
    :ivar kind: how its value is read and written.
    :ivar help: a phrase for the help, without default and unit.
    :ivar given: the default of a setting that is no field of ``ServerConfig``.
    :ivar repeatable: may be given more than once; its value is a tuple.
    :ivar zero: what 0 means, if it means more than a number.
    """

    name: str
    kind: Kind
    help: str
    given: Any = None
    repeatable: bool = False
    zero: str = ""

    @property
    def option(self) -> str:
        """The name on the command line, without the two hyphens in front."""
        return self.name.replace("_", "-")

    @property
    def default(self) -> Any:
        """The value when nobody gives one; None for the name of this host, which is looked up when it is needed."""
        field = _FIELDS.get(self.name)
        if field is None or field.default is dataclasses.MISSING:
            return self.given
        return field.default

    def describe_default(self) -> str:
        """The default as an operator would write it; empty when there is none to tell."""
        if self.kind is HOSTNAME:
            return "the name of this machine"
        if self.kind is FLAG or self.default in (None, ()):
            return ""
        if self.repeatable:
            return " ".join(map(self.kind.format, self.default))
        if self.default == 0 and self.zero:
            return f"0, {self.zero}"
        return self.kind.format(self.default)


#: The title of a group in the help, and what stands in it.
SETTINGS: dict[str, tuple[Setting, ...]] = {
    "All of it in a file": (
        Setting(
            "config",
            CONFIG_FILE,
            "read listeners, deliveries, routes and all the rest from a TOML file; SIGHUP reads it again",
        ),
    ),
    "Where mail comes in, and where it goes": (
        Setting(
            "listen",
            LISTENER,
            "where to listen: a Twisted endpoint; smtps: before it means TLS from the first octet. May be repeated",
            given=("tcp:2525:interface=127.0.0.1",),
            repeatable=True,
        ),
        Setting("protocol", PROTOCOL, "what is spoken there: smtp, or lmtp (a reply for each recipient)"),
        Setting(
            "backend",
            BACKEND,
            "what takes the mail: maildir:PATH, memory, discard, handler:module:function, your own code as "
            "package.module:Name; or passes it on: relay:HOST, lmtp:unix:PATH",
            given="maildir:./Maildir",
        ),
        Setting("python_path", FOLDER, "look for your own code here first. May be repeated", given=(), repeatable=True),
    ),
    "Who may send": (
        Setting(
            "auth",
            CHECKER,
            "offer AUTH, by htpasswd:PATH, certificate, session, a twisted.cred checker, or your own module:function",
        ),
        Setting(
            "auth_mechanisms",
            WORDS,
            "which SASL mechanisms to offer, the best first; by default all that can be verified",
        ),
        Setting("require_auth", FLAG, "refuse mail from clients that have not authenticated"),
        Setting("allow_insecure_auth", FLAG, "offer AUTH without TLS, too: whoever listens learns passwords"),
    ),
    "What is checked before": (
        Setting(
            "checks",
            CHECK,
            "ask this check first: rate:ip=30/m, concurrency:ip=10, networks:10.0.0.0/8, sender_login ... "
            "May be repeated; the first refusal wins",
            given=(),
            repeatable=True,
        ),
    ),
    "Behind a proxy": (
        Setting(
            "proxy",
            NETWORK,
            "connections from there begin with a PROXY header, which says whom they are for: the network, or the "
            "address, of a proxy; unix for Unix sockets. May be repeated",
            given=(),
            repeatable=True,
        ),
        Setting(
            "xclient",
            NETWORK,
            "clients from there may say by XCLIENT for whom they speak: the network, or the address, of a proxy. May "
            "be repeated",
            given=(),
            repeatable=True,
        ),
    ),
    "Name, TLS and manners": (
        Setting("hostname", HOSTNAME, "our own name in the greeting"),
        Setting(
            "tls",
            CERTIFICATE,
            "PEM file with certificate, chain and key, or two files, or a folder with a pair for each name; offers "
            "STARTTLS. Files are read again when they change",
        ),
        Setting("tls_minimum_version", TLS_VERSION, "refuse older TLS: 1.2 or 1.3", given="1.2"),
        Setting(
            "client_ca", CERTIFICATE_FILE, "ask for client certificates, signed by one of these; for AUTH EXTERNAL"
        ),
        Setting("require_client_certificate", FLAG, "end the handshake of a client that has none"),
        Setting("require_tls", FLAG, "refuse mail on a connection without TLS"),
        Setting(
            "submission",
            SWITCH,
            "add Date and Message-ID to messages that lack them, of clients that have authenticated; by default where "
            "AUTH is required",
        ),
        Setting("profile", PROFILE, "how strictly to read: strict (the RFCs' letter), default, lenient (old devices)"),
        Setting(
            "extensions",
            EXTENSION,
            "-KEYWORD leaves out an extension that EHLO would name; KEYWORD, or your own module:Name, adds one. May be "
            "repeated",
            given=(),
            repeatable=True,
        ),
    ),
    "Limits": (
        Setting("max_message_bytes", SIZE, "largest message", zero="no limit"),
        Setting(
            "max_discarded_bytes", SIZE, "how much of a refused message to read on before closing", zero="no limit"
        ),
        Setting("max_recipients", COUNT, "recipients of one message", zero="no limit"),
        Setting("max_connections", COUNT, "clients at a time", zero="no limit"),
        Setting(
            "max_connections_per_address",
            COUNT,
            "clients at a time from one IPv4 address, or one IPv6 /64",
            zero="no limit",
        ),
        Setting("max_buffered_bytes", SIZE, "of one client that wait to be used, before it is paused", zero="no limit"),
        Setting(
            "max_memory_bytes",
            SIZE,
            "of messages in memory, all together, before new ones are refused for now",
            zero="no limit",
        ),
        Setting("max_commands_without_mail", COUNT, "commands that lead to no message before closing", zero="no limit"),
        Setting("max_syntax_errors", COUNT, "unreadable or unknown commands before closing", zero="no limit"),
        Setting("max_sequence_errors", COUNT, "commands at the wrong moment before closing", zero="no limit"),
        Setting("max_recipient_errors", COUNT, "refused recipients before closing", zero="no limit"),
        Setting("max_authentication_errors", COUNT, "wrong credentials before closing", zero="no limit"),
        Setting("min_data_rate", RATE, "octets a second that a message must come with on average", zero="no limit"),
    ),
    "Time limits": (
        Setting("proxy_timeout", TIME, "for the PROXY header", zero="no limit"),
        Setting("tls_handshake_timeout", TIME, "for the TLS handshake", zero="no limit"),
        Setting("greeting_timeout", TIME, "for EHLO, from our greeting on", zero="no limit"),
        Setting("command_timeout", TIME, "for the next command", zero="no limit"),
        Setting("data_timeout", TIME, "for the next octets of a message", zero="no limit"),
        Setting("message_timeout", TIME, "for a whole message", zero="no limit"),
        Setting("session_timeout", TIME, "for a whole connection", zero="no limit"),
        Setting("write_timeout", TIME, "for a client that does not read our replies", zero="no limit"),
        Setting("grace", TIME, "how long a stop waits for messages under way", given=30.0, zero="do not wait"),
    ),
    "The process": (
        Setting(
            "workers",
            WORKERS,
            "processes that share the connections; with 2 or more another one watches over them. Each has its share of "
            "the limits",
            given=1,
        ),
        Setting("user", ACCOUNT, "serve as this user, once all sockets are bound; for who starts as root"),
        Setting("group", ACCOUNT, "and as this group, instead of the user's own"),
        Setting("umask", UMASK, "permissions that new files never have"),
    ),
    "What is logged": (
        Setting("log_format", LOG_FORMAT, "how a line of the log looks: text, or json", given="text"),
        Setting("log_level", LOG_LEVEL, "what is logged: info (each message too), warn, error, critical", given="info"),
        Setting(
            "protocol_log",
            LOG_FILE,
            "write down what is said on all connections, without secrets and messages, into this file, or to stderr",
        ),
    ),
}

BY_NAME = {setting.name: setting for group in SETTINGS.values() for setting in group}

#: The settings that are fields of ``ServerConfig``, in its order.
SERVER_NAMES = tuple(name for name in _FIELDS if name in BY_NAME)
