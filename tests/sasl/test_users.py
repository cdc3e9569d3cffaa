"""The users file: what it verifies, what it withholds, how it is read and written."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from base64 import b64encode
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import pytest
from twisted.internet import defer
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import capturedLogs, eventAsText
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from smtpfw.errors import AuthFailed, ConfigError
from smtpfw.sasl import SCRAM, IPasswordChecker, ISASLClient, ISCRAMKeyStore, Login, Plain, make_scram_keys
from smtpfw.sasl import users as users_module
from smtpfw.sasl.users import UsersFile, main, make_secret, store_secret
from tests.sasl.helpers import INFO, PASSWORD, server_for

#: Cheap, as tests hash often.
KEY = hashlib.scrypt(PASSWORD.encode(), salt=b"salt", n=2, r=8, p=1, dklen=32)
SCRYPT = f"{{SCRYPT}}2,8,1,{b64encode(b'salt').decode()},{b64encode(KEY).decode()}"
SCRAM_SECRET = make_secret(PASSWORD)

#: The example of RFC 7677 section 3: password "pencil".
PENCIL = (
    "{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,"
    "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
)


def users_file(path: Path, *lines: str, mode: int = 0o600) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    path.chmod(mode)
    return path


async def login(client: ISASLClient, name: str, checker: Any) -> str:
    """The loop of a connection, whose checker answers from a thread."""
    server = server_for(name, checker)
    _, response = client.start(INFO)
    challenge, done = await server.next(response)
    while not done:
        challenge, done = await server.next(client.next(challenge, True))
    if challenge is not None:
        assert client.next(challenge, True) == b""
    client.next(b"", False)
    return server.identity


class Dialogs(TestCase):
    def setUp(self) -> None:
        # Not trial's mktemp(): under pytest it stays in the current folder.
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name, "users")

    def use(self, *lines: str) -> UsersFile:
        return UsersFile(users_file(self.path, *lines))

    async def refused(self, checker: UsersFile, username: str, password: str, name: str = "PLAIN") -> None:
        client = SCRAM(username, password) if name.startswith("SCRAM") else Plain(username, password)
        with pytest.raises(AuthFailed) as caught:
            await login(client, name, checker)
        assert password not in repr(caught.value)

    async def test_passwords_by_both_schemes(self) -> None:
        checker = self.use("# who may", "", f"tim:{SCRYPT}", f"  ursel:{SCRAM_SECRET}  ", f"user:{PENCIL}")
        verifyObject(IPasswordChecker, checker)
        for username, password in (("tim", PASSWORD), ("ursel", PASSWORD), ("user", "pencil")):
            assert await login(Plain(username, password), "PLAIN", checker) == username
            assert await login(Login(username, password), "LOGIN", checker) == username
            await self.refused(checker, username, "wrong")
        await self.refused(checker, "nobody", PASSWORD)

    async def test_scram(self) -> None:
        checker = self.use(f"ursel:{SCRAM_SECRET}", f"user:{PENCIL}")
        verifyObject(ISCRAMKeyStore, checker)
        assert await login(SCRAM("ursel", PASSWORD), "SCRAM-SHA-256", checker) == "ursel"
        assert await login(SCRAM("user", "pencil"), "SCRAM-SHA-256", checker) == "user"
        await self.refused(checker, "ursel", "wrong", "SCRAM-SHA-256")
        await self.refused(checker, "nobody", PASSWORD, "SCRAM-SHA-256")
        assert checker.get_scram_keys("ursel", "SHA-1") is None

    async def test_scram_cannot_be_done_with_scrypt(self) -> None:
        checker = self.use(f"tim:{SCRYPT}")
        assert checker.get_scram_keys("tim", "SHA-256") is None
        # Not offered: a client that takes the best would never get in.
        assert not ISCRAMKeyStore.providedBy(checker)

    async def test_default_schemes_as_made(self) -> None:
        green = "gr\u00fcn"
        checker = self.use(f"tim:{make_secret(green, 'scrypt')}", f"ursel:{make_secret(green)}")
        for username in ("tim", "ursel"):
            # Decomposed: SASLprep makes one of the two spellings.
            assert await login(Plain(username, "gru\u0308n"), "PLAIN", checker) == username

    async def test_password_that_cannot_be_anybodys(self) -> None:
        checker = self.use(f"tim:{SCRYPT}", f"ursel:{SCRAM_SECRET}")
        for password in ("\ud800", "\u0221", ""):
            for username in ("tim", "ursel"):
                with pytest.raises(AuthFailed):
                    await checker.check_password(username, password)

    async def test_everybody_costs_the_same_work(self) -> None:
        checker = self.use(f"tim:{SCRYPT}", f"ursel:{SCRAM_SECRET}", f"user:{PENCIL}", f"cora:{SCRYPT}")
        works = []
        for username, password in (("tim", "wrong"), ("ursel", "wrong"), ("ursel", PASSWORD), ("nobody", PASSWORD)):
            with (
                mock.patch.object(users_module, "_scrypt", wraps=users_module._scrypt) as scrypt,
                mock.patch.object(users_module, "make_scram_keys", wraps=make_scram_keys) as scram,
            ):
                await defer.gatherResults(
                    [defer.ensureDeferred(checker.check_password(username, password))], consumeErrors=True
                ).addErrback(lambda failure: None)
            works.append((scrypt.call_count, [call.args[3] for call in scram.call_args_list]))
        assert works == [(1, [4096])] * 4

    async def test_few_at_a_time_and_a_cancelled_one_keeps_its_place(self) -> None:
        checker = self.use(f"tim:{SCRYPT}")
        running: list[Deferred[bool]] = []

        def in_thread(function: Any, *arguments: Any) -> Deferred[bool]:
            running.append(Deferred())
            return running[-1]

        with mock.patch.object(users_module, "deferToThread", in_thread):
            logins = [defer.ensureDeferred(checker.check_password("tim", PASSWORD)) for _ in range(5)]
            assert len(running) == users_module.THREADS == 2
            logins[0].cancel()
            logins[2].cancel()
            assert len(running) == 2
            running[0].callback(True)
            assert len(running) == 3
            running[1].errback(ZeroDivisionError())
            running[2].callback(True)
            running[3].callback(False)
        for canceled in (logins[0], logins[2]):
            self.failureResultOf(canceled, CancelledError)
        self.failureResultOf(logins[1], ZeroDivisionError)
        assert self.successResultOf(logins[3]) == "tim"
        self.failureResultOf(logins[4], AuthFailed)

    async def test_read_again_when_changed(self) -> None:
        checker = self.use(f"tim:{SCRYPT}")
        store_secret(self.path, "ursel", SCRAM_SECRET)
        assert await checker.check_password("ursel", PASSWORD) == "ursel"
        users_file(self.path, f"ursel:{SCRAM_SECRET}")
        await self.refused(checker, "tim", PASSWORD)
        assert ISCRAMKeyStore.providedBy(checker)

    async def test_same_size_but_changed_later(self) -> None:
        checker = self.use(f"tim:{SCRYPT}")
        users_file(self.path, f"tom:{SCRYPT}")
        os.utime(self.path, (1, 1))
        assert await checker.check_password("tom", PASSWORD) == "tom"

    async def test_broken_or_gone_later_keeps_what_was_there(self) -> None:
        checker = self.use(f"ursel:{SCRAM_SECRET}")
        with capturedLogs() as events:
            users_file(self.path, f"ursel:{SCRAM_SECRET}", f"tim:{PASSWORD}")
            for _ in range(3):
                assert await checker.check_password("ursel", PASSWORD) == "ursel"
            self.path.unlink()
            for _ in range(3):
                assert checker.get_scram_keys("ursel", "SHA-256") is not None
        texts = [eventAsText(event) for event in events]
        assert len(texts) == 2
        assert f"{self.path}, line 2: " in texts[0]
        assert "can't be read" in texts[1]
        assert PASSWORD not in repr(events)
        users_file(self.path, f"tim:{SCRYPT}")
        assert await checker.check_password("tim", PASSWORD) == "tim"

    async def test_nothing_shows_a_secret(self) -> None:
        with capturedLogs() as events:
            checker = self.use(f"tim:{SCRYPT}", f"ursel:{SCRAM_SECRET}")
            self.path.touch()
            await self.refused(checker, "tim", "wrong-password")
        shown = f"{events!r} {checker!r} {checker._users!r} {checker._samples!r}"
        for secret in (KEY, b64encode(KEY).decode(), SCRAM_SECRET.split(",")[2], "wrong-password"):
            assert str(secret) not in shown


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("tim", "behind the name"),
        ("tim:sesame", "behind the name"),
        ("tim:{PLAIN}sesame", "behind the name"),
        ("tim:{SCRYPT", "behind {SCRYPT}"),
        (":" + SCRYPT, "a name"),
        ("tim :" + SCRYPT, "a name"),
        ("t\x07m:" + SCRYPT, "SASLprep"),
        ("ann:" + SCRYPT, "already"),
        ("tim:{SCRYPT}sesame", "behind {SCRYPT}"),
        ("tim:" + SCRYPT.replace("2,8,1", "3,8,1"), "behind {SCRYPT}"),
        ("tim:" + SCRYPT.replace("2,8,1", "1,8,1"), "behind {SCRYPT}"),
        ("tim:" + SCRYPT.replace("2,8,1", "65536,1,1"), "behind {SCRYPT}"),
        ("tim:" + SCRYPT.replace("2,8,1", "536870912,8,1"), "behind {SCRYPT}"),
        ("tim:" + SCRYPT.replace("2,8,1", "2,8,100"), "behind {SCRYPT}"),
        ("tim:" + SCRYPT + ":x", "behind {SCRYPT}"),
        ("tim:{SCRYPT}2,8,1,c2FsdA==,c2VzYW1l", "behind {SCRYPT}"),
        ("tim:" + PENCIL.replace("4096", "0"), "behind {SCRAM-SHA-256}"),
        ("tim:" + PENCIL.replace("4096", "9999999"), "behind {SCRAM-SHA-256}"),
        ("tim:" + PENCIL[:-4], "behind {SCRAM-SHA-256}"),
        ("tim:" + PENCIL[:-1], "behind {SCRAM-SHA-256}"),
    ],
)
def test_broken_line_is_named_but_not_shown(tmp_path: Path, line: str, complaint: str) -> None:
    path = users_file(tmp_path / "users", f"ann:{SCRYPT}", "# more", line)
    with pytest.raises(ConfigError) as caught:
        UsersFile(path)
    text = str(caught.value)
    assert text.startswith(f"{path}, line 3: ")
    assert complaint in text
    assert "sesame" not in text
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"tim:\xff\n")
    for path in (tmp_path / "none", tmp_path, binary):
        with pytest.raises(ConfigError, match=str(path)):
            UsersFile(path)


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, False), (0o644, True), (0o604, True)])
def test_warns_when_everybody_may_read(tmp_path: Path, mode: int, warned: bool) -> None:
    with capturedLogs() as events:
        UsersFile(users_file(tmp_path / "users", f"tim:{SCRYPT}", mode=mode))
    assert any("everybody may read" in eventAsText(event) for event in events) == warned


def test_mixed_file_says_that_scram_is_off(tmp_path: Path) -> None:
    with capturedLogs() as events:
        checker = UsersFile(users_file(tmp_path / "users", f"tim:{SCRYPT}", f"ursel:{SCRAM_SECRET}"))
    assert "SCRAM is not offered, as some users have {SCRYPT}" in eventAsText(events[0])
    assert not ISCRAMKeyStore.providedBy(checker)


def test_empty_file_lets_nobody_in(tmp_path: Path) -> None:
    checker = UsersFile(users_file(tmp_path / "users"))
    assert checker.get_scram_keys("tim", "SHA-256") is None


def test_store_replaces_the_line_and_nothing_else(tmp_path: Path) -> None:
    path = users_file(
        tmp_path / "users", "# who may", f"tim:{SCRYPT}", "", f"ursel:{SCRYPT}", f"tim:{SCRYPT}", mode=0o644
    )
    assert store_secret(path, "tim", SCRAM_SECRET)
    assert path.read_text() == f"# who may\ntim:{SCRAM_SECRET}\n\nursel:{SCRYPT}\n"
    assert path.stat().st_mode & 0o777 == 0o600
    assert not store_secret(path, "cora", SCRYPT)
    assert path.read_text().endswith(f"ursel:{SCRYPT}\ncora:{SCRYPT}\n")
    assert [entry.name for entry in tmp_path.iterdir()] == ["users"]


def test_store_keeps_a_group_and_a_link(tmp_path: Path) -> None:
    path = users_file(tmp_path / "users", mode=0o640)
    link = tmp_path / "link"
    link.symlink_to(path)
    store_secret(link, "tim", SCRYPT)
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o640
    assert path.read_text() == f"tim:{SCRYPT}\n"


def test_store_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = users_file(tmp_path / "users", f"tim:{SCRYPT}")
    with mock.patch("os.fsync", side_effect=OSError(28, "No space left")), pytest.raises(OSError, match="No space"):
        store_secret(path, "tim", SCRAM_SECRET)
    assert path.read_text() == f"tim:{SCRYPT}\n"
    assert [entry.name for entry in tmp_path.iterdir()] == ["users"]


def run(path: Path, *arguments: str, password: bytes = b"open sesame\n") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "smtpfw.sasl.users", str(path), *arguments, "--stdin"]
    done = subprocess.run(command, input=password, capture_output=True, timeout=60, check=False)
    result = subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())
    assert "sesame" not in result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    return result


def test_command(tmp_path: Path) -> None:
    path = tmp_path / "users"
    result = run(path, "tim")
    assert (result.returncode, result.stdout, result.stderr) == (0, f"{path}: tim added\n", "")
    assert path.read_text().startswith("tim:{SCRAM-SHA-256}4096,")
    assert path.stat().st_mode & 0o777 == 0o600
    salt = UsersFile(path).get_scram_keys("tim", "SHA-256").salt  # type: ignore[union-attr]
    assert UsersFile(path).get_scram_keys("tim", "SHA-256") == make_scram_keys("open sesame", salt=salt)
    assert run(path, "tim", "--scheme", "scrypt", password=b"open sesame\r\n").stdout == f"{path}: tim changed\n"
    assert path.read_text().startswith("tim:{SCRYPT}16384,8,5,")
    assert path.read_text().count("\n") == 1
    assert users_module._parse_secret(path.read_text().strip()[4:]).matches("open sesame")


def test_command_fails_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "users"
    for password, reason in ((b"", "empty"), (b"sesame\xff\n", "UTF-8"), (b"sesame\x00\n", "control character")):
        result = run(path, "tim", password=password)
        assert result.returncode == 1
        assert reason in result.stderr
    with mock.patch("getpass.getpass", return_value=PASSWORD):
        assert main([str(path), "a:b"]) == 1
        assert main([str(tmp_path / "none" / "users"), "tim"]) == 1
    assert not path.exists()
    assert PASSWORD not in str(capsys.readouterr())


def test_command_asks_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "users"
    with mock.patch("getpass.getpass", side_effect=[PASSWORD, PASSWORD + "!", EOFError, PASSWORD, PASSWORD]):
        assert main([str(path), "tim"]) == 1
        assert main([str(path), "tim"]) == 1
        assert not path.exists()
        assert main([str(path), "tim"]) == 0
    assert list(UsersFile(path)._users) == ["tim"]
    shown = capsys.readouterr()
    assert "differ" in shown.err
    assert PASSWORD not in str(shown)
