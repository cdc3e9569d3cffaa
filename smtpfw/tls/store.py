"""
The certificates of a service: read from one file, two files or a folder, and read again while it runs.

Rule 1: at the start everything must be in order, or nothing starts. What is found out of order later is reported, and
what was read before stays in use: a server with yesterday's certificate is better than one without.

Rule 2: a certificate is given up when its files are gone, and only then; never the last one.

Rule 3: all is read and built before anything changes. A connection keeps what it began with.

Rule 4: keys are kept for as long as their certificate is served, and what they were read from is not kept at all.
Nothing here writes one into a log, a description or a repr.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakSet

from OpenSSL import crypto

from smtpfw.errors import ConfigError
from smtpfw.tls.certificates import NameTable, ServerCertificate, read_certificate, utc_now
from smtpfw.tls.folders import Folder, Pair, Problem, Signature, look_into, signature_of
from smtpfw.tls.server import ServerTLS, TLSPolicy

__all__ = ["CertificateStore", "Reloaded"]


@dataclass(frozen=True, slots=True)
class Reloaded:
    """
    What came of reading certificates again; false if it is all as before.

    :ivar changes: one line for each certificate or file of authorities that is new, another, or gone.
    :ivar problems: one line for each thing that is out of order, and what is done instead.
    """

    changes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.changes)


class CertificateStore:
    """
    The certificates of a service, for any number of listeners::

        store = CertificateStore("/etc/smtpfw/certs", hostname="mx.example.org")
        factory = SMTPServerFactory(backend, config, tls=store.listener())

    :param path: a PEM file with a certificate and its chain, or a folder as :mod:`smtpfw.tls.folders` has it.
    :param key_path: a PEM file with the key; by default it is looked for in ``path``. A folder has none.
    :param hostname: the service's own name, whose certificate is the default.
    :param now: tells the time of day, in UTC.
    :raises ConfigError: one line that names everything that is out of order.

    :ivar table: which certificate answers to which name.
    """

    def __init__(
        self,
        path: str,
        key_path: str | None = None,
        *,
        hostname: str = "",
        now: Callable[[], datetime.datetime] = utc_now,
    ) -> None:
        self.path = path
        self.key_path = key_path
        self.hostname = hostname
        self._now = now
        self._listeners: WeakSet[ServerTLS] = WeakSet()
        self._is_folder = Path(path).is_dir()
        if key_path is not None and self._is_folder:
            raise ConfigError(f"{path}: a folder has its keys in it, so {key_path} has no place here")
        self._signature = self.signature()
        found = self._look()
        certificates, problems = _read(found.pairs, {})
        problems = found.problems + problems
        if problems:
            raise ConfigError("; ".join(problem.text for problem in problems))
        if not certificates:
            raise ConfigError(
                f"{path}: no certificate with a key in this folder (NAME.pem with both, or with NAME.key)"
            )
        self._spare = found.spare
        self.table = self._table(certificates)

    @property
    def certificates(self) -> tuple[ServerCertificate, ...]:
        """All of them, by their paths."""
        return self.table.certificates

    def listener(
        self,
        *,
        minimum_version: str = "1.2",
        client_ca: str | None = None,
        require_client_certificate: bool = False,
    ) -> ServerTLS:
        """
        Make the TLS side of a listener, for STARTTLS and implicit TLS alike; see :class:`~smtpfw.tls.server.TLSPolicy`.

        It is given what is new for as long as somebody has it.

        :raises ConfigError: one line that names the file of authorities that can't be used.
        """
        policy = TLSPolicy(minimum_version, client_ca, require_client_certificate)
        if client_ca is not None:
            self._signature |= signature_of([client_ca])
        made = ServerTLS(self.table, policy)
        self._listeners.add(made)
        return made

    def signature(self) -> Signature:
        """What all files are like now, by ``stat``; nothing is read."""
        paths = {self.path, self.key_path, *(one.policy.client_ca for one in self._listeners)}
        return signature_of(path for path in paths if path is not None)

    def changed(self) -> bool:
        """Whether a file is another one than when it was read last."""
        return self.signature() != self._signature

    def reload(self) -> Reloaded:
        """Read everything again, and serve what is new and in order from the next connection on."""
        # Before the files are read: what is written meanwhile is to be found by the next look.
        self._signature = self.signature()
        found = self._look()
        read, unreadable = _read(found.pairs, {one.path: one for one in self.certificates})
        problems = found.problems + unreadable
        kept = self._kept(read, found, problems)
        paths = {one.path for one in kept}
        table = self._table([*(one for one in read if one.path not in paths), *kept])
        if table == self.table:
            table = self.table
        changes = _differences(self.certificates, table.certificates)
        try:
            authorities = self._adopt(table, problems)
        except ConfigError as error:
            return Reloaded(problems=(f"{error}; what was read before stays in use",))
        self.table = table
        self._spare = found.spare
        return Reloaded((*changes, *authorities), tuple(_with_consequence(problem, kept) for problem in problems))

    def expiring(self, within: datetime.timedelta) -> tuple[ServerCertificate, ...]:
        """Those that have expired, or will soon; the first of them first."""
        limit = self._now() + within
        return tuple(sorted((one for one in self.certificates if one.not_after < limit), key=lambda one: one.not_after))

    def warnings(self, within: datetime.timedelta = datetime.timedelta(days=21)) -> list[str]:
        """What the operator should see to, though it all works; one line for each."""
        now = self._now()
        lines = []
        for one in self.expiring(within):
            left = (one.not_after - now).days
            when = "has expired" if one.not_after < now else f"expires in {left} day{'' if left == 1 else 's'}"
            lines.append(f"{one.path}: the certificate {when}, on {one.not_after:%Y-%m-%d}")
        lines += [
            f"{one.path}: the certificate is not valid before {one.not_before:%Y-%m-%d %H:%M} UTC"
            for one in self.certificates
            if one.not_before > now
        ]
        lines += [
            f"{one.path}: the certificate has no host name in its subjectAltName; clients that verify will refuse it"
            for one in self.certificates
            if not one.names
        ]
        if self.hostname and not self.table.has_own:
            lines.append(f"{self.path}: no certificate is for {self.hostname}; {self.table.default[0].path} is shown")
        shown = {one.options["certificate"] for one in self.certificates}
        lines += [
            f"{path}: a certificate without a key, which is not used"
            for path, certificate in self._spare
            if certificate not in shown
        ]
        return lines

    def describe(self) -> list[str]:
        """Lines for the operator: where certificates are from, and who gets which."""
        count = len(self.certificates)
        lines = [f"{count} certificate{'s' if count > 1 else ''} from {self.path}, read again when they change"]
        lines += [f"Certificate of {one}" for one in self.certificates]
        if count > 1:
            default = " and ".join(one.path for one in self.table.default)
            lines.append(f"Who asks for no name, or for another one, gets {default}")
        return lines

    def _look(self) -> Folder:
        if self._is_folder:
            return look_into(self.path)
        return Folder([Pair(self.path, self.key_path)], [], [], [])

    def _table(self, certificates: Iterable[ServerCertificate]) -> NameTable:
        return NameTable(certificates, self.hostname, self._now())

    def _kept(self, read: list[ServerCertificate], found: Folder, problems: list[Problem]) -> list[ServerCertificate]:
        """Those from before that nothing has taken the place of; what is not told of them yet becomes a problem."""
        now = self._now()
        by_path = {one.path: one for one in read}
        in_use = {path for one in read for path in (one.path, one.key_path)}
        kept = []
        for old in self.certificates:
            new = by_path.get(old.path)
            if new is None and not self._is_gone(old, found, in_use):
                kept.append(old)
            elif new is not None and new.not_after < now <= old.not_after:
                problems.append(Problem((old.path,), f"{old.path}: the new certificate has expired already"))
                kept.append(old)
        if not read and not kept:
            kept = list(self.certificates)
        for old in kept:
            if not any(_concerns(problem, old) for problem in problems):
                problems.append(_missing(old))
        return kept

    def _is_gone(self, old: ServerCertificate, found: Folder, in_use: set[str]) -> bool:
        if any(Path(folder) in Path(old.path).parents for folder in found.closed):
            # Nobody knows.
            return False
        return not any(os.path.lexists(path) for path in {old.path, old.key_path} - in_use)

    def _adopt(self, table: NameTable, problems: list[Problem]) -> list[str]:
        """
        Let all listeners serve a table, or none of them.

        :return: one line for each file of authorities that is new.
        :raises ConfigError: when OpenSSL does not take it.
        """
        changes: dict[str, str] = {}
        prepared = []
        for listener in self._listeners:
            path, authorities = listener.policy.client_ca or "", listener.authorities
            try:
                fresh = listener.policy.load_authorities()
            except ConfigError as error:
                problem = Problem((path,), f"{error}; the authorities from before stay in use")
                if problem not in problems:
                    problems.append(problem)
                fresh = authorities
            if _digests(fresh) != _digests(authorities):
                authorities = fresh
                changes[path] = f"Clients' certificates are verified with what {path} holds now"
            if table is not self.table or authorities is not listener.authorities:
                prepared.append((listener, listener.prepare(table, authorities)))
        for listener, served in prepared:
            listener.adopt(served)
        return list(changes.values())


def _read(pairs: Iterable[Pair], known: dict[str, ServerCertificate]) -> tuple[list[ServerCertificate], list[Problem]]:
    certificates, problems = [], []
    for path, key_path in pairs:
        try:
            certificates.append(read_certificate(path, key_path, known.get(path)))
        except ConfigError as error:
            problems.append(Problem((path, key_path or path), str(error)))
    return certificates, problems


def _concerns(problem: Problem, certificate: ServerCertificate) -> bool:
    """Whether a problem is about the files of a certificate, or a folder that they are in."""
    places = {certificate.path, certificate.key_path, *map(str, Path(certificate.path).parents)}
    return not places.isdisjoint(problem.paths)


def _missing(certificate: ServerCertificate) -> Problem:
    for path in (certificate.path, certificate.key_path):
        if not os.path.lexists(path):
            return Problem((path,), f"{path}: this file is gone")
    return Problem((certificate.path,), f"{certificate.path}: there is no key for it any more")


def _with_consequence(problem: Problem, kept: list[ServerCertificate]) -> str:
    """What is wrong, and what is done instead."""
    text = problem.text
    if text.endswith("permission denied"):
        # At the start it may have been root who read it.
        text = f"{text} for user id {os.geteuid()}"
    about = [one.not_after for one in kept if _concerns(problem, one)]
    if not about:
        return text
    what = "certificate from before stays" if len(about) == 1 else "certificates from before stay"
    return f"{text}; the {what} in use, until {min(about):%Y-%m-%d}"


def _differences(old: Iterable[ServerCertificate], new: Iterable[ServerCertificate]) -> list[str]:
    before, after = {one.path: one for one in old}, {one.path: one for one in new}
    return [
        *(f"Certificate added: {one}" for path, one in after.items() if path not in before),
        *(f"Certificate replaced: {one}" for path, one in after.items() if before.get(path, one) is not one),
        *(f"Certificate removed: {one}" for path, one in before.items() if path not in after),
    ]


def _digests(authorities: Iterable[crypto.X509]) -> set[bytes]:
    return {one.digest("sha256") for one in authorities}
