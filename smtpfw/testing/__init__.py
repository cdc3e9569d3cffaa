"""
Tools for testing what is built on smtpfw: no sockets, no sleeping.

>>> backend = RecordingBackend()
>>> client = MemoryClient.of(SMTPServerFactory(backend, ServerConfig(hostname="mx.test"), reactor=Clock()))
>>> client.send(b"EHLO me\\r\\n")
"""

from smtpfw.testing.memory import MemoryClient, MemoryTransport
from smtpfw.testing.recording import RecordedMessage, RecordingBackend, RecordingSession

__all__ = ["MemoryClient", "MemoryTransport", "RecordedMessage", "RecordingBackend", "RecordingSession"]
