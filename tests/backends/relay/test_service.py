"""``twistd smtpfw --backend relay:...`` and ``lmtp:...`` as processes, with a next hop on a socket."""

from __future__ import annotations

import contextlib
import re
import smtplib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backends.relay.helpers import BODY, without_trace
from tests.running import Twistd

ANSWERS = {b"EHLO": b"250 hop.test", b"MAIL": b"250 OK", b"RCPT": b"250 OK", b"QUIT": b"221 bye", b"RSET": b"250 OK"}


class Hop:
    """
    A next hop: one thread, one connection.

    :ivar lines: what it was told, messages too.
    """

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.lines: list[bytes] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError), self._listener:
            connection, _ = self._listener.accept()
            with connection, connection.makefile("rwb", buffering=0) as stream:
                stream.write(b"220 hop.test ESMTP\r\n")
                for line in stream:
                    self.lines.append(line)
                    verb = line[:4].upper()
                    if verb == b"DATA":
                        stream.write(b"354 go on\r\n")
                        while (octets := stream.readline()) not in (b".\r\n", b""):
                            self.lines.append(octets)
                        stream.write(b"250 2.0.0 queued as 7\r\n")
                    else:
                        stream.write(ANSWERS[verb] + b"\r\n")

    def end(self) -> None:
        self._listener.close()
        self._thread.join(30)
        assert not self._thread.is_alive()


@pytest.fixture
def hop() -> Iterator[Hop]:
    hop = Hop()
    yield hop
    hop.end()


def send(port: int) -> tuple[int, bytes]:
    with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
        client.ehlo()
        client.mail("a@sender.test")
        client.rcpt("b@there.test")
        return client.data(BODY)


def test_a_message_goes_through_and_the_end_is_said(hop: Hop) -> None:
    with Twistd("--backend", f"relay:127.0.0.1:{hop.port}", "--hostname", "relay.test") as server:
        assert send(server.port) == (250, b"2.0.0 queued as 7")
        assert server.stop() == 0
        log = server.log
    hop.end()
    assert hop.lines[0] == b"EHLO relay.test\r\n"
    assert hop.lines[-1] == b"QUIT\r\n"
    assert without_trace(b"".join(hop.lines[4:-1])) == BODY
    assert f"Mail goes on to 127.0.0.1:{hop.port} (TLS if it is offered), as it arrives." in log
    assert "It is for clients that have authenticated, and those from 127.0.0.0/8, ::1/128." in log
    assert "Traceback" not in log


def test_a_next_hop_that_is_not_there(hop: Hop) -> None:
    unused = socket.create_server(("127.0.0.1", 0))
    port = unused.getsockname()[1]
    unused.close()
    with Twistd("--backend", f"relay:127.0.0.1:{port},127.0.0.1:{hop.port}") as server:
        assert send(server.port) == (250, b"2.0.0 queued as 7")
        assert server.stop() == 0
        log = server.log
    assert re.search(rf"relay: \w+: 127\.0\.0\.1:{port} failed at CONNECT: .*refused", log)


def test_a_server_that_would_ask_itself() -> None:
    probe = socket.create_server(("127.0.0.1", 0))
    port = probe.getsockname()[1]
    probe.close()
    listen = f"tcp:{port}:interface=127.0.0.1"
    with (
        Twistd("--listen", listen, "--backend", f"relay:127.0.0.1:{port}") as server,
        pytest.raises(smtplib.SMTPSenderRefused) as caught,
        smtplib.SMTP("127.0.0.1", server.port, timeout=30) as client,
    ):
        client.sendmail("a@sender.test", ["b@there.test"], BODY)
    assert caught.value.smtp_code == 554
    assert b"loops back" in bytes(caught.value.smtp_error)


def test_lmtp_over_a_unix_socket(tmp_path: Path) -> None:
    store, path = tmp_path / "mail", tmp_path / "lmtp.sock"
    (store / "b").mkdir(parents=True)
    listen = "--listen", "tcp:0:interface=127.0.0.1", "--listen", f"unix:{path}"
    with (
        Twistd("--protocol", "lmtp", *listen, "--backend", f"maildir:{store}/{{user}}"),
        Twistd("--backend", f"lmtp:unix:{path}") as server,
    ):
        with smtplib.SMTP("127.0.0.1", server.port, timeout=30) as client:
            refused = client.sendmail("a@sender.test", ["b@there.test", "nobody@there.test"], BODY)
        assert server.stop() == 0
    assert [code for code, _ in refused.values()] == [550]
    (file,) = (store / "b" / "new").iterdir()
    assert file.read_bytes().endswith(BODY)
