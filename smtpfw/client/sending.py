"""
One call that sends one message: connect, say hello, start TLS, log in, send, say goodbye.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from smtpfw.client.addresses import AnyAddress, AnyOptions
from smtpfw.client.connecting import Connector, Where, connector_of
from smtpfw.client.messages import AnyRecipients, outgoing_message
from smtpfw.client.protocol import SMTPClientProtocol
from smtpfw.errors import ClientError
from smtpfw.wire.message import OutgoingMessage
from smtpfw.wire.results import SendResult

__all__ = ["send_mail"]


def send_mail(
    where: Where,
    sender: AnyAddress | None,
    recipients: AnyRecipients | None,
    body: Any,
    *,
    options: AnyOptions = None,
    reactor: Any = None,
    **settings: Any,
) -> Deferred[SendResult]:
    """
    Send one message.

    :param where: the server, and ``settings`` how to get there: see :func:`~smtpfw.client.connect`.
    :param sender: the reverse-path; an empty text is the null sender. None: as the header of the message says.
    :param recipients: one or several. None: all in To, Cc and Bcc of the message.
    :param body: bytes, a str, a file, an ``email.message.Message``, an iterable or async iterable of bytes, an IBody or
        an IBodyProducer. It is streamed, at constant memory.
    :param options: parameters of MAIL: ``{RET: "HDRS"}``. What the content needs is added to them.
    :return: a Deferred of what became of each recipient. It is there if the server has taken the message over for
        anybody; its ``text`` is what the server said at last, its ``refused`` are those who do not get it.
    :raises ClientError: if nobody gets it, or nobody knows (:class:`~smtpfw.errors.UnknownOutcome`); it says who, at
        which step, and whether it is ``temporary``. Nothing is tried twice.
    :raises SMTPError: for a message that this server can't take; nothing has been sent.
    :raises LocalProtocolError: for an address that is none, or credentials that must not be sent.
    :raises ValueError: for other arguments that make no sense.
    """
    connector = connector_of(where, **settings)
    message = outgoing_message(sender, recipients, body, options)
    return Deferred.fromCoroutine(_send(connector, message, reactor))


async def _send(connector: Connector, message: OutgoingMessage, reactor: Any) -> SendResult:
    client = await connector.connect(reactor)
    try:
        return await client.send_message(message)
    except CancelledError:
        # Nobody waits for the answer that is due, nor for a goodbye behind it.
        client.close()
        raise
    finally:
        await _leave(client)


async def _leave(client: SMTPClientProtocol) -> None:
    """
    Say goodbye; what comes of it changes nothing.

    Whoever does not want to wait for it hears all the same what became of the message: else it would be sent again.
    """
    try:
        if not client.wire.is_over:
            await client.quit()
    except (ClientError, CancelledError):
        client.close()
    try:
        # Whoever has an answer has no connection left behind it.
        await client.disconnected
    except CancelledError:
        client.close()
