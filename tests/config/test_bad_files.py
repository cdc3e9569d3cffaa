"""
Configurations that are wrong, in ``bad/``: each gets the lines that stand at its head, and no traceback.

``# expect: 12: listen.mx.auth: ...`` is an error at line 12. ``...`` stands for any text. Those that begin with
``run_`` are found out when the sockets are bound; ``@PORT@`` is a port that is in use.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from smtpfw.service import Options
from tests.certificates import Authority, certificate_pem, key_pem, make_key
from tests.config.plans import mistakes
from tests.running import ROOT

FILES = sorted(Path(__file__).with_name("bad").glob("*.toml"))
BOUND = [path for path in FILES if path.name.startswith("run_")]
#: Some more that are run as an operator does it.
AS_PROCESSES = [*BOUND, *(path for path in FILES if path.stem in ("several_at_once", "toml_not_utf8", "tls_absent"))]

_EXPECT = re.compile(r"^# expect: (\d+: )?(.*)$", re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the files name, as far as it is there."""
    folder = tmp_path_factory.mktemp("bad")
    key = make_key()
    (folder / "certs").mkdir()
    (folder / "empty").mkdir()
    (folder / "certs" / "mx.pem").write_bytes(certificate_pem(key) + key_pem(key))
    (folder / "cert.pem").write_bytes(certificate_pem(key))
    (folder / "other.key").write_bytes(key_pem(make_key()))
    (folder / "locked.key").write_bytes(key_pem(key, b"sesame"))
    (folder / "ca.pem").write_bytes(Authority().pem)
    (folder / "users").write_text("")
    (folder / "empty.secret").write_text("")
    return folder


@pytest.fixture
def busy() -> Iterator[int]:
    """A port at which somebody listens."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


def expected(path: Path) -> list[tuple[int, str]]:
    text = path.read_text(errors="replace")
    return [(int(line.rstrip(": ") or 0), words) for line, words in _EXPECT.findall(text)]


def assert_expected(said: list[str], path: Path, **known: object) -> None:
    patterns = []
    for line, words in expected(path):
        for name, value in known.items():
            words = words.replace(f"@{name}@", str(value))
        place = f"{path.name}:{line}: " if line else ""
        patterns.append(re.escape(f"{place}{words}").replace(re.escape("..."), ".*"))
    assert patterns
    for one, pattern in zip(said, patterns, strict=True):
        assert re.fullmatch(pattern, one), f"{one!r} is not {pattern!r}"


def test_there_are_many() -> None:
    assert len(FILES) >= 100


@pytest.mark.parametrize("path", [path for path in FILES if path not in BOUND], ids=lambda path: str(path.stem))
def test_the_plan(path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (folder / path.name).write_bytes(path.read_bytes())
    said = mistakes("--config", path.name)
    assert_expected(said, path)
    lines = [line for line, _ in expected(path)]
    assert lines == sorted(lines)
    assert not any("sesame" in line for line in said)


@pytest.mark.parametrize("path", AS_PROCESSES, ids=lambda path: str(path.stem))
def test_as_a_process(path: Path, folder: Path, busy: int) -> None:
    (folder / path.name).write_bytes(path.read_bytes().replace(b"@PORT@", str(busy).encode()))
    command = [str(Path(sys.executable).with_name("twistd")), "-n", "smtpfw", "--config", path.name]
    ours = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=ours, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    said = done.stderr.splitlines()
    assert all(line.startswith("smtpfw: ") for line in said), done.stderr
    assert_expected([line.removeprefix("smtpfw: ") for line in said], path, PORT=busy)
    assert not (folder / "twistd.pid").exists()


def test_the_options_of_a_service_know_of_files() -> None:
    options = Options()
    options.parseOptions(["--config", "smtpfw.toml"])
    assert options["config"] == "smtpfw.toml"
