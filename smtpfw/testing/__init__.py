"""
Tools for testing what is built on smtpfw: no sockets, no sleeping.

A backend, by a client that the test speaks for:

>>> backend = RecordingBackend()
>>> client = MemoryClient.of(SMTPServerFactory(backend, ServerConfig(hostname="mx.test"), reactor=Clock()))
>>> client.send(b"EHLO me\\r\\n")

A client, by a server that the test speaks for, or one that plays a script:

>>> server = MemoryServer.of(protocol)
>>> server.send(b"220 mx.test ESMTP\\r\\n")
>>> peer = ScriptedPeer([b"220 mx.test ESMTP\\r\\n", ("EHLO", b"250 mx.test\\r\\n"), ("MAIL", close)])
>>> link = joined(protocol, peer)

Both together, TLS included: ``joined(protocol, server_factory)``; and for what connects by itself:

>>> endpoint = MemoryEndpoint(server_factory)
>>> endpoint.run(send_mail(endpoint, "a@b.test", ["c@d.test"], b"hello"))
"""

from smtpfw.testing.endpoint import MemoryEndpoint
from smtpfw.testing.link import Joined, joined
from smtpfw.testing.memory import MemoryClient, MemoryTransport
from smtpfw.testing.peers import MemoryServer, ScriptedConnection, ScriptedPeer
from smtpfw.testing.recording import RecordedMessage, RecordingBackend, RecordingSession
from smtpfw.testing.script import MESSAGE, abort, close, endless, octets, silence, starttls
from smtpfw.testing.tls import tls_client, tls_server

__all__ = [
    "MESSAGE",
    "Joined",
    "MemoryClient",
    "MemoryEndpoint",
    "MemoryServer",
    "MemoryTransport",
    "RecordedMessage",
    "RecordingBackend",
    "RecordingSession",
    "ScriptedConnection",
    "ScriptedPeer",
    "abort",
    "close",
    "endless",
    "joined",
    "octets",
    "silence",
    "starttls",
    "tls_client",
    "tls_server",
]
