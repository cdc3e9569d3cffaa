"""
The users file, ``htpasswd:PATH``: who may log in, and what verifies it. No password can be read out of it.

One user a line, ``name:secret``; lines that are empty or begin with ``#`` do
not count. A secret is one of these, its octets in base64, the numbers decimal:

``{SCRAM-SHA-256}iterations,salt,StoredKey,ServerKey``
    The values of RFC 5803, in Dovecot's spelling. For SCRAM-SHA-256, PLAIN and LOGIN.
``{SCRYPT}n,r,p,salt,key``
    scrypt (RFC 7914) of the password in UTF-8; ``key`` has 16 to 64 octets. For PLAIN and LOGIN only.

``python -m smtpfw.sasl.users FILE NAME`` writes such lines.

Rule 1: hashing happens in threads, few at a time: logins neither stop the
reactor nor take all of its threads.

Rule 2: every check of a password does the work of each kind of secret in the
file, the user's own or another's in its place. So the time does not tell who
exists.

Rule 3: the file is read again when it has changed. When it is broken then, that
is logged, and what was read before stays.

Rule 4: SCRAM is offered only while all users of the file can do it. Most
clients take the best that is offered, and give up when it fails.

Rule 5: no error and no log shows what stands behind a name.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import fcntl
import getpass
import hashlib
import hmac
import os
import re
import secrets
import stat
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.x509 import Certificate
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import alsoProvides, implementer, noLongerProvides

from smtpfw.errors import AuthFailed, ConfigError
from smtpfw.sasl.certificates import CertificateChecker
from smtpfw.sasl.interfaces import ICertificateChecker, IPasswordChecker, ISCRAMKeyStore
from smtpfw.sasl.saslprep import saslprep
from smtpfw.sasl.scram import MAX_ITERATIONS, make_scram_keys
from smtpfw.sasl.values import SCRAMKeys

__all__ = ["UsersFile", "main", "make_secret", "store_secret"]

#: n, r, p: 16 MiB and a sixth of a second. Precedent: OWASP's list; hashlib's limit is 32 MiB.
SCRYPT_COST = (2**14, 8, 5)
MAX_SCRYPT_MEMORY = 256 * 2**20

#: Hashes at a time for one file. More only wait for one another's cores and memory.
THREADS = 2

_SALT_BYTES = 16
_BASE64 = r"([A-Za-z0-9+/]+={0,2})"
_SCRAM = re.compile(rf"([1-9][0-9]{{0,6}}),{_BASE64},{_BASE64},{_BASE64}")
_SCRYPT = re.compile(rf"([1-9][0-9]{{0,8}}),([1-9][0-9]{{0,3}}),([1-9][0-9]?),{_BASE64},{_BASE64}")

#: What identifies a state of the file: time of change, size, and the inode, as a rename may keep the other two.
_State = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class _SCRAMSecret:
    keys: SCRAMKeys

    @property
    def kind(self) -> tuple[str, int]:
        """What its work depends on."""
        return "{SCRAM-SHA-256}", self.keys.iterations

    def matches(self, password: str) -> bool:
        keys = make_scram_keys(password, "SHA-256", self.keys.salt, self.keys.iterations)
        return hmac.compare_digest(keys.stored_key, self.keys.stored_key)


@dataclass(frozen=True, slots=True)
class _ScryptSecret:
    cost: tuple[int, int, int]
    salt: bytes = field(repr=False)
    key: bytes = field(repr=False)

    @property
    def kind(self) -> tuple[str, tuple[int, int, int]]:
        return "{SCRYPT}", self.cost

    def matches(self, password: str) -> bool:
        return hmac.compare_digest(_scrypt(password, self.salt, self.cost, len(self.key)), self.key)


_Secret = _SCRAMSecret | _ScryptSecret


def _scrypt(password: str, salt: bytes, cost: tuple[int, int, int], length: int) -> bytes:
    n, r, p = cost
    memory = 128 * r * (n + p + 2)  # exactly what OpenSSL computes
    return hashlib.scrypt(password.encode("utf-8"), salt=salt, n=n, r=r, p=p, maxmem=memory, dklen=length)


def _parse_scram(text: str) -> _SCRAMSecret:
    match = _SCRAM.fullmatch(text)
    if match is None:
        raise ValueError
    iterations = int(match[1])
    salt, stored_key, server_key = (base64.b64decode(part, validate=True) for part in match.groups()[1:])
    if iterations > MAX_ITERATIONS or not len(stored_key) == len(server_key) == 32:
        raise ValueError
    return _SCRAMSecret(SCRAMKeys(salt, iterations, stored_key, server_key))


def _parse_scrypt(text: str) -> _ScryptSecret:
    match = _SCRYPT.fullmatch(text)
    if match is None:
        raise ValueError
    n, r, p = (int(part) for part in match.groups()[:3])
    salt, key = (base64.b64decode(part, validate=True) for part in match.groups()[3:])
    # RFC 7914 section 2: n is a power of 2, greater than 1, and less than 2 ** (16 * r).
    possible = 1 < n < 2 ** (16 * r) and n & (n - 1) == 0
    if not possible or 128 * n * r > MAX_SCRYPT_MEMORY or not 16 <= len(key) <= 64:
        raise ValueError
    return _ScryptSecret((n, r, p), salt, key)


_SCHEMES: Mapping[str, tuple[Callable[[str], _Secret], str]] = {
    "{SCRAM-SHA-256}": (_parse_scram, "iterations,salt,StoredKey,ServerKey"),
    "{SCRYPT}": (_parse_scrypt, "n,r,p,salt,key"),
}


def _parse_secret(text: str) -> _Secret:
    """:raises ConfigError: without a word of the text: it could be a password in clear."""
    scheme, _, rest = text.partition("}")
    if scheme + "}" not in _SCHEMES:
        raise ConfigError(f"behind the name comes {' or '.join(_SCHEMES)}, and nothing else")
    parse, form = _SCHEMES[scheme + "}"]
    try:
        return parse(rest)
    except ValueError:
        raise ConfigError(f"behind {scheme}}} comes {form}; something is missing, broken or too large") from None


def _parse_name(text: str) -> str:
    """:raises ConfigError: if no client could log in with the name, or no line could hold it."""
    try:
        name = saslprep(text, stored=True)
    except ValueError:
        raise ConfigError("the name has something in it that SASLprep (RFC 4013) prohibits") from None
    if not name or name != name.strip() or name.startswith("#") or ":" in name:
        raise ConfigError("a name is not empty, holds no colon, and begins with no #; no space stands around it")
    return name


def _name_of(line: str) -> str | None:
    """:return: None for a line that does not count."""
    line = line.strip()
    return None if not line or line.startswith("#") else line.partition(":")[0]


def _parse_users(path: Path, text: str) -> dict[str, _Secret]:
    users: dict[str, _Secret] = {}
    for number, line in enumerate(text.split("\n"), 1):
        raw_name = _name_of(line)
        if raw_name is None:
            continue
        try:
            name = _parse_name(raw_name)
            if name in users:
                raise ConfigError("this name has been there already")
            users[name] = _parse_secret(line.strip().partition(":")[2])
        except ConfigError as error:
            raise ConfigError(f"{path}, line {number}: {error}") from None
    return users


def _read(path: Path) -> tuple[str, os.stat_result]:
    try:
        with path.open("rb") as file:
            return file.read().decode("utf-8"), os.fstat(file.fileno())
    except OSError as error:
        raise ConfigError(f"{path}: the users file can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: the users file is not in UTF-8") from None


def _verify(password: str, own: _Secret | None, samples: Mapping[object, _Secret]) -> bool:
    """Do the work of all kinds (rule 2); what fits somebody else's secret does not count."""
    matched = False
    for secret in ({**samples, own.kind: own} if own is not None else samples).values():
        try:
            right = secret.matches(password)
        except ValueError:
            # SASLprep prohibits it, or it is no Unicode: it cannot have been stored. The error holds it.
            right = False
        matched = matched or (right and secret is own)
    return matched


@implementer(IPasswordChecker, ICertificateChecker)
class UsersFile:
    """
    Verify passwords and give SCRAM keys by a users file; take certificates that have a user's name in them.

    It provides ``ISCRAMKeyStore`` only while all users have such keys.

    :param path: the file; the module says what it holds.
    :raises ConfigError: one line with the file's name and the line's number.
    """

    scram_hashes = ("SHA-256",)

    _log = Logger()

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._semaphore = DeferredSemaphore(THREADS)
        self._users: dict[str, _Secret] = {}
        self._samples: dict[object, _Secret] = {}
        self._certificates = CertificateChecker(self._is_user, authorizer=self)
        self._state = self._find_state()
        self._load()

    def __repr__(self) -> str:
        return f"<UsersFile {str(self._path)!r}: {len(self._users)} users>"

    async def check_password(self, username: str, password: str) -> str:
        self._refresh()
        own, samples = self._users.get(username), self._samples
        await self._semaphore.acquire()
        if not await self._in_thread(_verify, password, own, samples):
            raise AuthFailed
        return username

    def _is_user(self, name: str) -> bool:
        return name in self._users

    async def check_certificate(self, certificate: Certificate, authorization_identity: str) -> str:
        self._refresh()
        return await self._certificates.check_certificate(certificate, authorization_identity)

    def get_scram_keys(self, username: str, hash_name: str) -> SCRAMKeys | None:
        self._refresh()
        own = self._users.get(username)
        return own.keys if isinstance(own, _SCRAMSecret) and hash_name == "SHA-256" else None

    def _in_thread(self, function: Callable[..., bool], *arguments: object) -> Deferred[bool]:
        """A cancelled login ends at once, but its thread does not: it keeps its place until it is done."""
        answer: Deferred[bool] = Deferred()

        def release(result: bool | Failure) -> bool | Failure:
            self._semaphore.release()
            return result

        deferToThread(function, *arguments).addBoth(release).chainDeferred(answer)
        return answer

    def _find_state(self) -> _State | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _refresh(self) -> None:
        state = self._find_state()
        if state == self._state:
            return
        # Kept even if reading fails: one line in the log for each change, not for each login. It was taken before
        # reading, so a change meanwhile is seen the next time.
        self._state = state
        try:
            self._load()
        except ConfigError as error:
            self._log.error("{problem}; the users that were read before stay", problem=str(error))

    def _load(self) -> None:
        text, status = _read(self._path)
        users = _parse_users(self._path, text)
        if status.st_mode & stat.S_IROTH:
            self._log.warn("{path}: everybody may read the users file; chmod o= helps", path=str(self._path))
        self._users = users
        self._samples = {secret.kind: secret for secret in users.values()}
        if any(isinstance(secret, _ScryptSecret) for secret in users.values()):
            noLongerProvides(self, ISCRAMKeyStore)
            if len({type(secret) for secret in users.values()}) > 1:
                self._log.warn("{path}: SCRAM is not offered, as some users have {{SCRYPT}}", path=str(self._path))
        else:
            alsoProvides(self, ISCRAMKeyStore)


def make_secret(password: str, scheme: str = "scram-sha-256") -> str:
    """
    Make what stands behind a name.

    :param scheme: ``scram-sha-256`` or ``scrypt``.
    :raises ValueError: if the scheme is unknown, SASLprep prohibits the password, or nothing is left of it. The text
        does not show it.
    """
    keys = make_scram_keys(password)
    if scheme == "scram-sha-256":
        return f"{{SCRAM-SHA-256}}{keys.iterations}," + _join(keys.salt, keys.stored_key, keys.server_key)
    if scheme != "scrypt":
        raise ValueError(f"{scheme!r} is neither scram-sha-256 nor scrypt")
    salt = secrets.token_bytes(_SALT_BYTES)
    key = _scrypt(saslprep(password, stored=True), salt, SCRYPT_COST, 32)
    return f"{{SCRYPT}}{','.join(map(str, SCRYPT_COST))}," + _join(salt, key)


def _join(*parts: bytes) -> str:
    return ",".join(base64.b64encode(part).decode() for part in parts)


def store_secret(path: str | Path, name: str, secret: str) -> bool:
    """
    Put a line into the file, in place of that name's if there is one. Others see the old file or the new one, whole.

    The file stays its owner's. Its mode is 600; a group that could read it still can, if nobody else could.

    :return: whether the name was there before.
    :raises ConfigError: if the name is no name, or the file cannot be read.
    :raises OSError: if it cannot be written.
    """
    path = Path(path).resolve()
    name = _parse_name(name)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # Two at once would each keep the other's line out.
        fcntl.flock(folder, fcntl.LOCK_EX)
        text, status = _read(path) if path.exists() else ("", None)
        lines = text.removesuffix("\n").split("\n") if text else []
        places = [place for place, line in enumerate(lines) if _is_of(line, name)] or [len(lines)]
        kept = [line for place, line in enumerate(lines) if place not in places]
        kept.insert(places[0], f"{name}:{secret}")
        _replace(path, "\n".join(kept) + "\n", status)
        os.fsync(folder)
    finally:
        os.close(folder)
    return places[0] < len(lines)


def _is_of(line: str, name: str) -> bool:
    with contextlib.suppress(ConfigError):
        return _parse_name(_name_of(line) or "") == name
    return False


def _replace(path: Path, text: str, old: os.stat_result | None) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if old is not None:
                with contextlib.suppress(PermissionError):
                    os.fchown(descriptor, old.st_uid, old.st_gid)
                    # Only once the group is the right one.
                    os.fchmod(descriptor, 0o600 if old.st_mode & 0o007 else 0o600 | old.st_mode & 0o040)
            file.write(text.encode("utf-8"))
            file.flush()
            os.fsync(descriptor)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. It returns the exit status: 0, 1 if something went wrong, 2 for wrong arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m smtpfw.sasl.users", description="Add a user to a users file, or change the password."
    )
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--scheme", choices=("scram-sha-256", "scrypt"), default="scram-sha-256")
    parser.add_argument("--stdin", action="store_true", help="read the password from standard input, one line")
    options = parser.parse_args(arguments)
    try:
        _parse_name(options.name)
        password = sys.stdin.buffer.readline().decode().rstrip("\r\n") if options.stdin else _ask_password()
        secret = make_secret(password, options.scheme)
        replaced = store_secret(options.file, options.name, secret)
    except UnicodeError:
        return _fail("the password is not in UTF-8")
    except (ConfigError, ValueError) as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(f"{options.file}: {error.strerror}")
    except (EOFError, KeyboardInterrupt):
        return _fail("nothing was changed")
    sys.stdout.write(f"{options.file}: {options.name} {'changed' if replaced else 'added'}\n")
    return 0


def _fail(reason: str) -> int:
    sys.stderr.write(f"{reason}\n")
    return 1


def _ask_password() -> str:
    password = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != password:
        raise ConfigError("the two passwords differ; nothing was changed")
    return password


if __name__ == "__main__":
    sys.exit(main())
