"""MT-PRIORITY: the parameter, the name of a profile, and a priority that the session changes."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from zope.interface import implementer

from smtpfw.errors import ConfigError, LocalProtocolError, SenderDenied
from smtpfw.extensions import STANDARD, Auth, EnhancedStatusCodes, MTPriority, Pipelining
from smtpfw.extensions.mt_priority import MT_PRIORITY, priority_changed
from smtpfw.sasl import ANONYMOUS, PLAIN
from smtpfw.sasl.checkers import FunctionChecker
from smtpfw.sasl.interfaces import IAnonymousChecker
from smtpfw.testing import RecordingBackend
from smtpfw.wire.config import LMTP
from smtpfw.wire.dialect import Extension
from smtpfw.wire.parameters import NO_OPTIONS, Options
from tests.server.helpers import HELLO, codes, greeted
from tests.wire.client_end import ClientEnd

VALUES = range(-9, 10)
BAD = [None, "", "-0", "+1", "+0", "00", "01", "-01", "10", "-10", "1.0", "high", " 1", "1 ", "\u0661", "--1", "-"]


@pytest.mark.parametrize("value", VALUES)
def test_parse_and_format(value: int) -> None:
    assert MT_PRIORITY.parse(str(value)) == value
    assert MT_PRIORITY.format(value) == str(value)
    assert len(f" MT-PRIORITY={value}") <= MTPriority.extra_line_octets


@pytest.mark.parametrize("text", BAD)
def test_bad_values(text: str | None) -> None:
    with pytest.raises(ValueError, match="must be a number from -9 to 9"):
        MT_PRIORITY.parse(text)


@pytest.mark.parametrize("value", [-10, 10, 1.5])
def test_values_that_can_not_be_written(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^must be a "):
        MT_PRIORITY.format(value)
    with pytest.raises(ValueError, match=r"^must be a "):
        priority_changed(value)


@given(st.text() | st.text("-+0123456789", max_size=3))
def test_any_text_is_a_value_or_a_value_error(text: str) -> None:
    with suppress(ValueError):
        assert MT_PRIORITY.format(MT_PRIORITY.parse(text)) == text


def test_not_given() -> None:
    assert NO_OPTIONS[MT_PRIORITY] == 0


def client(*said: bytes, honours: bool = True, profile: str = "", **answers: Any) -> tuple[RecordingBackend, Any]:
    backend = RecordingBackend(frozenset({"MT-PRIORITY"} if honours else ()), **answers)
    return backend, greeted(backend, None, *said, extensions=[MTPriority(profile=profile)])


@pytest.mark.parametrize(
    ("profile", "honours", "line"),
    [
        ("", True, b"250 MT-PRIORITY\r\n"),
        ("STANAG4406", True, b"250 MT-PRIORITY STANAG4406\r\n"),
        ("STANAG4406", False, b"250 mx.test\r\n"),
    ],
)
def test_what_is_offered(profile: str, honours: bool, line: bytes) -> None:
    assert client(profile=profile, honours=honours)[1].send(HELLO).endswith(line)


@pytest.mark.parametrize("profile", ["two words", "line\r\nX", "\xfcber", "x" * 21, "a+b", "\x00"])
def test_profiles_that_can_not_be_said(profile: str) -> None:
    with pytest.raises(
        ConfigError, match=r"extension MT-PRIORITY: profile: .* is no name of up to 20 letters, digits, "
    ):
        MTPriority(profile=profile)


@pytest.mark.parametrize("value", [-9, 0, 9])
def test_a_session_may_change_it(value: int) -> None:
    _, server = client(HELLO, mail=lambda sender, options: priority_changed(value))
    said = b"250 2.3.6 %d is the new priority\r\n" % value
    for asked in (-4, 4):
        assert server.send(b"MAIL FROM:<a@b.test> MT-PRIORITY=%d\r\nRSET\r\n" % asked).startswith(said)


#: Networks, and whether the client of the tests, 192.0.2.1, is in one of them.
NETWORKS: list[tuple[Any, bool]] = [
    ((), False),
    ("192.0.2.2", False),
    ("192.0.2.0/24", True),
    (["2001:db8::/32", "192.0.2.1"], True),
]


def asked(
    value: int, hello: bytes = HELLO, *others: Extension, trusted: Any = (), **settings: Any
) -> tuple[Options, bytes]:
    """What the session sees of a priority, and what the client hears."""
    seen: list[Options] = []
    backend = RecordingBackend(frozenset({"MT-PRIORITY"}), mail=lambda sender, options: seen.append(options))
    server = greeted(backend, None, hello, extensions=[*others, MTPriority(trusted=trusted)], **settings)
    answer = server.send(b"MAIL FROM:<a@b.test> MT-PRIORITY=%d\r\n" % value)
    return seen[0], answer


@pytest.mark.parametrize(("networks", "trusted"), NETWORKS)
@pytest.mark.parametrize("value", VALUES)
def test_strangers_do_not_get_ahead(value: int, networks: Any, trusted: bool) -> None:
    options, answer = asked(value, trusted=networks)
    if value > 0 and not trusted:
        assert (options[MT_PRIORITY], answer) == (0, b"250 2.3.6 0 is the new priority\r\n")
    else:
        assert (options[MT_PRIORITY], answer) == (value, b"250 2.1.0 Sender OK\r\n")
    assert MT_PRIORITY in options


def test_who_speaks_lmtp_is_no_stranger() -> None:
    options, answer = asked(9, b"LHLO client.test\r\n", Pipelining(), EnhancedStatusCodes(), protocol=LMTP)
    assert (options[MT_PRIORITY], answer) == (9, b"250 2.1.0 Sender OK\r\n")


@implementer(IAnonymousChecker)
class Both(FunctionChecker):
    def check_anonymous(self, trace: str) -> str:
        return trace


@pytest.mark.parametrize(
    ("login", "known"),
    [
        (b"AUTH PLAIN AGpvZQBzZWNyZXQ=\r\n", True),
        # RFC 4505: that is still anybody.
        (b"AUTH ANONYMOUS am9l\r\n", False),
    ],
)
def test_who_has_authenticated_is_no_stranger(login: bytes, known: bool) -> None:
    seen: list[Options] = []
    backend = RecordingBackend(frozenset({"MT-PRIORITY"}), mail=lambda sender, options: seen.append(options))
    auth = Auth(Both(lambda name, password: password == "secret"), mechanisms=[PLAIN, ANONYMOUS], allow_insecure=True)
    server = greeted(backend, None, HELLO, extensions=[auth, MTPriority()])
    mail = b"MAIL FROM:<a@b.test> MT-PRIORITY=3\r\n"
    assert server.send(mail) == b"250 2.3.6 0 is the new priority\r\n"
    assert codes(server.send(b"RSET\r\n" + login)) == [b"250", b"235"]
    assert codes(server.send(mail)) == [b"250"]
    assert [options[MT_PRIORITY] for options in seen] == [0, 3 if known else 0]


def test_an_answer_of_the_session_that_comes_later_says_it_too() -> None:
    answer: Deferred[None] = Deferred()
    _, server = client(HELLO, mail=lambda sender, options: answer)
    assert server.send(b"MAIL FROM:<a@b.test> MT-PRIORITY=3\r\n") == b""
    answer.callback(None)
    assert server.received() == b"250 2.3.6 0 is the new priority\r\n"


def test_a_session_that_refuses_refuses() -> None:
    def refuse(sender: Any, options: Options) -> None:
        raise SenderDenied

    _, server = client(HELLO, mail=refuse)
    assert server.send(b"MAIL FROM:<a@b.test> MT-PRIORITY=3\r\n") == b"550 5.7.1 Sender address denied\r\n"


@pytest.mark.parametrize(
    ("networks", "why"),
    [
        ("0.0.0.0/0", "that is everybody"),
        ("nowhere", "'nowhere' is no network"),
        ("10.0.0.1/8", "could be the network"),
    ],
)
def test_networks_that_can_not_be_trusted(networks: str, why: str) -> None:
    with pytest.raises(ConfigError, match=f"extension MT-PRIORITY: trusted: .*{why}"):
        MTPriority(trusted=networks)


def test_a_session_sees_it() -> None:
    seen: list[Options] = []
    _, server = client(HELLO, mail=lambda sender, options: seen.append(options))
    assert codes(server.send(b"MAIL FROM:<a@b.test> mt-priority=-3\r\n")) == [b"250"]
    assert seen[0][MT_PRIORITY] == -3


def test_a_client_says_it() -> None:
    end = ClientEnd(["MT-PRIORITY MIXER"])
    told = end.mail(options=Options.of({MT_PRIORITY: -9}))
    assert end.said() == [b"MAIL FROM:<a@b.test> MT-PRIORITY=-9\r\n"]
    end.hear(b"250 2.3.6 -4 is the new priority\r\n")
    assert (told.outcome.enhanced_code, told.outcome.text) == ((2, 3, 6), "-4 is the new priority")
    told = ClientEnd(["MT-PRIORITY"]).mail(options=Options.of({MT_PRIORITY: 10}))
    assert "must be a number from -9 to 9" in str(told.error(LocalProtocolError))


def test_it_stands_in_the_standard_list() -> None:
    assert [one.end_to_end for one in STANDARD if isinstance(one, MTPriority)] == [True]
