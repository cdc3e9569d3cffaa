"""
What a client sends: whatever it was given, as octets, and what is known of them beforehand.

By RFC 1870 (size), RFC 6152 (octets over 127), RFC 6531 section 3.2 (UTF-8 in
the header section), RFC 5322 section 3.6 (who sends a message, and to whom).

Rule 1: a message in memory costs next to nothing: it is not copied, and what
is known of it is computed when it is asked for, in operations on the whole.

Rule 2: a stream is read when there is room for what it gives, and stopped
when nobody reads any more. What ends it early is raised as it was: never does
an error look like the end of a message.

Rule 3: newlines are not mended here. The wire does that for every body.

Rule 4: an address is taken from a header field only if the field is plain. A
message to nobody is better than one to somebody else.
"""

from __future__ import annotations

import copy
import email.policy
import re
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Generator, Iterable, Iterator
from contextlib import suppress
from email.errors import InvalidHeaderDefect, MessageError
from email.generator import BytesGenerator
from email.message import Message
from io import SEEK_END, BufferedIOBase, BytesIO, StringIO, TextIOBase
from typing import Any

from smtpfw.client.producers import octets, pieces_of_producer
from smtpfw.interfaces import IBody

__all__ = ["OutgoingBody", "outgoing_body", "recipients_of", "sender_of"]

#: Octets (characters, of a text file) that are read from a file at a time.
BLOCK = 64 * 1024

#: Address fields that a message is sent with; Bcc is known to its sender alone (RFC 5322 section 3.6.3).
_VISIBLE = frozenset(
    {"from", "sender", "reply-to", "to", "cc", "resent-from", "resent-sender", "resent-to", "resent-cc"}
)

#: Where two newlines of any kind meet, the header section ends: these are in CRLF CRLF, too.
_EMPTY_LINES = (b"\n\r", b"\n\n", b"\r\r")


#: A line end behind which the field does not go on, as it does by a blank (RFC 5322 section 2.2.3).
_LINE_WITHIN = re.compile(rb"(?:\r\n|\r(?!\n)|\n)(?![ \t]|\Z)")


class OutgoingBody:
    """
    A body that is to be sent.

    :ivar data: all of it, if it is in memory; None for a stream.
    :ivar binary: whether it is octets without lines, so that it needs BINARYMIME (RFC 3030 section 3).
    :ivar repeatable: whether it can be sent again, to another host after a failure.
    """

    __slots__ = ("_size", "_source", "_used", "binary", "data", "repeatable")

    def __init__(
        self,
        data: bytes | None,
        source: Callable[[], AsyncGenerator[bytes, None]] | None = None,
        size: int | None = None,
        repeatable: bool = True,
        binary: bool = False,
    ) -> None:
        self.data = data
        self.binary = binary
        self.repeatable = repeatable
        self._source = source
        self._size = size
        self._used = False

    @property
    def size(self) -> int | None:
        """
        How many octets it has, as SIZE counts them; None if nobody knows.

        In memory every bare CR and bare LF counts as the CRLF that it is sent as; of a file nobody knows how many
        there are, and its size is that of the file. A CRLF that DATA adds at the end does not count.
        """
        data = self.data
        if self._size is None and data is not None and self.binary:
            self._size = len(data)
        elif self._size is None and data is not None:
            # RFC 1870 section 5: octets as they are transmitted, CRLF included.
            cr = data.count(b"\r")
            lf = data.count(b"\n")
            self._size = len(data) + cr + lf - (2 * data.count(b"\r\n") if cr and lf else 0)
        return self._size

    @property
    def eight_bit(self) -> bool | None:
        """Whether it has octets over 127 (RFC 6152); None for a stream."""
        return None if self.data is None else not self.data.isascii()

    @property
    def utf8_header(self) -> bool | None:
        """
        Whether its header section holds UTF-8 beyond ASCII, so that it needs SMTPUTF8 (RFC 6531 section 3.2).

        A header section that is neither ASCII nor UTF-8 is something older: False. None for a stream.
        """
        data = self.data
        if data is None:
            return None
        if data.isascii() or data[:1] in (b"\r", b"\n"):
            return False
        end = len(data)
        for empty_line in _EMPTY_LINES:
            found = data.find(empty_line, 0, end)
            if found >= 0:
                end = found
        header = data[:end]
        if header.isascii():
            return False
        try:
            header.decode()
        except UnicodeDecodeError:
            return False
        return True

    def chunks(self) -> AsyncGenerator[bytes, None]:
        """
        All of it, piece by piece, from its beginning; no piece is empty.

        Whoever does not read to the end calls ``aclose()`` (``contextlib.aclosing``): that closes a generator and
        stops a producer. A file is left open in any case.

        :raises RuntimeError: the second time, if it is not ``repeatable``: an empty message would be sent.
        """
        if self._used and not self.repeatable:
            raise RuntimeError("this body has been read already, and can't be read again")
        self._used = True
        return _pieces_of((self.data,)) if self._source is None else self._source()


def outgoing_body(body: Any) -> OutgoingBody:
    """
    Make a body that can be sent of whatever holds one.

    :param body: ``bytes`` (or bytearray, memoryview); ``str``; a file, read in blocks from its present position;
        ``email.message.Message``; an iterable or async iterable of bytes; :class:`~smtpfw.interfaces.IBody`; or what
        has ``startProducing``, as ``IBodyProducer`` of ``twisted.web``. Text is encoded as UTF-8, and has the newlines
        that reading it gives.
    :raises TypeError: for anything else.
    """
    if isinstance(body, bytes):
        return OutgoingBody(body)
    if isinstance(body, str):
        return OutgoingBody(body.encode())
    if isinstance(body, bytearray | memoryview):
        return OutgoingBody(bytes(body))
    if isinstance(body, OutgoingBody):
        return body
    if isinstance(body, Message):
        return OutgoingBody(_octets_of_message(body), binary=any(map(_is_binary, body.walk())))
    if isinstance(body, BytesIO | StringIO):
        return outgoing_body(body.read())
    if isinstance(body, list | tuple):
        return OutgoingBody(b"".join(map(octets, body)))
    if isinstance(body, AsyncIterable):
        once = isinstance(body, AsyncIterator) or IBody.providedBy(body)
        return OutgoingBody(None, lambda: _async_pieces_of(body), repeatable=not once)
    if hasattr(body, "startProducing"):
        length = getattr(body, "length", None)
        # twisted.web has a text, UNKNOWN_LENGTH, for a length that is not known.
        size = length if isinstance(length, int) else None
        return OutgoingBody(None, lambda: pieces_of_producer(body), size, repeatable=False)
    if hasattr(body, "read"):
        start = _position(body)
        size = None if start is None else _size_of_file(body, start)
        return OutgoingBody(None, lambda: _blocks_of(body, start), size, repeatable=start is not None)
    if isinstance(body, Iterable):
        return OutgoingBody(None, lambda: _pieces_of(body), repeatable=not isinstance(body, Iterator))
    raise TypeError(
        "a body is bytes, a str, a file, an email.message.Message, an iterable or async iterable of bytes, an IBody, "
        f"or what has startProducing as IBodyProducer has it; not {type(body).__name__}"
    )


# -- streams ----------------------------------------------------------------


async def _pieces_of(pieces: Iterable[Any]) -> AsyncGenerator[bytes, None]:
    iterator = iter(pieces)
    try:
        for piece in iterator:
            if chunk := octets(piece):
                yield chunk
    finally:
        if isinstance(iterator, Generator):
            iterator.close()


async def _async_pieces_of(pieces: AsyncIterable[Any]) -> AsyncGenerator[bytes, None]:
    iterator = aiter(pieces)
    try:
        async for piece in iterator:
            if chunk := octets(piece):
                yield chunk
    finally:
        # The garbage collector would do it, whenever it comes.
        if isinstance(iterator, AsyncGenerator):
            await iterator.aclose()


async def _blocks_of(file: Any, start: int | None) -> AsyncGenerator[bytes, None]:
    if start is not None:
        file.seek(start)
    while True:
        block = file.read(BLOCK)
        # A file that does not block gives None when it has nothing yet; that is no end, and octets() refuses it.
        if chunk := block.encode() if isinstance(block, str) else octets(block):
            yield chunk
        else:
            return


def _position(file: Any) -> int | None:
    """Where a file stands that can be read again from there; else None."""
    try:
        return int(file.tell()) if file.seekable() else None
    except (AttributeError, OSError):
        return None


def _size_of_file(file: Any, start: int) -> int | None:
    """Octets of a binary file from ``start`` on, where they can be known without reading."""
    if isinstance(file, TextIOBase) or hasattr(file, "encoding"):
        return None
    if isinstance(getattr(file, "raw", file), BufferedIOBase):
        # gzip, bz2, lzma and zipfile are of this kind, and would decompress all of it to find the end.
        return None
    try:
        file.seek(0, SEEK_END)
        end = int(file.tell())
    except OSError:
        end = start
    file.seek(start)
    # Devices and the files of /proc say 0, whatever they hold.
    return end - start if end > start else None


# -- email messages ---------------------------------------------------------


class _OldPolicy(email.policy.Compat32):
    """
    How a message of the ``compat32`` policy is written: as that does it, but for address fields that were set to text.

    It encodes such a field as a whole, its addresses included, and nobody could answer it.
    """

    utf8 = False

    def fold_binary(self, name: str, value: Any) -> bytes:
        # What is not printable holds octets that were read from a source, and goes out as it came.
        if name.lower() in _VISIBLE and isinstance(value, str) and not value.isascii() and value.isprintable():
            policy = email.policy.SMTPUTF8 if self.utf8 else email.policy.SMTP
            with suppress(ValueError):
                return policy.fold_binary(name, _address_header(name, value))
        folded = super().fold_binary(name, value)
        if _LINE_WITHIN.search(folded):
            # The library lets some pass: there would be another field, or those below would belong to the text.
            raise ValueError(f"the message can't be written: a line end within {name}")
        return folded


def _is_binary(part: Message) -> bool:
    """Whether a part of a message says that it is binary (RFC 2045 section 6.2)."""
    return str(part.get("Content-Transfer-Encoding", "")).strip().lower() == "binary"


def _octets_of_message(message: Message[Any, Any]) -> bytes:
    sent = copy.copy(message)
    # RFC 5322 section 3.6.3: nobody but its sender may know.
    del sent["Bcc"]
    del sent["Resent-Bcc"]
    policy = message.policy
    make: Any = policy.clone if isinstance(policy, email.policy.EmailPolicy) else _OldPolicy
    # Any server takes a header section in ASCII, so only addresses that can't be said in it make the message need
    # SMTPUTF8; names and subjects become encoded words.
    policy = make(linesep="\r\n", utf8=_has_utf8_addresses(sent))
    written = BytesIO()
    # Mangling is for mbox files: a line "From x" would arrive as ">From x".
    try:
        _Generator(written, mangle_from_=False, policy=policy).flatten(sent)
    except MessageError as error:
        # A line end within a field, say.
        raise ValueError(f"the message can't be written: {error}") from None
    return written.getvalue()


class _Generator(BytesGenerator):
    """Leaves the octets of binary parts as they are; the one of the standard library mends their newlines."""

    def _handle_text(self, part: Any) -> None:
        payload = part.get_payload(decode=True) if _is_binary(part) else None
        if isinstance(payload, bytes):
            self._fp.write(payload)  # type: ignore[attr-defined]
        else:
            super()._handle_text(part)  # type: ignore[misc]

    # What the standard library calls for parts of no other kind.
    _writeBody = _handle_text  # noqa: N815


def _has_utf8_addresses(message: Message[Any, Any]) -> bool:
    for part in message.walk():
        for name, value in part.raw_items():
            if name.lower() in _VISIBLE and not str(value).isascii():
                with suppress(ValueError):
                    if not all(address.addr_spec.isascii() for address in _address_header(name, value).addresses):
                        return True
    return False


def _address_header(name: str, value: Any) -> Any:
    """
    A header field that has ``addresses`` and ``defects``.

    :raises ValueError: if it can't be read.
    """
    if hasattr(value, "addresses"):
        return value
    text = str(value).replace("\r", "").replace("\n", "")
    # The parser of messages keeps octets over 127 as surrogates, whatever they mean.
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
    try:
        return email.policy.SMTPUTF8.header_factory(name, text)
    except Exception as error:
        # On odd input that fails in many ways: IndexError, AttributeError, UnboundLocalError.
        raise ValueError(f"{name} can't be read: {text!r}") from error


def sender_of(message: Message[Any, Any]) -> str:
    """
    Who sends a message: its Sender, else the first of From; of a message that was resent, those of Resent.

    :return: an address without name and brackets, ``local-part@domain``.
    :raises ValueError: if there is none, if the field can't be read without doubt, or if the message was resent
        several times.
    """
    prefix = _prefix(message)
    for field in ("sender", "from"):
        if len(message.get_all(prefix + field, [])) > 1:
            # RFC 5322 section 3.6: each at most once. Who reads the message may go by the other one.
            raise ValueError(f"the header of the message has several fields {prefix + field}")
        if addresses := _addresses(message, {prefix + field}):
            return addresses[0]
    raise ValueError("the header of the message names no sender, neither in Sender nor in From")


def recipients_of(message: Message[Any, Any]) -> list[str]:
    """
    Whom a message is for: To, Cc and Bcc, each address once; of a message that was resent, those of Resent.

    :raises ValueError: as :func:`sender_of`.
    """
    prefix = _prefix(message)
    addresses = _addresses(message, {prefix + "to", prefix + "cc", prefix + "bcc"})
    if not addresses:
        raise ValueError("the header of the message names no recipient, neither in To nor in Cc or Bcc")
    return list(dict.fromkeys(addresses))


def _prefix(message: Message[Any, Any]) -> str:
    fields = [name.lower() for name in message]
    if max(fields.count("resent-date"), fields.count("resent-from")) > 1:
        # RFC 5322 section 3.6.6: the topmost set counts, but Python puts a new one below the others.
        raise ValueError("the message was resent more than once: nobody knows which Resent fields are the last")
    return "resent-" if any(field.startswith("resent-") for field in fields) else ""


def _addresses(message: Message[Any, Any], fields: set[str]) -> list[str]:
    found: list[str] = []
    for name, value in message.raw_items():
        if name.lower() in fields:
            header = _address_header(name, value)
            addresses = [address.addr_spec for address in header.addresses]
            if any(map(_is_doubtful, header.defects)) or not all(map(str.isprintable, addresses)):
                raise ValueError(f"{name} is no list of addresses: {str(value)!r}")
            found += addresses
    return found


def _is_doubtful(defect: Exception) -> bool:
    """Whether a field may mean other addresses than were read; what is wrong in an encoded word concerns a name."""
    return isinstance(defect, InvalidHeaderDefect) and "encoded" not in str(defect)
