"""An SMTP and LMTP framework for Twisted: servers and clients whose behaviour is yours to plug in."""

from smtpfw.errors import EnhancedCode, SMTPError
from smtpfw.server import SMTPServerFactory
from smtpfw.session import Session, SessionBackend
from smtpfw.wire.config import ServerConfig
from smtpfw.wire.grammar import Address
from smtpfw.wire.replies import Reply

__version__ = "0.1.0"

__all__ = [
    "Address",
    "EnhancedCode",
    "Reply",
    "SMTPError",
    "SMTPServerFactory",
    "ServerConfig",
    "Session",
    "SessionBackend",
]
