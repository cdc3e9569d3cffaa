"""What a client is given to send, and what is known of it beforehand; who sends a message, and to whom."""

from __future__ import annotations

import email
import email.policy
import gzip
import io
import os
import re
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from email.header import Header
from email.message import EmailMessage, Message
from email.mime.text import MIMEText
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import TestCase
from zope.interface import directlyProvides

from smtpfw.body import MessageBody
from smtpfw.client.bodies import BLOCK, OutgoingBody, outgoing_body, recipients_of, sender_of
from smtpfw.errors import DataReset
from smtpfw.interfaces import IBody
from smtpfw.wire.body import DataDecoder, DataEncoder


def at_once(coroutine: Any) -> Any:
    """The result of a coroutine that waits for nothing."""
    with pytest.raises(StopIteration) as stopped:
        coroutine.send(None)
    return stopped.value.value


async def collected(body: OutgoingBody) -> list[bytes]:
    return [chunk async for chunk in body.chunks()]


async def first_of(body: OutgoingBody) -> bytes:
    """The first piece, and no more."""
    async with aclosing(body.chunks()) as chunks:
        return await anext(chunks)


def octets_of(body: Any) -> bytes:
    return b"".join(at_once(collected(outgoing_body(body))))


# -- what is in memory ------------------------------------------------------


def at(position: int, file: Any) -> Any:
    file.seek(position)
    return file


@pytest.mark.parametrize(
    ("given", "data"),
    [
        (b"caf\xe9", b"caf\xe9"),
        ("caf\xe9\n", b"caf\xc3\xa9\n"),
        (bytearray(b"abc"), b"abc"),
        (memoryview(b"abcdef")[::2], b"ace"),
        (io.BytesIO(b"abc\r\n"), b"abc\r\n"),
        (at(1, io.BytesIO(b"abc")), b"bc"),
        (io.StringIO("\xe9\r\nx\n", newline=""), b"\xc3\xa9\r\nx\n"),
        ([b"ab", b"", bytearray(b"c")], b"abc"),
        ((b"ab", b"c"), b"abc"),
        ([], b""),
    ],
    ids=str,
)
def test_in_memory(given: Any, data: bytes) -> None:
    body = outgoing_body(given)
    assert type(body.data) is bytes
    assert body.data == data
    assert body.repeatable
    assert b"".join(at_once(collected(body))) == b"".join(at_once(collected(body))) == data


def test_octets_are_not_copied() -> None:
    data = b"x" * 1000
    assert outgoing_body(data).data is data


def test_a_body_is_made_once() -> None:
    body = outgoing_body(b"x")
    assert outgoing_body(body) is body


@pytest.mark.parametrize("given", [None, 5, Path("message.eml"), object(), bytes, {1: b"x"}.__len__], ids=repr)
def test_what_is_no_body(given: Any) -> None:
    with pytest.raises(TypeError) as raised:
        outgoing_body(given)
    assert str(raised.value) == (
        "a body is bytes, a str, a file, an email.message.Message, an iterable or async iterable of bytes, an IBody, "
        f"or what has startProducing as IBodyProducer has it; not {type(given).__name__}"
    )


newlines_and_text = st.lists(st.sampled_from([b"\r\n", b"\r", b"\n", b"x", b".", b"\xe9", b"\xc3\xa9"])).map(b"".join)


@given(newlines_and_text)
def test_the_size_is_that_of_what_the_peer_receives(data: bytes) -> None:
    encoder, decoder = DataEncoder(), DataDecoder()
    decoder.feed(encoder.feed(data) + encoder.finish())
    # DATA adds a line end to the last line, and BDAT does not.
    added = 0 if data.endswith((b"\r", b"\n")) or not data else 2
    assert outgoing_body(data).size == decoder.size - added


@given(newlines_and_text)
def test_what_octets_there_are(data: bytes) -> None:
    body = outgoing_body(data)
    assert body.eight_bit == any(octet > 127 for octet in data)
    header = re.split(rb"(?:^|\n)\n", re.sub(rb"\r\n|\r", b"\n", data))[0]
    try:
        utf8 = any(ord(character) > 127 for character in header.decode())
    except UnicodeDecodeError:
        utf8 = False
    assert body.utf8_header == utf8


@pytest.mark.parametrize(
    ("data", "eight_bit", "utf8_header"),
    [
        (b"Subject: x\r\n\r\nx", False, False),
        (b"Subject: x\r\n\r\n\xc3\xa9", True, False),
        (b"Subject: \xc3\xa9\r\n\r\nx", True, True),
        (b"Subject: \xe9\r\n\r\nx", True, False),
        (b"Subject: \xc3\xa9\n\n\xff", True, True),
        (b"Subject: \xc3\xa9\r\r\xff", True, True),
        (b"Subject: \xc3\xa9\n\r\xff", True, True),
        (b"Subject: \xc3\xa9\r\n\r\n\xff\n\n", True, True),
        (b"Subject: \xc3\xa9", True, True),
        (b"\r\n\xc3\xa9\r\n\r\n", True, False),
        (b"", False, False),
    ],
)
def test_the_header_section(data: bytes, eight_bit: bool, utf8_header: bool) -> None:
    body = outgoing_body(data)
    assert (body.eight_bit, body.utf8_header) == (eight_bit, utf8_header)


def test_a_text_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(UnicodeEncodeError):
        outgoing_body("\udcff")


# -- files ------------------------------------------------------------------


def test_a_binary_file(tmp_path: Path) -> None:
    path = tmp_path / "message"
    path.write_bytes(b"skipped" + b"0123456789abcdef" * 10_000)
    with path.open("rb") as file:
        file.read(7)
        body = outgoing_body(file)
        assert (body.data, body.size, body.eight_bit, body.utf8_header) == (None, 160_000, None, None)
        assert body.repeatable
        assert file.tell() == 7
        for _ in range(2):
            chunks = at_once(collected(body))
            assert [len(chunk) for chunk in chunks] == [BLOCK, BLOCK, 160_000 - 2 * BLOCK]
            assert b"".join(chunks) == b"0123456789abcdef" * 10_000


@pytest.mark.parametrize("buffering", [0, -1])
def test_a_file_stays_open(tmp_path: Path, buffering: int) -> None:
    path = tmp_path / "message"
    path.write_bytes(b"x" * 3 * BLOCK)
    with path.open("rb", buffering) as file:
        body = outgoing_body(file)
        assert at_once(first_of(body)) == b"x" * BLOCK
        assert not file.closed
        assert len(b"".join(at_once(collected(body)))) == 3 * BLOCK
        assert not file.closed


@pytest.mark.parametrize(
    ("newline", "sent"),
    [(None, b"\xc3\xa9\n\n\nx"), ("", b"\xc3\xa9\r\n\n\rx"), ("\n", b"\xc3\xa9\r\n\n\rx")],
)
def test_a_text_file_is_sent_in_utf8(tmp_path: Path, newline: str | None, sent: bytes) -> None:
    path = tmp_path / "message"
    path.write_bytes(b"\xe9\r\n\n\rx")
    with path.open(encoding="latin-1", newline=newline) as file:
        body = outgoing_body(file)
        assert (body.data, body.size, body.repeatable) == (None, None, True)
        assert b"".join(at_once(collected(body))) == sent
        assert b"".join(at_once(collected(body))) == sent


def test_a_text_file_is_read_in_blocks_from_where_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "message"
    path.write_text("skipped\n" + "\xe9\U0001f600" * BLOCK, encoding="utf-8")
    with path.open(encoding="utf-8") as file:
        file.readline()
        chunks = at_once(collected(outgoing_body(file)))
    assert [chunk.decode() for chunk in chunks] == ["\xe9\U0001f600" * (BLOCK // 2)] * 2


def test_a_text_file_that_is_iterated_over_can_be_read_once(tmp_path: Path) -> None:
    path = tmp_path / "message"
    path.write_text("one\ntwo\n")
    with path.open() as file:
        next(file)
        body = outgoing_body(file)
        assert not body.repeatable
        assert at_once(collected(body)) == [b"two\n"]


def test_a_pipe_can_be_read_once() -> None:
    reading, writing = os.pipe()
    os.write(writing, b"abc")
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        body = outgoing_body(file)
        assert (body.size, body.repeatable) == (None, False)
        assert at_once(collected(body)) == [b"abc"]
        with pytest.raises(RuntimeError, match="read already"):
            body.chunks()


def test_a_pipe_that_does_not_block_is_not_taken_for_ended() -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    with os.fdopen(reading, "rb", 0) as file, pytest.raises(TypeError, match="not of NoneType"):
        at_once(collected(outgoing_body(file)))
    os.close(writing)


def test_a_compressed_file_has_no_size_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "message.gz"
    path.write_bytes(gzip.compress(b"x" * 100_000))
    with gzip.open(path) as file:
        body = outgoing_body(file)
        assert body.size is None
        # Nothing was read to find out.
        assert file.tell() == 0
        for _ in range(2):
            assert b"".join(at_once(collected(body))) == b"x" * 100_000
    with gzip.open(path) as file, io.BufferedReader(file) as buffered:
        assert outgoing_body(buffered).size is None
    with gzip.open(path, "rt") as text:
        assert b"".join(at_once(collected(outgoing_body(text)))) == b"x" * 100_000


@pytest.mark.parametrize("make", [tempfile.TemporaryFile, tempfile.NamedTemporaryFile, tempfile.SpooledTemporaryFile])
def test_temporary_files(make: Callable[[], Any]) -> None:
    with make() as file:
        file.write(b"abcdef")
        file.seek(2)
        body = outgoing_body(file)
        assert (body.size, body.repeatable) == (4, True)
        assert octets_of(body) == octets_of(body) == b"cdef"


def test_what_says_nothing_of_its_size() -> None:
    for path in ("/dev/zero", "/proc/self/status"):
        with Path(path).open("rb") as file:
            assert outgoing_body(file).size is None


def test_a_closed_file_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "message"
    path.write_bytes(b"x")
    with path.open("rb") as file:
        pass
    with pytest.raises(ValueError, match="closed file"):
        outgoing_body(file)


class Broken:
    """A file, of the simplest kind, that fails after one block."""

    def __init__(self, error: Exception) -> None:
        self.results: list[Any] = [b"x", error]

    def read(self, size: int) -> bytes:
        result = self.results.pop(0)
        if isinstance(result, Exception):
            raise result
        assert isinstance(result, bytes)
        return result


def test_what_a_file_raises_is_raised() -> None:
    error = OSError("no more")
    body = outgoing_body(Broken(error))
    assert (body.size, body.repeatable) == (None, False)
    with pytest.raises(OSError, match="no more") as raised:
        at_once(collected(body))
    assert raised.value is error


# -- iterables --------------------------------------------------------------


class Pieces:
    """Can be iterated over as often as one likes."""

    def __iter__(self) -> Iterator[bytes]:
        return iter([b"a", b"", b"b"])


class AsyncPieces:
    def __init__(self, *pieces: Any) -> None:
        self.pieces = pieces
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[Any]:
        try:
            for piece in self.pieces:
                if isinstance(piece, Exception):
                    raise piece
                yield await piece if isinstance(piece, Deferred) else piece
        finally:
            self.closed = True


@pytest.mark.parametrize(
    ("given", "repeatable"),
    [
        (Pieces(), True),
        (iter([b"a", b"", b"b"]), False),
        ((piece for piece in (b"a", b"", b"b")), False),
        ({b"a": 1, b"": 2, b"b": 3}, True),
        (AsyncPieces(b"a", b"", b"b"), True),
        (aiter(AsyncPieces(b"a", b"", b"b")), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_iterables(given: Any, repeatable: bool) -> None:
    body = outgoing_body(given)
    assert (body.data, body.size, body.eight_bit, body.utf8_header) == (None,) * 4
    assert body.repeatable == repeatable
    assert at_once(collected(body)) == [b"a", b"b"]
    if repeatable:
        assert at_once(collected(body)) == [b"a", b"b"]
    else:
        with pytest.raises(RuntimeError, match="read already"):
            body.chunks()


@pytest.mark.parametrize(
    "make",
    [
        lambda piece: [b"a", piece],
        lambda piece: iter([b"a", piece]),
        lambda piece: AsyncPieces(b"a", piece),
    ],
)
@pytest.mark.parametrize(("piece", "name"), [("text", "str"), (5, "int"), (None, "NoneType")])
def test_pieces_that_are_no_octets(make: Callable[[Any], Any], piece: Any, name: str) -> None:
    with pytest.raises(TypeError, match=f"a body is made of bytes, not of {name}"):
        octets_of(make(piece))


def test_a_buffer_may_be_filled_again() -> None:
    def pieces() -> Iterator[bytearray]:
        buffer = bytearray(b"one")
        yield buffer
        buffer[:] = b"two"
        yield buffer

    assert at_once(collected(outgoing_body(pieces()))) == [b"one", b"two"]


def test_a_generator_is_closed_when_nobody_reads_on() -> None:
    closed = []

    def pieces() -> Iterator[bytes]:
        try:
            yield b"one"
            yield b"two"
        finally:
            closed.append(True)

    kept = pieces()
    assert at_once(first_of(outgoing_body(kept))) == b"one"
    assert closed == [True]


def test_what_an_iterable_raises_is_raised() -> None:
    error = DataReset("gone")

    def pieces() -> Iterator[bytes]:
        yield b"one"
        raise error

    for source in (pieces(), AsyncPieces(b"one", error)):
        with pytest.raises(DataReset) as raised:
            octets_of(source)
        assert raised.value is error


class AsyncSources(TestCase):
    def test_an_async_iterable_is_waited_for(self) -> None:
        piece: Deferred[bytes] = Deferred()
        result = Deferred.fromCoroutine(collected(outgoing_body(AsyncPieces(b"one", piece))))
        self.assertNoResult(result)
        piece.callback(b"two")
        self.assertEqual(self.successResultOf(result), [b"one", b"two"])

    def test_it_is_closed_when_nobody_reads_on(self) -> None:
        source = AsyncPieces(b"one", b"two")
        kept = aiter(source)
        self.assertEqual(at_once(first_of(outgoing_body(kept))), b"one")
        self.assertTrue(source.closed)

    def test_it_is_closed_after_a_piece_that_is_refused(self) -> None:
        source = AsyncPieces("text")
        with pytest.raises(TypeError):
            octets_of(source)
        self.assertTrue(source.closed)

    def test_it_is_closed_when_its_reader_is_cancelled(self) -> None:
        source = AsyncPieces(b"one", Deferred())
        result = Deferred.fromCoroutine(collected(outgoing_body(source)))
        self.assertFalse(source.closed)
        result.cancel()
        self.failureResultOf(result, CancelledError)
        self.assertTrue(source.closed)

    def test_a_message_that_is_being_received(self) -> None:
        events: list[str] = []
        received = MessageBody(lambda: events.append("hold"), lambda: events.append("release"), high_water=10)
        received.append(b"x" * 20)
        body = outgoing_body(received)
        self.assertEqual((body.data, body.size, body.repeatable), (None, None, False))
        # Not reading is the back-pressure.
        self.assertEqual(events, ["hold"])
        result = Deferred.fromCoroutine(collected(body))
        self.assertEqual(events, ["hold", "release"])
        received.append(b"y")
        received.end()
        self.assertEqual(self.successResultOf(result), [b"x" * 20, b"y"])

    def test_any_message_that_is_being_received_can_be_read_once(self) -> None:
        source = AsyncPieces(b"x")
        directlyProvides(source, IBody)
        self.assertFalse(outgoing_body(source).repeatable)

    def test_a_message_that_is_never_whole(self) -> None:
        received = MessageBody(lambda: None, lambda: None)
        received.append(b"x")
        result = Deferred.fromCoroutine(collected(outgoing_body(received)))
        error = DataReset("the client has gone")
        received.fail(error)
        self.assertIs(self.failureResultOf(result).value, error)


# -- email messages ---------------------------------------------------------


def written(message: Message[Any, Any]) -> tuple[bytes, OutgoingBody]:
    body = outgoing_body(message)
    assert body.data is not None
    # Nothing is left for the wire to mend.
    assert body.data.count(b"\r\n") == body.data.count(b"\r") == body.data.count(b"\n")
    assert body.size == len(body.data)
    assert body.repeatable
    return body.data, body


def message_of(text: str = "text\n", **fields: str) -> EmailMessage:
    message = EmailMessage()
    for name, value in fields.items():
        message[name.replace("_", "-")] = value
    message.set_content(text)
    return message


def test_bcc_stays_at_home() -> None:
    message = message_of(From="a@x.org", To="b@x.org", Bcc="c@x.org", Resent_Bcc="e@x.org")
    before = message.as_bytes()
    data, _ = written(message)
    assert data.startswith(b"From: a@x.org\r\nTo: b@x.org\r\n")
    assert b"bcc" not in data.lower()
    assert message.as_bytes() == before
    assert b"Bcc: c@x.org" in before
    old = email.message_from_string("BCC: c@x.org\nTo: b@x.org\nbcc: d@x.org\n\n")
    assert written(old)[0] == b"To: b@x.org\r\n\r\n"


def test_lines_that_begin_with_from() -> None:
    data, _ = written(message_of("From here on\n.\n"))
    assert data.endswith(b"\r\n\r\nFrom here on\r\n.\r\n")
    data, _ = written(MIMEText("From here on\n"))
    assert data.endswith(b"\r\n\r\nFrom here on\r\n")


def test_names_and_subjects_need_no_smtputf8() -> None:
    message = message_of(From="J\xf6rg <a@x.org>", To="b@x.org", Subject="\xe9")
    # The least that is needed, whatever the message would like.
    for policy in (email.policy.default, email.policy.SMTPUTF8):
        message.policy = policy
        data, body = written(message)
        assert b"Subject: =?utf-8?" in data
        assert b"<a@x.org>\r\n" in data
        assert (body.eight_bit, body.utf8_header) == (False, False)


@pytest.mark.parametrize("field", ["From", "Sender", "Reply_To", "To", "Cc", "Resent_To"])
def test_addresses_beyond_ascii_need_smtputf8(field: str) -> None:
    data, body = written(message_of(**{field: "J\xf6rg <j\xf6rg@x.org>"}))
    assert "J\xf6rg <j\xf6rg@x.org>\r\n".encode() in data
    assert (body.eight_bit, body.utf8_header) == (True, True)


def test_a_blind_recipient_needs_no_smtputf8_in_the_header() -> None:
    data, body = written(message_of(From="a@x.org", Bcc="j\xf6rg@x.org", Subject="\xe9"))
    assert data.isascii()
    assert body.utf8_header is False


def test_an_address_beyond_ascii_in_a_message_within() -> None:
    outer = message_of(From="a@x.org")
    outer.add_attachment(message_of(From="j\xf6rg@x.org"))
    assert "From: j\xf6rg@x.org\r\n".encode() in written(outer)[0]


def test_the_settings_of_a_policy_are_kept() -> None:
    for length, folded in ((78, True), (998, False)):
        message = EmailMessage(policy=email.policy.default.clone(max_line_length=length))
        message["Subject"] = "word " * 30
        message.set_content("x\n")
        assert (b"word\r\n word" in written(message)[0]) == folded


def test_an_eight_bit_message_stays_one() -> None:
    message = EmailMessage()
    message.set_content("\xe9\n", cte="8bit")
    data, body = written(message)
    assert data.endswith(b"\r\n\r\n\xc3\xa9\r\n")
    assert (body.eight_bit, body.utf8_header) == (True, False)


@pytest.mark.parametrize("policy", [email.policy.compat32, email.policy.default], ids=["compat32", "default"])
@pytest.mark.parametrize(
    ("source", "utf8_header"),
    [
        ("From: j\xf6rg@x.org\r\nTo: \xe9 <b@x.org>\r\nSubject: \xe9\r\n\r\n\xe9\r\n".encode(), True),
        ("From: a@x.org\r\nTo: \xe9 <b@x.org>\r\n\r\n\r\n".encode(), True),
        (b"From: a@x.org\r\nTo: \xe9 <b@x.org>\r\n\r\n\r\n", False),
    ],
)
def test_what_was_read_goes_out_as_it_came(policy: Any, source: bytes, utf8_header: bool) -> None:
    data, body = written(email.message_from_bytes(source, policy=policy))
    assert data == source
    assert body.utf8_header is utf8_header


def test_messages_of_the_old_kind() -> None:
    message = MIMEText("\xe9\n", "plain", "utf-8")
    message["From"] = "J\xf6rg <a@x.org>"
    message["To"] = "b@x.org"
    message["Subject"] = Header("\xe9", "utf-8")
    data, body = written(message)
    # As a whole in an encoded word, the address would be lost.
    assert b"From: =?utf-8?q?J=C3=B6rg?= <a@x.org>\r\n" in data
    assert b"To: b@x.org\r\n" in data
    assert b"Subject: =?utf-8?b?w6k=?=\r\n" in data
    assert body.utf8_header is False
    message["Cc"] = "j\xf6rg@x.org"
    data, body = written(message)
    assert "Cc: j\xf6rg@x.org\r\n".encode() in data
    assert "From: J\xf6rg <a@x.org>\r\n".encode() in data
    assert body.utf8_header is True


@given(st.text('a\xe9@.,;:<>()[]"\\ =?g', max_size=12))
def test_no_address_field_keeps_a_message_of_the_old_kind_from_being_written(value: str) -> None:
    message: Message[Any, Any] = Message()
    message["To"] = value
    message["Subject"] = "x"
    message.set_payload("text\n")
    assert written(message)[0].endswith(b"\r\nSubject: x\r\n\r\ntext\r\n")


# -- addresses --------------------------------------------------------------


def test_addresses_of_a_message() -> None:
    message = message_of(
        From="A <a@x.org>, B <b@x.org>",
        Sender="S <s@x.org>",
        To='One <1@x.org>, group: 2@x.org, "3" <3@x.org>;',
        Cc="4@x.org, 1@x.org",
        Bcc='"5 6"@x.org',
        Reply_To="no@x.org",
    )
    assert recipients_of(message) == ["1@x.org", "2@x.org", "3@x.org", "4@x.org", '"5 6"@x.org']
    assert sender_of(message) == "s@x.org"
    del message["Sender"]
    assert sender_of(message) == "a@x.org"


def test_addresses_of_a_message_that_was_resent() -> None:
    message = message_of(
        From="a@x.org", Sender="s@x.org", To="b@x.org", Resent_From="c@x.org", Resent_To="d@x.org", Resent_Bcc="e@x.org"
    )
    assert recipients_of(message) == ["d@x.org", "e@x.org"]
    assert sender_of(message) == "c@x.org"
    message["Resent-Sender"] = "f@x.org"
    assert sender_of(message) == "f@x.org"


@pytest.mark.parametrize("field", ["From", "Sender", "Resent-From", "Resent-Sender"])
def test_two_fields_of_a_sender(field: str) -> None:
    """RFC 5322 section 3.6: who reads the message may go by the other one."""
    source = f"{field}: a@x.org\nTo: b@x.org\n{field}: c@x.org\n\n"
    with pytest.raises(ValueError, match=r"several fields|more than once"):
        sender_of(email.message_from_string(source))


def test_who_sent_it_is_known_though_it_has_two_authors() -> None:
    source = "From: a@x.org\nSender: s@x.org\nFrom: c@x.org\n\n"
    assert sender_of(email.message_from_string(source)) == "s@x.org"


@pytest.mark.parametrize("value", ["x\r\nBcc: c@x.org", "x\ny", "x\r\n\r\ntext", "x\udcff\r\nBcc: c@x.org"])
def test_a_header_that_cannot_be_written(value: str) -> None:
    message = MIMEText("text")
    message["Subject"] = value
    with pytest.raises(ValueError, match="the message can't be written"):
        outgoing_body(message)


@pytest.mark.parametrize("end", ["\r\n", "\n", "\r"])
@pytest.mark.parametrize("rest", ["Bcc: c@x.org", "y", "{end}text", "{end} text", " {end}Bcc: c@x.org"])
@pytest.mark.parametrize("value", ["x", "\xe9", "\udcff"])
def test_a_header_with_line_ends_in_it(value: str, rest: str, end: str) -> None:
    """An old message takes such a value; there would be another field, or the fields below would be text."""
    value += end + rest.format(end=end)
    message = MIMEText("text")
    message["From"] = "a@x.org"
    message["Subject"] = value
    message["To"] = "b@x.org"
    try:
        data = outgoing_body(message).data
    except ValueError:
        return
    # Encoded words hold line ends that do no harm.
    assert data is not None
    fields, _, text = data.partition(b"\r\n\r\n")
    assert text == b"text"
    assert [field.partition(b":")[0].decode() for field in re.split(rb"\r\n(?![ \t])", fields)] == message.keys()
    assert not re.search(rb"\r(?!\n)|(?<!\r)\n", fields)


@pytest.mark.parametrize("end", ["\r\n", "\n"])
@pytest.mark.parametrize("value", [b"x", b"\xc3\xa9", b"\xff"])
def test_fields_of_several_lines_stay_as_they_are(value: bytes, end: str) -> None:
    source = b"From: a@x.org\r\nSubject: " + value + f"{end} y{end}\tz\r\nTo: b@x.org\r\n\r\ntext\r\n".encode()
    data = outgoing_body(email.message_from_bytes(source)).data
    assert data is not None
    assert data.replace(b"\r\n", b"\n") == source.replace(b"\r\n", b"\n")


@pytest.mark.parametrize("field", ["Resent-From", "Resent-Date"])
def test_a_message_that_was_resent_twice(field: str) -> None:
    source = f"{field}: x@x.org\nResent-To: a@x.org\n{field}: y@x.org\nResent-To: b@x.org\n\n"
    for ask in (sender_of, recipients_of):
        with pytest.raises(ValueError, match="more than once"):
            ask(email.message_from_string(source))


def test_a_message_that_names_nobody() -> None:
    message = message_of(To="undisclosed-recipients:;")
    with pytest.raises(ValueError, match="no sender"):
        sender_of(message)
    with pytest.raises(ValueError, match="no recipient"):
        recipients_of(message)


@pytest.mark.parametrize("policy", [email.policy.compat32, email.policy.default], ids=["compat32", "default"])
@pytest.mark.parametrize(
    ("value", "addresses"),
    [
        (b"a@x.org,\r\n b@x.org", ["a@x.org", "b@x.org"]),
        (b"=?utf-8?q?a=2C_b=40y=2Eorg?= <a@x.org>", ["a@x.org"]),
        (b'"b@y.org" <a@x.org> (c@y.org)', ["a@x.org"]),
        (b"=?utf-8?q?bad word?= <a@x.org>", ["a@x.org"]),
        (b"a@x.org,, b@x.org,", ["a@x.org", "b@x.org"]),
        (b"a@[192.0.2.1]", ["a@[192.0.2.1]"]),
        (b"\xff <a@x.org>", ["a@x.org"]),
        ("j\xf6rg@x.org".encode(), ["j\xf6rg@x.org"]),
    ],
)
def test_a_field_as_it_was_read(policy: Any, value: bytes, addresses: list[str]) -> None:
    message = email.message_from_bytes(b"To: " + value + b"\r\n\r\n", policy=policy)
    assert recipients_of(message) == addresses


@pytest.mark.parametrize(
    "value",
    [
        "a@x.org b@x.org",
        "a@x.org; b@x.org",
        "a@x.org <b@x.org>",
        "Bob, Jr. <a@x.org>, b",
        "root",
        "<>",
        "a@b@x.org",
        "\udcff@x.org",
        '"',
        "\xe9g: ;<\xe9a",
        "=?utf-8?q?a=0D=0A?=@x.org",
    ],
)
def test_a_field_that_may_mean_somebody_else(value: str) -> None:
    for field in ("From", "To"):
        message: Message[Any, Any] = Message()
        message[field] = value
        with pytest.raises(ValueError, match=f"^{field} (is no list of addresses|can't be read)"):
            (sender_of if field == "From" else recipients_of)(message)


def test_the_encoded_fields_of_old_messages() -> None:
    message: Message[Any, Any] = Message()
    message["To"] = Header("J\xf6rg <a@x.org>", "utf-8")
    assert recipients_of(message) == ["a@x.org"]


def test_binary_parts_keep_their_octets() -> None:
    message = EmailMessage()
    message["Subject"] = "x"
    octets = b"\x00\n\r\x01\r\n.\xff"
    message.set_content(octets, "application", "octet-stream", cte="binary")
    body = outgoing_body(message)
    assert body.data is not None
    assert body.binary
    assert body.data.partition(b"\r\n\r\n")[2] == octets
    assert body.size == len(body.data)


def test_binary_parts_among_others() -> None:
    message = EmailMessage()
    message.set_content("text\n")
    octets = b"\x00\n\r\x01"
    message.add_attachment(octets, "application", "octet-stream", cte="binary")
    body = outgoing_body(message)
    assert body.data is not None
    assert body.binary
    assert octets in body.data
