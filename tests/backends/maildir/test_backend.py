"""What a client's message becomes on disk, and what a recipient is answered."""

from __future__ import annotations

import re
import shutil
import threading

from twisted.internet.defer import CancelledError, Deferred
from zope.interface.verify import verifyObject

from smtpfw.backends.maildir import MaildirBackend
from smtpfw.backends.maildir import backend as backend_module
from smtpfw.backends.maildir.backend import PIECE_BYTES
from smtpfw.errors import ConfigError, DataReset, DataTooLarge, MailboxUnavailable, TryAgainLater
from smtpfw.interfaces import IBackend, ISession
from smtpfw.wire.grammar import Address
from smtpfw.wire.transaction import Recipient
from tests.backends.maildir.fakes import OPTIONS, FakeBody, MaildirTestCase

LARGE = b"0123456789abcde\n" * (PIECE_BYTES // 16)


class MessageTests(MaildirTestCase):
    async def test_a_small_message(self) -> None:
        backend = self.backend("Maildir")
        answer = await self.deliver(backend, ["bob@example.org"], b"Subject: x\r\n\r\nhello\r\n")
        self.assertEqual(answer, "stored as t1")
        (message,) = self.stored()
        self.assertRegex(
            message,
            rb"\AReturn-Path: <a@client.example>\r\n"
            rb"Received: from client.example \(\[192.0.2.1\]\)\r\n"
            rb"\tby mx.example.org with ESMTP\r\n"
            rb"\tid t1\r\n\tfor <bob@example.org>;\r\n"
            rb"\t\w\w\w, .* [+-]\d{4}\r\n"
            rb"Subject: x\r\n\r\nhello\r\n\Z",
        )

    async def test_names_and_modes(self) -> None:
        backend = self.backend("deep/er/Maildir")
        await self.deliver(backend, ["b@c"], b"x", hello_name="../../etc/passwd", sender="evil@e")
        (path,) = self.files("new")
        self.assertRegex(path.name, r"\A\d+\.M\d+P\d+Q\d+_[0-9a-f]+\.[A-Za-z0-9._-]+\Z")
        self.assertEqual(path.stat().st_mode & 0o7777, 0o600)
        for folder in (
            "deep",
            "deep/er",
            "deep/er/Maildir",
            *(f"deep/er/Maildir/{sub}" for sub in ("tmp", "new", "cur")),
        ):
            self.assertEqual((self.root / folder).stat().st_mode & 0o7777, 0o700, folder)

    async def test_an_empty_message_and_the_null_sender(self) -> None:
        await self.deliver(self.backend("Maildir"), ["bob@example.org"], sender="")
        (message,) = self.stored()
        self.assertTrue(message.startswith(b"Return-Path: <>\r\n"))
        self.assertEqual(message.count(b"\n"), 6)

    async def test_a_large_message_into_several_folders(self) -> None:
        backend = self.backend(create=True)
        await self.deliver(backend, ["a@x", "b@x", "c@x"], *[LARGE] * 3, b"end")
        messages = self.stored()
        self.assertEqual(len(messages), 3)
        for user, message in zip("abc", messages, strict=True):
            header, _, rest = message.partition(b"0123")
            self.assertIn(b"Delivered-To: " + user.encode() + b"@x\r\n", header)
            self.assertTrue(header.endswith(b"00\r\n"))
            self.assertEqual(b"0123" + rest, LARGE * 3 + b"end")

    async def test_only_one_piece_is_read_while_the_disk_is_busy(self) -> None:
        backend = self.backend("Maildir")
        go_on = threading.Event()
        self.addCleanup(go_on.set)
        busy = backend.committer.call(go_on.wait, 30)
        session = await self.ready_to_send(backend, "b@c")
        body = FakeBody(*[bytes(1024)] * 2000)
        done = Deferred.fromCoroutine(session.data(body))
        self.assertEqual(body.size, PIECE_BYTES)
        go_on.set()
        await busy
        await done
        self.assertTrue(self.stored()[0].endswith(bytes(2000 * 1024)))

    async def test_one_copy_for_a_folder_however_often_it_is_named(self) -> None:
        backend = self.backend(create=True)
        await self.deliver(backend, ["bob@x", "BOB@x", "bob@x", "amy@x"], b"x")
        messages = self.stored()
        self.assertEqual([path.parts[-3] for path in self.files("new")], ["amy", "bob"])
        for user, message in zip((b"amy", b"bob"), messages, strict=True):
            self.assertIn(b"\r\nDelivered-To: " + user + b"@x\r\n", message)
            self.assertNotIn(b" for ", message)

    async def test_two_users_of_one_domain_in_the_folder_of_the_domain(self) -> None:
        await self.deliver(self.backend("{domain}", create=True), ["amy@x.org", "bob@x.org"], b"x")
        (message,) = self.stored()
        self.assertNotIn(b"Delivered-To", message)

    async def test_unix_line_ends_across_the_edges_of_pieces(self) -> None:
        text = b"a\r\nb\rc\nd\r\r\ne\r\n" + b"f" * PIECE_BYTES + b"\r"
        for cut in range(16):
            backend = self.backend(f"{cut}", eol="lf")
            filling = b"~" * PIECE_BYTES
            await self.deliver(backend, ["b@c"], filling + text[:cut], text[cut : cut + 1], text[cut + 1 :])
            (path,) = (self.root / str(cut) / "new").iterdir()
            header, _, rest = path.read_bytes().partition(b"~")
            self.assertNotIn(b"\r", header)
            self.assertEqual(b"~" + rest, filling + text.replace(b"\r\n", b"\n"))

    async def test_unix_line_ends_of_a_small_message(self) -> None:
        await self.deliver(self.backend("Maildir", eol="lf"), ["b@c"], b"a\r", b"\nb\r")
        (message,) = self.stored()
        self.assertTrue(message.endswith(b"\na\nb\r"))
        self.assertEqual(message.count(b"\r"), 1)


class RecipientTests(MaildirTestCase):
    def test_it_provides_what_it_says(self) -> None:
        backend = self.backend("Maildir")
        verifyObject(IBackend, backend)
        verifyObject(ISession, self.session(backend))

    async def test_a_user_without_a_folder_is_refused_and_none_is_made(self) -> None:
        backend = self.backend("{domain}/{user}")
        with self.assertRaises(MailboxUnavailable):
            await self.deliver(backend, ["bob@example.org"], b"x")
        self.assertEqual(list(self.root.iterdir()), [])
        (self.root / "example.org").mkdir()
        (self.root / "example.org" / "bob").write_text("no folder")
        with self.assertRaises(MailboxUnavailable):
            await self.deliver(backend, ["bob@example.org"], b"x")

    async def test_a_user_with_a_folder(self) -> None:
        (self.root / "bob").mkdir()
        backend = self.backend()
        await self.deliver(backend, ["bob@example.org"], b"x")
        self.assertEqual(len(self.stored()), 1)
        # Known by now, so nothing has to be waited for.
        self.assertIsNone(self.session(backend).rcpt(Address("Bob", "example.org"), OPTIONS))

    async def test_a_tag_falls_back_to_the_user(self) -> None:
        for name in ("bob", "bob+own"):
            (self.root / name).mkdir()
        backend = self.backend()
        await self.deliver(backend, ["bob+news@x", "bob+own@x", "bob@x"], b"x")
        self.assertEqual([path.parts[-3] for path in self.files("new")], ["bob", "bob+own"])
        own, tagged = sorted(self.stored(), key=lambda message: b"+own" in message)
        self.assertIn(b"Delivered-To: bob@x\r\n", own)
        self.assertIn(b"Delivered-To: bob+own@x\r\n", tagged)
        with self.assertRaises(MailboxUnavailable):
            await self.deliver(backend, ["amy+news@x"], b"x")

    async def test_with_create_a_tag_has_its_own_folder(self) -> None:
        await self.deliver(self.backend(create=True), ["bob+a@x", "bob@x"], b"x")
        self.assertEqual([path.parts[-3] for path in self.files("new")], ["bob", "bob+a"])

    async def test_postmaster_without_a_domain_has_ours(self) -> None:
        (self.root / "mx.example.org" / "postmaster").mkdir(parents=True)
        await self.deliver(self.backend("{domain}/{user}"), ["Postmaster"], b"x")
        (message,) = self.stored()
        self.assertIn(b"Delivered-To: postmaster@mx.example.org\r\n", message)
        self.assertIn(b"for <Postmaster>;", message)

    def test_an_unsafe_recipient_is_refused_at_once(self) -> None:
        session = self.session(self.backend(create=True))
        for local_part in ("../x", "a/b", ".", "a\0"):
            with self.assertRaises(MailboxUnavailable):
                session.rcpt(Address(local_part, "example.org"), OPTIONS)

    async def test_a_recipient_that_was_never_asked_about_refuses_the_message(self) -> None:
        session = await self.ready_to_send(self.backend("Maildir"), "bob@x")
        transaction = session._connection.transaction
        assert transaction is not None
        transaction.recipients.append(Recipient(Address("amy", "x"), OPTIONS))
        with self.assertRaises(TryAgainLater):
            await session.data(FakeBody(b"x"))
        self.assertEqual(self.stored(), [])
        self.assertRegex(self.logged()[0], "amy@x is in transaction t1, but was never asked about")

    async def test_recipients_of_an_earlier_transaction_are_forgotten(self) -> None:
        for forget in ("mail", "reset"):
            session = await self.ready_to_send(self.backend("Maildir"), "bob@x")
            if forget == "mail":
                session.mail(Address("a", "b"), OPTIONS)
            else:
                session.reset("rset")
            with self.assertRaises(TryAgainLater):
                await session.data(FakeBody(b"x"))

    async def test_no_message_between_transactions(self) -> None:
        with self.assertRaises(TryAgainLater):
            await self.session(self.backend("Maildir")).data(FakeBody(b"x"))

    async def test_the_memory_of_known_folders_is_bounded(self) -> None:
        self.patch(backend_module, "MAX_KNOWN_FOLDERS", 3)
        backend = self.backend(create=True)
        for number in range(8):
            await self.deliver(backend, [f"u{number}@x"], b"x")
            self.assertLessEqual(len(backend._known), 3)
        self.assertEqual(len(self.stored()), 8)

    def test_what_cannot_be_configured(self) -> None:
        for kwargs, named in (({"eol": "cr"}, "'cr'"), ({"max_group": 0}, "max_group 0")):
            with self.assertRaises(ConfigError) as raised:
                MaildirBackend("x", **kwargs)  # type: ignore[arg-type]
            self.assertIn(named, str(raised.exception))

    def test_it_says_where_mail_goes_and_how_durable_it_is(self) -> None:
        made = self.backend("Maildir").describe()
        self.assertIn(f"{self.root}/Maildir, which is made if it is missing; lines end in CRLF.", made[0])
        refused = self.backend("{user}", eol="lf").describe()
        self.assertIn(f"{self.root}/{{user}}, which is never made", refused[0])
        self.assertIn("in LF.", refused[0])
        self.assertIn("A 250 means: written, fsynced, renamed into new, folder fsynced.", refused)


class InterruptedTests(MaildirTestCase):
    """A message that does not come to its end leaves nothing."""

    async def test_an_error_of_the_body_passes_and_nothing_is_stored(self) -> None:
        backend = self.backend(create=True)
        for chunks in ([], [b"x"], [LARGE], [LARGE, LARGE, b"x"]):
            for error in (DataReset(), DataTooLarge()):
                with self.assertRaises(type(error)) as raised:
                    await self.deliver(backend, ["a@x", "b@x"], *chunks, error)
                self.assertIs(raised.exception, error)
                self.assertEqual(self.stored(), [])
        self.assertEqual(self.logged(), [])

    async def test_cancelled_while_the_body_arrives(self) -> None:
        backend = self.backend(create=True)
        for chunks in ([], [b"x"], [LARGE], [LARGE, b"x"]):
            session = await self.ready_to_send(backend, "a@x", "b@x")
            arrived: Deferred[None] = Deferred()
            more: Deferred[None] = Deferred()
            body = FakeBody(*chunks, arrived, more)
            done = Deferred.fromCoroutine(session.data(body))
            arrived.callback(None)
            # A job of ours behind the one that writes the piece: by its answer the body is waited for again.
            await backend.committer.call(len, "")
            done.cancel()
            with self.assertRaises(CancelledError):
                await done
            await backend.stop()
            self.assertEqual(self.stored(), [])

    async def test_cancelled_while_the_thread_is_busy(self) -> None:
        backend = self.backend(create=True)
        for chunks in ([b"x"], [LARGE], [LARGE, b"x"]):
            go_on = threading.Event()
            self.addCleanup(go_on.set)
            backend.committer.post(lambda go_on=go_on: go_on.wait(30))  # type: ignore[misc]
            session = await self.ready_to_send(backend, "a@x", "b@x")
            done = Deferred.fromCoroutine(session.data(FakeBody(*chunks)))
            done.cancel()
            with self.assertRaises(CancelledError):
                await done
            go_on.set()
            await backend.stop()
            self.assertEqual(self.stored(), [])

    async def test_cancelled_between_its_rename_and_the_answer(self) -> None:
        backend = self.backend("Maildir")
        session = await self.ready_to_send(backend, "a@x")
        reached, go_on = threading.Event(), threading.Event()
        self.addCleanup(go_on.set)

        def hold(line: str) -> None:
            if line == "fsync Maildir/new":
                reached.set()
                go_on.wait(30)

        self.on_call = hold
        done = Deferred.fromCoroutine(session.data(FakeBody(b"x")))
        self.assertTrue(reached.wait(30))
        self.assertEqual(len(self.files("new")), 1)
        done.cancel()
        go_on.set()
        with self.assertRaises(CancelledError):
            await done
        await backend.stop()
        self.assertEqual(self.stored(), [])


class RemovedFolderTests(MaildirTestCase):
    """Somebody removes folders while we run."""

    async def test_it_is_made_again(self) -> None:
        backend = self.backend("deep/Maildir")
        for gone in ("deep", "deep/Maildir", "deep/Maildir/tmp", "deep/Maildir/new"):
            await self.deliver(backend, ["b@c"], b"x")
            shutil.rmtree(self.root / gone)
            await self.deliver(backend, ["b@c"], b"after " + gone.encode())
            self.assertTrue(any(message.endswith(b"after " + gone.encode()) for message in self.stored()))

    async def test_new_goes_while_a_message_is_written(self) -> None:
        backend = self.backend("Maildir")
        await self.deliver(backend, ["b@c"], b"x")
        self.on_call = lambda line: shutil.rmtree(self.root / "Maildir/new") if line.startswith("write") else None
        await self.deliver(backend, ["b@c"], b"y")
        self.assertEqual(len(self.stored()), 1)

    async def test_a_user_s_folder_is_not_made_again(self) -> None:
        (self.root / "bob").mkdir()
        backend = self.backend()
        await self.deliver(backend, ["bob@x"], b"x")
        session = await self.ready_to_send(backend, "bob@x")
        shutil.rmtree(self.root / "bob")
        with self.assertRaises(TryAgainLater):
            await session.data(FakeBody(b"x"))
        self.assertEqual(list(self.root.iterdir()), [])
        self.assertEqual(len(self.logged()), 1)
        self.assertTrue(re.search(r"could not make the folder .*/bob/tmp: No such file", self.logged()[0]))
        with self.assertRaises(MailboxUnavailable):
            await self.deliver(backend, ["bob@x"], b"x")
        (self.root / "bob").mkdir()
        await self.deliver(backend, ["bob@x"], b"x")
        self.assertEqual(len(self.stored()), 1)

    async def test_tmp_goes_with_the_file_in_it(self) -> None:
        backend = self.backend("Maildir")
        await self.deliver(backend, ["b@c"], b"x")
        self.on_call = lambda line: shutil.rmtree(self.root / "Maildir/tmp") if line.startswith("write") else None
        with self.assertRaises(TryAgainLater):
            await self.deliver(backend, ["b@c"], b"y")
        self.on_call = lambda line: None
        self.assertEqual(len(self.stored()), 1)
        await self.deliver(backend, ["b@c"], b"y")
        self.assertEqual(len(self.stored()), 2)
