"""Bodies on the wire: every decoder and encoder against one that goes octet by octet, however the octets are cut."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from smtpfw.errors import LineTooLong, MalformedLines, SMTPError
from smtpfw.wire.body import (
    BinaryDecoder,
    ChunkDecoder,
    ChunkJunk,
    ChunkSizeUnknown,
    DataDecoder,
    DataEncoder,
    encode_message,
    format_bdat,
    parse_bdat,
)
from smtpfw.wire.profiles import NORMALIZE, REJECT
from tests.wire.reference_body import Decoded, decode_chunks, decode_data, encode_data

END = b"\r\n.\r\n"
POLICIES = (NORMALIZE, REJECT)

#: name, what follows the 354 up to the true end, the text, and whether it holds a bare CR or LF.
#: The names of the false ends are those of the rule: CRLF.CRLF ends the data, and nothing else does.
MESSAGES: list[tuple[str, bytes, bytes, bool]] = [
    ("empty", b".\r\n", b"", False),
    ("an empty line", b"\r\n.\r\n", b"\r\n", False),
    ("one line", b"a\r\n.\r\n", b"a\r\n", False),
    ("several lines", b"a: b\r\n\r\nc\r\n\r\n\r\n.\r\n", b"a: b\r\n\r\nc\r\n\r\n\r\n", False),
    ("a stuffed dot in the first line", b"..\r\n.\r\n", b".\r\n", False),
    ("a stuffed dot in the last line", b"a\r\n..\r\n.\r\n", b"a\r\n.\r\n", False),
    ("a dot that was not stuffed", b".a\r\n.b\r\n.\r\n", b"a\r\nb\r\n", False),
    ("three dots", b"...\r\n...\r\n.\r\n", b"..\r\n..\r\n", False),
    ("dots not at the start", b"a.\r\n a\r\n .\r\n.\r\n", b"a.\r\n a\r\n .\r\n", False),
    ("a dot and a space", b"a\r\n. \r\n.\r\n", b"a\r\n \r\n", False),
    ("LF.LF", b"a\n.\nb\r\n.\r\n", b"a\r\n.\r\nb\r\n", True),
    ("CRLF.LF", b"a\r\n.\nb\r\n.\r\n", b"a\r\n\r\nb\r\n", True),
    ("LF.CRLF", b"a\n.\r\nb\r\n.\r\n", b"a\r\n.\r\nb\r\n", True),
    ("CR.CR", b"a\r.\rb\r\n.\r\n", b"a\r\n.\r\nb\r\n", True),
    ("CRLF.CR", b"a\r\n.\rb\r\n.\r\n", b"a\r\n\r\nb\r\n", True),
    ("CR.CRLF", b"a\r.\r\nb\r\n.\r\n", b"a\r\n.\r\nb\r\n", True),
    ("CRLF.CR CRLF", b"a\r\n.\r\r\nb\r\n.\r\n", b"a\r\n\r\n\r\nb\r\n", True),
    ("CRLF.CR and another CRLF.CR", b"a\r\n.\r.\r\n.\r\n", b"a\r\n\r\n.\r\n", True),
    ("CRLF NUL .CRLF", b"a\r\n\0.\r\nb\r\n.\r\n", b"a\r\n\0.\r\nb\r\n", False),
    ("CRLF. NUL CRLF", b"a\r\n.\0\r\nb\r\n.\r\n", b"a\r\n\0\r\nb\r\n", False),
    ("LF.LF at the start", b"\n.\n.\r\n.\r\n", b"\r\n.\r\n.\r\n", True),
    (".LF at the start", b".\na\r\n.\r\n", b"\r\na\r\n", True),
    (".CR at the start", b".\ra\r\n.\r\n", b"\r\na\r\n", True),
    ("CR CR LF . CR LF", b"a\r\r\n.\r\n", b"a\r\n\r\n", True),
    ("CR CR LF before a stuffed dot", b"a\r\r\n..b\r\n.\r\n", b"a\r\n\r\n.b\r\n", True),
    ("LF CR", b"a\n\rb\r\n.\r\n", b"a\r\n\r\nb\r\n", True),
    ("a bare LF before CRLF", b"a\n\r\n.\r\n", b"a\r\n\r\n", True),
    ("Unix lines with one true end", b"a\n\nb\n\r\n.\r\n", b"a\r\n\r\nb\r\n\r\n", True),
    ("NUL", b"\0\0a\0\r\n\0\r\n.\r\n", b"\0\0a\0\r\n\0\r\n", False),
    ("8-bit octets", bytes(range(128, 256)) + b"\r\n.\r\n", bytes(range(128, 256)) + b"\r\n", False),
    ("NEL and vertical tab are no line ends", b"a\x85.\x0b.\x0c\r\n.\r\n", b"a\x85.\x0b.\x0c\r\n", False),
]
NAMES = [message[0] for message in MESSAGES]

#: limit, a message without a bare newline, whether it has a line over the limit.
LONG_LINES: list[tuple[int, bytes, bool]] = [
    (3, b"abc\r\nabc\r\n.\r\n", False),
    (3, b"abc\r\nabcd\r\n.\r\n", True),
    (3, b"abcd\r\nabc\r\n.\r\n", True),
    (3, b".abc\r\n..bc\r\n.\r\n", False),
    (3, b"....\r\n.\r\n", False),
    (3, b"....a\r\n.\r\n", True),
    (3, b"\r\n\r\n\r\n\r\n.\r\n", False),
    (1, b"a\r\n\r\nb\r\n.\r\n", False),
    (1, b"a\r\n\r\nbc\r\n.\r\n", True),
    (0, b"a" * 5000 + b"\r\n.\r\n", False),
    (998, b"a" * 998 + b"\r\n" + b"b" * 998 + b"\r\n.\r\n", False),
    (998, b"a" * 998 + b"\r\n" + b"b" * 999 + b"\r\n.\r\n", True),
]

#: text under ``reject`` with a limit of 3, and what is wrong with it first.
FIRST_FINDINGS: list[tuple[bytes, type[SMTPError] | None]] = [
    (b"abc\r\nabc\r\n", None),
    (b"abcd\nabc\r\n", LineTooLong),
    (b"abc\nabcd\r\n", MalformedLines),
    (b"abc\rabcd\r\n", MalformedLines),
    (b"a\r\nabcd\r\na\ra\r\n", LineTooLong),
    (b"a\r\n\nabcd\r\n", MalformedLines),
    (b"\rabcd\n", MalformedLines),
    (b"abcd\r", LineTooLong),
    (b"abc\r", MalformedLines),
]

# Mostly what begins, ends or resembles the end of DATA; the longer pieces make whole ends likely.
PIECES = st.sampled_from(
    [b"\r", b"\n", b".", b"\0", b"a", b"\r\n", b"\r\n.", b"\r\n..", b"\r\n.\r", b".\r\n", b"aaaa", b"\xff"]
)
BODIES = st.lists(PIECES, max_size=24).map(b"".join)
CUTS = st.lists(st.integers(0, 60), max_size=12)
LIMITS = st.sampled_from([0, 1, 2, 3, 5])


def cut(octets: bytes, cuts: Iterable[int]) -> list[bytes]:
    """Chunks that are ``octets`` when joined; a cut made twice gives an empty chunk."""
    edges = [0, *sorted(min(at, len(octets)) for at in cuts), len(octets)]
    return [octets[start:end] for start, end in pairwise(edges)]


def one_by_one(octets: bytes) -> list[bytes]:
    return [bytes([octet]) for octet in octets]


def holds_bare_newline(octets: bytes) -> bool:
    without_line_ends = octets.replace(b"\r\n", b"")
    return b"\r" in without_line_ends or b"\n" in without_line_ends


def decode(decoder: DataDecoder, chunks: Sequence[bytes]) -> Decoded:
    """Feed chunk by chunk; what is left of them after the end belongs to the rest, as a connection would have it."""
    text = b""
    for index, chunk in enumerate(chunks):
        text += decoder.feed(chunk)
        if decoder.finished:
            rest = decoder.rest + b"".join(chunks[index + 1 :])
            return Decoded(text, decoder.size, True, rest, decoder.error)
    return Decoded(text, decoder.size, False, decoder.rest, decoder.error)


def encode(chunks: Iterable[bytes]) -> bytes:
    encoder = DataEncoder()
    return b"".join(map(encoder.feed, chunks)) + encoder.finish()


# -- DATA, decoding -----------------------------------------------------------


@pytest.mark.parametrize("split", [lambda octets: [octets], one_by_one], ids=["whole", "octet by octet"])
@pytest.mark.parametrize("trailing", [b"", b"QUIT\r\n", b"\r\n", b".\r\n", b"\n", b"a\r\n.\r\n"])
@pytest.mark.parametrize(("wire", "text", "bare"), [message[1:] for message in MESSAGES], ids=NAMES)
def test_a_message(
    wire: bytes, text: bytes, bare: bool, trailing: bytes, split: Callable[[bytes], list[bytes]]
) -> None:
    decoded = decode(DataDecoder(), split(wire + trailing))
    assert decoded.text == text
    assert (decoded.finished, decoded.rest, decoded.error) == (True, trailing, None)
    if not bare:
        assert decoded.size == len(text)

    strict = decode(DataDecoder(REJECT), split(wire + trailing))
    assert (strict.finished, strict.rest, strict.size) == (True, trailing, decoded.size)
    if bare:
        assert strict.error is MalformedLines
    else:
        assert (strict.error, strict.text) == (None, text)


@pytest.mark.parametrize(("wire", "text", "bare"), [message[1:] for message in MESSAGES], ids=NAMES)
def test_no_message_ends_before_its_last_octet(wire: bytes, text: bytes, bare: bool) -> None:
    decoder = DataDecoder()
    decoder.feed(wire[:-1])
    assert not decoder.finished


@pytest.mark.parametrize(("wire", "text", "bare"), [message[1:] for message in MESSAGES], ids=NAMES)
@pytest.mark.parametrize("policy", POLICIES)
def test_the_reference_agrees_with_the_table(wire: bytes, text: bytes, bare: bool, policy: str) -> None:
    reference = decode_data(wire + b"QUIT\r\n", policy)
    assert (reference.text, reference.finished, reference.rest) == (text, True, b"QUIT\r\n")
    assert reference.error is (MalformedLines if bare and policy == REJECT else None)


@given(BODIES, CUTS, st.sampled_from(POLICIES), LIMITS)
@example(b"a\r\n.\r", [1, 2, 3, 4], REJECT, 1)
@example(b"\r\n.\rx", [4], NORMALIZE, 0)
@example(b"\r\r\n.\r\nQUIT\r\n", [1, 2, 3], NORMALIZE, 0)
def test_data_decoder_at_every_moment_is_where_the_reference_is(
    body: bytes, cuts: list[int], policy: str, limit: int
) -> None:
    decoder = DataDecoder(policy, limit)
    text = octets = b""
    for chunk in cut(body, cuts):
        octets += chunk
        piece = decoder.feed(chunk)
        text += piece
        reference = decode_data(octets, policy, limit)
        assert not holds_bare_newline(piece)
        assert (decoder.finished, decoder.rest) == (reference.finished, reference.rest)
        assert (decoder.size, decoder.error) == (reference.size, reference.error)
        if policy == NORMALIZE or decoder.error is None:
            assert text == reference.text
        if decoder.finished:
            break


@given(BODIES, BODIES, CUTS)
def test_what_follows_the_end_is_never_read(body: bytes, trailing: bytes, cuts: list[int]) -> None:
    wire = encode([body])
    decoded = decode(DataDecoder(), cut(wire + trailing, cuts))
    assert (decoded.finished, decoded.rest) == (True, trailing)


@pytest.mark.parametrize("data", [b"", b"NOOP\r\n"])
def test_feeding_behind_the_end_is_a_programming_error(data: bytes) -> None:
    decoder = DataDecoder()
    decoder.feed(b"a\r\n.\r\nQUIT\r\n")
    with pytest.raises(RuntimeError, match="commands"):
        decoder.feed(data)
    assert decoder.rest == b"QUIT\r\n"


def test_a_chunk_that_needs_no_change_is_not_copied() -> None:
    chunk = b"a line of text\r\n" * 1000
    decoder = DataDecoder(max_text_line=998)
    assert decoder.feed(chunk) is chunk
    assert decoder.feed(chunk) is chunk


def test_normalizing_counts_what_was_sent() -> None:
    # RFC 1870 section 5: the size is that of the message as the client has it, before we mend it.
    decoder = DataDecoder()
    assert decoder.feed(b"a\nb\n..\r\n..\r\n.\r\n") == b"a\r\nb\r\n..\r\n.\r\n"
    assert decoder.size == len(b"a\nb\n..\r\n.\r\n")


# -- the length of lines ------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize(("limit", "wire", "too_long"), LONG_LINES)
def test_a_line_over_the_limit(limit: int, wire: bytes, too_long: bool, policy: str) -> None:
    for chunks in ([wire], one_by_one(wire), cut(wire, range(0, len(wire), 7))):
        decoded = decode(DataDecoder(policy, limit), [*chunks, b"QUIT\r\n"])
        assert decoded.error is (LineTooLong if too_long else None)
        assert (decoded.finished, decoded.rest) == (True, b"QUIT\r\n")


def test_bare_newlines_end_a_line() -> None:
    for chunks in ([b"abc\nabc\rabc\r\r\nabc"], one_by_one(b"abc\nabc\rabc\r\r\nabc")):
        decoder = ChunkDecoder(NORMALIZE, 3)
        for chunk in chunks:
            decoder.feed(chunk)
        assert decoder.error is None
        decoder.feed(b"d")
        assert decoder.error is LineTooLong


@pytest.mark.parametrize(("text", "error"), FIRST_FINDINGS)
def test_the_first_finding_stays(text: bytes, error: type[SMTPError] | None) -> None:
    for chunks in ([text], one_by_one(text)):
        decoder = ChunkDecoder(REJECT, 3)
        for chunk in chunks:
            decoder.feed(chunk)
        decoder.finish()
        assert decoder.error is error


@given(
    st.lists(st.tuples(st.integers(0, 40), st.sampled_from([b"\r\n", b"\n", b"\r"])), max_size=60),
    CUTS,
    st.integers(1, 40),
)
def test_long_and_short_lines_at_random(lines: list[tuple[int, bytes]], cuts: list[int], limit: int) -> None:
    # The hops meet every mixture of lines far below the limit, at it, and just above.
    text = b"".join(b"a" * length + end for length, end in lines)
    decoder = ChunkDecoder(NORMALIZE, limit)
    for chunk in cut(text, cuts):
        decoder.feed(chunk)
    assert decoder.error is (LineTooLong if any(length > limit for length, _ in lines) else None)


# -- BDAT, decoding -----------------------------------------------------------


@given(BODIES, CUTS, st.sampled_from(POLICIES), LIMITS)
@example(b"\r", [], REJECT, 0)
def test_chunk_decoder_at_every_moment_is_where_the_reference_is(
    body: bytes, cuts: list[int], policy: str, limit: int
) -> None:
    decoder = ChunkDecoder(policy, limit)
    text = octets = b""
    for chunk in cut(body, cuts):
        octets += chunk
        piece = decoder.feed(chunk)
        text += piece
        reference = decode_chunks(octets, policy, limit)
        assert not holds_bare_newline(piece)
        assert (decoder.size, decoder.error) == (reference.size, reference.error)
        if policy == NORMALIZE or decoder.error is None:
            assert text == reference.text
    text += decoder.finish()
    reference = decode_chunks(octets, policy, limit, whole=True)
    assert (decoder.size, decoder.error) == (reference.size, reference.error)
    if policy == NORMALIZE or decoder.error is None:
        assert text == reference.text


@pytest.mark.parametrize(
    ("chunks", "text", "error"),
    [
        ([b"a\r", b"\nb\r\n"], b"a\r\nb\r\n", None),
        ([b"a\r", b"", b"\n"], b"a\r\n", None),
        ([b"a\r", b"b"], b"a\r\nb", MalformedLines),
        ([b"a\r"], b"a\r\n", MalformedLines),
        ([b"a", b"\nb"], b"a\r\nb", MalformedLines),
        ([b"a\r\n.\r\n", b".\r\n..b"], b"a\r\n.\r\n.\r\n..b", None),
        ([b""], b"", None),
    ],
)
def test_the_edges_of_chunks_mean_nothing(chunks: list[bytes], text: bytes, error: type[SMTPError] | None) -> None:
    decoder = ChunkDecoder()
    assert b"".join(map(decoder.feed, chunks)) + decoder.finish() == text
    assert (decoder.error, decoder.size) == (None, len(b"".join(chunks)))

    strict = ChunkDecoder(REJECT)
    for chunk in chunks:
        strict.feed(chunk)
    strict.finish()
    assert strict.error is error


@pytest.mark.parametrize("first", [b"abc\nabc", b"abcd\r\n"])
def test_nothing_is_given_out_after_a_refusal(first: bytes) -> None:
    decoder = ChunkDecoder(REJECT, 3)
    decoder.feed(first)
    assert (decoder.feed(b"abc\r\n"), decoder.finish()) == (b"", b"")
    assert decoder.size == len(first) + 5


@given(BODIES, CUTS)
def test_binary_is_left_alone(body: bytes, cuts: list[int]) -> None:
    decoder = BinaryDecoder()
    assert b"".join(map(decoder.feed, cut(body, cuts))) + decoder.finish() == body
    assert (decoder.size, decoder.error) == (len(body), None)


# -- DATA, encoding -----------------------------------------------------------


@pytest.mark.parametrize(
    ("chunks", "wire"),
    [
        ([], b".\r\n"),
        ([b""], b".\r\n"),
        ([b"a"], b"a\r\n.\r\n"),
        ([b"a\r\n"], b"a\r\n.\r\n"),
        ([b"."], b"..\r\n.\r\n"),
        ([b".\r\n"], b"..\r\n.\r\n"),
        ([b"a\r\n", b".b"], b"a\r\n..b\r\n.\r\n"),
        ([b"a\r", b"\n", b".", b"\r", b"\n"], b"a\r\n..\r\n.\r\n"),
        ([b"a\r\n", b"", b"."], b"a\r\n..\r\n.\r\n"),
        ([b"a", b".b"], b"a.b\r\n.\r\n"),
        ([b"a\n.\nb\n"], b"a\r\n..\r\nb\r\n.\r\n"),
        ([b"a\r.\r"], b"a\r\n..\r\n.\r\n"),
        ([b"a\r\r\n."], b"a\r\n\r\n..\r\n.\r\n"),
        ([b"a\0\xff"], b"a\0\xff\r\n.\r\n"),
    ],
)
def test_encoding(chunks: list[bytes], wire: bytes) -> None:
    assert encode(chunks) == wire
    assert encode_data(b"".join(chunks)) == wire


@given(BODIES, CUTS)
def test_data_encoder_does_as_the_reference(body: bytes, cuts: list[int]) -> None:
    assert encode(cut(body, cuts)) == encode_data(body)


@given(BODIES, CUTS)
def test_nothing_in_a_message_ends_it_or_its_lines_early(body: bytes, cuts: list[int]) -> None:
    wire = encode(cut(body, cuts))
    assert (b"\r\n" + wire).find(END) == len(wire) + len(b"\r\n") - len(END)
    assert not holds_bare_newline(wire)


@given(BODIES, CUTS, CUTS)
def test_what_was_encoded_is_decoded(body: bytes, cuts: list[int], other_cuts: list[int]) -> None:
    decoded = decode(DataDecoder(REJECT), cut(encode(cut(body, cuts)), other_cuts))
    text = decode_chunks(body, whole=True).text
    if text and not text.endswith(b"\r\n"):
        text += b"\r\n"
    assert decoded == Decoded(text, len(text), True, b"", None)


# -- the BDAT command ---------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "size", "last"),
    [
        (b"0", 0, False),
        (b"0 LAST", 0, True),
        (b"1000", 1000, False),
        (b"1000 LAST", 1000, True),
        (b"1000 last", 1000, True),
        (b"1000 LaSt  ", 1000, True),
        (b"1000  ", 1000, False),
        (b" 1000  LAST", 1000, True),
        (b"007", 7, False),
        (b"9" * 20, 10**20 - 1, False),
    ],
)
def test_bdat(argument: bytes, size: int, last: bool) -> None:
    assert parse_bdat(argument) == (size, last)
    assert parse_bdat(format_bdat(size, last)[5:-2]) == (size, last)


def test_bdat_lines() -> None:
    assert format_bdat(0) == b"BDAT 0\r\n"
    assert format_bdat(1000, last=True) == b"BDAT 1000 LAST\r\n"


@pytest.mark.parametrize(
    "argument",
    [b"", b"  ", b"x", b"-1", b"+1", b"1_0", b"0x10", b"1.0", b"LAST", b"LAST 5", b"5LAST", b"5\tLAST", b"1" * 21,
     b"\xb2", "٣".encode(), b"5\0", b"\t5"],
)  # fmt: skip
def test_bdat_without_a_readable_size(argument: bytes) -> None:
    with pytest.raises(ChunkSizeUnknown):
        parse_bdat(argument)


@pytest.mark.parametrize("argument", [b"5 x", b"5 LASTX", b"5 LAST LAST", b"5 5", b"5 LAST\t", b"5 \0"])
def test_bdat_with_junk_still_tells_the_size(argument: bytes) -> None:
    with pytest.raises(ChunkJunk) as caught:
        parse_bdat(argument)
    assert caught.value.size == 5


@pytest.mark.parametrize("size", [-1, 10**20])
def test_no_bdat_is_written_that_could_not_be_read(size: int) -> None:
    with pytest.raises(ValueError, match="no size"):
        format_bdat(size)


@given(BODIES)
@example(b"")
@example(b".")
@example(b"\r")
@example(b"a\n.\r.\r\n.")
def test_a_whole_message_is_encoded_as_its_pieces_are(body: bytes) -> None:
    assert encode_message(body) == encode(one_by_one(body)) == encode([body])
