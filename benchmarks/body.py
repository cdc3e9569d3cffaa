#!/usr/bin/env python3
"""
How fast bodies are decoded and encoded, in MB/s of octets on the wire (decoding) or of text (encoding).

    python benchmarks/body.py [--chunk 65536] [--size 8] [--line 76] [--stuffed 10]

Three ways: ``smtpfw.wire.body``; a splitter that takes each chunk apart into lines, as most libraries do, with the same
rules for dots and bare newlines; and the reference of the tests, octet by octet. The fastest of several runs counts, as
the noise of a shared machine only ever adds. All must give the same octets, or there is no table.
"""

from __future__ import annotations

import argparse
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from time import perf_counter

# The reference lives with the tests, which are not installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from smtpfw.wire.body import DataDecoder, DataEncoder
from smtpfw.wire.profiles import DEFAULT, NORMALIZE, STRICT
from tests.wire.reference_body import decode_data, encode_data

#: Nothing is kept of what a codec gives out, so the cost of keeping it is not measured.
Codec = Callable[[list[bytes]], Iterable[bytes]]

#: The reference is slower by orders of magnitude, and gets this much only.
REFERENCE_OCTETS = 128 * 1024


def chunk_decoder(bare_newlines: str, max_text_line: int) -> Codec:
    return lambda chunks: map(DataDecoder(bare_newlines, max_text_line).feed, chunks)


def chunk_encoder(chunks: list[bytes]) -> Iterator[bytes]:
    encoder = DataEncoder()
    yield from map(encoder.feed, chunks)
    yield encoder.finish()


def lines_of(chunks: list[bytes]) -> Iterator[bytes]:
    left = b""
    for chunk in chunks:
        *lines, left = (left + chunk).split(b"\r\n")
        yield from lines
    if left:
        yield left


def mended(line: bytes) -> bytes:
    if b"\r" in line or b"\n" in line:
        return line.replace(b"\r", b"\n").replace(b"\n", b"\r\n")
    return line


def line_decoder(chunks: list[bytes]) -> Iterator[bytes]:
    for line in lines_of(chunks):
        if line == b".":
            return
        yield mended(line[1:] if line.startswith(b".") else line) + b"\r\n"


def line_encoder(chunks: list[bytes]) -> Iterator[bytes]:
    for line in lines_of(chunks):
        whole = mended(line)
        if whole.startswith(b"."):
            whole = b"." + whole
        yield whole.replace(b"\r\n.", b"\r\n..") + b"\r\n"
    yield b".\r\n"


def reference_decoder(chunks: list[bytes]) -> Iterator[bytes]:
    yield decode_data(b"".join(chunks)).text


def reference_encoder(chunks: list[bytes]) -> Iterator[bytes]:
    yield encode_data(b"".join(chunks))


def make_text(octets: int, line_length: int, dot_every: int) -> bytes:
    """Lines of one length; every so many of them begin with a dot, and none if that is 0."""
    plain = b"x" * line_length + b"\r\n"
    dotted = b"." + plain[1:]
    block = plain * (dot_every - 1) + dotted if dot_every else plain
    return block * max(octets // len(block), 1)


def cut(octets: bytes, chunk: int) -> list[bytes]:
    return [octets[start : start + chunk] for start in range(0, len(octets), chunk)]


def measure(codec: Codec, octets: bytes, chunk: int, expected: bytes, runs: int) -> float:
    """MB/s of the fastest run."""
    chunks = cut(octets, chunk)
    if b"".join(codec(chunks)) != expected:
        raise SystemExit("the results differ: there is nothing to compare")
    best = float("inf")
    for _ in range(runs):
        start = perf_counter()
        deque(codec(chunks), maxlen=0)
        best = min(best, perf_counter() - start)
    return len(octets) / best / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description="MB/s of the codecs of DATA.")
    parser.add_argument("--chunk", type=int, default=65536, help="octets of a chunk (%(default)s)")
    parser.add_argument("--size", type=float, default=8.0, help="MB of a message (%(default)s)")
    parser.add_argument("--line", type=int, default=76, help="octets of a line (%(default)s)")
    parser.add_argument("--stuffed", type=int, default=10, help="every so many lines one begins with a dot; 0: none")
    parser.add_argument("--runs", type=int, default=5, help="the fastest of so many counts (%(default)s)")
    options = parser.parse_args()

    text = make_text(int(options.size * 1e6), options.line, options.stuffed)
    wire = b"".join(chunk_encoder([text]))
    short_text = make_text(REFERENCE_OCTETS, options.line, options.stuffed)
    short_wire = encode_data(short_text)

    table: list[tuple[str, Codec, bytes, bytes, int]] = [
        ("decode, by chunk", chunk_decoder(NORMALIZE, 0), wire, text, options.runs),
        ("decode, by chunk, default profile", chunk_decoder(DEFAULT.bare_newlines, DEFAULT.max_text_line), wire, text,
         options.runs),
        ("decode, by chunk, strict profile", chunk_decoder(STRICT.bare_newlines, STRICT.max_text_line), wire, text,
         options.runs),
        ("decode, by line", line_decoder, wire, text, options.runs),
        ("decode, reference", reference_decoder, short_wire, short_text, 1),
        ("encode, by chunk", chunk_encoder, text, wire, options.runs),
        ("encode, by line", line_encoder, text, wire, options.runs),
        ("encode, reference", reference_encoder, short_text, short_wire, 1),
    ]  # fmt: skip
    stuffed = f"every {options.stuffed}th begins with a dot" if options.stuffed else "none begins with a dot"
    print(f"{len(text) / 1e6:.1f} MB, lines of {options.line} octets, {stuffed}, chunks of {options.chunk}")
    print(f"{'':36}{'MB/s':>10}")
    for name, codec, octets, expected, runs in table:
        print(f"{name:36}{measure(codec, octets, options.chunk, expected, runs):10.1f}", flush=True)


if __name__ == "__main__":
    main()
