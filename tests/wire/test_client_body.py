"""How the octets of a message travel: DATA and BDAT, in pieces, back-pressure, and messages that break off."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpfw.errors import BrokenPeer, ConnectionFailed, ExtensionMissing, LocalProtocolError, Refused, UnknownOutcome
from smtpfw.wire.results import SendResult
from smtpfw.wire.sending import AT_ONCE, Sending
from tests.wire.client_end import ClientEnd, Text, Told, text
from tests.wire.reference_body import decode_chunks, decode_data

OK = b"250 OK\r\n"
GO_ON = b"354 go on\r\n"
STREAM = Text(None)


def at_the_body(*offers: str, body: Text = STREAM, **settings: object) -> tuple[ClientEnd, Told, Sending]:
    """A connection whose peer waits for a message to one recipient."""
    end = ClientEnd(["8BITMIME", *offers], **settings)  # type: ignore[arg-type]
    told = end.send(body=body)
    end.hear(OK, OK)
    if "CHUNKING" not in offers:
        end.hear(GO_ON)
    return end, told, end.bodies[0]


# -- DATA ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "wire"),
    [
        (b"", b".\r\n"),
        (b"\r\n", b"\r\n.\r\n"),
        (b"a", b"a\r\n.\r\n"),
        (b".", b"..\r\n.\r\n"),
        (b".\r\n", b"..\r\n.\r\n"),
        (b"a\r\n.\r\nb\r\n", b"a\r\n..\r\nb\r\n.\r\n"),
        (b"a\n.\nb", b"a\r\n..\r\nb\r\n.\r\n"),
        (b"a\r.\rb\r", b"a\r\n..\r\nb\r\n.\r\n"),
        (b"a\r\n.\nRCPT TO:<evil@d.test>", b"a\r\n..\r\nRCPT TO:<evil@d.test>\r\n.\r\n"),
        (b"a\0b", b"a\0b\r\n.\r\n"),
    ],
)
def test_data(body: bytes, wire: bytes) -> None:
    end = ClientEnd()
    end.send(body=body)
    assert end.hear(OK, OK, GO_ON)[-1] == wire


PIECES = st.lists(st.sampled_from([b"a", b".", b"\r", b"\n", b"\r\n", b"\r\n.", b"\r\n.\r\n", b"..", b"x" * 9, b""]))


@given(PIECES, st.booleans())
def test_pieces_change_nothing(pieces: list[bytes], pipelining: bool) -> None:
    """The edges of the pieces are no edges of lines."""
    end, told, sending = at_the_body(*["PIPELINING"] * pipelining)
    end.write(sending, *pieces, end=True)
    said = b"".join(end.said())
    whole = ClientEnd()
    whole.send(body=b"".join(pieces))
    assert said == whole.hear(OK, OK, GO_ON)[-1]
    decoded = decode_data(said)
    expected = decode_chunks(b"".join(pieces), whole=True).text
    assert decoded.finished and decoded.rest == b""
    assert decoded.text == expected + (b"" if expected.endswith(b"\n") or not expected else b"\r\n")
    end.hear(OK)
    assert isinstance(told.outcome, SendResult)


def test_a_large_message_in_memory_is_left_to_the_driver() -> None:
    end = ClientEnd()
    end.send(body=b"x" * AT_ONCE)
    assert len(end.hear(OK, OK, GO_ON)[-1]) == AT_ONCE + 5
    end = ClientEnd()
    end.send(body=b"x" * (AT_ONCE + 1))
    assert end.hear(OK, OK, GO_ON)[-1] == b"DATA\r\n"
    assert len(end.bodies) == 1


def test_nothing_is_written_before_354() -> None:
    end = ClientEnd(["PIPELINING", "8BITMIME"])
    told = end.send(body=STREAM)
    sending = told.exchange
    assert isinstance(sending, Sending)
    end.said()
    end.write(sending, b"too early", end=True)
    assert end.said() == []
    end.hear(OK, OK)
    end.write(sending, b"too early", end=True)
    assert end.said() == []


@pytest.mark.parametrize("offers", [[], ["CHUNKING"]])
def test_nothing_is_written_behind_the_end(offers: list[str]) -> None:
    end, told, sending = at_the_body(*offers)
    end.write(sending, b"all", end=True)
    end.said()
    end.write(sending, b"more", end=True)
    assert end.said() == []
    end.hear(OK)
    end.write(sending, b"more", end=True)
    assert end.said() == []
    sending.abandon(RuntimeError("too late"))
    assert isinstance(told.outcome, SendResult)


@pytest.mark.parametrize("reply", [b"452 full\r\n", b"550 no\r\n", b"421 closing\r\n"])
def test_a_refusal_before_the_end_of_data(reply: bytes) -> None:
    """The rest can't be taken back, and a dot would make a part of the message a whole one."""
    end, told, sending = at_the_body("PIPELINING")
    behind = end.send()
    end.write(sending, b"some of it\r\n")
    end.said()
    assert end.hear(reply) == []
    told.error(Refused, "BODY")
    assert set(end.stopped) == {sending}
    assert len(end.ends) == 1
    behind.error(ConnectionFailed)
    end.write(sending, b"the rest", end=True)
    assert end.said() == []


@pytest.mark.parametrize("offers", [[], ["CHUNKING"]])
@pytest.mark.parametrize("reply", [b"250 queued\r\n", b"354 go on\r\n"])
def test_an_answer_to_a_message_that_has_no_end_yet(offers: list[str], reply: bytes) -> None:
    end, told, sending = at_the_body(*offers)
    end.write(sending, b"some of it\r\n")
    end.hear(reply)
    told.error(BrokenPeer, "BODY")
    assert set(end.stopped) == {sending}


def test_a_message_that_breaks_off() -> None:
    end, told, sending = at_the_body()
    behind = end.send()
    end.write(sending, b"half of it")
    assert end.said() == [b"half of it"]
    error = OSError("the file is gone")
    sending.abandon(error)
    end.flush()
    assert told.outcome is error
    assert end.said() == []
    assert [type(one) for one in end.ends] == [ConnectionFailed]
    behind.error(ConnectionFailed)


def test_cancel_within_data() -> None:
    end, told, sending = at_the_body()
    end.write(sending, b"half of it")
    end.said()
    end.cancel(told)
    assert told.silent
    assert set(end.stopped) == {sending}
    assert (end.said(), len(end.ends)) == ([], 1)


# -- what nobody knew beforehand -----------------------------------------------------------------


@pytest.mark.parametrize("offers", [[], ["CHUNKING"]])
def test_octets_over_127_for_a_peer_that_does_not_take_them(offers: list[str]) -> None:
    end = ClientEnd(offers)
    told = end.send(body=STREAM)
    assert end.said() == [b"MAIL FROM:<a@b.test>\r\n"]
    end.hear(OK, OK, *[] if offers else [GO_ON])
    sending = end.bodies[0]
    end.write(sending, b"ascii\r\n")
    end.said()
    end.write(sending, "é".encode(), end=True)
    assert told.error(ExtensionMissing).keyword == "8BITMIME"
    assert end.said() == []
    assert len(end.ends) == (0 if offers else 1)
    assert set(end.stopped) == {sending}


# -- BDAT ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "wire"),
    [
        (b"", b"BDAT 0 LAST\r\n"),
        (b"a", b"BDAT 3 LAST\r\na\r\n"),
        (b".\r\n", b"BDAT 3 LAST\r\n.\r\n"),
        (b"a\nb\rc\r\n", b"BDAT 9 LAST\r\na\r\nb\r\nc\r\n"),
    ],
)
def test_bdat(body: bytes, wire: bytes) -> None:
    end = ClientEnd(["CHUNKING"])
    end.send(body=body)
    assert end.hear(OK, OK)[-1] == wire


def test_binary_octets_are_sent_as_they_are() -> None:
    end = ClientEnd(["CHUNKING", "BINARYMIME", "8BITMIME"])
    end.send(body=text(b"\r\0\n.\r\n.\r\nx", binary=True))
    assert end.hear(OK, OK)[-1] == b"BDAT 10 LAST\r\n\r\0\n.\r\n.\r\nx"


def test_a_binary_message_goes_to_nobody_who_was_not_told_of_it() -> None:
    end = ClientEnd(["CHUNKING", "BINARYMIME", "8BITMIME"])
    end.mail()
    end.hear(OK)
    end.rcpt()
    end.hear(OK)
    told = end.data(text(b"a\0", binary=True))
    assert isinstance(told.outcome, LocalProtocolError)
    assert end.said() == []
    # The transaction is still there, for a message that is text.
    end.data()
    assert end.said() == [b"BDAT 7 LAST\r\nhello\r\n"]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 1000])
@pytest.mark.parametrize("binary", [False, True])
def test_chunks(size: int, binary: bool) -> None:
    """Their edges mean nothing; a text ends with the end of a line, wherever the last chunk begins."""
    body = Text(None, binary=binary)
    end, told, sending = at_the_body("CHUNKING", "BINARYMIME", "PIPELINING", body=body, chunk_bytes=size)
    pieces = [b"a", b"\r", b"\nb", b".", b"\r\n", b"\n", b"c"]
    said = b""
    for piece in pieces:
        end.write(sending, piece)
        said += b"".join(end.said())
        while sending.full:
            end.hear(OK)
    end.write(sending, end=True)
    said += b"".join(end.said())
    chunks = said_chunks(said)
    assert [last for _, last in chunks] == [False] * (len(chunks) - 1) + [True]
    octets = b"".join(chunk for chunk, _ in chunks)
    assert octets == (b"".join(pieces) if binary else b"a\r\nb.\r\n\r\nc\r\n")
    while told.silent:
        end.hear(OK)
    assert isinstance(told.outcome, SendResult)


def said_chunks(octets: bytes) -> list[tuple[bytes, bool]]:
    chunks = []
    while octets:
        line, _, octets = octets.partition(b"\r\n")
        verb, size, *last = line.split(b" ")
        assert verb == b"BDAT"
        chunks.append((octets[: int(size)], last == [b"LAST"]))
        octets = octets[int(size) :]
    return chunks


@pytest.mark.parametrize(("offers", "ahead"), [([], 1), (["PIPELINING"], 4)])
def test_chunks_wait_for_their_replies(offers: list[str], ahead: int) -> None:
    end, told, sending = at_the_body("CHUNKING", *offers, chunk_bytes=1)
    for _ in range(ahead):
        assert not sending.full
        end.write(sending, b"x")
    assert sending.full
    assert len(end.said()) == ahead
    assert end.room == 0
    end.hear(OK)
    assert (end.room, sending.full) == (1, False)
    end.write(sending, b"x")
    assert sending.full
    # The end waits for room, too.
    end.write(sending, end=True)
    assert end.said() == [b"BDAT 1\r\nx"]
    assert end.hear(OK) == [b"BDAT 2 LAST\r\n\r\n"]
    end.hear(*[OK] * (ahead - 1))
    assert told.silent
    end.hear(b"250 queued\r\n")
    assert told.outcome.text == "queued"


def test_a_chunk_is_refused() -> None:
    end, told, sending = at_the_body("CHUNKING", chunk_bytes=1)
    behind = end.send()
    end.write(sending, b"x")
    end.said()
    assert end.hear(b"552 too large\r\n") == [b"RSET\r\n"]
    assert told.error(Refused, "BODY").code == 552
    assert set(end.stopped) == {sending}
    assert end.ends == [] and behind.silent


def test_a_chunk_is_refused_behind_the_last() -> None:
    """What the last gets now is anybody's guess; nobody has the message."""
    end, told, sending = at_the_body("CHUNKING", "PIPELINING", chunk_bytes=1)
    behind = end.send()
    end.write(sending, b"x", b"y", end=True)
    end.hear(OK)
    end.hear(b"552 too large\r\n" + OK)
    error = told.error(Refused, "BODY")
    assert [one.error.code for one in error.result.recipients] == [552]
    behind.error(ConnectionFailed)
    assert len(end.ends) == 1


@pytest.mark.parametrize("unanswered", [0, 1, 2])
def test_lost_behind_the_last_chunk(unanswered: int) -> None:
    end, told, sending = at_the_body("CHUNKING", "PIPELINING", chunk_bytes=1)
    end.write(sending, b"x", b"y", end=True)
    end.hear(*[OK] * (2 - unanswered))
    end.lose()
    told.error(UnknownOutcome, "END")


def test_lost_between_chunks() -> None:
    end, told, sending = at_the_body("CHUNKING", "PIPELINING", chunk_bytes=1)
    end.write(sending, b"x", b"y")
    end.lose()
    told.error(ConnectionFailed, "BODY")
    assert set(end.stopped) == {sending}


@pytest.mark.parametrize("unanswered", [0, 1, 3])
def test_cancel_between_chunks(unanswered: int) -> None:
    """What is whole can be taken back, so the connection stays."""
    end, told, sending = at_the_body("CHUNKING", "PIPELINING", chunk_bytes=1)
    end.write(sending, *[b"x"] * unanswered)
    behind = end.send(body=b"")
    end.said()
    end.cancel(told)
    assert told.silent
    assert set(end.stopped) == {sending}
    said = b"".join(end.said() + end.hear(*[OK] * unanswered))
    assert said == b"RSET\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\n"
    end.write(sending, b"more", end=True)
    assert end.said() == []
    assert end.hear(OK * 3) == [b"BDAT 0 LAST\r\n"]
    end.hear(b"250 queued\r\n")
    assert behind.outcome.text == "queued"


def test_a_chunk_that_was_given_up_is_refused_as_well() -> None:
    end, told, sending = at_the_body("CHUNKING", "PIPELINING", chunk_bytes=1)
    end.write(sending, b"x", b"y")
    error = OSError("the file is gone")
    sending.abandon(error)
    behind = end.send()
    end.said()
    assert end.hear(b"552 too large\r\n") == []
    assert end.hear(b"552 too large\r\n")[0].startswith(b"RSET\r\n")
    assert told.outcome is error
    assert behind.silent and end.ends == []


# -- transcript --------------------------------------------------------------------------------


def test_transcript() -> None:
    """No message is in it, and no secret; what was said stands before what answers it."""
    lines: list[str] = []
    end = ClientEnd(["PIPELINING", "CHUNKING", "8BITMIME"], transcript=lines, chunk_bytes=8)
    end.send(body=b"secret\r\n")
    end.hear(OK * 2)
    end.command(b"XODD secret")
    end.hear(b"250 queued\r\n")
    end.hear(b"250-one\r\n250 two\r\n")
    assert lines[lines.index("C: MAIL FROM:<a@b.test>") :] == [
        "C: MAIL FROM:<a@b.test>",
        "C: RCPT TO:<c@d.test>",
        "S: 250 OK",
        "S: 250 OK",
        "C: BDAT 8",
        "C: <8 octets>",
        "C: BDAT 0 LAST",
        "C: <unknown command, 11 octets>",
        "S: 250 queued",
        "S: 250-one",
        "S: 250 two",
    ]
    assert "secret" not in "".join(lines)


def test_transcript_of_data() -> None:
    lines: list[str] = []
    end = ClientEnd(["PIPELINING", "8BITMIME"], transcript=lines)
    end.send(body=STREAM)
    end.send("e@d.test")
    end.hear(OK * 2 + GO_ON)
    end.write(end.bodies[0], b".secret\r\n", b"secret", end=True)
    end.hear(b"550 no\r\n")
    assert lines[lines.index("C: MAIL FROM:<a@b.test> BODY=8BITMIME") :] == [
        "C: MAIL FROM:<a@b.test> BODY=8BITMIME",
        "C: RCPT TO:<c@d.test>",
        "C: DATA",
        "S: 250 OK",
        "S: 250 OK",
        "S: 354 go on",
        "C: <21 octets>",
        "C: MAIL FROM:<a@b.test>",
        "C: RCPT TO:<e@d.test>",
        "C: DATA",
        "S: 550 no",
    ]
