"""
TLS of both sides: contexts from PEM files, and what a live connection says of itself.
"""

from smtpfw.tls.client import client_context, name_verified
from smtpfw.tls.server import server_context
from smtpfw.tls.state import channel_bindings, tls_state

__all__ = ["channel_bindings", "client_context", "name_verified", "server_context", "tls_state"]
