"""Folders that could take mail, and some that could not; nothing is left in any of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from smtpfw.backends.maildir import MaildirBackend
from smtpfw.backends.maildir.template import PathTemplate
from smtpfw.backends.maildir.trying import file_system_of, try_out
from smtpfw.errors import ConfigError
from tests.modes import obey_modes


@pytest.fixture
def mounts(tmp_path: Path) -> Path:
    """A machine without memory for a disk."""
    path = tmp_path / "mountinfo"
    path.write_text("20 1 8:1 / / rw - ext4 /dev/sda1 rw\n")
    return path


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A folder in which nothing may be left."""
    path = tmp_path / "base"
    path.mkdir()
    return path


def mailbox(path: Path) -> Path:
    for name in ("tmp", "new", "cur"):
        (path / name).mkdir(parents=True)
    return path


def tried(path: Path, mounts: Path, create: bool | None = None) -> list[str]:
    """What is said; and nothing has changed by that."""
    template = PathTemplate(str(path))
    root = path.parents[-1] if not template.prefix else Path(template.prefix).parent
    before = sorted(root.rglob("*")) if root.exists() else []
    try:
        return try_out(template, template.fixed if create is None else create, mounts)
    finally:
        assert (sorted(root.rglob("*")) if root.exists() else []) == before


def test_what_is_in_order(base: Path, mounts: Path) -> None:
    assert tried(mailbox(base / "inbox"), mounts) == []
    assert tried(base / "absent", mounts) == []
    assert tried(base / "absent" / "deeper" / "still", mounts) == []
    (base / "empty").mkdir()
    assert tried(base / "empty", mounts) == []
    mailbox(base / "users" / "tim")
    assert tried(base / "users" / "{user}", mounts) == []
    assert tried(base / "absent" / "{domain}" / "{user}", mounts, create=True) == []
    assert tried(base / "empty" / "{user}", mounts, create=True) == []


def test_folders_that_are_never_made(base: Path, mounts: Path) -> None:
    (sentence,) = tried(base / "users" / "{user}", mounts)
    assert sentence == (
        f"there is no folder {base}/users, and it is never made: every recipient is refused with 550 5.1.1"
    )
    (base / "users").mkdir()
    (sentence,) = tried(base / "users" / "{user}", mounts)
    assert sentence.startswith(f"there is no mailbox in {base}/users, and none is ever made")
    assert tried(base / "inbox", mounts, create=False) == [
        f"there is no folder {base}/inbox, and it is never made: every recipient is refused with 550 5.1.1"
    ]


def test_what_is_in_the_way(base: Path, mounts: Path) -> None:
    (base / "file").touch()
    with pytest.raises(
        ConfigError, match=r"could not create .*/file/\S+: Not a directory; something that is no folder"
    ):
        tried(base / "file" / "inbox", mounts)
    with pytest.raises(ConfigError, match="file is no folder"):
        tried(base / "file" / "{user}", mounts)
    (mailbox(base / "users" / "tim") / "new").rmdir()
    (base / "users" / "tim" / "new").touch()
    with pytest.raises(ConfigError, match="users/tim/new is no folder"):
        tried(base / "users" / "{user}", mounts)


def test_what_can_not_be_written(base: Path, mounts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    obey_modes(monkeypatch)
    for name in ("a", "b", "c", "d", "e"):
        (mailbox(base / "users" / name) / "tmp").chmod(0o500)
    with pytest.raises(ConfigError) as caught:
        tried(base / "users" / "{user}", mounts)
    lines = str(caught.value).split("\n")
    assert len(lines) == 4
    assert lines[0].endswith(f"/tmp can't be written by user id {os.geteuid()}")
    assert lines[3] == "and 2 mailboxes more"
    (base / "closed").mkdir(mode=0o500)
    with pytest.raises(ConfigError, match="let the user that this process runs as write there"):
        tried(base / "closed" / "inbox", mounts)


@pytest.mark.parametrize("call", ["fsync", "write"])
def test_a_disk_that_does_not_do_what_it_should(
    base: Path, mounts: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> None:
        raise OSError(5, "Input/output error")

    path = mailbox(base / "inbox")
    with monkeypatch.context() as patched:
        patched.setattr(os, call, fail)
        with pytest.raises(ConfigError, match=f"could not {call} .*: Input/output error; the disk may be failing"):
            tried(path, mounts)


def test_a_file_system_that_is_memory(base: Path, tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"20 1 8:1 / / rw - ext4 /dev/sda1 rw\n21 20 0:5 / {base} rw,nosuid shared:7 - tmpfs tmpfs rw\n")
    (sentence,) = tried(base / "inbox", mounts)
    assert sentence == f"{base}/inbox: this file system is memory (tmpfs); a restart of the machine empties it"


def test_which_file_system(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    lines = (
        "1 0 8:1 / / rw - ext4 /dev/sda1 rw",
        r"2 1 0:4 / /a\040b rw - xfs x rw",
        "3 1 0:5 / /var rw - btrfs x rw",
        "4 3 0:6 / /var rw - tmpfs x rw",
        "unreadable",
    )
    mounts.write_text("\n".join(lines))
    assert [file_system_of(path, mounts) for path in ("/etc", "/a b/c", "/a", "/var/mail", "/variety")] == [
        "ext4",
        "xfs",
        "ext4",
        "tmpfs",
        "ext4",
    ]
    assert file_system_of("/etc", tmp_path / "absent") == ""


def test_a_backend_tries_its_own(base: Path) -> None:
    (sentence, *_) = MaildirBackend(f"{base}/users/{{user}}").check()
    assert sentence.startswith(f"there is no folder {base}/users")
