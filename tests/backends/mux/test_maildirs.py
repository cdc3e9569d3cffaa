"""A mux in front of Maildirs: what is on the disk, whatever becomes of a message."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from smtpfw.backends.maildir import MaildirBackend
from smtpfw.backends.maildir.backend import PIECE_BYTES
from smtpfw.backends.mux import MuxBackend
from smtpfw.errors import TransactionFailed
from smtpfw.testing import MemoryClient, RecordingBackend
from tests.backends.maildir.fakes import MaildirTestCase
from tests.backends.mux.helpers import DOT, GO_AHEAD, MESSAGE, RECIPIENT_OK, begin, connect

LARGE = b"0123456789abcd\r\n" * (2 * PIECE_BYTES // 16)


class MaildirTests(MaildirTestCase):
    def of(self, relay: RecordingBackend | None = None) -> MemoryClient:
        """A client in the middle of DATA for two users of one Maildir backend, one of another, and one of a relay."""
        self.maildirs: list[MaildirBackend] = [self.backend("a/{user}", create=True), self.backend("b")]
        a, b = self.maildirs
        mux = MuxBackend({"a.test": a, "b.test": b}, relay or b)
        client = connect(mux)
        recipients = ["x@a.test", "y@a.test", "x@b.test", *(["x@c.test"] if relay else [])]
        self.assertEqual(begin(client, *recipients), [RECIPIENT_OK] * len(recipients))
        self.assertTrue(client.send(b"DATA\r\n").startswith(GO_AHEAD))
        return client

    async def answer(self, client: MemoryClient) -> bytes:
        """What the server says when the threads have done what they were given."""
        while not (received := client.received()):
            await self.caught_up()
        return received

    async def caught_up(self) -> None:
        for maildir in self.maildirs:
            await maildir.committer.catch_up()

    async def test_in_both(self) -> None:
        for message in (MESSAGE, LARGE):
            client = self.of()
            client.protocol.dataReceived(message + DOT)
            received = await self.answer(client)
            id = received.split()[-1].decode()
            self.assertEqual(received, f"250 2.0.0 stored as {id}\r\n".encode())
            stored = self.stored()
            self.assertEqual(len(stored), 3)
            for octets in stored:
                self.assertTrue(octets.endswith(b"\r\n" + message))
                self.assertIn(f"\r\n\tid {id}".encode(), octets)
            # Each has its own recipients in mind: a copy that only one gets names it.
            self.assertEqual(sum(b"for <x@b.test>" in octets for octets in stored), 1)
            self.assertEqual(sum(b"for <" in octets for octets in stored), 1)
            for path in self.files("new"):
                path.unlink()

    async def test_synced_everywhere_before_anything_is_renamed(self) -> None:
        client = self.of(relay := RecordingBackend(data=self.note))
        client.protocol.dataReceived(MESSAGE + DOT)
        await self.answer(client)
        calls = [line for line in self.record if line.startswith(("fsync", "rename", "relay"))]
        files = [line for line in calls if "*" in line]
        self.assertEqual(sorted(files[:3]), ["fsync a/x/tmp/*", "fsync a/y/tmp/*", "fsync b/tmp/*"])
        self.assertEqual(files[3], "relay *")
        self.assertEqual(sorted(files[4:]), ["rename a/x/tmp/*", "rename a/y/tmp/*", "rename b/tmp/*"])
        # And each folder, before the answer.
        folders = [line for line in calls[calls.index("relay *") :] if line.startswith("fsync")]
        self.assertEqual(sorted(folders), ["fsync a/x/new", "fsync a/y/new", "fsync b/new"])
        self.assertEqual(len(relay.sessions), 1)

    async def note(self, body: Any) -> None:
        await body.read()
        self.record.append("relay *")

    async def test_refused_elsewhere_after_all_was_on_the_disk(self) -> None:
        refused: Deferred[None] = Deferred()
        for message in (MESSAGE, LARGE):
            refused = Deferred()
            reached: Deferred[None] = Deferred()

            async def data(body: Any, refused: Any = refused, reached: Any = reached) -> None:
                await body.read()
                reached.callback(None)
                await refused

            client = self.of(RecordingBackend(data=data))
            client.protocol.dataReceived(message + DOT)
            while not reached.called:
                await self.caught_up()
            self.assertEqual((len(self.files("tmp")), self.files("new")), (3, []))
            refused.errback(TransactionFailed("no"))
            self.assertEqual(await self.answer(client), b"554 5.0.0 no\r\n")
            self.assertEqual(self.stored(), [])

    async def test_one_disk_is_full(self) -> None:
        for message in (MESSAGE, LARGE):
            relay = RecordingBackend()
            client = self.of(relay)
            self.patch(os, "fsync", self.full("/b/tmp/", os.fsync))
            client.protocol.dataReceived(message + DOT)
            self.assertEqual(await self.answer(client), b"451 4.3.1 Insufficient system storage\r\n")
            self.assertEqual(self.stored(), [])
            self.assertEqual(relay.messages, [])

    def full(self, part: str, real: Any) -> Any:
        def fsync(descriptor: int) -> None:
            if part in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
                raise OSError(28, "No space left on device")
            real(descriptor)

        return fsync

    async def test_a_commit_that_fails_keeps_what_others_have_committed(self) -> None:
        client = self.of()
        self.patch(os, "fsync", self.full("/b/new", os.fsync))
        client.protocol.dataReceived(MESSAGE + DOT)
        self.assertEqual(await self.answer(client), b"451 4.3.0 Try again later\r\n")
        self.assertEqual(len(self.stored()), 2)

    async def test_the_client_goes_in_the_middle(self) -> None:
        for message in (b"", MESSAGE, LARGE):
            client = self.of(RecordingBackend())
            client.protocol.dataReceived(message)
            client.disconnect()
            await self.caught_up()
            await self.caught_up()
            self.assertEqual(self.stored(), [])

    async def test_the_client_goes_after_the_end(self) -> None:
        client = self.of()
        client.protocol.dataReceived(MESSAGE + DOT)
        client.disconnect()
        while len(self.files("new")) < 3:
            await self.caught_up()
        await self.caught_up()
        self.assertEqual(len(self.stored()), 3)
