"""Greylisting as a check: who has to come back, whom it lets in, and what if its file can't be used."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import pytest
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import TestCase

from smtpfw import Address
from smtpfw.errors import SMTPError
from smtpfw.policies import Greylist
from smtpfw.policies.greylist import PAUSE, TIMEOUT
from smtpfw.policies.worker_thread import Busy
from smtpfw.server.origin import NOBODY_KNOWS
from tests.policies.fakes import OPTIONS, SENDER, connection, rcpt

WAIT = "450 4.7.1 Greylisted, come back in 300 seconds"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def check(clock: Clock) -> Greylist:
    return Greylist(now=clock.seconds, except_networks="203.0.113.0/24")


def test_whoever_is_new_waits(check: Greylist, clock: Clock) -> None:
    assert rcpt(check, connection()) == WAIT
    clock.advance(299.1)
    assert rcpt(check, connection()) == "450 4.7.1 Greylisted, come back in 1 seconds"
    clock.advance(1)
    assert rcpt(check, connection()) == ""


def test_who_is_the_same(check: Greylist, clock: Clock) -> None:
    rcpt(check, connection(sender=Address("News", "B.test")))
    rcpt(check, connection("2001:db8::1"))
    clock.advance(300)
    assert rcpt(check, connection("192.0.2.200", sender=Address("news", "b.TEST"))) == ""
    assert rcpt(check, connection("::ffff:192.0.2.3", sender=Address("NEWS", "b.test"))) == ""
    assert rcpt(check, connection("2001:db8::ffff:1")) == ""
    assert rcpt(check, connection("2001:db8:0:1::1")) == WAIT
    assert rcpt(check, connection("192.0.3.1")) == WAIT


def test_whom_it_lets_in(check: Greylist) -> None:
    assert rcpt(check, connection("")) == rcpt(check, connection(identity="tim")) == ""
    assert rcpt(check, connection("203.0.113.9")) == ""


def test_those_whose_address_nobody_knows_wait_as_one_network(check: Greylist, clock: Clock) -> None:
    def unknown(sender: str = "a") -> Any:
        return connection("", peer=NOBODY_KNOWS, sender=Address(sender, "b.test"))

    assert rcpt(check, unknown()) == WAIT
    clock.advance(300)
    assert rcpt(check, unknown()) == ""
    assert rcpt(check, unknown("other")) == WAIT


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"delay": 0}, "delay: 0 s is not above 0"),
        ({"delay": 600, "window": 600}, "delay: 600 s is not above 0 and below the window of 600 s"),
        ({"keep": 300}, "keep: 300 s is not above the delay of 300 s"),
        ({"trust_after": -1}, "trust_after: -1 is below 0"),
        ({"max_entries": 0}, "max_entries: 0 is below 1"),
        ({"unknown": "x"}, "unknown: 'x' is none of pass, refuse"),
        ({"file": "/nowhere/at/all"}, "file: there is no folder /nowhere/at"),
        ({"file": "/"}, "file: / is a folder"),
        ({"file": "~nobody-of-this-name/x"}, "file: ~nobody-of-this-name/x: "),
        ({"ipv4_prefix": 33}, "ipv4_prefix"),
        ({"except_networks": "x"}, "'x' is no network"),
    ],
)
def test_mistakes(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Greylist(**settings)


def test_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for text in ("grey.db", "~/grey.db", tmp_path / "grey.db"):
        assert Greylist(text).file == tmp_path / "grey.db"
    # Whoever makes it may not be who serves.
    assert list(tmp_path.iterdir()) == []


class FileTests(TestCase):
    def setUp(self) -> None:
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name).resolve() / "grey.db"
        self.clock = Clock()
        self.wall = Clock()
        self.wall.advance(1_800_000_000)
        self.logged: list[Any] = []
        globalLogPublisher.addObserver(self.logged.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.logged.append)

    def make(self, **settings: Any) -> Greylist:
        return Greylist(self.path, now=self.wall.seconds, **settings)

    def ask(self, check: Greylist, sender: Address = SENDER) -> Deferred[Any]:
        client = connection(clock=self.clock, sender=sender)
        asked: Any = check.rcpt(client, SENDER, OPTIONS)
        return Deferred.fromCoroutine(asked)

    async def answer(self, check: Greylist, sender: Address = SENDER) -> str:
        try:
            await self.ask(check, sender)
        except SMTPError as error:
            return str(error)
        return ""

    @property
    def complaints(self) -> list[str]:
        return [event["log_format"].format(**event) for event in self.logged if "trouble" in event]

    async def test_addresses_without_an_end(self) -> None:
        check = self.make()
        one, other = (Address("x" * 5000 + end, "b.test") for end in "ab")
        await self.answer(check, one)
        self.wall.advance(300)
        self.assertEqual(await self.answer(check, other), WAIT)
        self.assertEqual(await self.answer(check, one), "")
        with closing(sqlite3.connect(self.path)) as database:
            self.assertLess(database.execute("SELECT max(length(sender)) FROM entries").fetchone()[0], 400)

    async def test_a_restart(self) -> None:
        self.assertEqual(await self.answer(self.make()), WAIT)
        self.wall.advance(300)
        again = self.make()
        self.assertEqual(await self.answer(again), "")
        self.assertEqual(await self.answer(again), "")
        self.assertEqual(self.complaints, [])

    async def test_the_configuration_before_a_reload_goes_on(self) -> None:
        old, new = self.make(), self.make(delay=60)
        self.assertEqual(await self.answer(old), WAIT)
        self.wall.advance(60)
        self.assertEqual(await self.answer(new), "")
        self.assertEqual(await self.answer(old), "")

    async def test_a_file_that_is_none(self) -> None:
        self.path.write_bytes(b"no database" * 100)
        for unknown, expected in (("pass", ""), ("refuse", "451 4.7.1 Greylisting does not work at the moment")):
            self.logged.clear()
            check = self.make(unknown=unknown)
            for _ in range(3):
                self.assertTrue((await self.answer(check)).startswith(expected))
                self.clock.advance(PAUSE)
            what = "let in" if unknown == "pass" else "put off"
            self.assertEqual(
                self.complaints,
                [f"greylist: {self.path}: file is not a database; until that is mended everybody is {what}"],
            )

    async def test_it_is_tried_again_after_a_while(self) -> None:
        self.path.write_bytes(b"no database" * 100)
        check = self.make()
        self.assertEqual(await self.answer(check), "")
        self.path.unlink()
        self.assertEqual(self.successResultOf(self.ask(check)), None)
        self.clock.advance(PAUSE)
        self.assertEqual(await self.answer(check), WAIT)

    async def test_who_goes_meanwhile(self) -> None:
        check = self.make()
        asked = self.ask(check)
        asked.cancel()
        self.failureResultOf(asked, CancelledError)
        self.assertEqual((await self.answer(check))[:9], "450 4.7.1")
        self.assertEqual(self.complaints, [])

    async def test_a_disk_that_hangs(self) -> None:
        await self.answer(self.make())
        with closing(sqlite3.connect(self.path, isolation_level=None)) as holder:
            # As long as it is held, a question waits.
            holder.execute("BEGIN IMMEDIATE")
            for unknown in ("pass", "refuse"):
                check = self.make(unknown=unknown)
                asked = self.ask(check)
                self.clock.advance(TIMEOUT)
                # Nobody else waits for it.
                for one in (asked, self.ask(check)):
                    self.tell(unknown, one)
        self.assertIn("no answer within 5 s", self.complaints[0])

    async def test_too_many_at_once_let_nobody_in(self) -> None:
        check = self.make(unknown="pass")
        with patch.object(check._thread, "call", lambda *arguments: fail(Busy())):
            self.assertEqual(await self.answer(check), "450 4.7.1 Too many at the moment, try again later")
        # Nothing is broken, so who comes next is asked about.
        self.assertEqual(await self.answer(check), WAIT)
        self.assertEqual(self.complaints, [])

    def test_no_thread_can_be_started(self) -> None:
        def refuse(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        for unknown in ("pass", "refuse"):
            check = self.make(unknown=unknown)
            with patch.object(threading.Thread, "start", refuse):
                self.tell(unknown, self.ask(check))
        self.assertIn("no thread for it: can't start new thread", self.complaints[0])

    def tell(self, unknown: str, asked: Deferred[Any]) -> None:
        """Check what somebody gets when nobody knows."""
        if unknown == "pass":
            self.assertIsNone(self.successResultOf(asked))
        else:
            self.assertEqual(str(self.failureResultOf(asked, SMTPError).value)[:9], "451 4.7.1")
