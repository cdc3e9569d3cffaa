"""
What a client asks in these tests, what a good peer answers, and at which places a bad one can do something else.

A *way* is a whole dialog; each answer of the peer in it is a *place*. Tests
put what a peer does wrong into every place of every way.
"""

from __future__ import annotations

import atexit
import base64
import functools
import hashlib
import hmac
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from smtpfw.sasl import SCRAM, CramMD5, Login, Plain
from smtpfw.testing import MESSAGE, starttls
from smtpfw.tls import client_context, server_context
from smtpfw.wire.config import ClientConfig
from tests.certificates import Authority

BODY = b"Subject: x\r\n\r\nhello\r\n"
CONFIG = ClientConfig(hello_name="me.test")
SECRET = "open sesame"
NONCE = b"fyko+d2lbbFgONRv9qkxdawL"


class Certificates:
    """
    :ivar ca: the authority, as a file.
    :ivar good, other, expired: contexts of servers: for mx.test, for another name, for mx.test until yesterday.
    """

    def __init__(self, folder: Path) -> None:
        authority = Authority("the authority of these tests")
        self.ca = str(folder / "ca.pem")
        Path(self.ca).write_bytes(authority.pem)
        self.good, self.other, self.expired = (
            self._context(folder / f"{name}.pem", authority, name, days)
            for name, days in (("mx.test", 30), ("other.test", 30), ("mx.test", -1))
        )
        self.trusted = client_context("mx.test", verify=True, ca=self.ca)

    @staticmethod
    def _context(path: Path, authority: Authority, name: str, days: int) -> Any:
        path.write_bytes(authority.issue(names=[x509.DNSName(name)], days=days, usage=ExtendedKeyUsageOID.SERVER_AUTH))
        return server_context(str(path))


@functools.cache
def certificates() -> Certificates:
    """Made once: each has a key of its own."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder)
    return Certificates(Path(folder))


@dataclass(frozen=True)
class Place:
    """
    :ivar phase: as errors name it.
    :ivar expected: what the client says.
    :ivar reply: what a good peer answers.
    :ivar asked: which of the things that are asked hears of it.
    :ivar name: distinguishes places of one phase.
    :ivar ahead: whether it is said before the answer to the place before has come.
    """

    phase: str
    expected: Any
    reply: Any
    asked: int
    name: str = ""
    ahead: bool = False

    def __str__(self) -> str:
        return self.name or self.phase


@dataclass(frozen=True)
class Way:
    """
    :ivar asks: what is asked, one after the other; the first is always the greeting.
    :ivar places: all that the peer answers, in order.
    :ivar tried: which of them are tested in this way; the others are the same in another.
    """

    name: str
    asks: tuple[Callable[[Any], Any], ...]
    places: tuple[Place, ...]
    lmtp: bool = False
    settings: dict[str, Any] = field(default_factory=dict)
    tried: Sequence[str] = ()

    def __str__(self) -> str:
        return self.name

    def tried_places(self) -> list[Place]:
        return [place for place in self.places if not self.tried or str(place) in self.tried]

    def place(self, name: str) -> Place:
        return next(place for place in self.places if str(place) == name)

    def script(self, place: Place | None = None, *actions: Any) -> list[Any]:
        """A good peer's script up to a place; what it does there instead of answering. Without it, the whole."""
        steps = []
        for one in self.places:
            if one is place:
                return [*steps, (one.expected, *actions)]
            steps.append((one.expected, one.reply))
        return steps


def hello(name: str, *keywords: str, verb: str = "EHLO", asked: int = 1) -> Place:
    lines = [b"mx.test", *(keyword.encode() for keyword in keywords)]
    reply = b"".join(b"250-%s\r\n" % line for line in lines[:-1]) + b"250 %s\r\n" % lines[-1]
    return Place(verb, f"{verb} me.test", reply, asked, name)


GREETING = Place("GREETING", None, b"220 mx.test ESMTP\r\n", 0)
_LAST = re.compile(rb"BDAT \d+ LAST")


def steps(asked: tuple[int, int, int], *, ahead: bool = False) -> tuple[Place, Place, Place]:
    """MAIL, RCPT and DATA, and who hears of each."""
    return (
        Place("MAIL", "MAIL FROM:<a@b.test>", b"250 OK\r\n", asked[0]),
        Place("RCPT", "RCPT TO:<c@d.test>", b"250 OK\r\n", asked[1], ahead=ahead),
        Place("DATA", "DATA", b"354 go on\r\n", asked[2], ahead=ahead),
    )


def message(asked: int, *, ahead: bool = False) -> tuple[Place, ...]:
    """A message by DATA."""
    return (*steps((asked, asked, asked), ahead=ahead), Place("END", MESSAGE, b"250 queued\r\n", asked))


def in_chunks(asked: int, *, ahead: bool = False, several: bool = False) -> tuple[Place, ...]:
    """A message by BDAT."""
    last = Place("END", _LAST, b"250 queued\r\n", asked, ahead=several and ahead)
    first = Place("END" if ahead else "BODY", "BDAT 21", b"250 21 octets\r\n", asked, "BODY")
    return (*steps((asked, asked, asked), ahead=ahead)[:2], *([first] if several else []), last)


def greeting_(client: Any) -> Any:
    return client.greeting


def hello_(client: Any) -> Any:
    return client.hello()


def send_(client: Any) -> Any:
    return client.send_mail("a@b.test", ["c@d.test"], BODY)


def auth_(mechanism: Any, *arguments: str) -> Callable[[Any], Any]:
    return lambda client: client.auth(mechanism("user", *arguments))


SENDING = (greeting_, hello_, send_)
STEPS = (
    greeting_,
    hello_,
    lambda client: client.mail("a@b.test"),
    lambda client: client.rcpt("c@d.test"),
)
SMALL_CHUNKS = {"config": replace(CONFIG, chunk_bytes=10)}

WAYS = [
    Way("one by one", SENDING, (GREETING, hello(""), *message(2))),
    Way("pipelined", SENDING, (GREETING, hello("", "PIPELINING"), *message(2, ahead=True))),
    Way(
        "after HELO",
        SENDING,
        (GREETING, Place("EHLO", "EHLO me.test", b"502 what?\r\n", 1), hello("", verb="HELO"), *message(2)),
        tried=("HELO", "MAIL", "END"),
    ),
    Way("in chunks", SENDING, (GREETING, hello("", "PIPELINING", "CHUNKING"), *in_chunks(2, ahead=True))),
    Way(
        "in several chunks",
        SENDING,
        (GREETING, hello("", "CHUNKING"), *in_chunks(2, several=True)),
        settings=SMALL_CHUNKS,
        tried=("BODY", "END"),
    ),
    Way(
        "in several chunks, pipelined",
        SENDING,
        (GREETING, hello("", "PIPELINING", "CHUNKING"), *in_chunks(2, ahead=True, several=True)),
        settings=SMALL_CHUNKS,
        tried=("BODY", "END"),
    ),
    Way("by LMTP", SENDING, (GREETING, hello("", verb="LHLO"), *message(2, ahead=True)), lmtp=True),
    Way(
        "by LMTP, one by one",
        SENDING,
        (GREETING, hello("", verb="LHLO"), *message(2)),
        lmtp=True,
        settings={"config": replace(CONFIG, pipelining=False)},
        tried=("MAIL", "RCPT", "DATA", "END"),
    ),
    Way(
        "by LMTP in chunks",
        SENDING,
        (GREETING, hello("", "CHUNKING", verb="LHLO"), *in_chunks(2, ahead=True)),
        lmtp=True,
        tried=("RCPT", "END"),
    ),
    Way(
        "step by step",
        (*STEPS, lambda client: client.data(BODY)),
        (GREETING, hello(""), *steps((2, 3, 4)), Place("END", MESSAGE, b"250 queued\r\n", 4)),
        tried=("MAIL", "RCPT", "DATA", "END"),
    ),
    Way(
        "step by step by LMTP",
        (*STEPS, lambda client: client.lmtp_data(BODY)),
        (GREETING, hello("", verb="LHLO"), *steps((2, 3, 4)), Place("END", MESSAGE, b"250 stored\r\n", 4)),
        lmtp=True,
        tried=("MAIL", "RCPT", "DATA", "END"),
    ),
    Way(
        "commands",
        (
            greeting_,
            hello_,
            lambda client: client.noop(),
            lambda client: client.reset(),
            lambda client: client.verify("user"),
            lambda client: client.quit(),
        ),
        (
            GREETING,
            hello("", "PIPELINING"),
            Place("NOOP", "NOOP", b"250 OK\r\n", 2),
            Place("RSET", "RSET", b"250 OK\r\n", 3),
            Place("VRFY", "VRFY user", b"250 user@d.test\r\n", 4),
            Place("QUIT", "QUIT", b"221 bye\r\n", 5),
        ),
        tried=("NOOP", "RSET", "VRFY", "QUIT"),
    ),
    Way(
        "within TLS",
        (
            greeting_,
            hello_,
            lambda client: client.start_tls(certificates().trusted),
            hello_,
            auth_(Plain, SECRET),
            send_,
        ),
        (
            GREETING,
            hello("", "STARTTLS", "PIPELINING"),
            Place("STARTTLS", "STARTTLS", lambda connection: starttls(certificates().good)(connection), 2),
            hello("EHLO again", "AUTH PLAIN", asked=3),
            Place("AUTH", "AUTH PLAIN AHVzZXIAb3BlbiBzZXNhbWU=", b"235 2.7.0 OK\r\n", 4),
            *message(5),
        ),
        settings={"name": "mx.test"},
        tried=("STARTTLS", "EHLO again", "AUTH", "MAIL", "END"),
    ),
]


# -- AUTH, with its challenges ---------------------------------------------------------------


def challenge(octets: bytes) -> bytes:
    return b"334 %s\r\n" % base64.b64encode(octets)


class SCRAMPeer:
    """The server's words of an exchange in which the client's nonce is known (RFC 5802 section 5)."""

    first = b"r=%sserver,s=%s,i=4096" % (NONCE, base64.b64encode(b"salt"))

    @classmethod
    def final(cls) -> bytes:
        said = b"n=user,r=%s,%s,c=biws,r=%sserver" % (NONCE, cls.first, NONCE)
        salted = hashlib.pbkdf2_hmac("sha256", SECRET.encode(), b"salt", 4096)
        key = hmac.digest(salted, b"Server Key", "sha256")
        return b"v=" + base64.b64encode(hmac.digest(key, said, "sha256"))


def _auth(mechanism: Any, name: str, *places: tuple[str, str, Any], secret: str = SECRET) -> Way:
    authenticating = tuple(Place("AUTH", expected, reply, 2, called) for called, expected, reply in places)
    return Way(
        name,
        (greeting_, hello_, auth_(mechanism, secret), send_),
        (GREETING, hello("", f"AUTH {name.split()[0]}"), *authenticating, *message(3)),
        # A password may go out in clear on this machine.
        settings={"name": "localhost"},
        tried=[called for called, _, _ in places],
    )


_DONE = b"235 2.7.0 welcome\r\n"

#: Each mechanism, each challenge of it. LOGIN is asked for the name, and for the password.
AUTH_WAYS = [
    _auth(Plain, "PLAIN", ("AUTH", "AUTH PLAIN AHVzZXIAb3BlbiBzZXNhbWU=", _DONE)),
    _auth(
        Plain,
        "PLAIN with a long password",
        # RFC 4954 section 4: the command has 512 octets.
        ("AUTH", re.compile(rb"AUTH PLAIN$"), challenge(b"")),  # type: ignore[arg-type]
        ("response", "AHVzZXIA", _DONE),
        secret="x" * 500,
    ),
    _auth(
        Login,
        "LOGIN",
        ("AUTH", "AUTH LOGIN", challenge(b"User Name\0")),
        ("name", "dXNlcg==", challenge(b"Password\0")),
        ("password", "b3BlbiBzZXNhbWU=", _DONE),
    ),
    _auth(
        CramMD5,
        "CRAM-MD5",
        ("AUTH", "AUTH CRAM-MD5", challenge(b"<1.2@mx.test>")),
        ("response", "dXNlciA", _DONE),
    ),
    _auth(
        SCRAM,
        "SCRAM-SHA-256",
        ("AUTH", "AUTH SCRAM-SHA-256 biws", challenge(SCRAMPeer.first)),
        ("proof", "Yz1iaXdz", challenge(SCRAMPeer.final())),
        ("end", re.compile(rb"$"), _DONE),  # type: ignore[arg-type]
    ),
]

#: Each way, each place of it that is tested there.
PLACES = [(way, place) for way in (*WAYS, *AUTH_WAYS) for place in way.tried_places()]


def way_of(name: str) -> Way:
    return next(way for way in (*WAYS, *AUTH_WAYS) if way.name == name)
