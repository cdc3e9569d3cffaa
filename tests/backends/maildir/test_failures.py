"""
Every system call of a delivery fails once, in every way: nothing stays, the client is told to come again.

A delivery is done once to learn its calls; then again for each of them, with that one failing.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import gatherResults

from smtpfw.backends.maildir.backend import PIECE_BYTES, MaildirBackend
from smtpfw.backends.maildir.failures import StorageError, attempt
from smtpfw.errors import InsufficientStorage, SMTPError, TryAgainLater
from tests.backends.maildir.fakes import FakeBody, MaildirTestCase

REPLIES = {
    errno.ENOSPC: InsufficientStorage,
    errno.EDQUOT: InsufficientStorage,
    errno.EIO: TryAgainLater,
    errno.EACCES: TryAgainLater,
    errno.EROFS: TryAgainLater,
}
LARGE = bytes(PIECE_BYTES)


class EveryCallTests(MaildirTestCase):
    async def fail_every_call(self, recipients: list[str], chunks: list[bytes], warm: bool, calls: set[str]) -> None:
        """
        :param warm: whether the folders are known from an earlier message.
        :param calls: the kinds of system calls that must be among those that were tried.
        """
        start, end = await self.one_delivery(recipients, chunks, warm)
        self.assertEqual({line.split()[0] for line in self.record[start:end]}, calls)
        clean = self.record[start:end]
        for step, line in enumerate(clean):
            number = list(REPLIES)[step % len(REPLIES)]
            await self.one_failure(recipients, chunks, warm, step, line, number)
        # What decides between 250 and not: all ways, at each place.
        for step, line in enumerate(clean):
            if line.startswith(("fsync", "rename")):
                for number in REPLIES:
                    await self.one_failure(recipients, chunks, warm, step, line, number)

    async def one_delivery(self, recipients: list[str], chunks: list[bytes], warm: bool) -> tuple[int, int]:
        backend = await self.fresh(recipients, warm)
        session = await self.ready_to_send(backend, *recipients)
        start = len(self.record)
        await session.data(FakeBody(*chunks))
        self.assertEqual(len(self.stored()), len(recipients) * (2 if warm else 1))
        return start, len(self.record)

    async def one_failure(
        self, recipients: list[str], chunks: list[bytes], warm: bool, step: int, line: str, number: int
    ) -> None:
        backend = await self.fresh(recipients, warm)
        session = await self.ready_to_send(backend, *recipients)
        before = self.files("new")
        logged = len(self.logged())
        self.fail_at, self.fault = len(self.record) + step, OSError(number, os.strerror(number))
        with self.assertRaises(SMTPError, msg=line) as raised:
            await session.data(FakeBody(*chunks))
        self.assertEqual(self.record[self.fail_at], line)
        self.fault = None
        self.assertIs(type(raised.exception), REPLIES[number], line)
        self.assertEqual(self.files("new"), before, line)
        self.assertEqual(self.files("tmp"), [], line)
        (entry,) = self.logged()[logged:]
        self.assertIn(os.strerror(number), entry)
        self.assertIn(str(self.root), entry)
        # And the next message finds everything in order.
        await self.deliver(backend, recipients, b"next")
        self.assertEqual(len(self.stored()), len(before) + len(recipients))
        await backend.stop()

    async def fresh(self, recipients: list[str], warm: bool) -> MaildirBackend:
        shutil.rmtree(self.root)
        self.root.mkdir()
        backend = self.backend("{domain}/{user}", create=True)
        await backend.clean()
        if warm:
            await self.deliver(backend, recipients, b"first")
        return backend

    async def test_a_first_small_message(self) -> None:
        kinds = {"mkdir", "open", "write", "fsync", "close", "rename"}
        await self.fail_every_call(["bob@x"], [b"x"], False, kinds)

    async def test_a_small_message_into_two_folders(self) -> None:
        await self.fail_every_call(["a@x", "b@x"], [b"x"], True, {"open", "write", "fsync", "close", "rename"})

    async def test_a_large_message_into_three_folders(self) -> None:
        kinds = {"open", "write", "fsync", "close", "rename", "pread"}
        await self.fail_every_call(["a@x", "b@x", "c@x"], [LARGE, LARGE, b"end"], True, kinds)

    async def test_a_failing_look_up(self) -> None:
        (self.root / "bob").mkdir()
        backend = self.backend()

        def stat(path: str) -> os.stat_result:
            raise PermissionError(errno.EACCES, "no")

        self.patch(os, "stat", stat)
        with self.assertRaises(TryAgainLater):
            await self.deliver(backend, ["bob@x"], b"x")
        self.assertIn(f"could not look for {self.root}/bob: Permission denied", self.logged()[0])

    async def test_short_writes(self) -> None:
        real = os.write
        self.patch(os, "write", lambda descriptor, octets: real(descriptor, bytes(octets[:7])))
        await self.deliver(self.backend("Maildir"), ["b@c"], b"0123456789" * 9)
        (message,) = self.stored()
        self.assertTrue(message.startswith(b"Return-Path: <"))
        self.assertTrue(message.endswith(b"\r\n" + b"0123456789" * 9))

    async def test_a_file_that_cannot_be_taken_back_is_named(self) -> None:
        backend = self.backend("Maildir")
        await self.deliver(backend, ["b@c"], b"x")
        real = os.unlink

        def unlink(path: str, **kwargs: Any) -> None:
            if "/new/" in str(path):
                raise OSError(errno.EIO, "no")
            real(path, **kwargs)

        self.patch(os, "unlink", unlink)
        self.fail_on("fsync Maildir/new", errno.EIO)
        with self.assertRaises(TryAgainLater):
            await self.deliver(backend, ["b@c"], b"x")
        failed, stays = self.logged()
        self.assertIn(f"could not fsync the folder {self.root}/Maildir/new: Input/output error", failed)
        self.assertIn(f"could not remove {self.root}/Maildir/new/", stays)

    async def test_what_is_in_the_way_is_said(self) -> None:
        (self.root / "Maildir").write_text("a file")
        with self.assertRaises(TryAgainLater):
            await self.deliver(self.backend("Maildir"), ["b@c"], b"x")
        self.assertIn(
            f"could not make the folder {self.root}/Maildir: File exists; something that is no folder", self.logged()[0]
        )

    async def test_an_error_that_is_not_of_the_disk_passes_and_nothing_stays(self) -> None:
        backend = self.backend(create=True)
        # Its calls would be counted, too.
        await backend.clean()
        await self.deliver(backend, ["a@x"], b"x")
        error = ValueError("a mistake of ours")
        self.fail_at, self.fault = len(self.record) + 1, error
        with self.assertRaises(ValueError) as raised:
            await self.deliver(backend, ["a@x"], b"x")
        self.assertIs(raised.exception, error)
        self.assertEqual(len(self.stored()), 1)

    def fail_on(self, line: str, number: int, real: Callable[[str], None] | None = None) -> None:
        """Fail each call that has this line."""

        def fail(found: str) -> None:
            if found == line:
                raise OSError(number, os.strerror(number))

        self.on_call = fail

    async def test_one_failing_job_leaves_the_others_of_its_group_alone(self) -> None:
        backend = self.backend(create=True)
        users = ["a@x", "b@x", "c@x"]
        await self.deliver(backend, users, b"x")
        for line, number in (
            ("write b/tmp/*", errno.ENOSPC),
            ("rename b/tmp/*", errno.EIO),
            ("fsync b/new", errno.EIO),
        ):
            sessions = [await self.ready_to_send(backend, user) for user in users]
            before = len(self.files("new"))
            self.fail_on(line, number)
            results = await self.in_one_group(backend, [session.data(FakeBody(b"y")) for session in sessions])
            self.on_call = lambda _: None
            self.assertEqual([type(result) for result in results], [str, REPLIES[number], str], line)
            self.assertEqual(len(self.stored()), before + 2)
            self.assertFalse(any(path.parts[-3] == "b" for path in self.files("new")[before:]))

    async def test_a_folder_that_fails_fails_for_all_who_use_it_with_one_line(self) -> None:
        backend = self.backend(create=True)
        await self.deliver(backend, ["a@x", "b@x"], b"x")
        sessions = [await self.ready_to_send(backend, *users) for users in (["a@x"], ["a@x", "b@x"], ["b@x"], ["a@x"])]
        self.fail_on("fsync a/new", errno.EIO)
        results = await self.in_one_group(backend, [session.data(FakeBody(b"y")) for session in sessions])
        self.assertEqual([type(result) for result in results], [TryAgainLater, TryAgainLater, str, TryAgainLater])
        self.assertEqual([path.parts[-3] for path in self.files("new")], ["a", "b", "b"])
        self.assertEqual(self.files("tmp"), [])
        self.assertEqual(len(self.logged()), 1)

    async def in_one_group(self, backend: MaildirBackend, coroutines: list[Any]) -> list[Any]:
        from tests.backends.maildir.test_committer import in_one_group

        return await gatherResults(in_one_group(backend.committer, coroutines))


@pytest.mark.parametrize(
    ("number", "code", "advice"),
    [
        (errno.ENOSPC, "452 4.3.1", "free space or inodes"),
        (errno.EDQUOT, "452 4.3.1", "raise the quota"),
        (errno.EACCES, "451 4.3.0", "let the user that this process runs as write there"),
        (errno.EROFS, "451 4.3.0", "remount"),
        (errno.EIO, "451 4.3.0", "the disk may be failing"),
        (errno.EMFILE, "451 4.3.0", "limit of open files"),
        (errno.EBUSY, "451 4.3.0", "kernel's log"),
    ],
)
def test_what_the_client_and_the_operator_read(number: int, code: str, advice: str) -> None:
    with pytest.raises(StorageError) as raised, attempt("write", str(Path("/var/mail/x"))):
        raise OSError(number, "whatever")
    assert str(raised.value).startswith(f"could not write /var/mail/x: {os.strerror(number)}; ")
    assert advice in str(raised.value)
    reply = raised.value.reply()
    assert str(reply).startswith(code)
    assert "/var/mail" not in str(reply)
