"""The line of each value of a TOML file, and why a file can't be read."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpfw.config.toml import MAX_BYTES, KeyPath, TOMLFile, key_of, read_toml
from smtpfw.errors import ConfigError

# -- a small writer of TOML, which knows where it puts what ------------------------

#: A key as it is written, and the key.
_KEYS = [
    *((key, key) for key in ("a", "b", "c-d", "e_f", "12", "on", "true")),
    ('"a b"', "a b"),
    ("'x.y'", "x.y"),
    ('"\\u00fc"', "ü"),
    ('"]=#\\""', ']=#"'),
    ('""', ""),
]

#: A value as it is written; some have brackets, quotes and line ends in them.
_SCALARS = [
    "1",
    "-0.5e3",
    "true",
    "inf",
    "1979-05-27T07:32:00Z",
    "1979-05-27 07:32:00",
    '"text"',
    '"a # b ] } , = \\" \\\\"',
    "'C:\\path'",
    "''",
    '""',
    '"""one\ntwo ] """',
    '"""quotes "" in it, and at the end"""""',
    '"""\\\n   folded"""',
    "'''raw ''\n\\'''",
    "'''ends in one''''",
]

_SPACES = st.sampled_from(["", " ", "\t", "  "])
_BETWEEN = st.sampled_from(["", " ", "\n", "\n\n", " # ] } \" '''\n", "\n  \t"])
_LINE_ENDS = st.sampled_from(["\n", "\n", " # comment = [ {\n", "\n\n", "\n# [table]\n"])


class Writer:
    """Draws a document; ``lines`` is where each value stands."""

    def __init__(self, draw: Any) -> None:
        self.draw = draw
        self.text = ""
        self.lines: dict[KeyPath, int] = {}

    def put(self, text: str) -> None:
        self.text += text

    def note(self, path: KeyPath) -> None:
        self.lines[path] = self.text.count("\n") + 1

    def keys(self, count: int) -> list[tuple[str, str]]:
        return list(
            self.draw(st.lists(st.sampled_from(_KEYS), min_size=0, max_size=count, unique_by=lambda key: key[1]))
        )

    def pair(self, path: KeyPath, written: str, key: str, depth: int, *, inline: bool = False) -> None:
        path = (*path, key)
        self.note(path)
        self.put(written + self.draw(_SPACES))
        if self.draw(st.integers(0, 5)) == 0:
            # A dotted key: a table with one key.
            self.put("." + self.draw(_SPACES))
            path = (*path, "z")
            self.note(path)
            self.put("z")
        self.put(self.draw(_SPACES) + "=" + self.draw(_SPACES))
        self.value(path, depth, inline=inline)

    def value(self, path: KeyPath, depth: int, *, inline: bool) -> None:
        kind = self.draw(st.sampled_from(["scalar", "array", "table"] if depth else ["scalar"]))
        self.lines.setdefault(path, self.text.count("\n") + 1)
        if kind == "scalar":
            self.put(self.draw(st.sampled_from([one for one in _SCALARS if not inline or "\n" not in one])))
        elif kind == "array":
            self.array(path, depth, inline=inline)
        else:
            self.put("{" + self.draw(_SPACES))
            for index, (written, key) in enumerate(self.keys(2)):
                self.put(("," if index else "") + self.draw(_SPACES))
                self.pair(path, written, key, depth - 1, inline=True)
                self.put(self.draw(_SPACES))
            self.put("}")

    def array(self, path: KeyPath, depth: int, *, inline: bool) -> None:
        between = _SPACES if inline else _BETWEEN
        count = self.draw(st.integers(0, 3))
        self.put("[" + self.draw(between))
        for index in range(count):
            self.value((*path, index), depth - 1, inline=inline)
            self.put(self.draw(between))
            if index < count - 1 or self.draw(st.booleans()):
                self.put("," + self.draw(between))
        self.put("]")

    def body(self, path: KeyPath) -> None:
        for written, key in self.keys(3):
            self.put(self.draw(_SPACES))
            self.pair(path, written, key, 2)
            self.put(self.draw(_LINE_ENDS))

    def document(self) -> None:
        self.put(self.draw(_LINE_ENDS))
        self.body(())
        for number in range(self.draw(st.integers(0, 3))):
            # Names of their own, since no table stands twice.
            path: KeyPath = (f"t{number}",)
            space = self.draw(_SPACES)
            if self.draw(st.booleans()):
                self.note(path)
                inner = self.draw(st.sampled_from(_KEYS))
                self.note((*path, inner[1]))
                self.put(f"[{space}{path[0]}{space}.{space}{inner[0]}{space}]{self.draw(_LINE_ENDS)}")
                self.body((*path, inner[1]))
                continue
            for index in range(self.draw(st.integers(1, 3))):
                if index == 0:
                    self.note(path)
                self.note((*path, index))
                self.put(f"[[{space}{path[0]}{space}]]{self.draw(_LINE_ENDS)}")
                self.body((*path, index))
                if self.draw(st.booleans()):
                    # A table within the last element.
                    self.note((*path, index, "sub"))
                    self.put(f"[{path[0]}.sub]{self.draw(_LINE_ENDS)}")
                    self.body((*path, index, "sub"))


@st.composite
def documents(draw: Any) -> Writer:
    writer = Writer(draw)
    writer.document()
    return writer


def paths_of(value: Any, path: KeyPath = ()) -> set[KeyPath]:
    found = {path} if path else set()
    if isinstance(value, dict):
        for key, one in value.items():
            found |= paths_of(one, (*path, key))
    elif isinstance(value, list):
        for index, one in enumerate(value):
            found |= paths_of(one, (*path, index))
    return found


@given(documents())
def test_each_key_has_its_line(writer: Writer) -> None:
    try:
        tomllib.loads(writer.text)
    except tomllib.TOMLDecodeError:
        # Where a key "sub" or "z" was drawn and written once more.
        return
    for text in (writer.text, writer.text.replace("\n", "\r\n")):
        file = TOMLFile("x.toml", text)
        assert paths_of(file.values) == set(writer.lines)
        assert {path: file.line(path) for path in writer.lines} == writer.lines


def test_most_documents_of_the_writer_are_toml() -> None:
    seen = {"good": 0, "bad": 0}

    @given(documents())
    def count(writer: Writer) -> None:
        try:
            tomllib.loads(writer.text)
        except tomllib.TOMLDecodeError:
            seen["bad"] += 1
        else:
            seen["good"] += 1

    count()
    assert seen["good"] > 9 * seen["bad"]


@given(st.text(alphabet="ab.[]{}=,\"'\\\n# 1\tü", max_size=60))
def test_any_text_has_its_lines_or_an_error(text: str) -> None:
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        with pytest.raises(ConfigError, match=r"^x\.toml:\d+: [^\n]*$"):
            TOMLFile("x.toml", text)
        return
    file = TOMLFile("x.toml", text)
    count = text.count("\n") + 1
    assert all(1 <= file.line(path) <= count for path in paths_of(values))


def test_where_a_table_is_named_after_those_within_it() -> None:
    file = TOMLFile("x.toml", "[a.b]\nx = 1\n[a]\ny = 2\n")
    assert [file.line(path) for path in [("a",), ("a", "b"), ("a", "b", "x"), ("a", "y")]] == [3, 1, 2, 4]


def test_what_has_no_line_has_that_of_what_is_around_it() -> None:
    file = TOMLFile("x.toml", "\n[a]\nb = { c = 1 }\n")
    assert file.line(("a", "b", "absent", 3)) == 3
    assert file.line(("absent",)) == 1


# -- what can't be read ------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 100_000,
        "a = " + "[" * 5_000 + "]" * 5_000,
        "a = " + "{b=" * 5_000 + "1" + "}" * 5_000,
        "a = [" + "{b=[" * 2_000 + "]}" * 2_000 + "]",
    ],
)
def test_deep_nesting(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^x\.toml(:1)?: [^\n]*$"):
        TOMLFile("x.toml", text)


@pytest.mark.parametrize("depth", range(10, 400, 13))
def test_not_so_deep_nesting_is_read_or_told(depth: int) -> None:
    text = "a = " + "[" * depth + "]" * depth
    try:
        line = TOMLFile("x.toml", text).line(("a", 0))
    except ConfigError as error:
        words = str(error)
    else:
        words = f"line {line}"
    # Where that ends depends on how deep the caller is.
    assert words in {"line 1", "x.toml: it is nested too deeply"}
    assert depth > 100 or words == "line 1"


def test_a_number_that_is_too_long_for_python() -> None:
    with pytest.raises(ConfigError, match=r"^x\.toml: exceeds the limit \(4300 digits\)[^\n]*$"):
        TOMLFile("x.toml", "a = " + "9" * 5_000)


def test_the_mark_of_some_editors_is_no_part_of_it(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(b"\xef\xbb\xbfa = 1\n")
    file = read_toml(str(path))
    assert (file.values, file.line(("a",))) == ({"a": 1}, 1)


@pytest.mark.parametrize(
    ("octets", "line"),
    [(b"\xff\xfea\x00", 1), (b"a = 1\n# \xe4\n", 2), (b'a = "\xc3"\n', 1), (b"\n\nb\xfcro = 1", 3)],
)
def test_not_utf8(octets: bytes, line: int) -> None:
    with pytest.raises(ConfigError) as caught:
        read_toml("x.toml", octets)
    assert str(caught.value) == f"x.toml:{line}: this is not UTF-8, as TOML has to be"


def test_what_is_no_file(tmp_path: Path) -> None:
    for name, words in [("absent", "no such file or directory"), ("", "is a directory")]:
        path = str(tmp_path / name)
        with pytest.raises(ConfigError) as caught:
            read_toml(path)
        assert str(caught.value) == f"{path}: {words}"


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.toml"
    path.write_text("")

    def refuse(*arguments: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    # Root, as whom tests may run, may read everything.
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ConfigError, match="permission denied"):
        read_toml(str(path))


def test_a_file_without_end() -> None:
    with pytest.raises(ConfigError, match=f"it has more than {MAX_BYTES} octets; is it a configuration?"):
        read_toml("/dev/zero")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (("listen", "mx", "on"), "listen.mx.on"),
        (("routes", 0, "to"), "routes[1].to"),
        (("deliver", "Büro 1"), 'deliver."Büro 1"'),
        (("deliver", "a\nb"), 'deliver."a\\nb"'),
        (("",), '""'),
        ((), ""),
    ],
)
def test_a_key_as_it_is_told(path: KeyPath, words: str) -> None:
    assert key_of(path) == words
