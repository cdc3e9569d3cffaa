"""What a mux is as a backend: its targets' promises, starts, ends and words."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.trial.unittest import TestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from smtpfw import Session, SessionBackend
from smtpfw.backends.mux import MuxBackend
from smtpfw.errors import ConfigError, TryAgainLater
from smtpfw.interfaces import IBackend, IHelloSession, ILMTPSession, IVerifySession
from smtpfw.testing import RecordingBackend
from smtpfw.wire.config import LMTP
from tests.backends.maildir.fakes import FakeBody, FakeConnection
from tests.backends.mux.helpers import begin, connect


class Service(SessionBackend):
    """A target that can be started and stopped."""

    def __init__(self, record: list[str], name: str, **answers: Any) -> None:
        super().__init__(Session)
        self.record = record
        self.name = name
        self.answers = answers

    def start(self) -> Any:
        self.record.append(f"start {self.name}")
        return self.answers.get("start")

    def stop(self) -> Any:
        self.record.append(f"stop {self.name}")
        return self.answers.get("stop")

    def describe(self) -> list[str]:
        return [f"This is {self.name}"]


class BackendTests(TestCase):
    def test_the_interfaces(self) -> None:
        backend = MuxBackend({}, RecordingBackend())
        verifyObject(IBackend, backend)
        session = backend.new_session(FakeConnection())
        for interface in (IHelloSession, ILMTPSession, IVerifySession):
            verifyObject(interface, session)
        with self.assertRaises(TryAgainLater):
            session.data(FakeBody(b"between two transactions"))

    def test_a_target_that_takes_messages_by_lmtp_only_gets_none_by_smtp(self) -> None:
        """All of them would be accepted, and nobody would have them."""

        @implementer(ILMTPSession)
        class OnlyLMTP(Session):
            def lmtp_data(self, body: Any, status: Any) -> None:
                """Takes it."""

        backend = MuxBackend({}, SessionBackend(OnlyLMTP))
        client = connect(backend)
        (reply,) = begin(client, "you@a.test")
        self.assertEqual(reply[:10], b"451 4.3.0 ")
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)
        (reply,) = begin(connect(backend, protocol=LMTP), "you@a.test")
        self.assertEqual(reply[:4], b"250 ")

    def test_it_honours_what_all_honour(self) -> None:
        both = RecordingBackend(frozenset(("DSN", "REQUIRETLS")))
        one = RecordingBackend(frozenset(("DSN",)))
        self.assertEqual(MuxBackend({}, both).honours, {"DSN", "REQUIRETLS"})
        self.assertEqual(MuxBackend({"a.test": one}, both).honours, {"DSN"})
        self.assertEqual(MuxBackend({"a.test": one, "b.test": RecordingBackend()}, both).honours, frozenset())
        client = connect(MuxBackend({"a.test": one}, both))
        offered = client.send(b"EHLO me\r\n")
        self.assertIn(b"DSN\r\n", offered)
        self.assertNotIn(b"REQUIRETLS\r\n", offered)

    def test_each_is_started_and_stopped_once(self) -> None:
        record: list[str] = []
        slow: Deferred[None] = Deferred()
        a, b = Service(record, "a", start=slow), Service(record, "b")
        mux = MuxBackend({"a.test": a, "x@a.test": a, "b.test": b, "c.test": RecordingBackend()}, a)
        started = Deferred.fromCoroutine(mux.start())
        self.assertNoResult(started)
        self.assertEqual(record, ["start a"])
        slow.callback(None)
        self.successResultOf(started)
        self.successResultOf(Deferred.fromCoroutine(mux.stop()))
        self.assertEqual(record, ["start a", "start b", "stop a", "stop b"])

    def test_one_that_cannot_start_stops_those_before_it(self) -> None:
        record: list[str] = []
        bad = Service(record, "b", start=fail(OSError("no disk")))
        mux = MuxBackend({"a.test": Service(record, "a"), "b.test": bad, "c.test": Service(record, "c")}, bad)
        self.failureResultOf(Deferred.fromCoroutine(mux.start()), OSError)
        self.assertEqual(record, ["start a", "start b", "stop a"])

    def test_one_that_does_not_stop_leaves_the_others_no_worse(self) -> None:
        record: list[str] = []
        slow: Deferred[None] = Deferred()
        a, b = Service(record, "a", stop=fail(OSError("no disk"))), Service(record, "b", stop=slow)
        stopped = Deferred.fromCoroutine(MuxBackend({"a.test": a}, b).stop())
        self.assertEqual(record, ["stop a", "stop b"])
        self.assertNoResult(stopped)
        slow.callback(None)
        self.successResultOf(stopped)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_in_words(self) -> None:
        a = Service([], "a")
        plain = RecordingBackend()
        lines = MuxBackend({"a.test": a, "tim@b.test": a}, plain).describe()
        self.assertEqual(lines[:3], ["Mail for a.test, tim@b.test:", "  This is a", "Mail for everybody else:"])
        self.assertIn("RecordingBackend", lines[3])

    def test_its_own_targets_are_asked_whether_all_is_in_order(self) -> None:
        class Checked(RecordingBackend):
            def __init__(self, *said: str, wrong: str = "") -> None:
                super().__init__()
                self.said, self.wrong = said, wrong

            def check(self) -> list[str]:
                if self.wrong:
                    raise ConfigError(self.wrong)
                return list(self.said)

        a, b, plain = Checked("a is slow"), Checked("b is old", "b is far"), RecordingBackend()
        self.assertEqual(MuxBackend({"a.test": a, "b.test": b}, plain).check(), ["a is slow", "b is old", "b is far"])
        self.assertEqual(MuxBackend({"a.test": a}, b, owns_targets=False).check(), [])
        with self.assertRaisesRegex(ConfigError, "^no disk\nno host$"):
            MuxBackend({"a.test": Checked(wrong="no disk"), "b.test": a}, Checked(wrong="no host")).check()
