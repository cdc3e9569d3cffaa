"""A function as a backend: when it is called, with what, what its answers become, and what it never hears of."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from twisted.internet.defer import Deferred, inlineCallbacks, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from smtpfw import Address, FunctionCheck, Reply, ReplyCode, ServerConfig, SMTPError, SMTPServerFactory
from smtpfw.backends.handler import Envelope, HandlerBackend
from smtpfw.errors import DataReset, DataTooLarge, MailboxUnavailable
from smtpfw.interfaces import IBackend, IBody, ISession
from smtpfw.session import overridden
from smtpfw.testing import MemoryClient
from smtpfw.wire.config import LMTP
from tests.server.helpers import DATA, DOT, ENVELOPE, MAIL, MESSAGE, MESSAGE_OK, RCPT, TRY_AGAIN, codes, greeted
from tests.test_readme import ROOT, blocks

#: A second recipient.
MORE = b"RCPT TO:<e@d.test>\r\n"


class Calls:
    """What a handler was called with."""

    def __init__(self, answer: Any = None) -> None:
        self.envelopes: list[Envelope] = []
        self.bodies: list[Any] = []
        self.answer = answer

    def handle(self, envelope: Envelope, body: Any) -> Any:
        self.envelopes.append(envelope)
        self.bodies.append(body)
        return self.answer

    async def read(self, envelope: Envelope, body: IBody) -> Any:
        self.envelopes.append(envelope)
        self.bodies.append(await body.read())
        return self.answer


def client_of(handler: Any, *said: bytes, whole: bool | None = None, **settings: Any) -> MemoryClient:
    return greeted(HandlerBackend(handler, whole=whole), None, *(said or (ENVELOPE, DATA)), **settings)


def answer_to(handler: Any) -> bytes:
    """The reply behind a message that came in two pieces."""
    client = client_of(handler)
    return client.send(MESSAGE) + client.send(DOT)


# -- what the client gets -------------------------------------------------

ANSWERS = [
    (None, MESSAGE_OK),
    ("queued as 7", b"250 2.0.0 queued as 7\r\n"),
    (Reply(250, "yes", (2, 6, 0)), b"250 2.6.0 yes\r\n"),
    (Reply(550, "no", (5, 7, 1)), b"550 5.7.1 no\r\n"),
    (250, MESSAGE_OK),
    (ReplyCode.OK, MESSAGE_OK),
    (251, b"251 2.0.0 User not local; will forward\r\n"),
    (452, b"452 4.0.0 Requested action not taken: insufficient system storage\r\n"),
    (ReplyCode.TRANSACTION_FAILED, b"554 5.0.0 Transaction failed\r\n"),
    (571, b"571 5.0.0 Requested action not taken\r\n"),
    (421, b"421 4.0.0 Service not available, closing transmission channel\r\n"),
    ((250, "kept"), b"250 2.0.0 kept\r\n"),
    ((ReplyCode.MAILBOX_UNAVAILABLE, "nobody\nat all"), b"550-5.0.0 nobody\r\n550 5.0.0 at all\r\n"),
    ((450, "later"), b"450 4.0.0 later\r\n"),
]


def raising(error: Exception) -> Callable[[Envelope, Any], Any]:
    def handle(envelope: Envelope, body: Any) -> Any:
        raise error

    return handle


@pytest.mark.parametrize(("answer", "reply"), ANSWERS, ids=lambda value: repr(value)[:40])
def test_an_answer(answer: Any, reply: bytes) -> None:
    later: Deferred[Any] = Deferred()

    async def at_once(envelope: Envelope, body: IBody) -> Any:
        return answer

    async def in_the_end(envelope: Envelope, body: IBody) -> Any:
        await body.read()
        return answer

    async def awaited() -> Any:
        return answer

    for handler in (
        lambda envelope, body: answer,
        lambda envelope, body: succeed(answer),
        lambda envelope, body: awaited(),
        at_once,
        in_the_end,
    ):
        assert answer_to(handler) == reply
    client = client_of(lambda envelope, body: later)
    assert client.send(MESSAGE + DOT) == b""
    later.callback(answer)
    assert client.received() == reply


@pytest.mark.parametrize(
    ("error", "reply"),
    [
        (MailboxUnavailable("gone"), b"550 5.1.1 gone\r\n"),
        (SMTPError(ReplyCode.TRANSACTION_FAILED, (5, 7, 1), "not like this"), b"554 5.7.1 not like this\r\n"),
    ],
    ids=str,
)
def test_a_refusal(error: Exception, reply: bytes) -> None:
    later: Deferred[Any] = Deferred()

    async def raise_it(envelope: Envelope, body: IBody) -> Any:
        raise error

    assert answer_to(raising(error)) == reply
    assert answer_to(raise_it) == reply
    client = client_of(lambda envelope, body: later)
    assert client.send(MESSAGE + DOT + MAIL) == b""
    later.errback(error)
    assert client.received() == reply + b"250 2.1.0 Sender OK\r\n"


class Faults(TestCase):
    def test_what_is_no_answer_is_a_fault_of_ours(self) -> None:
        for answer in (354, 0, 199, 600, True, (250,), (250, "a", "b"), (250, None), ("250", "a"), (354, "go"), b"x"):
            self.assertEqual(answer_to(lambda envelope, body, answer=answer: answer), TRY_AGAIN, answer)
            self.assertEqual(len(self.flushLoggedErrors(TypeError, ValueError)), 1, answer)

    def test_what_goes_wrong_in_it_is_not_told(self) -> None:
        async def broken(envelope: Envelope, body: IBody) -> None:
            raise ZeroDivisionError("inside")

        for handler in (raising(ZeroDivisionError("inside")), broken):
            self.assertEqual(answer_to(handler), TRY_AGAIN)
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


# -- when it is called, and with what -------------------------------------


class Whole(TestCase):
    def test_a_plain_function_is_called_once_the_message_is_there(self) -> None:
        calls = Calls()
        client = client_of(calls.handle)
        client.send(MESSAGE)
        self.assertEqual(calls.envelopes, [])
        self.assertEqual(client.send(MESSAGE + DOT), MESSAGE_OK)
        self.assertEqual(calls.bodies, [MESSAGE * 2])

    def test_with_all_chunks_of_bdat(self) -> None:
        calls = Calls()
        client = client_of(calls.handle, ENVELOPE)
        client.send(b"BDAT 4\r\nhell" + b"BDAT 0\r\n")
        self.assertEqual(calls.envelopes, [])
        self.assertEqual(client.send(b"BDAT 3 LAST\r\no\r\n"), MESSAGE_OK)
        self.assertEqual(calls.bodies, [b"hello\r\n"])

    def test_one_that_returns_a_deferred_is_plain(self) -> None:
        seen: list[bytes] = []

        @inlineCallbacks
        def handle(envelope: Envelope, body: bytes) -> Any:
            yield succeed(None)
            seen.append(body)
            return "done"

        self.assertEqual(answer_to(handle), b"250 2.0.0 done\r\n")
        self.assertEqual(seen, [MESSAGE])

    def test_an_async_one_may_want_it_whole(self) -> None:
        seen: list[bytes] = []

        async def handle(envelope: Envelope, body: bytes) -> None:
            seen.append(body)

        client = client_of(handle, whole=True)
        client.send(MESSAGE)
        self.assertEqual(seen, [])
        self.assertEqual(client.send(DOT), MESSAGE_OK)
        self.assertEqual(seen, [MESSAGE])

    def test_once_called_it_is_not_cancelled(self) -> None:
        cancelled: list[Any] = []
        later: Deferred[Any] = Deferred(cancelled.append)
        client = client_of(lambda envelope, body: later)
        client.send(MESSAGE + DOT)
        client.disconnect()
        self.assertEqual(cancelled, [])
        later.callback(None)

    def test_of_a_message_that_breaks_off_it_never_hears(self) -> None:
        calls = Calls()
        client = client_of(calls.handle)
        client.send(MESSAGE)
        client.disconnect()
        client = client_of(calls.handle, ENVELOPE)
        self.assertEqual(codes(client.send(b"BDAT 2\r\nhiRSET\r\n")), [b"250", b"250"])
        self.assertEqual(calls.envelopes, [])

    def test_nor_of_one_that_is_too_large(self) -> None:
        calls = Calls()
        client = client_of(calls.handle, max_message_bytes=30)
        client.send(MESSAGE)
        self.assertTrue(client.send(MESSAGE + DOT).startswith(b"552 5.3.4 "))
        self.assertEqual(calls.envelopes, [])
        # Exactly the limit is not too much.
        client.send(MAIL + RCPT + DATA)
        self.assertEqual(client.send(b"x" * 28 + b"\r\n" + DOT), MESSAGE_OK)
        self.assertEqual(calls.bodies, [b"x" * 28 + b"\r\n"])

    def test_nor_of_one_that_a_check_refuses(self) -> None:
        calls = Calls()
        check = FunctionCheck(message=lambda connection, header, size: Reply(554, "no", (5, 7, 1)))
        config = ServerConfig(hostname="mx.test")
        factory = SMTPServerFactory(HandlerBackend(calls.handle), config, checks=[check], reactor=Clock())
        client = MemoryClient.of(factory)
        client.send(ENVELOPE)
        client.send(DATA)
        client.send(MESSAGE)
        client.received()
        self.assertEqual(client.send(DOT), b"554 5.7.1 no\r\n")
        self.assertEqual(calls.envelopes, [])


class Streaming(TestCase):
    def test_an_async_function_reads_it_as_it_arrives(self) -> None:
        chunks: list[bytes] = []

        async def handle(envelope: Envelope, body: IBody) -> str:
            async for chunk in body:
                chunks.append(chunk)
            return f"{body.size} octets"

        client = client_of(handle)
        client.send(MESSAGE)
        self.assertEqual(b"".join(chunks), MESSAGE)
        self.assertEqual(client.send(MESSAGE + DOT), b"250 2.0.0 %d octets\r\n" % (2 * len(MESSAGE)))
        self.assertEqual(b"".join(chunks), MESSAGE * 2)

    def test_so_may_a_plain_one(self) -> None:
        calls = Calls("seen")
        client = client_of(calls.handle, whole=False)
        client.send(MESSAGE)
        self.assertTrue(IBody.providedBy(calls.bodies[0]))
        self.assertEqual(client.send(DOT), b"250 2.0.0 seen\r\n")

    def test_it_may_answer_before_the_end(self) -> None:
        async def first_chunk(envelope: Envelope, body: IBody) -> Any:
            async for _ in body:
                break
            return 554, "seen enough"

        client = client_of(first_chunk)
        self.assertEqual(client.send(MESSAGE), b"")
        self.assertEqual(client.send(MESSAGE), b"")
        self.assertEqual(client.send(DOT), b"554 5.0.0 seen enough\r\n")
        self.assertEqual(codes(client.send(MAIL + RCPT)), [b"250", b"250"])

    def test_its_reads_raise_when_the_client_goes(self) -> None:
        raised: list[BaseException] = []

        async def handle(envelope: Envelope, body: IBody) -> None:
            try:
                await body.read()
            except BaseException as error:
                raised.append(error)
                raise

        client = client_of(handle)
        client.send(MESSAGE)
        client.disconnect()
        client = client_of(handle, ENVELOPE)
        client.send(b"BDAT 2\r\nhiRSET\r\n")
        client = client_of(handle, max_message_bytes=30)
        client.send(MESSAGE)
        self.assertTrue(client.send(MESSAGE + DOT).startswith(b"552 5.3.4 "))
        self.assertEqual([type(error) for error in raised], [DataReset, DataReset, DataTooLarge])

    def test_a_success_does_not_count_for_a_message_that_is_too_large(self) -> None:
        client = client_of(Calls("fine").handle, whole=False, max_message_bytes=30)
        client.send(MESSAGE)
        self.assertTrue(client.send(MESSAGE + DOT).startswith(b"552 5.3.4 "))


class Recipients(TestCase):
    def test_in_lmtp_all_get_the_answer(self) -> None:
        hello = b"LHLO me\r\n"
        for answer, reply in ((None, MESSAGE_OK), ((550, "no"), b"550 5.0.0 no\r\n"), (421, None)):
            calls = Calls(answer)
            client = client_of(calls.read, hello + MAIL + RCPT + MORE + RCPT, DATA, protocol=LMTP)
            client.send(MESSAGE)
            # 421 would say that nothing follows, so each is told 451.
            reply = reply or b"451 4.0.0 Service not available, closing transmission channel\r\n"
            self.assertEqual(client.send(DOT), reply * 3)
            self.assertEqual(list(map(str, calls.envelopes[0].recipients)), ["c@d.test", "e@d.test", "c@d.test"])


def test_without_a_function_mail_is_thrown_away() -> None:
    backend = HandlerBackend(None)
    session = backend.new_session(object())  # type: ignore[arg-type]
    assert [overridden(session, name) for name in ("mail", "rcpt", "data", "reset", "logout")] == [None] * 5
    assert answer_to(None) == MESSAGE_OK
    assert backend.describe() == ["Mail is accepted and thrown away"]


# -- the envelope ---------------------------------------------------------


def test_an_envelope() -> None:
    calls = Calls()
    client = client_of(
        calls.handle, ENVELOPE[: -len(MAIL + RCPT)], b"MAIL FROM:<> BODY=8BITMIME\r\n", RCPT + MORE, DATA
    )
    client.send(MESSAGE + DOT)
    (envelope,) = calls.envelopes
    assert not envelope.sender
    assert envelope.recipients == (Address("c", "d.test"), Address("e", "d.test"))
    assert envelope.options.body == "8BITMIME"
    assert (envelope.connection.hello_name, envelope.connection.peer_host) == ("me", "192.0.2.1")
    assert envelope.id == f"{envelope.connection.id}.1"
    with pytest.raises(FrozenInstanceError):
        envelope.id = "x"  # type: ignore[misc]
    assert not hasattr(envelope, "__dict__")
    # It can be a key, and two messages are two, however alike.
    assert len({envelope, envelope}) == 1


def test_its_received_line() -> None:
    calls = Calls()
    client = client_of(calls.handle)
    client.send(MESSAGE + DOT + MAIL + RCPT + MORE + DATA)
    client.send(MESSAGE + DOT)
    one, two = calls.envelopes
    # Both are asked for when their messages have been answered, and the client has gone.
    client.disconnect()
    head, _, date = one.received_line().rpartition(b";\r\n\t")
    assert head == (
        b"Received: from me ([192.0.2.1])\r\n\tby mx.test with ESMTP\r\n\tid %s\r\n\tfor <c@d.test>" % one.id.encode()
    )
    assert date.endswith(b"\r\n")
    # One recipient must not learn of another.
    assert b"\r\n\tid %s;\r\n\t" % two.id.encode() in two.received_line()
    assert b"d.test" not in two.received_line()


def test_there_is_none_without_a_message() -> None:
    calls = Calls()
    client_of(calls.handle).send(MESSAGE + DOT)
    with pytest.raises(RuntimeError, match="no message is under way"):
        Envelope.of(calls.envelopes[0].connection)


# -- the backend ----------------------------------------------------------


async def streaming(envelope: Envelope, body: IBody) -> None: ...


def plain(envelope: Envelope, body: bytes) -> None: ...


def with_extra(extra: str, envelope: Envelope, body: Any) -> None: ...


async def streaming_with_extra(extra: str, envelope: Envelope, body: Any) -> None: ...


class PlainCallable:
    def __call__(self, envelope: Envelope, body: Any) -> None: ...


class AsyncCallable:
    async def __call__(self, envelope: Envelope, body: Any) -> None: ...


@pytest.mark.parametrize(
    ("handler", "whole"),
    [
        (plain, True),
        (streaming, False),
        (Calls().handle, True),
        (Calls().read, False),
        (functools.partial(with_extra, "x"), True),
        (functools.partial(streaming_with_extra, "x"), False),
        (PlainCallable(), True),
        (AsyncCallable(), False),
        (lambda *arguments: None, True),
        (max, True),
    ],
)
def test_whether_it_gets_the_whole_message(handler: Any, whole: bool) -> None:
    backend = HandlerBackend(handler)
    assert backend.whole is whole
    assert HandlerBackend(handler, whole=not whole).whole is not whole
    assert verifyObject(IBackend, backend)
    assert verifyObject(ISession, backend.new_session(object()))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("handler", "line"),
    [
        (plain, f"Each message goes to {__name__}.plain, once it is there"),
        (streaming, f"Each message goes to {__name__}.streaming, as it arrives"),
        (AsyncCallable(), f"Each message goes to {__name__}.AsyncCallable, as it arrives"),
        (functools.partial(with_extra, "x"), "Each message goes to functools.partial, once it is there"),
    ],
)
def test_it_says_where_mail_goes(handler: Any, line: str) -> None:
    assert HandlerBackend(handler).describe() == [line]


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        (7, r"int is not callable; a handler is a function of envelope and body"),
        (lambda mail: None, r"\(mail\) can't be called with two arguments, \(envelope, body\)"),
        (with_extra, r"with_extra\(extra, envelope, body\) can't be called with two arguments"),
        (lambda envelope, *, body: None, r"can't be called with two arguments"),
    ],
)
def test_what_can_be_no_handler(handler: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        HandlerBackend(handler)


# -- the page -------------------------------------------------------------


def test_the_functions_in_the_page_on_backends() -> None:
    (block,) = (block for block in blocks(ROOT / "docs" / "backends.md", "python") if "Envelope" in block)
    names: dict[str, Any] = {}
    exec(block, names)
    assert answer_to(names["refuse_spam"]) == MESSAGE_OK
    client = client_of(names["refuse_spam"])
    assert client.send(b"Subject: WINNER\r\n\r\nhello\r\n" + DOT) == b"550 5.0.0 Not here\r\n"
    assert answer_to(names["count_lines"]) == b"250 2.0.0 3 lines\r\n"
