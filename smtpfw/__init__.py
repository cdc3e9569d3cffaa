"""An SMTP and LMTP framework for Twisted: servers and clients whose behaviour is yours to plug in."""

from smtpfw.check import Check, FunctionCheck
from smtpfw.client import (
    LMTPClientFactory,
    LMTPClientProtocol,
    Pool,
    SendResult,
    SMTPClientFactory,
    SMTPClientProtocol,
    connect,
    send_mail,
)
from smtpfw.codes import ReplyCode
from smtpfw.errors import EnhancedCode, SMTPError
from smtpfw.server import SMTPServerFactory
from smtpfw.session import Session, SessionBackend
from smtpfw.wire.config import ClientConfig, ServerConfig
from smtpfw.wire.grammar import Address
from smtpfw.wire.replies import Reply
from smtpfw.wire.trace import received_line

__version__ = "0.1.0"

__all__ = [
    "Address",
    "Check",
    "ClientConfig",
    "EnhancedCode",
    "FunctionCheck",
    "LMTPClientFactory",
    "LMTPClientProtocol",
    "Pool",
    "Reply",
    "ReplyCode",
    "SMTPClientFactory",
    "SMTPClientProtocol",
    "SMTPError",
    "SMTPServerFactory",
    "SendResult",
    "ServerConfig",
    "Session",
    "SessionBackend",
    "connect",
    "received_line",
    "send_mail",
]
