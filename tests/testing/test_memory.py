"""A server's end in memory, and two protocols joined: octets, pauses, ends and TLS, as a reactor would have them."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import pytest
from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost, ConnectionRefusedError
from twisted.internet.interfaces import IHalfCloseableProtocol, IHandshakeListener, ISSLTransport, ITLSTransport
from twisted.internet.protocol import Factory, Protocol, ServerFactory
from twisted.internet.ssl import CertificateOptions, optionsForClientTLS
from twisted.mail.smtp import ESMTPClient
from twisted.python.failure import Failure
from zope.interface import implementer

from smtpfw import SMTPError
from smtpfw.testing import MemoryEndpoint, MemoryServer, RecordingBackend, joined, tls_client, tls_server
from smtpfw.testing.stream import ROOM
from tests.server.helpers import make_factory
from tests.server.tls_in_memory import CONTEXT

#: A client's context that verifies nothing.
TRUSTS_ALL = CertificateOptions()


@implementer(IHandshakeListener)
class Talker(Protocol):
    """Writes down what happens to it, and in which order."""

    transport: Any

    def __init__(self, hello: bytes = b"") -> None:
        self.hello = hello
        self.happened: list[Any] = []

    def connectionMade(self) -> None:
        if self.hello:
            self.transport.write(self.hello)

    def dataReceived(self, data: bytes) -> None:
        self.happened.append(data)

    def handshakeCompleted(self) -> None:
        self.happened.append("handshake")

    def connectionLost(self, reason: Failure = None) -> None:  # type: ignore[assignment]
        self.happened.append(reason.type)


@implementer(IHalfCloseableProtocol)
class HalfCloser(Talker):
    def readConnectionLost(self) -> None:
        self.happened.append("read end")

    def writeConnectionLost(self) -> None:
        self.happened.append("write end")


class Producer:
    """A push producer that writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def pauseProducing(self) -> None:
        self.told.append("pause")

    def resumeProducing(self) -> None:
        self.told.append("resume")

    def stopProducing(self) -> None:
        self.told.append("stop")


class Puller(Producer):
    """A pull producer of a few pieces."""

    def __init__(self, transport: Any, pieces: list[bytes]) -> None:
        super().__init__()
        self.transport = transport
        self.pieces = pieces

    def resumeProducing(self) -> None:
        super().resumeProducing()
        if self.pieces:
            self.transport.write(self.pieces.pop(0))
        else:
            self.transport.unregisterProducer()


def factory_of(*protocols: Talker) -> Factory:
    """Makes each of them once."""
    left = list(protocols)
    return Factory.forProtocol(lambda: left.pop(0))  # type: ignore[arg-type]


def pair(client: Talker | None = None, server: Talker | None = None, chunk: int | None = None) -> tuple[Any, Any, Any]:
    client, server = client or Talker(), server or Talker()
    return joined(client, factory_of(server), chunk=chunk), client, server


def secured(chunk: int | None = None) -> tuple[Any, Any, Any]:
    link, client, server = pair(chunk=chunk)
    server.transport.startTLS(CONTEXT)
    client.transport.startTLS(TRUSTS_ALL)
    link.flow()
    return link, client, server


# -- a server's end ---------------------------------------------------------


def test_octets_both_ways() -> None:
    client = Talker(b"hello")
    server = MemoryServer.of(client)
    assert server.received() == b"hello"
    assert server.received() == b""
    assert server.send(b"220 hi\r\n") == b""
    assert client.happened == [b"220 hi\r\n"]
    assert client.transport.getPeer().port == 25


def test_of_a_factory() -> None:
    assert MemoryServer.of(factory_of(Talker(b"made"))).received() == b"made"


def test_octet_by_octet() -> None:
    client = Talker()
    MemoryServer.of(client, chunk=1).send(b"220\r\n")
    assert client.happened == [b"2", b"2", b"0", b"\r", b"\n"]


def test_the_client_closes() -> None:
    client = Talker()
    server = MemoryServer.of(client)
    client.transport.write(b"QUIT\r\n")
    client.transport.loseConnection()
    assert client.happened == []  # never within a call of its own
    assert server.closed and not server.transport.aborted
    assert client.happened == [ConnectionDone]
    assert server.received() == b"QUIT\r\n"
    client.transport.write(b"more")
    assert server.received() == b""


def test_the_client_aborts() -> None:
    client = Talker()
    server = MemoryServer.of(client)
    client.transport.write(b"lost")
    client.transport.abortConnection()
    assert server.closed and server.transport.aborted
    assert client.happened == [ConnectionAborted]
    assert server.received() == b""


def test_a_client_that_is_gone_hears_nothing() -> None:
    client = Talker()
    server = MemoryServer.of(client)
    client.transport.loseConnection()
    server.send(b"220 hi\r\n")
    assert client.happened == [ConnectionDone]


def test_the_server_goes() -> None:
    for go, reason in ((MemoryServer.close, ConnectionDone), (MemoryServer.disconnect, ConnectionLost)):
        client = Talker()
        server = MemoryServer.of(client)
        go(server)
        assert client.happened == [reason]
        assert server.closed


def test_half_close_by_the_server() -> None:
    client = HalfCloser()
    server = MemoryServer.of(client)
    server.half_close()
    assert client.happened == ["read end"] and not server.closed
    client.transport.write(b"still here")
    assert server.received() == b"still here"
    simple = Talker()
    server = MemoryServer.of(simple)
    server.half_close()
    assert simple.happened == [ConnectionDone] and server.closed


def test_half_close_by_the_client() -> None:
    client = HalfCloser()
    server = MemoryServer.of(client)
    client.transport.loseWriteConnection()
    assert server.transport.half_closed
    server.send(b"bye")
    assert client.happened == ["write end", b"bye"] and not server.closed
    server.close()
    assert client.happened == ["write end", b"bye", "read end"]


def test_a_producer_is_paused_and_resumed() -> None:
    client, producer = Talker(), Producer()
    server = MemoryServer.of(client)
    client.transport.registerProducer(producer, True)
    server.pause_writing()
    assert producer.told == ["pause"]
    client.transport.write(b"waits")
    assert server.received() == b""
    assert server.transport.unsent == 5
    assert server.resume_writing() == b"waits"
    assert producer.told == ["pause", "resume"]
    server.disconnect()
    assert producer.told == ["pause", "resume", "stop"]


def test_a_close_waits_for_what_was_written_and_an_abort_does_not() -> None:
    for method, closed, rest in (("loseConnection", False, b"waits"), ("abortConnection", True, b"")):
        client = Talker()
        server = MemoryServer.of(client)
        server.pause_writing()
        client.transport.write(b"waits")
        getattr(client.transport, method)()
        assert server.closed is closed
        assert server.resume_writing() == rest
        assert server.closed


def test_a_close_waits_for_a_paused_producer() -> None:
    client, producer = Talker(), Producer()
    server = MemoryServer.of(client)
    server.pause_writing()
    client.transport.registerProducer(producer, True)
    client.transport.loseConnection()
    assert not server.closed
    client.transport.unregisterProducer()
    assert server.closed


def test_a_client_that_does_not_read() -> None:
    client = Talker()
    server = MemoryServer.of(client)
    client.transport.pauseProducing()
    server.send(b"220 hi\r\n")
    server.close()
    assert client.happened == [] and not server.closed
    client.transport.resumeProducing()
    server.flow()
    assert client.happened == [b"220 hi\r\n", ConnectionDone]


def test_start_tls_of_a_memory_server() -> None:
    client = Talker()
    server = MemoryServer.of(client)
    server.send(b"220 go\r\n")
    client.transport.startTLS(TRUSTS_ALL)
    server.start_tls(CONTEXT)
    client.transport.write(b"secret")
    assert server.received() == b"secret"
    assert b"secret" not in server.link.said_by_client
    server.send(b"whispered")
    assert client.happened == [b"220 go\r\n", "handshake", b"whispered"]


# -- joined -------------------------------------------------------------------


def test_each_write_arrives_by_itself() -> None:
    link, client, server = pair(Talker(b"one"))
    client.transport.write(b"two")
    client.transport.writeSequence([b"th", b"ree"])
    link.flow()
    assert server.happened == [b"one", b"two", b"three"]
    assert link.said_by_client == b"onetwothree"


def test_a_chunk_size_cuts() -> None:
    link, client, server = pair(chunk=2)
    client.transport.write(b"abcde")
    link.flow()
    assert server.happened == [b"ab", b"cd", b"e"]
    link.chunk = None
    client.transport.write(b"abcde")
    link.flow()
    assert server.happened[3:] == [b"abcde"]


def test_a_server_that_refuses_the_connection() -> None:
    class Full(ServerFactory):
        def buildProtocol(self, addr: Any) -> None:
            return None

    client = Talker(b"hello")
    link = joined(client, Full())
    assert link.server is None
    assert client.happened == [ConnectionDone]


def test_ends_come_behind_octets() -> None:
    link, client, server = pair(chunk=1)
    server.transport.write(b"no")
    server.transport.loseConnection()
    link.flow()
    assert client.happened == [b"n", b"o", ConnectionDone]
    assert server.happened == [ConnectionDone]


def test_an_abort_overtakes_octets() -> None:
    link, client, server = pair()
    server.transport.write(b"no")
    server.transport.abortConnection()
    link.flow()
    assert client.happened == [ConnectionLost]
    assert server.happened == [ConnectionAborted]


def test_who_writes_to_a_closed_end_is_reset() -> None:
    link, client, server = pair(HalfCloser())
    server.transport.loseConnection()
    link.flow()
    assert client.happened == ["read end"]
    client.transport.write(b"anybody?")
    link.flow()
    assert client.happened == ["read end", ConnectionLost]


def test_a_reader_that_pauses_holds_a_producer_up() -> None:
    link, client, server = pair()
    producer = Producer()
    client.transport.registerProducer(producer, True)
    server.transport.pauseProducing()
    client.transport.write(b"x" * (ROOM + 1))
    link.flow()
    assert (server.happened, producer.told) == ([], ["pause"])
    server.transport.resumeProducing()
    link.flow()
    assert producer.told == ["pause", "resume"]
    assert len(b"".join(server.happened)) == ROOM + 1


def test_a_pull_producer_is_asked_as_often_as_it_has_something() -> None:
    link, client, server = pair()
    client.transport.registerProducer(Puller(client.transport, [b"a", b"b", b"c"]), False)
    link.flow()
    assert server.happened == [b"a", b"b", b"c"]
    assert client.transport.producer is None


def test_a_producer_for_a_lost_connection_is_stopped() -> None:
    link, client, _ = pair()
    client.transport.abortConnection()
    link.flow()
    producer = Producer()
    client.transport.registerProducer(producer, True)
    assert producer.told == ["stop"]


def test_text_is_no_octets() -> None:
    _, client, _ = pair()
    with pytest.raises(TypeError, match="octets"):
        client.transport.write("text")


def test_a_flow_within_a_flow_does_nothing() -> None:
    link, client, server = pair()
    server.dataReceived = lambda data: (server.transport.write(data.upper()), link.flow())
    client.transport.write(b"echo")
    link.flow()
    assert client.happened == [b"ECHO"]


def test_what_a_protocol_raises_is_raised() -> None:
    link, client, server = pair()

    def broken(data: bytes) -> None:
        raise ZeroDivisionError

    server.dataReceived = broken
    client.transport.write(b"x")
    with pytest.raises(ZeroDivisionError):
        link.flow()


def test_run() -> None:
    link, client, _ = pair(server=Talker(b"220 hi\r\n"))

    async def ask(answer: Deferred[int]) -> int:
        return await answer + 1

    answer: Deferred[int] = Deferred()
    client.dataReceived = lambda data: answer.callback(len(data))
    link.server_transport.write(b"12345")
    assert link.run(ask(answer)) == 6


def test_run_raises_and_does_not_wait_for_ever() -> None:
    link, _, _ = pair()

    async def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        link.run(fail())
    cancelled: list[Any] = []
    with pytest.raises(AssertionError, match="nothing moves"):
        link.run(Deferred(cancelled.append))
    assert len(cancelled) == 1


def test_an_endpoint() -> None:
    servers = [Talker(b"one"), Talker(b"two")]
    clients = [Talker(b"hello"), Talker()]
    endpoint = MemoryEndpoint(factory_of(*servers), chunk=2)

    async def connect() -> list[Any]:
        factory = factory_of(*clients)
        return [await endpoint.connect(factory), await endpoint.connect(factory)]

    assert endpoint.run(connect()) == clients
    assert [client.happened for client in clients] == [[b"on", b"e"], [b"tw", b"o"]]
    assert servers[0].happened == [b"he", b"ll", b"o"]
    assert len(endpoint.links) == 2
    assert endpoint.said_by_clients == b"hello"
    assert not endpoint.flow()


def test_an_endpoint_where_nobody_listens() -> None:
    endpoint = MemoryEndpoint(None)
    with pytest.raises(ConnectionRefusedError):
        endpoint.run(endpoint.connect(Factory.forProtocol(Talker)))
    assert endpoint.links == []


# -- TLS ------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [None, 1, 7])
def test_tls_both_ways(chunk: int | None) -> None:
    link, client, server = secured(chunk)
    assert client.happened == server.happened == ["handshake"]
    assert ISSLTransport.providedBy(client.transport)
    assert client.transport.getHandle().get_protocol_version_name().startswith("TLSv1")
    assert client.transport.getPeerCertificate() is not None
    client.transport.write(b"secret")
    server.transport.writeSequence([b"whis", b"pered"])
    link.flow()
    assert b"".join(client.happened[1:]) == b"whispered"
    assert b"".join(server.happened[1:]) == b"secret"
    assert b"secret" not in link.said_by_client


def test_only_what_can_start_tls_says_so() -> None:
    _, client, _ = pair()
    assert ITLSTransport.providedBy(client.transport)
    assert not ISSLTransport.providedBy(client.transport)


def test_tls_the_other_way_round() -> None:
    link, client, server = pair()
    client.transport.startTLS(CONTEXT, normal=False)
    server.transport.startTLS(TRUSTS_ALL, normal=False)
    link.flow()
    assert client.happened == server.happened == ["handshake"]


@pytest.mark.parametrize("closer", [0, 1])
def test_a_close_within_tls_is_a_clean_one_for_both(closer: int) -> None:
    link, *both = secured()
    both[closer].transport.write(b"last words")
    both[closer].transport.loseConnection()
    link.flow()
    assert both[closer].happened == ["handshake", ConnectionDone]
    assert both[1 - closer].happened == ["handshake", b"last words", ConnectionDone]


def test_an_abort_within_tls() -> None:
    link, client, server = secured()
    client.transport.abortConnection()
    link.flow()
    # As the TLS layer has it, for the one who aborts as well.
    assert client.happened[-1:] == server.happened[-1:] == [ConnectionLost]
    assert link.client_transport.aborted


def test_a_close_without_goodbye_is_no_clean_one() -> None:
    link, client, server = secured()
    server.transport.tls.transport.loseConnection()
    link.flow()
    assert client.happened[-1:] == [ConnectionLost]


def test_a_certificate_of_somebody_else() -> None:
    link, client, server = pair()
    server.transport.startTLS(CONTEXT)
    client.transport.startTLS(optionsForClientTLS("other.test"))
    link.flow()
    assert client.happened == [VerificationError]
    assert "handshake" not in server.happened
    assert link.client_transport.closed and link.server_transport.closed


def test_garbage_in_the_place_of_a_handshake() -> None:
    link, client, server = pair()
    server.transport.write(b"220 go ahead, in clear\r\n")
    client.transport.startTLS(TRUSTS_ALL)
    link.flow()
    assert client.happened == [SSL.Error]
    assert link.server_transport.closed


def test_a_producer_keeps_its_place_when_tls_starts() -> None:
    link, client, server = pair()
    producer = Producer()
    client.transport.registerProducer(producer, True)
    server.transport.startTLS(CONTEXT)
    client.transport.startTLS(TRUSTS_ALL)
    link.flow()
    producer.told.clear()
    server.transport.pauseProducing()
    client.transport.write(b"x" * (2 * ROOM))
    link.flow()
    assert producer.told == ["pause"]
    server.transport.resumeProducing()
    link.flow()
    assert producer.told == ["pause", "resume"]
    assert len(b"".join(server.happened[1:])) == 2 * ROOM
    client.transport.unregisterProducer()
    client.transport.loseConnection()
    link.flow()
    assert client.happened[-1:] == [ConnectionDone]


def test_tls_from_the_first_octet() -> None:
    client, server = Talker(b"hello"), Talker(b"220 hi\r\n")
    link = joined(tls_client(client, TRUSTS_ALL), tls_server(factory_of(server), CONTEXT))
    assert client.happened == ["handshake", b"220 hi\r\n"]
    assert server.happened == ["handshake", b"hello"]
    client.transport.loseConnection()
    link.flow()
    assert (client.happened[-1], server.happened[-1]) == (ConnectionDone, ConnectionDone)
    assert b"hello" not in link.said_by_client


# -- a client and a server that exist -----------------------------------------------


class Sender(ESMTPClient):
    """Twisted's own client: one message, to one recipient."""

    timeout = None

    def __init__(self, context: Any = None) -> None:
        super().__init__(b"", context, b"me.test")
        self.requireAuthentication = False
        self.requireTransportSecurity = context is not None
        self.senders = [b"a@b.test"]
        self.sent: list[Any] = []

    def getMailFrom(self) -> bytes | None:
        return self.senders.pop() if self.senders else None

    def getMailTo(self) -> list[bytes]:
        return [b"c@d.test"]

    def getMailData(self) -> BytesIO:
        return BytesIO(b"Subject: x\n\nhello\n")

    def sentMail(self, code: int, response: bytes, accepted: int, *others: Any) -> None:
        self.sent.append((code, accepted))


@pytest.mark.parametrize("chunk", [None, 1])
def test_a_message_of_twisteds_client_for_our_server(chunk: int | None) -> None:
    backend = RecordingBackend()
    client = Sender()
    link = joined(client, make_factory(backend), chunk=chunk)
    assert client.sent == [(250, 1)]
    assert [message.body for message in backend.messages] == [b"Subject: x\r\n\r\nhello\r\n"]
    assert link.client_transport.closed and link.server_transport.closed
    assert link.said_by_client.endswith(b"\r\n.\r\nRSET\r\nQUIT\r\n")


@pytest.mark.parametrize("chunk", [None, 1])
def test_twisteds_client_starts_tls_with_our_server(chunk: int | None) -> None:
    def refuse(*arguments: Any) -> None:
        # Its message comes from a pull producer, and within TLS that would need a reactor.
        raise SMTPError(550)

    backend = RecordingBackend(rcpt=refuse)
    link = joined(Sender(TRUSTS_ALL), make_factory(backend, tls=CONTEXT), chunk=chunk)
    assert [event[0] for event in backend.events] == ["hello", "logout", "hello", "mail", "rcpt", "reset", "logout"]
    assert b"EHLO me.test\r\nSTARTTLS\r\n" in link.said_by_client
    assert b"MAIL" not in link.said_by_client
    assert link.client_transport.closed and link.server_transport.closed
