"""A DNS server of Twisted on loopback, UDP and TCP, whose zones a test makes up; slow and broken ones, too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IReactorTime
from twisted.names import dns, server
from twisted.names.authority import FileAuthority

from smtpfw.dns.resolver import SystemResolver

#: What may go wrong with a question: it is never answered, or answered with a failure or with no DNS at all; its answer
#: does not fit into a datagram; nor, as it says, over TCP; there it ends in the midst, or is about something else.
SILENT, SERVFAIL, REFUSED, GARBAGE, TRUNCATED, ALWAYS_TRUNCATED, CUT_IN_STREAM, OTHER_IN_STREAM = range(8)


class Authority(FileAuthority):
    """
    Made-up zones.

    :param records: name -> its records. In a zone ``*.zone`` stands for all names that are not there.
    """

    def __init__(self, records: dict[str, list[Any]]) -> None:
        # Not from a file.
        self.records = {name.lower().encode(): [*found] for name, found in records.items()}
        self.soa = (b"test", dns.Record_SOA(b"ns.test", b"postmaster.test"))
        self._cache: dict[Any, Any] = {}
        super().__init__("")

    def loadFile(self, filename: str) -> None:
        """Nothing is read."""

    def _lookup(self, name: bytes, cls: int, type: int, timeout: Any = None) -> Any:
        if name.lower() not in self.records:
            for wildcard in [key for key in self.records if key.startswith(b"*.")]:
                if name.lower().endswith(wildcard[1:]):
                    self.records[name.lower()] = self.records[wildcard]
        return super()._lookup(name, cls, type, timeout)


class DNSServer(server.DNSServerFactory):
    """
    :param records: see :class:`Authority`.
    :param trouble: end of a name -> what goes wrong with it.

    :ivar asked: the names, and ``tcp`` or ``udp``.
    """

    noisy = False

    def __init__(self, records: dict[str, list[Any]], trouble: dict[str, int]) -> None:
        super().__init__(authorities=[Authority(records)])
        self.trouble = trouble
        self.asked: list[tuple[str, str]] = []
        self._unanswered: list[tuple[dns.Message, Any, Any]] = []
        self._ending = False

    def listen(self) -> tuple[SystemResolver, Callable[[], Deferred[Any]]]:
        """
        Serve.

        :return: a resolver that asks here, and what ends both.
        """
        network: Any = reactor
        ports: list[Any] = []
        while True:
            ports.append(network.listenUDP(0, dns.DNSDatagramProtocol(self), interface="127.0.0.1"))
            port = ports[-1].getHost().port
            try:
                ports.append(network.listenTCP(port, self, interface="127.0.0.1"))
                break
            except CannotListenError:
                # Somebody has the same number for TCP.
                continue
        resolver = SystemResolver([("127.0.0.1", port)])

        async def end() -> None:
            # The resolver asks on when nobody waits any more; what it gets now is its last answer.
            self._ending = True
            for question in self._unanswered:
                self._answer(SERVFAIL, *question)
            while resolver.questions:
                await turn()
            for connection in [*resolver.connections, *self.connections]:
                connection.transport.abortConnection()
            for listening in ports:
                await maybeDeferred(listening.stopListening)
            # Each question had a socket, which is closed in the next turn.
            await turn()

        return resolver, lambda: Deferred.fromCoroutine(end())

    def handleQuery(self, message: dns.Message, protocol: Any, address: Any) -> Any:
        """Called by Twisted with each question."""
        (query,) = message.queries
        name = query.name.name.decode().lower()
        self.asked.append((name, "tcp" if address is None else "udp"))
        found = [trouble for end, trouble in self.trouble.items() if name.endswith(end)]
        if not found or (found == [TRUNCATED] and address is None):
            return super().handleQuery(message, protocol, address)
        (trouble,) = found
        if self._ending:
            trouble = SERVFAIL
        elif trouble in (SILENT, GARBAGE) or (trouble == CUT_IN_STREAM and address is None):
            self._unanswered.append((message, protocol, address))
        self._answer(trouble, message, protocol, address)
        return None

    def _answer(self, trouble: int, message: dns.Message, protocol: Any, address: Any) -> None:
        message.answer = True
        if trouble == GARBAGE:
            protocol.transport.write(message.toStr()[:7] + b"\xff" * 9, address)
        elif trouble in (CUT_IN_STREAM, OTHER_IN_STREAM) and address is None:
            name = message.queries[0].name.name if trouble == CUT_IN_STREAM else b"other.test"
            message.queries = [dns.Query(name)]
            message.answers = [dns.RRHeader(name, payload=dns.Record_A("127.0.0.2"))]
            protocol.sendString(message.toStr()[: -2 if trouble == CUT_IN_STREAM else None])
        elif trouble != SILENT:
            message.rCode = {SERVFAIL: dns.ESERVER, REFUSED: dns.EREFUSED}.get(trouble, dns.OK)
            message.trunc = trouble >= TRUNCATED
            protocol.writeMessage(message, *([address] if address else []))


async def turn() -> None:
    """Let the reactor go round once."""
    turned: Deferred[None] = Deferred()
    IReactorTime(reactor).callLater(0, turned.callback, None)
    await turned
