"""An extension that is defined here, and nowhere else: what is promised to third parties."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from smtpfw import Reply, SMTPError
from smtpfw.errors import ConfigError, SyntaxProblem
from smtpfw.extensions import STANDARD
from smtpfw.testing import RecordingBackend
from smtpfw.wire.dialect import Extension
from smtpfw.wire.parameters import Parameter
from smtpfw.wire.phases import MAIL, RCPT, READY, Verb
from smtpfw.wire.verbs import compile_dialect
from tests.server.helpers import DATA, DOT, HELLO, MESSAGE, codes, connect, greeted


def _parse_mood(text: str | None) -> int:
    if text is None or not text.isdigit():
        raise ValueError("must be a number")
    return int(text)


MOOD = Parameter("MOOD", parse=_parse_mood, format=str, default=5)
GENTLY = Parameter.flag("GENTLY")


class Weather(Extension):
    """``later`` is what the verb waits for."""

    keyword = "X-WEATHER"
    mail_parameters = (MOOD,)
    rcpt_parameters = (GENTLY,)
    extra_line_octets = 100

    def __init__(self) -> None:
        self.later: Deferred[Any] = Deferred()
        self.verbs = (Verb("XSUN", frozenset({READY, MAIL, RCPT}), serve=self.serve),)

    def advertise(self, connection: Any) -> str:
        return "SUN RAIN"

    def check_mail(self, connection: Any, sender: Any, options: Any) -> None:
        if options[MOOD] > 9:
            raise SyntaxProblem("MOOD is at most 9")

    def check_rcpt(self, connection: Any, recipient: Any, options: Any) -> None:
        if options[GENTLY] and not recipient.domain:
            raise SMTPError(550, (5, 7, 1), "Not gently there")

    def check_data(self, connection: Any) -> None:
        if connection.transaction.options[MOOD] == 0:
            raise SMTPError(554, (5, 7, 1), "Not in this mood")

    def serve(self, connection: Any, argument: bytes) -> Any:
        match argument:
            case b"now":
                return Reply(250, "shining", (2, 0, 0))
            case b"text":
                return "shining"
            case b"later":
                return self.later
            case b"coroutine":
                return self.wait()
            case b"nothing":
                return None
            case b"refuse":
                raise SMTPError(450, (4, 2, 0), "rain")
        raise RuntimeError("a fault of the extension")

    async def wait(self) -> Reply:
        await self.later
        return Reply(250, "shone", (2, 0, 0))


class Served(TestCase):
    def setUp(self) -> None:
        self.weather = Weather()
        self.seen: list[Any] = []
        self.backend = RecordingBackend(
            mail=lambda sender, options: self.seen.append(options),
            rcpt=lambda recipient, options: self.seen.append(options),
        )

    def client(self, *said: bytes, **settings: Any) -> Any:
        return greeted(self.backend, None, *said, extensions=[*STANDARD, self.weather], **settings)

    def test_ehlo(self) -> None:
        self.assertIn(b"250 X-WEATHER SUN RAIN\r\n", self.client().send(HELLO))

    def test_parameters_reach_the_session(self) -> None:
        client = self.client(HELLO)
        self.assertEqual(
            codes(client.send(b"MAIL FROM:<a@b> mood=7\r\nRCPT TO:<c@d> gently\r\nRCPT TO:<e@f>\r\n")), [b"250"] * 3
        )
        self.assertEqual([self.seen[0][MOOD], self.seen[1][GENTLY], self.seen[2][GENTLY]], [7, True, False])
        self.assertIn(MOOD, self.seen[0])
        self.assertNotIn(GENTLY, self.seen[2])

    def test_the_default(self) -> None:
        self.client(HELLO, b"MAIL FROM:<a@b>\r\n")
        self.assertEqual(self.seen[0][MOOD], 5)
        self.assertNotIn(MOOD, self.seen[0])

    def test_bad_values(self) -> None:
        client = self.client(HELLO)
        for value in (b"MOOD", b"MOOD=x", b"MOOD=10", b"MOOD=1 MOOD=2"):
            self.assertEqual(codes(client.send(b"MAIL FROM:<a@b> " + value + b"\r\n")), [b"501"])
        self.assertEqual(self.seen, [])
        client.send(b"MAIL FROM:<a@b>\r\n")
        self.assertEqual(codes(client.send(b"RCPT TO:<a@b> GENTLY=1\r\n")), [b"501"])

    def test_a_parameter_belongs_to_its_command(self) -> None:
        client = self.client(HELLO)
        self.assertEqual(codes(client.send(b"MAIL FROM:<a@b> GENTLY\r\n")), [b"555"])
        self.assertEqual(codes(client.send(b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d> MOOD=1\r\n")), [b"250", b"555"])

    def test_checks(self) -> None:
        client = self.client(HELLO, b"MAIL FROM:<a@b> MOOD=0\r\n")
        self.assertEqual(codes(client.send(b"RCPT TO:<postmaster> GENTLY\r\nRCPT TO:<c@d>\r\n")), [b"550", b"250"])
        self.assertEqual(client.send(DATA), b"554 5.7.1 Not in this mood\r\n")
        self.assertEqual(
            codes(client.send(b"RSET\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n" + DATA)), [b"250"] * 3 + [b"354"]
        )
        self.assertEqual(codes(client.send(MESSAGE + DOT)), [b"250"])

    def test_after_helo(self) -> None:
        client = self.client(b"HELO me\r\n")
        self.assertEqual(codes(client.send(b"MAIL FROM:<a@b> MOOD=7\r\n")), [b"555"])

    def test_left_out(self) -> None:
        client = greeted(self.backend, None)
        self.assertNotIn(b"X-WEATHER", client.send(HELLO))
        self.assertEqual(codes(client.send(b"MAIL FROM:<a@b> MOOD=7\r\nXSUN now\r\n")), [b"555", b"500"])

    def test_a_verb_that_answers(self) -> None:
        client = self.client(HELLO)
        self.assertEqual(client.send(b"xsun now\r\n"), b"250 2.0.0 shining\r\n")
        self.assertEqual(client.send(b"XSUN text\r\n"), b"250 2.0.0 shining\r\n")
        self.assertEqual(client.send(b"XSUN refuse\r\n"), b"450 4.2.0 rain\r\n")

    def test_a_verb_that_waits(self) -> None:
        for argument, value, expected in [
            (b"later", Reply(250, "shone", (2, 0, 0)), b"250 2.0.0 shone\r\n"),
            (b"later", None, b"250 2.0.0 OK\r\n"),
            (b"coroutine", None, b"250 2.0.0 shone\r\n"),
        ]:
            self.weather.later = Deferred()
            client = self.client(HELLO)
            self.assertEqual(client.send(b"XSUN " + argument + b"\r\nNOOP\r\n"), b"")
            self.weather.later.callback(value)
            self.assertEqual(client.received(), expected + b"250 2.0.0 OK\r\n")

    def test_a_verb_that_fails_later(self) -> None:
        for error, expected in [
            (SMTPError(450, (4, 2, 0), "rain"), b"450 4.2.0 rain\r\n"),
            (RuntimeError("a fault"), b"451 4.3.0 Try again later\r\n"),
        ]:
            for argument in (b"later", b"coroutine"):
                self.weather.later = Deferred()
                client = self.client(HELLO, b"XSUN " + argument + b"\r\n")
                self.weather.later.errback(error)
                self.assertEqual(client.received(), expected)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 2)

    def test_a_fault_of_the_extension_ends_no_connection(self) -> None:
        client = self.client(HELLO)
        self.assertEqual(client.send(b"XSUN fault\r\nNOOP\r\n"), b"451 4.3.0 Try again later\r\n250 2.0.0 OK\r\n")
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_a_verb_out_of_place(self) -> None:
        self.assertEqual(codes(self.client().send(b"XSUN now\r\n")), [b"503"])
        client = self.client(require_tls=True)
        self.assertEqual(codes(client.send(HELLO + b"XSUN now\r\n")), [b"250", b"530"])

    def test_its_verb_may_have_longer_lines(self) -> None:
        client = self.client(HELLO)
        limit = client.protocol.wire.config.profile.max_command_line
        served = [extension for extension in (*STANDARD, self.weather) if not extension.end_to_end]
        extra = sum(extension.extra_line_octets for extension in served)
        line = b"NOOP " + b"x" * (limit + extra - 7) + b"\r\n"
        self.assertEqual(codes(client.send(line)), [b"250"])
        self.assertEqual(codes(client.send(b"N" + line)), [b"500"])


class Promise(Extension):
    keyword = "X-PROMISE"
    end_to_end = True


def test_a_promise_is_offered_only_by_a_backend_that_keeps_it() -> None:
    for honours, offered in [(frozenset(), False), ({"X-OTHER"}, False), ({"X-PROMISE"}, True)]:
        client = connect(RecordingBackend(honours=frozenset(honours)), extensions=[*STANDARD, Promise()])
        assert (b"X-PROMISE" in client.send(HELLO)) is offered


class Needy(Extension):
    keyword = "X-NEEDY"
    needs = ("X-WEATHER",)


class OtherVerb(Extension):
    keyword = "X-OTHER"
    verbs = (Verb("XSUN", frozenset({READY}), serve=lambda connection, argument: None),)


class CoreVerb(Extension):
    keyword = "X-CORE"
    verbs = (Verb("MAIL", frozenset({READY}), serve=lambda connection, argument: None),)


class OtherParameter(Extension):
    keyword = "X-OTHER"
    mail_parameters = (Parameter.flag("MOOD"),)


@pytest.mark.parametrize(
    ("extensions", "message"),
    [
        ([Needy()], "X-NEEDY needs X-WEATHER"),
        ([Weather(), Weather()], "X-WEATHER is listed twice"),
        ([Weather(), OtherVerb()], "claim the verb XSUN"),
        ([CoreVerb()], "claim the verb MAIL"),
        ([Weather(), OtherParameter()], "X-OTHER: MOOD is claimed by another"),
    ],
)
def test_what_does_not_fit_together(extensions: list[Extension], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compile_dialect(extensions)


def test_what_it_needs_may_come_behind_it() -> None:
    assert [extension.keyword for extension in compile_dialect([Needy(), Weather()]).extensions] == [
        "X-NEEDY",
        "X-WEATHER",
    ]
