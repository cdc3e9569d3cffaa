"""
Looks from time to time whether certificates have changed, and lets them be read again.

Rule 1: what has just changed may still be being written: a certificate and its key are two files, and certbot moves one
link after the other. Nothing is read before all files have been as they are for two looks.

Rule 2: what is out of order even then is tried once more, and told when it stays so; once, not with every look. It is
tried again with every look, since not all that mends it can be seen from outside.

Rule 3: a look costs a ``stat`` for each file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.logger import Logger

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IReactorTime

    from smtpfw.tls.folders import Signature
    from smtpfw.tls.store import CertificateStore, Reloaded

__all__ = ["PATIENCE", "SETTLING", "WATCH_INTERVAL", "Watcher"]

#: Seconds between two looks. A certificate is renewed weeks before its end, so that nothing is in a hurry.
WATCH_INTERVAL = 60.0

#: Seconds for which files must have been as they are.
SETTLING = 2.0

#: Seconds after which what is out of order is tried once more, before it is told.
PATIENCE = 10.0

_log = Logger("smtpfw.tls")


class Watcher:
    """
    Watches the files of a store.

    :param store: whose files.
    :param clock: the reactor, or what stands for it in tests.
    :param interval: seconds between two looks.
    :param log: where changes and problems go.
    """

    def __init__(
        self, store: CertificateStore, clock: IReactorTime, interval: float = WATCH_INTERVAL, log: Logger = _log
    ) -> None:
        self._store = store
        self._clock = clock
        self._interval = interval
        self._log = log
        self._call: IDelayedCall | None = None
        self._seen: Signature | None = None
        self._problems: tuple[str, ...] = ()
        self._told: tuple[str, ...] = ()

    def start(self) -> None:
        """Look for the first time in ``interval`` seconds. To start what runs already does nothing."""
        if self._call is None:
            self._call = self._clock.callLater(self._interval, self._look)

    def stop(self) -> None:
        """Look no more."""
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _look(self) -> None:
        wait = self._interval
        try:
            wait = self._wait_after_looking()
        except Exception:
            # Otherwise it would be the last look, and nobody would know before the certificate ends.
            self._log.failure("Certificates could not be read again")
        self._call = self._clock.callLater(wait, self._look)

    def _wait_after_looking(self) -> float:
        """
        Look, and read if there is a reason.

        :return: seconds to the next look.
        """
        changed = self._store.changed()
        if not changed and not self._problems:
            return self._interval
        signature = self._store.signature()
        if changed and signature != self._seen:
            self._seen = signature
            return SETTLING
        return self._wait_after(self._store.reload())

    def _wait_after(self, reloaded: Reloaded) -> float:
        for line in reloaded.changes:
            self._log.info("{line}", line=line)
        before, self._problems = self._problems, reloaded.problems
        if not reloaded.problems:
            if self._told:
                self._log.info("All certificates are in order again")
            self._told = ()
        elif reloaded.problems == self._told:
            return self._interval
        elif reloaded.problems != before:
            return PATIENCE
        else:
            for line in reloaded.problems:
                self._log.error("{line}", line=line)
            self._told = reloaded.problems
        return self._interval
