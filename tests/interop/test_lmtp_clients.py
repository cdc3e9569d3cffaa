"""LMTP clients that people have, against ``twistd smtpfw --protocol lmtp``, over TCP and a Unix socket."""

from __future__ import annotations

import smtplib
from pathlib import Path

from tests.interop.test_clients import MESSAGE, run, stored
from tests.running import Twistd

SENDER = "sender@example.net"
LMTP = ("--protocol", "lmtp", "--hostname", "localhost")


def test_swaks(tmp_path: Path) -> None:
    source = tmp_path / "message.eml"
    source.write_bytes(MESSAGE)
    with Twistd(*LMTP, folder=tmp_path) as server:
        address = f"127.0.0.1:{server.port}"
        to = "reader@example.org,reader@example.org"
        output = run(
            "swaks", "--protocol", "LMTP", "--server", address, "--from", SENDER, "--to", to, "--data", f"@{source}"
        )
    assert output.count("250 2.0.0 stored as") == 2
    assert stored(tmp_path) == MESSAGE + b"\r\n"


def test_smtplib_over_a_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "lmtp.sock")
    listen = ("--listen", "tcp:0:interface=127.0.0.1", "--listen", f"unix:{path}")
    with Twistd(*LMTP, *listen, folder=tmp_path), smtplib.LMTP(path) as client:
        assert client.sendmail(SENDER, ["reader@example.org"], MESSAGE) == {}
    assert stored(tmp_path) == MESSAGE
