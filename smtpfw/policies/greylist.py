"""
Greylisting: whoever has not been seen before is told to come back later, and honest servers do (RFC 6647).

Rule 1: a client is its network, for large senders try again from another
machine. With the sender and the recipient it is one entry; ASCII letters match
in any case.

Rule 2: a file, and a thread of its own for it, so that the reactor never waits
for a disk, and a restart, a reload and other workers know what is known.

Rule 3: when the file can't be used, nobody knows, and the operator has decided
what that means; the service goes on, and the file is tried again.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any

from twisted.internet.address import UNIXAddress
from twisted.internet.defer import TimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from smtpfw.check import Check
from smtpfw.errors import SMTPError
from smtpfw.interfaces import IConnection
from smtpfw.logins import is_known
from smtpfw.networks import Network, Networks, client_address
from smtpfw.policies.client_lookup import LET_PASS, REFUSE, check_choice
from smtpfw.policies.clients import Grouping, fold_case
from smtpfw.policies.greylist_store import MEMORY, UNKNOWN_NETWORK, GreylistRules, GreylistStore, StoreError
from smtpfw.policies.log_throttle import LogThrottle
from smtpfw.policies.worker_thread import Busy, NoThread, WorkerThread
from smtpfw.wire.grammar import Address
from smtpfw.wire.parameters import Options

__all__ = ["Greylist"]

_MINUTE, _DAY = 60.0, 86400.0

#: Characters of an address, RFC 5321 section 4.5.3.1: what is longer is allowed, and is nothing to fill a disk with.
MAX_ADDRESS = 64 + 1 + 255

#: Seconds that a client waits for the file; one question takes less than a thousandth of that.
TIMEOUT = 5.0

#: Seconds after an error in which the file is left alone.
PAUSE = 10.0


class Greylist(Check):
    """
    RCPT of who is seen for the first time gets 450 4.7.1, with the seconds until it may come back.

    Who has authenticated, and who comes by a Unix socket, is let in. Clients whose address no proxy knows are one
    network, which never proves itself.

    :param file: what is known is kept there; None for in memory, until the process ends, and for each worker alone.
        A relative path is one from the current folder, ``~`` is the home of the user.
    :param delay: seconds to wait. RFC 6647 section 3: a minute to 24 hours; Postgrey 5 minutes.
    :param window: seconds from the first time, within which to come back. Postgrey: 2 days.
    :param keep: seconds without being seen, after which who has passed begins anew. Postgrey: 35 days.
    :param trust_after: how often a network must pass until it passes with everything; 0 for never. Postgrey: 5.
    :param max_entries: entries that are remembered, and networks: with addresses as they mostly are some 20 MB.
    :param except_networks: whose clients are let in; see :class:`~smtpfw.networks.Networks`.
    :param unknown: when the file can't be used: ``pass``, or ``refuse`` with 451 4.7.1.
    :param ipv4_prefix, ipv6_prefix: bits that the addresses of one network have in common.
    :param now: gives the time, in seconds, as it is on the wall.
    :raises ValueError: for a number out of its range, what is no network, or a folder that is not there.
    """

    _log = Logger()

    def __init__(
        self,
        file: str | os.PathLike[str] | None = None,
        *,
        delay: float = 5 * _MINUTE,
        window: float = 2 * _DAY,
        keep: float = 35 * _DAY,
        trust_after: int = 10,
        max_entries: int = 100_000,
        except_networks: Networks | Iterable[Network] | Network = (),
        unknown: str = LET_PASS,
        ipv4_prefix: int = 24,
        ipv6_prefix: int = 64,
        now: Callable[[], float] = time.time,
    ) -> None:
        if not 0 < delay < window:
            raise ValueError(f"delay: {delay:g} s is not above 0 and below the window of {window:g} s")
        if not keep > delay:
            raise ValueError(f"keep: {keep:g} s is not above the delay of {delay:g} s")
        for name, value, least in (("trust_after", trust_after, 0), ("max_entries", max_entries, 1)):
            if value < least:
                raise ValueError(f"{name}: {value} is below {least}")
        self.rules = GreylistRules(delay, window, keep, trust_after, max_entries)
        self.file = None if file is None else _absolute(file)
        self.unknown = check_choice("unknown", unknown, (LET_PASS, REFUSE))
        self.except_networks = Networks.of(except_networks)
        self._grouping = Grouping(ipv4_prefix, ipv6_prefix)
        self._now = now
        self._store = GreylistStore(MEMORY if self.file is None else str(self.file), self.rules)
        self._thread = WorkerThread("greylist", self._store.close)
        self._throttle = LogThrottle()
        # When the file may be tried again, by the server's clock.
        self._left_alone_until = -math.inf

    def rcpt(self, connection: IConnection, recipient: Address, options: Options) -> Any:
        """See :meth:`ICheck.rcpt`."""
        if is_known(connection) or isinstance(connection.peer, UNIXAddress):
            return None
        address = client_address(connection)
        if address is None:
            network = UNKNOWN_NETWORK
        elif address in self.except_networks:
            return None
        else:
            network = str(self._grouping.network(address))
        transaction = connection.transaction
        assert transaction is not None
        question = (network, _written(transaction.sender), _written(recipient), self._now())
        if self.file is None:
            _put_off(self._store.ask(*question))
            return None
        return self._ask(connection.server.clock, question)

    async def _ask(self, clock: IReactorTime, question: tuple[str, str, str, float]) -> None:
        if clock.seconds() < self._left_alone_until:
            self._put_off_or_let_pass()
            return
        try:
            left = await self._thread.call(self._store.ask, *question).addTimeout(TIMEOUT, clock)
        except Busy:
            # Nothing is broken, and who could make it so must not be let in by that.
            raise SMTPError(450, (4, 7, 1), "Too many at the moment, try again later") from None
        except (StoreError, NoThread, TimeoutError) as error:
            now = clock.seconds()
            self._left_alone_until = now + PAUSE
            if self._throttle.due("", now):
                trouble = f"no answer within {TIMEOUT:g} s" if isinstance(error, TimeoutError) else str(error)
                what = "let in" if self.unknown == LET_PASS else "put off"
                self._log.error(
                    "greylist: {file}: {trouble}; until that is mended everybody is {what}",
                    file=str(self.file),
                    trouble=trouble,
                    what=what,
                )
            self._put_off_or_let_pass()
        else:
            _put_off(left)

    def _put_off_or_let_pass(self) -> None:
        if self.unknown == REFUSE:
            raise SMTPError(451, (4, 7, 1), "Greylisting does not work at the moment, try again later")

    def describe(self) -> str:
        """What it does, in words."""
        rules = self.rules
        where = (
            f"kept in {self.file}" if self.file else "kept in memory, until the process ends, and by each worker alone"
        )
        words = f"Who is seen for the first time is told to come back in {rules.delay:g} s; what is known is {where}"
        return f"{words}; {self.except_networks} need not wait" if self.except_networks else words

    def __repr__(self) -> str:
        return f"Greylist({str(self.file) if self.file else None!r}, delay={self.rules.delay:g})"


def _written(address: Address) -> str:
    """An address as it is remembered: in one case, and in bounded memory."""
    text = fold_case(str(address))
    if len(text) <= MAX_ADDRESS:
        return text
    return f"{text[:MAX_ADDRESS]}... {sha256(text.encode()).hexdigest()}"


def _put_off(left: float) -> None:
    if left > 0:
        # Postgrey's words, and its code; RFC 6647 section 5 would have 421 or 450.
        raise SMTPError(450, (4, 7, 1), f"Greylisted, come back in {math.ceil(left)} seconds")


def _absolute(file: str | os.PathLike[str]) -> Path:
    try:
        path = Path(file).expanduser().resolve()
    except RuntimeError as error:
        raise ValueError(f"file: {file}: {error}") from None
    if not path.parent.is_dir():
        raise ValueError(f"file: there is no folder {path.parent}")
    if path.is_dir():
        raise ValueError(f"file: {path} is a folder")
    return path
