"""
The certificates of a service, from one configuration to the next.

Rule: certificates that a new configuration names as the one before did stay the
same object, and are read again: so a bad new one keeps the old, and the rest of
the configuration is served all the same.
"""

from __future__ import annotations

from twisted.logger import Logger

from smtpfw.config.strings import split_words
from smtpfw.errors import ConfigError
from smtpfw.tls import CertificateStore

__all__ = ["Stores"]

_log = Logger("smtpfw.tls")


class Stores:
    """Those that were made so far."""

    def __init__(self) -> None:
        self._stores: dict[tuple[str, str], CertificateStore] = {}

    def begin(self) -> StoresOfPlan:
        """For one plan."""
        return StoresOfPlan(dict(self._stores))

    def keep(self, used: StoresOfPlan) -> None:
        """That plan is served, so the others are not."""
        self._stores = used.used


class StoresOfPlan:
    """
    :param known: those of the plan before.

    :ivar used: those of this one.
    """

    def __init__(self, known: dict[tuple[str, str], CertificateStore]) -> None:
        self._known = known
        self.used: dict[tuple[str, str], CertificateStore] = {}

    def of(self, text: str, hostname: str) -> CertificateStore:
        """
        The certificates of a setting.

        :param text: ``CERT``, ``CERT:KEY`` or a folder.
        :param hostname: whose certificate is the default.
        :raises ConfigError: one line that names what can't be used.
        """
        key = (text, hostname)
        if key not in self.used:
            store = self._known.get(key)
            if store is None:
                store = _new(text, hostname)
            else:
                _read_again(store)
            self.used[key] = store
        return self.used[key]


def _new(text: str, hostname: str) -> CertificateStore:
    words = split_words(text)
    if len(words) > 2 or not all(words):
        raise ConfigError(f"{text}: write CERT, CERT:KEY or a folder; a colon in a path takes a backslash before it")
    return CertificateStore(*words, hostname=hostname)


def _read_again(store: CertificateStore) -> None:
    outcome = store.reload()
    for line in outcome.changes:
        _log.info("{line}", line=line)
    for line in outcome.problems:
        _log.error("{line}", line=line)
