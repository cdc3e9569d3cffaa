"""The thread: its order, its groups, its beginning and end."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Coroutine
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.python.failure import Failure

from smtpfw.backends.maildir.committer import Committer
from tests.backends.maildir.fakes import FakeBody, MaildirTestCase, RecordingReactor


def in_one_group(committer: Committer, coroutines: list[Coroutine[Any, Any, Any]]) -> list[Deferred[Any]]:
    """Let them all come while the thread is held; an exception is a result, too."""
    reached, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        reached.set()
        go_on.wait(30)

    committer.post(hold)
    if not reached.wait(30):
        raise AssertionError("the thread never came to the job that holds it")
    try:
        return [Deferred.fromCoroutine(coroutine).addErrback(_value) for coroutine in coroutines]
    finally:
        go_on.set()


def _value(failure: Failure) -> BaseException | None:
    return failure.value


def committers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "maildir committer"]


class OrderTests(MaildirTestCase):
    async def test_of_the_start_and_a_first_message(self) -> None:
        backend = self.backend("new/Maildir", reactor=RecordingReactor(self.record))
        await backend.clean()
        del self.record[:]
        backend.start()
        await backend.committer.catch_up()
        self.assertEqual(
            self.made(),
            [
                "mkdir new/Maildir",  # its parent is missing
                "mkdir new",
                "fsync .",
                "mkdir new/Maildir",
                "fsync new",
                "mkdir new/Maildir/tmp",
                "mkdir new/Maildir/new",
                "mkdir new/Maildir/cur",
                "fsync new/Maildir",
            ],
        )
        del self.record[:]
        await self.deliver(backend, ["b@c"], b"x")
        self.assertEqual(
            self.made(),
            [
                "write new/Maildir/tmp/*",
                "fsync new/Maildir/tmp/*",
                "rename new/Maildir/tmp/*",
                "fsync new/Maildir/new",
            ],
        )
        self.assertEqual(self.record[-1], "answer")

    def made(self) -> list[str]:
        """What changed the disk, in order."""
        return [line for line in self.record if not line.startswith(("close", "open", "answer"))]

    async def test_a_folder_that_cannot_be_made_is_told_at_the_start(self) -> None:
        (self.root / "file").write_bytes(b"")
        backend = self.backend("file/Maildir")
        backend.start()
        await backend.committer.catch_up()
        self.assertEqual(len(self.logged()), 1)
        self.assertIn("file/Maildir", self.logged()[0])

    async def test_of_a_message_for_two_folders(self) -> None:
        backend = self.backend(create=True, reactor=RecordingReactor(self.record))
        await backend.clean()
        await self.deliver(backend, ["a@x", "b@x"], b"x")
        session = await self.ready_to_send(backend, "a@x", "b@x")
        del self.record[:]
        await session.data(FakeBody(b"x"))
        self.assertEqual(
            self.record,
            [
                "open a/tmp/*",
                "write a/tmp/*",
                "fsync a/tmp/*",
                "close a/tmp/*",
                "open b/tmp/*",
                "write b/tmp/*",
                "fsync b/tmp/*",
                "close b/tmp/*",
                "rename a/tmp/*",
                "rename b/tmp/*",
                "open a/new",
                "fsync a/new",
                "close a/new",
                "open b/new",
                "fsync b/new",
                "close b/new",
                "answer",
            ],
        )

    async def test_of_a_group(self) -> None:
        backend = self.backend("{domain}", create=True, reactor=RecordingReactor(self.record))
        await backend.clean()
        await self.deliver(backend, ["b@x", "b@y"], b"x")
        sessions = [await self.ready_to_send(backend, f"b@{domain}") for domain in "xxyx"]
        waiting = in_one_group(backend.committer, [session.data(FakeBody(b"x")) for session in sessions])
        await gatherResults(waiting)
        group = self.record[-(self.record[-2::-1].index("answer") + 1) :]
        self.assertEqual(
            [line for line in group if not line.startswith(("open", "close"))],
            [line for domain in "xxyx" for line in (f"write {domain}/tmp/*", f"fsync {domain}/tmp/*")]
            + [f"rename {domain}/tmp/*" for domain in "xxyx"]
            + ["fsync x/new", "fsync y/new", "answer"],
        )

    async def test_a_group_is_bounded(self) -> None:
        backend = self.backend("Maildir", max_group=3)
        sessions = [await self.ready_to_send(backend, "b@x") for _ in range(7)]
        await backend.committer.catch_up()
        del self.record[:]
        await gatherResults(in_one_group(backend.committer, [session.data(FakeBody(b"x")) for session in sessions]))
        self.assertEqual(self.record.count("fsync Maildir/new"), 3)
        self.assertEqual(len(self.stored()), 7)

    async def test_names_differ_within_a_group(self) -> None:
        backend = self.backend("Maildir")
        sessions = [await self.ready_to_send(backend, "b@x") for _ in range(50)]
        bodies = [f"<{number}>".encode() for number in range(50)]
        coroutines = [session.data(FakeBody(body)) for session, body in zip(sessions, bodies, strict=True)]
        await gatherResults(in_one_group(backend.committer, coroutines))
        self.assertEqual(sorted(message[message.rindex(b"<") :] for message in self.stored()), sorted(bodies))


class ThreadTests(MaildirTestCase):
    async def test_there_is_none_before_the_first_job_and_none_after_the_stop(self) -> None:
        before = committers()
        backend = self.backend("Maildir")
        backend.describe()
        self.assertEqual(committers(), before)
        await backend.stop()
        await self.deliver(backend, ["b@x"], b"x")
        (thread,) = [thread for thread in committers() if thread not in before]
        await gatherResults([backend.stop(), backend.stop()])
        self.assertFalse(thread.is_alive())
        # A straggler starts it again.
        await self.deliver(backend, ["b@x"], b"x")
        await backend.stop()
        self.assertEqual(committers(), before)
        self.assertEqual(len(self.stored()), 2)

    async def test_what_was_given_before_the_stop_is_committed(self) -> None:
        backend = self.backend("Maildir", max_group=4)
        sessions = [await self.ready_to_send(backend, "b@x") for _ in range(30)]
        waiting = in_one_group(backend.committer, [session.data(FakeBody(b"x")) for session in sessions])
        await backend.stop()
        self.assertEqual(len(self.stored()), 30)
        self.assertEqual([await deferred for deferred in waiting], ["stored as t1"] * 30)

    async def test_what_comes_while_it_stops_is_done_before_it_has_stopped(self) -> None:
        for max_group in (1, 9):  # behind the group that ends the thread, and in it
            backend = self.backend(f"{max_group}", max_group=max_group)
            session = await self.ready_to_send(backend, "b@x")
            go_on = threading.Event()
            self.addCleanup(go_on.set)
            backend.committer.post(lambda go_on=go_on: go_on.wait(30))  # type: ignore[misc]
            stopped = backend.stop()
            late = Deferred.fromCoroutine(session.data(FakeBody(b"x")))
            go_on.set()
            await stopped
            self.assertEqual(self.successResultOf(late), "stored as t1")
        self.assertEqual(len(self.stored()), 2)

    async def test_an_error_in_a_job_does_not_end_the_thread(self) -> None:
        backend = self.backend("Maildir")

        def fail() -> None:
            raise ZeroDivisionError

        backend.committer.post(fail)
        with self.assertRaises(ZeroDivisionError):
            await backend.committer.call(fail)
        self.assertEqual(await backend.committer.call(len, "abc"), 3)

    def test_importing_it_chooses_no_reactor(self) -> None:
        code = (
            "import sys; from smtpfw.backends.maildir import MaildirBackend; MaildirBackend('x');"
            "sys.exit('twisted.internet.reactor' in sys.modules)"
        )
        self.assertEqual(subprocess.run([sys.executable, "-c", code], check=False).returncode, 0)
