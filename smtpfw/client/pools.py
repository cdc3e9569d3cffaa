"""
A pool for each server, made when one is asked for.

Rule: those that were not asked for longest go first when there are too many,
and none that has something to do.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, gatherResults

from smtpfw.client.connecting import Connector
from smtpfw.client.pool import Pool

__all__ = ["Pools"]


class Pools:
    """
    :param max_pools: how many are kept, as long as the others are unused.
    :param settings: those of :class:`~smtpfw.client.pool.Pool`, for all of them.
    """

    def __init__(self, *, max_pools: int = 1000, **settings: Any) -> None:
        self._max_pools = max_pools
        self._settings = settings
        # The one that was asked for last stands last.
        self._pools: dict[Connector, Pool] = {}
        # Those that nobody gets any more, and that still have connections.
        self._leaving: set[Pool] = set()
        self._is_closed = False

    def of(self, connector: Connector) -> Pool:
        """
        The pool of a server; use it at once, since it is closed some time after it is last asked for.

        After :meth:`close` it is one that takes nothing.

        :raises ValueError: as :class:`~smtpfw.client.pool.Pool`.
        """
        pool = self._pools.pop(connector, None) or Pool(connector, **self._settings)
        if self._is_closed:
            pool.close()
        else:
            self._pools[connector] = pool
            self._forget_others(pool)
        return pool

    def close(self) -> Deferred[None]:
        """
        Close all of them; see :meth:`Pool.close <smtpfw.client.pool.Pool.close>`.

        :return: a Deferred that fires when all connections are gone.
        """
        self._is_closed = True
        pools, self._pools = self._pools, {}
        for pool in pools.values():
            self._let_go(pool)
        closing = [pool.close() for pool in self._leaving]
        return gatherResults(closing, consumeErrors=True).addCallback(lambda _: None)

    def abort(self) -> None:
        """The end of all of them at once; see :meth:`Pool.abort <smtpfw.client.pool.Pool.abort>`."""
        self.close()
        for pool in list(self._leaving):
            pool.abort()

    def _forget_others(self, wanted: Pool) -> None:
        if len(self._pools) > self._max_pools:
            for connector, pool in list(self._pools.items()):
                if pool is not wanted and pool.unused:
                    del self._pools[connector]
                    self._let_go(pool)
                    if len(self._pools) <= self._max_pools:
                        return

    def _let_go(self, pool: Pool) -> None:
        self._leaving.add(pool)
        pool.close().addCallback(lambda _: self._leaving.discard(pool))
