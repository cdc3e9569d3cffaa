"""Which files of a folder belong together, and what is said of those that don't; when a folder is another."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from smtpfw.tls.folders import look_into, signature_of
from tests.tls.pairs import Pem, make_pair, put

MADE = make_pair("a.test")
OTHER = make_pair("b.test")
ISSUER = make_pair(authority=True)

#: What a file may hold, by a word.
CONTENTS = {
    "cert": MADE.certificate,
    "key": MADE.key,
    "both": MADE.both,
    "other": OTHER.certificate,
    "issuer": ISSUER.certificate,
    "dh": b"-----BEGIN DH PARAMETERS-----\nMAYCAQ==\n-----END DH PARAMETERS-----\n",
    "junk": b"hello\n",
    "empty": b"",
}


def fill(folder: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        put(folder / name, CONTENTS[content])


@pytest.mark.parametrize(
    ("files", "pairs"),
    [
        ({"a.pem": "both"}, [("a.pem", None)]),
        ({"a.pem": "both", "b.pem": "both"}, [("a.pem", None), ("b.pem", None)]),
        ({"a.crt": "cert", "a.key": "key"}, [("a.crt", "a.key")]),
        ({"a.cert": "cert", "a.key": "key"}, [("a.cert", "a.key")]),
        ({"a.pem": "cert", "a.key": "key"}, [("a.pem", "a.key")]),
        ({"a.pem": "cert", "a-key.pem": "key"}, [("a.pem", "a-key.pem")]),
        ({"cert.pem": "cert", "key.pem": "key"}, [("cert.pem", "key.pem")]),
        ({"tls.crt": "cert", "tls.key": "key", "ca.crt": "issuer"}, [("tls.crt", "tls.key")]),
        # certbot's.
        (
            {
                "README": "junk",
                "a.test/README": "junk",
                "a.test/cert.pem": "cert",
                "a.test/chain.pem": "issuer",
                "a.test/fullchain.pem": "cert",
                "a.test/privkey.pem": "key",
                "b.test/fullchain.pem": "cert",
                "b.test/privkey.pem": "key",
            },
            [("a.test/fullchain.pem", "a.test/privkey.pem"), ("b.test/fullchain.pem", "b.test/privkey.pem")],
        ),
        # acme.sh's.
        (
            {
                "a.test/a.test.cer": "cert",
                "a.test/a.test.key": "key",
                "a.test/a.test.conf": "junk",
                "a.test/ca.cer": "issuer",
                "a.test/fullchain.cer": "cert",
            },
            [("a.test/fullchain.cer", "a.test/a.test.key")],
        ),
        # lego's.
        (
            {"a.test.crt": "cert", "a.test.issuer.crt": "issuer", "a.test.key": "key", "a.test.json": "junk"},
            [("a.test.crt", "a.test.key")],
        ),
        ({"a.pem": "both", "dhparams.pem": "dh", "old.pem~": "both", ".b.pem": "both"}, [("a.pem", None)]),
        ({"a.pem": "both", ".hidden/b.pem": "both", "x/y/c.pem": "both"}, [("a.pem", None)]),
        (
            {"fullchain.pem": "cert", "privkey.pem": "key", "b.crt": "other", "b.key": "key"},
            [("b.crt", "b.key"), ("fullchain.pem", "privkey.pem")],
        ),
    ],
)
def test_pairs(tmp_path: Path, files: dict[str, str], pairs: list[tuple[str, str | None]]) -> None:
    fill(tmp_path, files)
    found = look_into(str(tmp_path))
    assert found.problems == []
    assert found.pairs == [(str(tmp_path / one), key and str(tmp_path / key)) for one, key in pairs]


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({"a.key": "key"}, "a.key: a key without a certificate; a.pem or the like is missing"),
        ({"x/privkey.pem": "key"}, "x/privkey.pem: a key without a certificate; fullchain.pem or the like is missing"),
        ({"x/privkey.pem": "key", "x/cert.pem": "cert"}, "x/privkey.pem: a key without a certificate; fullchain.pem"),
        ({"a.pem": "key"}, "a.pem: a key without a certificate; put both into one file"),
        ({"a.pem": "empty"}, "a.pem: neither a certificate nor a key in PEM is in this file"),
        ({"a.crt": "junk"}, "a.crt: neither a certificate nor a key in PEM is in this file"),
        ({"a.crt": "cert", "a.pem": "cert", "a.key": "key"}, "a.key: a.crt and a.pem could go with this key; leave"),
    ],
)
def test_problems(tmp_path: Path, files: dict[str, str], complaint: str) -> None:
    fill(tmp_path, files)
    found = look_into(str(tmp_path))
    (problem,) = found.problems
    assert problem.text.startswith(f"{tmp_path}/{complaint}")
    assert problem.text.partition(":")[0] in problem.paths
    assert found.pairs == []


def test_a_broken_certificate_without_a_key(tmp_path: Path) -> None:
    put(tmp_path / "a.pem", MADE.certificate[:200])
    (problem,) = look_into(str(tmp_path)).problems
    assert problem.text.startswith(f"{tmp_path}/a.pem: the last certificate in this file has no end")


def test_a_certificate_without_a_key_is_spare(tmp_path: Path) -> None:
    fill(tmp_path, {"a.pem": "both", "b.crt": "other", "ca.crt": "issuer"})
    found = look_into(str(tmp_path))
    assert [path for path, _ in found.spare] == [str(tmp_path / "b.crt")]


def test_a_link_that_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "a.pem").symlink_to(tmp_path / "gone")
    (problem,) = look_into(str(tmp_path)).problems
    assert problem.text == f"{tmp_path}/a.pem: no such file or directory"


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.pem")
    assert look_into(str(tmp_path)) == ([], [], [], [])


def test_no_folder(tmp_path: Path) -> None:
    path = str(tmp_path / "absent")
    found = look_into(path)
    assert [problem.text for problem in found.problems] == [f"{path}: no such file or directory"]
    assert found.closed == [path]


def change_content(folder: Path, made: Pem) -> None:
    put(folder / "sub" / "a.pem", made.both)


def change_length(folder: Path, made: Pem) -> None:
    with (folder / "sub" / "a.pem").open("ab") as file:
        file.write(b"\n")


def change_times(folder: Path, made: Pem) -> None:
    os.utime(folder / "sub" / "a.pem", (1, 1))


def add_file(folder: Path, made: Pem) -> None:
    put(folder / "b.pem", made.both)


def remove_file(folder: Path, made: Pem) -> None:
    (folder / "sub" / "a.pem").unlink()


def move_link(folder: Path, made: Pem) -> None:
    put(folder.parent / "archive" / "2.pem", made.both)
    (folder / "link.pem").unlink()
    (folder / "link.pem").symlink_to(folder.parent / "archive" / "2.pem")


def change_behind_link(folder: Path, made: Pem) -> None:
    put(folder.parent / "archive" / "1.pem", made.both)


def remove_folder(folder: Path, made: Pem) -> None:
    folder.rename(folder.parent / "elsewhere")


@pytest.mark.parametrize(
    "change",
    [
        change_content,
        change_length,
        change_times,
        add_file,
        remove_file,
        move_link,
        change_behind_link,
        remove_folder,
    ],
)
def test_a_change_is_seen(tmp_path: Path, change: Callable[[Path, Pem], None]) -> None:
    folder = tmp_path / "certs"
    put(folder / "sub" / "a.pem", MADE.both)
    put(tmp_path / "archive" / "1.pem", MADE.both)
    (folder / "link.pem").symlink_to(tmp_path / "archive" / "1.pem")
    before = signature_of([str(folder)])
    assert signature_of([str(folder)]) == before
    change(folder, OTHER)
    assert signature_of([str(folder)]) != before
