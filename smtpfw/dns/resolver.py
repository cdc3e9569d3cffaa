"""
Twisted's resolver, alone and mended.

Alone: ``twisted.names.client.createResolver()`` puts a cache before it that has
no bound, and clients choose what is put in there: with an IPv6 /64 and
long-lived records one of them fills the memory. The name server that is asked
has a cache, and a bound for it.

What is mended here, of Twisted 26.10:

- questions under way have no bound, and each is a socket: the descriptors of the
  process were used up by whoever connects often enough;
- a question that could not be sent, for want of a socket, was remembered as one
  that is under way: whoever asked the same later waited for ever;
- an answer over TCP that says it was cut is asked for over TCP again, and
  again, at once, for as long as the server says so;
- each question that came while a TCP connection was being made, made another
  one, which nobody closed;
- an answer that ends in the midst of something counted for what could be read
  of it, which mostly is: there is no such record;
- an answer to another question counted (RFC 5452 section 9.1);
- settings that can't be read ended the look after them, with a traceback.
"""

from __future__ import annotations

import struct
from typing import Any

from twisted.internet.defer import Deferred, TimeoutError, fail
from twisted.internet.interfaces import IAddress
from twisted.logger import Logger
from twisted.names import dns
from twisted.names.client import DNSClientFactory, Resolver
from twisted.names.error import ResolverError
from twisted.python.failure import Failure

__all__ = ["MAX_QUESTIONS", "UNREADABLE", "SystemResolver"]

#: Questions under way. Each is a socket, of the 1024 descriptors that a process mostly has; clients need most of them.
MAX_QUESTIONS = 256

#: What is raised for a file that can't be read: no permission; octets that are no text; a line without an address.
UNREADABLE = (OSError, UnicodeError, IndexError)


class SystemResolver(Resolver):
    """
    :param servers: pairs of address and port; none for those in a file.
    :param reactor: by default the global one.
    :param max_questions: that may be under way; one more fails at once.
    :param path: of the file; it is read again when it has changed.
    """

    _log = Logger()

    def __init__(
        self,
        servers: list[tuple[str, int]] | None = None,
        reactor: Any = None,
        *,
        max_questions: int = MAX_QUESTIONS,
        path: str = "/etc/resolv.conf",
    ) -> None:
        self._max_questions = max_questions
        super().__init__(None if servers else path, servers, reactor=reactor)  # type: ignore[no-untyped-call]
        self.factory = _StreamFactory(self)  # type: ignore[no-untyped-call]
        self.factory.noisy = False

    @property
    def questions(self) -> int:
        """How many are under way; several who want to know the same are one."""
        return len(self._waiting)

    def maybeParseConfig(self) -> None:
        """Called by Twisted at first, and once a minute."""
        try:
            super().maybeParseConfig()  # type: ignore[no-untyped-call]
        except UNREADABLE as error:
            if not self.dynServers:
                raise
            self._log.warn("{path}: {error}; those who were asked before are asked", path=self.resolv, error=error)
            self._parseCall = self._reactor.callLater(self._resolvReadInterval, self.maybeParseConfig)

    def _lookup(self, name: bytes, cls: int, type: int, timeout: Any) -> Any:
        if self.questions >= self._max_questions and (name, type, cls) not in self._waiting:
            return fail(ResolverError("too many questions are under way"))
        try:
            return super()._lookup(name, cls, type, timeout)  # type: ignore[no-untyped-call]
        except Exception:
            self._waiting.pop((name, type, cls), None)
            raise

    def queryUDP(self, queries: list[dns.Query], timeout: Any = None) -> Any:
        """Called by Twisted with each question."""
        asked: Deferred[dns.Message] = super().queryUDP(queries, timeout)  # type: ignore[no-untyped-call]
        return asked.addCallback(_of_question, queries)

    def queryTCP(self, queries: list[dns.Query], timeout: Any = 10) -> Any:
        """Called with each question whose answer does not fit into a datagram."""
        if self.connections or not self.pending:
            answer: Deferred[dns.Message] = super().queryTCP(queries, timeout)  # type: ignore[no-untyped-call]
            return answer.addErrback(self._give_up_connection)
        # A connection is being made already.
        asked: Deferred[dns.Message] = Deferred()
        self.pending.append((asked, queries, timeout))
        return asked

    def _give_up_connection(self, failure: Failure) -> Failure:
        if failure.check(TimeoutError):
            # All later questions would be asked on it, too.
            for protocol in list(self.connections):
                protocol.transport.abortConnection()
        return failure

    def filterAnswers(self, message: dns.Message) -> Any:
        """Called by Twisted with each answer over UDP."""
        if message.trunc:
            asked: Deferred[Any] = self.queryTCP(message.queries)
            return asked.addCallback(_of_question, message.queries).addCallback(self._over_stream)
        return super().filterAnswers(message)  # type: ignore[no-untyped-call]

    def _over_stream(self, message: dns.Message) -> Any:
        if message.trunc:
            return Failure(ResolverError("cut off over TCP, too"))
        return super().filterAnswers(message)  # type: ignore[no-untyped-call]

    def _connectedProtocol(self, interface: str = "") -> dns.DNSDatagramProtocol:
        # The port is the system's choice, at random; Twisted tries up to a thousand, also those below 1024.
        protocol = _QuestionProtocol(self, reactor=self._reactor)  # type: ignore[no-untyped-call]
        self._reactor.listenUDP(0, protocol, interface=interface)
        return protocol


class _QuestionProtocol(dns.DNSDatagramProtocol):
    # Twisted's ports tell the log of it by this name, whatever is set here; the log of the process leaves that out.
    noisy = False

    def datagramReceived(self, data: bytes, addr: tuple[str, int]) -> None:
        if _is_whole(data):
            super().datagramReceived(data, addr)


class _StreamProtocol(dns.DNSProtocol):
    def stringReceived(self, data: bytes) -> None:
        if _is_whole(data):
            super().stringReceived(data)


class _StreamFactory(DNSClientFactory):
    def buildProtocol(self, addr: IAddress | None) -> _StreamProtocol:
        protocol = _StreamProtocol(self.controller)  # type: ignore[no-untyped-call]
        protocol.factory = self
        return protocol


def _is_whole(data: bytes) -> bool:
    """Whether a message holds what its header says; one that is not is no answer, and the question is asked again."""
    message = dns.Message()
    try:
        message.fromStr(data)
        counts = struct.unpack_from("!4H", data, 4)
    except Exception:
        # Parsers of records raise whatever they meet with.
        return False
    sections: tuple[list[Any], ...] = (message.queries, message.answers, message.authority, message.additional)
    return bool(message.trunc) or counts == tuple(len(section) for section in sections)


def _of_question(message: dns.Message, queries: list[dns.Query]) -> Any:
    if not message.answer:
        return Failure(ResolverError("a question for an answer"))
    # Those that fail, or refuse, may leave out what was asked.
    if message.rCode in (dns.OK, dns.ENAME) and _keys(message.queries) != _keys(queries):
        return Failure(ResolverError("an answer to another question"))
    return message


def _keys(queries: list[dns.Query]) -> list[tuple[bytes, int, int]]:
    return [(query.name.name.lower(), query.type, query.cls) for query in queries]
