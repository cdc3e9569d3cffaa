"""
The client's side: one call that sends a message, connections to talk to a server, and where mail for a domain goes.

>>> await send_mail("mail.example.org", "me@example.org", ["you@example.net"], message, auth=("me", "secret"))
"""

from smtpfw.client.bodies import OutgoingBody, outgoing_body
from smtpfw.client.connecting import Connector, connect, connector_of
from smtpfw.client.destination import Destination
from smtpfw.client.factory import LMTPClientFactory, SMTPClientFactory
from smtpfw.client.mx import Hop, look_up_mx
from smtpfw.client.pool import Pool
from smtpfw.client.pools import Pools
from smtpfw.client.protocol import LMTPClientProtocol, SMTPClientProtocol
from smtpfw.client.sending import send_mail
from smtpfw.client.writer import MessageWriter
from smtpfw.wire.config import ClientConfig
from smtpfw.wire.results import RecipientResult, SendResult

__all__ = [
    "ClientConfig",
    "Connector",
    "Destination",
    "Hop",
    "LMTPClientFactory",
    "LMTPClientProtocol",
    "MessageWriter",
    "OutgoingBody",
    "Pool",
    "Pools",
    "RecipientResult",
    "SMTPClientFactory",
    "SMTPClientProtocol",
    "SendResult",
    "connect",
    "connector_of",
    "look_up_mx",
    "outgoing_body",
    "send_mail",
]
