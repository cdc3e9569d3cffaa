"""Secrets: where they are looked for, and that they are not shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from smtpfw.config.secrets import read_login, read_secret


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("octets", "secret"),
    [
        (b"sesame", "sesame"),
        (b"sesame\n", "sesame"),
        (b"sesame\r\nmore\n", "sesame"),
        (b" open sesame \n", " open sesame "),
        (b"s\xc3\xa4sam\n", "säsam"),
        (b"", ""),
    ],
)
@pytest.mark.parametrize("text", ["file:secret", "secret", "./secret"])
def test_the_first_line_of_a_file(text: str, octets: bytes, secret: str) -> None:
    Path("secret").write_bytes(octets)
    assert read_secret(text) == secret


def test_a_path_with_a_colon_in_it() -> None:
    Path("a:b").write_text("sesame\n")
    assert read_secret("file:a:b") == read_secret("a:b") == "sesame"


def test_the_environment() -> None:
    assert read_secret("env:ISP", {"ISP": "sesame"}) == "sesame"
    for environment in ({}, {"ISP": ""}):
        with pytest.raises(ValueError, match=r"^there is no variable ISP in the environment$"):
            read_secret("env:ISP", environment)


def test_credentials_of_systemd(folder: Path) -> None:
    (folder / "isp").write_text("sesame\n")
    assert read_secret("credential:isp", {"CREDENTIALS_DIRECTORY": str(folder)}) == "sesame"
    with pytest.raises(ValueError, match=r"LoadCredential=isp:PATH"):
        read_secret("credential:isp", {})
    with pytest.raises(ValueError, match=f"^{folder}/other: no such file or directory$"):
        read_secret("credential:other", {"CREDENTIALS_DIRECTORY": str(folder)})


@pytest.mark.parametrize("text", ["file:absent", "/nonexistent/absent", "./absent", "../absent"])
def test_a_file_that_is_not_there_is_named(text: str) -> None:
    with pytest.raises(ValueError, match=f"^{text.removeprefix('file:')}: no such file or directory$"):
        read_secret(text)


@pytest.mark.parametrize("text", ["sesame", "me:sesame", "ENV:sesame", "envsesame", "sesame/8"])
def test_what_may_be_the_secret_itself_is_not_shown(text: str) -> None:
    for read in (read_secret, read_login):
        with pytest.raises(ValueError, match="file:PATH, env:NAME or credential:NAME") as caught:
            read(text)
        assert "sesame" not in str(caught.value)


def test_a_file_of_other_octets_and_a_folder(folder: Path) -> None:
    Path("secret").write_bytes(b"\xffsesame\n")
    with pytest.raises(ValueError, match=r"^secret: its first line is no text in UTF-8$"):
        read_secret("file:secret")
    with pytest.raises(ValueError, match=f"^{folder}: is a directory$"):
        read_secret(str(folder))


def test_a_name_and_a_password() -> None:
    Path("secret").write_text("me:open:sesame\n")
    assert read_login("file:secret") == ("me", "open:sesame")


@pytest.mark.parametrize("line", ["", "me", "me:", ":sesame", "\nme:sesame"])
def test_what_is_no_name_and_password(line: str) -> None:
    Path("secret").write_text(line)
    with pytest.raises(ValueError, match=r"^file:secret: its first line must be name:password$"):
        read_login("file:secret")
