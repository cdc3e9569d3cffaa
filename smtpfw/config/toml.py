"""
A TOML file: its values, and the line of each.

:mod:`tomllib` says where a file is no TOML, and of values not where they stand.
So a file that it has accepted is walked through once more, for its keys alone.
"""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

from smtpfw.errors import ConfigError

__all__ = ["KeyPath", "TOMLFile", "key_of", "read_octets", "read_toml"]

#: How a value is reached: keys, and numbers of elements of arrays, from 0.
KeyPath = tuple[str | int, ...]

#: Octets. A file of this size was written by no operator.
MAX_BYTES = 4 * 1024 * 1024

_SPACE = re.compile(r"[ \t]*")
_BETWEEN = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_WORD = re.compile(r"[A-Za-z0-9_-]+")
_KEY_END = re.compile(r"[ \t]*\.[ \t]*")
#: Numbers, times, true and false.
_PLAIN = re.compile(r"[^,\]}#\r\n]*")
_STRINGS = (
    re.compile(r'"""(?:[^"\\]|\\.|"{1,2}(?!"))*"{3,5}', re.DOTALL),
    re.compile(r"'''(?:[^']|'{1,2}(?!'))*'{3,5}", re.DOTALL),
    re.compile(r'"(?:[^"\\\n]|\\.)*"'),
    re.compile(r"'[^'\n]*'"),
)


#: What tomllib says, and what an operator may want to hear instead.
_REASONS = {
    "cannot overwrite a value": "this key is there already",
    "cannot declare": "this table is there already",
    "invalid value": "this is no value; a text needs quotes around it",
    "expected newline or end of document after a statement": (
        "the line goes on behind the value; a text, or a number with a unit, needs quotes around it"
    ),
    "expected '=' after a key": (
        "here should be KEY = VALUE; a key with other characters than a-z, 0-9, - and _ needs quotes"
    ),
    "illegal character '\\n'": "the text goes over the end of the line; its quotes are not closed",
    "unescaped '\\' in a string": "a backslash within \" \" is written twice; within ' ' it is an ordinary character",
    "invalid statement": "here should be KEY = VALUE, or [TABLE]",
}


class TOMLFile:
    """
    :ivar name: as it was given.
    :ivar values: what :func:`tomllib.loads` makes of it.
    """

    def __init__(self, name: str, text: str) -> None:
        """:raises ConfigError: ``file:line: ...`` where it is no TOML."""
        self.name = name
        try:
            self.values: dict[str, Any] = tomllib.loads(text)
            self._lines = _Scanner(text.replace("\r\n", "\n")).lines
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{name}:{_line_of_error(error, text)}: {_reason(error)}") from None
        except RecursionError:
            raise ConfigError(f"{name}: it is nested too deeply") from None
        except ValueError as error:
            # A number of thousands of digits is TOML, and too long for Python.
            raise ConfigError(f"{name}: {str(error).partition(';')[0].lower()}") from None

    def line(self, path: KeyPath) -> int:
        """The line of a value, or of the nearest that is around it; 1 for the whole file."""
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path, 1)


def key_of(path: KeyPath) -> str:
    """A key path as an operator writes it; elements of arrays are counted from 1, as people do."""
    words = ""
    for part in path:
        if isinstance(part, int):
            words += f"[{part + 1}]"
        else:
            # JSON's quotes are TOML's, and keep a line one line.
            key = part if _WORD.fullmatch(part) else json.dumps(part, ensure_ascii=False)
            words += f".{key}" if words else key
    return words


def read_octets(name: str) -> bytes:
    """
    What stands in a file.

    :raises ConfigError: one line that says why it can't be read.
    """
    try:
        with Path(name).open("rb") as file:
            octets = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{name}: {(error.strerror or str(error)).lower()}") from None
    if len(octets) > MAX_BYTES:
        raise ConfigError(f"{name}: it has more than {MAX_BYTES} octets; is it a configuration?")
    return octets


def read_toml(name: str, octets: bytes | None = None) -> TOMLFile:
    """
    Read a file.

    :param octets: what stands in it, where that is known already.
    :raises ConfigError: one line that says why it can't be read, or where it is no TOML.
    """
    if octets is None:
        octets = read_octets(name)
    try:
        # Some editors begin each file with a mark that is no part of it.
        return TOMLFile(name, octets.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = octets.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{name}:{line}: this is not UTF-8, as TOML has to be") from None


def _line_of_error(error: tomllib.TOMLDecodeError, text: str) -> int:
    found = re.search(r"\(at line (\d+), column \d+\)", str(error))
    # Or else it is at its end: something is not closed.
    return int(found[1]) if found else text.rstrip().count("\n") + 1


def _reason(error: tomllib.TOMLDecodeError) -> str:
    text = re.sub(r" \(at [^()]*\)$", "", str(error))
    text = text[:1].lower() + text[1:]
    return next((words for beginning, words in _REASONS.items() if text.startswith(beginning)), text)


class _Scanner:
    """
    Finds the line of each key of a text that is known to be TOML.

    :ivar lines: key path -> line, from 1.
    """

    def __init__(self, text: str) -> None:
        self.lines: dict[KeyPath, int] = {}
        self._text = text
        self._at = 0
        # Where line numbers have been counted up to.
        self._counted = 0
        self._line = 1
        # Arrays of tables -> the number of the last one.
        self._last: dict[KeyPath, int] = {}
        self._scan()

    def _scan(self) -> None:
        table: KeyPath = ()
        while True:
            self._skip(_BETWEEN)
            if self._at >= len(self._text):
                return
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)

    def _header(self) -> KeyPath:
        line = self._now()
        is_array = self._text.startswith("[[", self._at)
        self._at += 1 + is_array
        self._skip(_SPACE)
        keys = self._keys()
        path: KeyPath = ()
        for key in keys[:-1]:
            path = self._within((*path, key), line)
        path = (*path, keys[-1])
        if is_array:
            self._note(path, line)
            self._last[path] = self._last.get(path, -1) + 1
        if not is_array:
            # Tables within it may stand before it, and then it has theirs.
            self.lines[path] = line
        path = self._within(path, line)
        self._skip(_SPACE)
        self._at += 1 + is_array
        return path

    def _within(self, path: KeyPath, line: int) -> KeyPath:
        """A table; of an array of them the last one."""
        self._note(path, line)
        if path in self._last:
            path = (*path, self._last[path])
            self._note(path, line)
        return path

    def _pair(self, table: KeyPath) -> None:
        line = self._now()
        path = table
        for key in self._keys():
            path = (*path, key)
            self._note(path, line)
        self._skip(_SPACE)
        self._at += 1  # the equals sign
        self._skip(_SPACE)
        self._value(path)

    def _value(self, path: KeyPath) -> None:
        self._note(path, self._now())
        opening = self._text[self._at]
        if opening == "[":
            self._at += 1
            index = 0
            while not self._closes("]"):
                self._value((*path, index))
                index += 1
        elif opening == "{":
            self._at += 1
            while not self._closes("}"):
                self._pair(path)
        elif opening in "\"'":
            self._string()
        else:
            self._skip(_PLAIN)

    def _closes(self, bracket: str) -> bool:
        self._skip(_BETWEEN)
        if self._text[self._at] == ",":
            self._at += 1
            self._skip(_BETWEEN)
        if self._text[self._at] != bracket:
            return False
        self._at += 1
        return True

    def _keys(self) -> list[str]:
        keys = [self._key()]
        while (dot := _KEY_END.match(self._text, self._at)) is not None:
            self._at = dot.end()
            keys.append(self._key())
        return keys

    def _key(self) -> str:
        word = _WORD.match(self._text, self._at)
        if word is not None:
            self._at = word.end()
            return word[0]
        start = self._at
        self._string()
        # A key is a string as any other, escapes and all.
        (key,) = tomllib.loads(f"{self._text[start : self._at]} = 0")
        return key

    def _string(self) -> None:
        for string in _STRINGS:
            match = string.match(self._text, self._at)
            if match is not None:
                self._at = match.end()
                return
        raise AssertionError("tomllib takes for a string what is none")

    def _skip(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self._text, self._at)
        assert match is not None
        self._at = match.end()

    def _now(self) -> int:
        self._line += self._text.count("\n", self._counted, self._at)
        self._counted = self._at
        return self._line

    def _note(self, path: KeyPath, line: int) -> None:
        self.lines.setdefault(path, line)
