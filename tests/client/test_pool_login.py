"""Connections of a pool that log in at the same time: each has a dialog of its own, though all have one ISASLClient."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import gatherResults
from twisted.internet.task import Clock

from smtpfw import ServerConfig, SMTPServerFactory
from smtpfw.client.pool import Pool
from smtpfw.extensions import STANDARD, Auth
from smtpfw.sasl import SCRAM, CramMD5, ISASLClient, Login, OAuthBearer
from smtpfw.testing import MemoryEndpoint, RecordingBackend
from tests.client.pool_rig import CONFIG, nothing_in_the_log, quick_collections  # noqa: F401
from tests.sasl.helpers import BY_NAME, PASSWORD, TOKEN, Checker

CLIENTS: dict[str, Callable[[], ISASLClient]] = {
    "SCRAM-SHA-256": lambda: SCRAM("tim", PASSWORD),
    "CRAM-MD5": lambda: CramMD5("tim", PASSWORD),
    "LOGIN": lambda: Login("tim", PASSWORD, allow_clear=True),
    "OAUTHBEARER": lambda: OAuthBearer("tim", TOKEN, allow_clear=True),
}


def b64(text: str) -> bytes:
    return base64.b64encode(text.encode())


def login_lines(said: bytes) -> list[bytes]:
    """What a client said from AUTH on, up to its message."""
    lines = said.split(b"\r\n")
    begin = next(index for index, line in enumerate(lines) if line.startswith(b"AUTH "))
    end = next(index for index, line in enumerate(lines) if line.startswith(b"MAIL "))
    return lines[begin:end]


@pytest.mark.parametrize("connections", [2, 3, 5])
@pytest.mark.parametrize("mechanism", CLIENTS)
def test_they_log_in_at_the_same_time(mechanism: str, connections: int) -> None:
    backend, clock, checker = RecordingBackend(), Clock(), Checker()
    auth = Auth(checker, mechanisms=[BY_NAME[mechanism]], required=True, allow_insecure=True)
    server: Any = SMTPServerFactory(
        backend, ServerConfig(hostname="mx.test"), extensions=[*STANDARD, auth], reactor=clock
    )
    endpoint = MemoryEndpoint(server)
    pool = Pool(
        endpoint,
        auth=CLIENTS[mechanism](),
        tls="none",
        config=CONFIG,
        max_connections=connections,
        max_messages=1,
        reactor=clock,
    )
    # More messages than connections: those that come later log in when others have.
    names = [f"m{number}@a.test" for number in range(2 * connections)]
    sent = gatherResults([pool.send_mail(name, "b@b.test", b"x") for name in names], consumeErrors=True)
    assert len(endpoint.links) == connections
    # In turn, a write of each at a time, so that each exchange is under way while the others are.
    while sum(link._step() for link in endpoint.links):
        pass
    assert all(result.accepted for result in endpoint.run(sent))
    assert sorted(str(message.sender) for message in backend.messages) == sorted(names)
    assert len(endpoint.links) == len(names) == len(checker.asked)
    dialogs = [login_lines(link.said_by_client) for link in endpoint.links]
    assert all(dialog[0].startswith(f"AUTH {mechanism}".encode()) for dialog in dialogs)
    if mechanism == "LOGIN":
        assert dialogs == [[b"AUTH LOGIN", b64("tim"), b64(PASSWORD)]] * len(names)
    elif mechanism == "OAUTHBEARER":
        assert [len(dialog) for dialog in dialogs] == [1] * len(names)
    else:
        # A nonce or a challenge each; SCRAM has an empty line behind the server's proof.
        lines = 2 if mechanism == "CRAM-MD5" else 3
        assert [len(dialog) for dialog in dialogs] == [lines] * len(names)
        assert len({dialog[1] for dialog in dialogs}) == len(names)
    endpoint.run(pool.close())
