"""``--check`` as a process: what it prints, its status, and that it is no service."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock

from smtpfw.service import checking
from tests.config.plans import plan_of
from tests.running import ROOT, Twistd


def check(folder: Path, *words: str, before: tuple[str, ...] = ("-n",)) -> tuple[int, list[str]]:
    """Run it; return its status and its lines."""
    run = "import sys; from twisted.scripts.twistd import run; run()"
    done = subprocess.run(
        [sys.executable, "-c", run, *before, "smtpfw", *words, "--check"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()


FILE = """
hostname = "mx.example.org"
deliver.local = "maildir:inbox"
[listen.mx]
on = "tcp:{port}:interface=127.0.0.1"
routes = [ {{ to = "example.org", deliver = "local" }} ]
"""


def test_beside_the_service_that_runs(tmp_path: Path) -> None:
    with Twistd("--backend", "memory", folder=tmp_path) as server:
        (tmp_path / "x.toml").write_text(FILE.format(port=server.port))
        (tmp_path / "twistd.pid").write_text(str(server.pid))
        # Another service would fail on the pid file, as a daemon and in the foreground.
        for before in (("-n",), ("--reactor=asyncio", "-n"), ()):
            status, lines = check(tmp_path, "--config", "x.toml", before=before)
            assert status == 0, lines
            assert (tmp_path / "twistd.pid").read_text() == str(server.pid)
            assert "  Mail for example.org goes to local" in lines
            assert any(f"port {server.port} is in use" in line for line in lines if line.startswith("  Warning: "))
        assert server.stop() == 0
    assert not (tmp_path / "inbox").exists()


def test_mistakes_are_told_line_by_line(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text(f"{FILE.format(port=0)}\n[lisen.mx]\n[limits]\nmax_message_bytes = 'ten'\n")
    status, lines = check(tmp_path, "--config", "x.toml")
    assert status == 1
    assert [line.partition(" ")[0] for line in lines[:2]] == ["x.toml:8:", "x.toml:10:"]
    assert lines[2:] == ["", "2 mistakes"]
    assert not (tmp_path / "twistd.pid").exists()
    (tmp_path / "Maildir").touch()
    status, lines = check(tmp_path)
    assert status == 1
    assert sum(line.startswith("  Mistake: ") for line in lines) == 1


class TestAsWhom:
    """Folders are tried as who will serve; in this process nobody is changed."""

    def become(
        self, monkeypatch: pytest.MonkeyPatch, twistd: Mapping[str, Any] | None, *words: str
    ) -> list[tuple[Any, Any]]:
        became: list[tuple[Any, Any]] = []
        monkeypatch.setattr(checking, "switchUID", lambda uid, gid: became.append((uid, gid)))
        monkeypatch.setattr(os, "geteuid", lambda: 0)
        monkeypatch.setattr(checking, "_print", lambda lines: None)
        listen = ("--listen", "tcp:0:interface=127.0.0.1", "--backend", "memory")
        assert checking.check_service(lambda: plan_of(*listen, *words), Clock(), twistd) == 0
        return became

    def test_by_our_setting(self, monkeypatch: pytest.MonkeyPatch) -> None:
        entry = pwd.getpwnam("nobody")
        assert self.become(monkeypatch, {}, "--user", "nobody") == [(entry.pw_uid, entry.pw_gid)]

    def test_by_options_of_twistd(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.become(monkeypatch, {"uid": 7, "gid": 8}) == [(7, 8)]

    def test_of_a_user_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        entry = pwd.getpwnam("nobody")
        assert self.become(monkeypatch, {"uid": entry.pw_uid, "gid": None}) == [(entry.pw_uid, entry.pw_gid)]

    def test_by_nobody(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.become(monkeypatch, {"uid": None, "gid": None}) == []
        assert self.become(monkeypatch, None) == []

    def test_one_that_is_not_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        printed: list[str] = []
        monkeypatch.setattr(checking, "_print", printed.extend)
        assert checking.check_service(lambda: plan_of("--user", "nobody-of-that-name"), Clock(), {}) == 1
        assert printed[0].startswith("--user nobody-of-that-name: there is no such user")
