"""
A pool for each server, made when one is asked for.

Rule: those that were not asked for longest go first when there are too many,
and none that has something to do.
"""

from __future__ import annotations

from functools import partial
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
        self._closing: set[Deferred[None]] = set()

    def of(self, connector: Connector) -> Pool:
        """
        The pool of a server; use it at once, since it is closed some time after it is last asked for.

        :raises ValueError: as :class:`~smtpfw.client.pool.Pool`.
        """
        pool = self._pools.pop(connector, None) or Pool(connector, **self._settings)
        self._pools[connector] = pool
        if len(self._pools) > self._max_pools:
            self._forget(pool)
        return pool

    def close(self) -> Deferred[None]:
        """
        Close all of them; see :meth:`Pool.close <smtpfw.client.pool.Pool.close>`.

        :return: a Deferred that fires when all connections are gone.
        """
        pools, self._pools = self._pools, {}
        closing = [pool.close() for pool in pools.values()]
        return gatherResults([*closing, *self._closing]).addCallback(lambda _: None)

    def _forget(self, wanted: Pool) -> None:
        for connector, pool in self._pools.items():
            if pool is not wanted and pool.unused:
                del self._pools[connector]
                closing = pool.close()
                self._closing.add(closing)
                closing.addCallback(partial(self._closed, closing))
                return

    def _closed(self, closing: Deferred[None], _: None) -> None:
        self._closing.discard(closing)
