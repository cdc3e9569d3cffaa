"""The Twisted shell of the server's side: protocol, factory, and the bodies that sessions read."""

from smtpfw.server.factory import SMTPServerFactory
from smtpfw.server.protocol import SMTPServerProtocol

__all__ = ["SMTPServerFactory", "SMTPServerProtocol"]
