"""
TLS of both sides: contexts from PEM files, and what a live connection says of itself.
"""

from smtpfw.tls.client import client_context, name_verified
from smtpfw.tls.server import ServerTLS, TLSPolicy, server_context
from smtpfw.tls.state import channel_bindings, tls_state
from smtpfw.tls.store import CertificateStore, Reloaded
from smtpfw.tls.watching import Watcher

__all__ = [
    "CertificateStore",
    "Reloaded",
    "ServerTLS",
    "TLSPolicy",
    "Watcher",
    "channel_bindings",
    "client_context",
    "name_verified",
    "server_context",
    "tls_state",
]
