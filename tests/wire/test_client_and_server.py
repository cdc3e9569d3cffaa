"""Client and server, both without sockets: what one sends is what the other stores, however the octets are cut."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from smtpfw.errors import SMTPError
from smtpfw.wire.application import PENDING
from smtpfw.wire.config import ServerConfig
from smtpfw.wire.results import SendResult
from smtpfw.wire.server import ServerConnection
from tests.wire.client_end import ClientEnd, Text, Told, text
from tests.wire.reference_body import decode_chunks
from tests.wire.test_server_fuzz import DIALECT, Scripted

CONFIG = ServerConfig(hostname="mx.test", max_commands_without_mail=0)
PIECES = st.lists(
    st.sampled_from([b"a", b".", b"\r", b"\n", b"\r\n", b"\r\n.", b"\r\n.\r\n", b"RSET\r\n", b"\0", b"x" * 40]),
    max_size=8,
)


class Storing(Scripted):
    """Takes every message."""

    def message_refusal(self) -> SMTPError | None:
        return None


class ClientAndServer(RuleBasedStateMachine):
    @initialize(pipelining=st.booleans(), chunking=st.booleans(), chunk_bytes=st.integers(1, 50), later=st.booleans())
    def begin(self, pipelining: bool, chunking: bool, chunk_bytes: int, later: bool) -> None:
        self.application = Storing([(0, later)])
        self.server = self.application.connection = ServerConnection(CONFIG, DIALECT, self.application)
        self.client = ClientEnd(None, pipelining=pipelining, chunking=chunking, chunk_bytes=chunk_bytes)
        self.to_server = self.to_client = b""
        self.expected: list[bytes] = []
        self.asked: list[Told] = []
        # What each stream has still to give, in the order in which they are asked for it.
        self.streams: list[list[bytes]] = []
        self.server.greet()

    @rule(pieces=PIECES, recipients=st.integers(1, 3), stream=st.booleans())
    def send(self, pieces: list[bytes], recipients: int, stream: bool) -> None:
        body = b"".join(pieces)
        names = [f"r{index}@d.test" for index in range(recipients)]
        if stream:
            self.streams.append(list(pieces))
        self.asked.append(self.client.send(*names, body=Text(None) if stream else text(body)))
        octets = decode_chunks(body, whole=True).text
        self.expected.append(octets + (b"" if octets.endswith(b"\n") or not octets else b"\r\n"))

    @rule()
    def noop(self) -> None:
        self.asked.append(self.client.command(b"NOOP"))

    @rule(count=st.integers(1, 100))
    def octets_to_server(self, count: int) -> None:
        self.to_server += b"".join(self.client.said())
        octets, self.to_server = self.to_server[:count], self.to_server[count:]
        if octets:
            self.server.receive_data(octets)

    @rule(count=st.integers(1, 100))
    def octets_to_client(self, count: int) -> None:
        self.to_client += self.server.data_to_send()
        octets, self.to_client = self.to_client[:count], self.to_client[count:]
        if octets:
            self.client.wire.receive_data(octets)
            self.client.flush()

    @rule()
    def server_goes_on(self) -> None:
        application, server = self.application, self.server
        if server.waiting:
            answer, application.later = application.later, PENDING
            server.resume(answer)
        elif server.held:
            server.release()
        elif server.backlogged:
            server.go_on()

    @precondition(lambda self: self.client.bodies and not self.client.bodies[0].full)
    @rule()
    def client_goes_on(self) -> None:
        sending, pieces = self.client.bodies[0], self.streams[0]
        if pieces:
            self.client.write(sending, pieces.pop(0))
        else:
            self.client.write(sending, end=True)
            del self.client.bodies[0], self.streams[0]

    def teardown(self) -> None:
        if not hasattr(self, "server"):
            return
        for _ in range(2000):
            self.octets_to_server(10_000)
            self.server_goes_on()
            self.octets_to_client(10_000)
            if self.client.bodies and not self.client.bodies[0].full:
                self.client_goes_on()
            if self.client.wire.idle and not self.client.greeting.silent:
                break
        else:
            raise AssertionError("it does not come to rest")
        for told in self.asked:
            outcome: Any = told.outcome
            assert not isinstance(outcome, Exception), outcome
            assert not isinstance(outcome, SendResult) or outcome.refused == []
        assert self.application.stored == self.expected
        assert self.client.ends == []


TestClientAndServer = ClientAndServer.TestCase
TestClientAndServer.settings = settings(max_examples=40, stateful_step_count=25)
