"""
One client's dialog, passed on to the next hop as it is spoken.

Rule 1: the answer to each command is the next hop's. Nothing is acknowledged
that it has not acknowledged; MAIL alone is, where the next hop depends on the
first recipient.

Rule 2: a transaction lives on one connection to one next hop, from MAIL to the
answer to the message. Whatever ends it, ends it there: by RSET, or with the
connection.

Rule 3: what the operator should know, and the sender can do nothing about, is
in the log: which next hop, at which step, of which transaction.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any, Protocol

from twisted.logger import Logger
from zope.interface import implementer

from smtpfw.backends.relay.answers import answer_of, is_ours, merged, said
from smtpfw.backends.relay.opening import NextHop, Openings, Wanted
from smtpfw.backends.relay.ourselves import is_us
from smtpfw.backends.relay.parameters import for_rcpt
from smtpfw.backends.relay.promises import is_broken
from smtpfw.backends.relay.stream import passed_on
from smtpfw.client import Connector, LMTPClientProtocol, OutgoingBody, SMTPClientProtocol
from smtpfw.errors import (
    ClientError,
    LocalProtocolError,
    Refused,
    SMTPError,
    TooManyRecipients,
    TryAgainLater,
)
from smtpfw.interfaces import IBody, IConnection, ILMTPSession, IStatusCollector
from smtpfw.wire import trace
from smtpfw.wire.grammar import Address
from smtpfw.wire.parameters import Options
from smtpfw.wire.replies import Reply
from smtpfw.wire.results import RecipientResult
from smtpfw.wire.transaction import Recipient

__all__ = ["ForwardingSession", "Route"]

#: What a client of ours may fail with.
_FAILURES = (ClientError, LocalProtocolError)


class Route(Protocol):
    """
    Where mail goes next.

    :ivar kind: what its backend is called in logs.
    :ivar by_domain: whether the next hop depends on the recipient's domain, so that nobody knows it at MAIL.
    :ivar waits_for_recipient: whether it hears of a message only when it has a recipient, and no longer than it has.
    :ivar openings: opens transactions.
    """

    kind: str
    by_domain: bool
    waits_for_recipient: bool

    @property
    def openings(self) -> Openings: ...

    def permit(self, connection: IConnection) -> SMTPError | None:
        """Why this client's mail is not carried, if it is not."""

    def clock(self) -> Any:
        """The reactor."""

    async def connectors(self, domain: str, connection: IConnection) -> Sequence[Connector]:
        """
        The next hops, in the order in which they are to be tried.

        :param domain: of the recipient; empty if the route does not depend on it.
        """


@implementer(ILMTPSession)
class ForwardingSession:
    """
    :param route: where mail goes.
    :param connection: the client's.
    """

    _log = Logger()

    def __init__(self, route: Route, connection: IConnection) -> None:
        self._route = route
        self._connection = connection
        # What MAIL has said; None before.
        self._wanted: Wanted | None = None
        self._hop: NextHop | None = None
        # Whose domain the hop was chosen for.
        self._domain = ""
        self._accepted = False

    async def mail(self, sender: Address, options: Options) -> Reply | str | None:
        """
        MAIL, said to the next hop if it is known already.

        Who may not send anything from here on is told so at RCPT, and no next hop hears of it.
        """
        self._leave()
        # Whoever is in front of this backend may have kept it for itself for a while.
        arrived = self._route.clock().seconds() - self._connection.seconds_since_mail
        self._wanted = Wanted(sender, options, arrived)
        if self._route.waits_for_recipient or self._route.permit(self._connection) is not None:
            return None
        return said((await self._begin("")).reply)

    async def rcpt(self, recipient: Address, options: Options) -> Reply | str | None:
        """
        RCPT, said to the next hop.

        :raises RelayDenied: if mail of this client is not carried.
        :raises TooManyRecipients: for a recipient who has another next hop than those before.
        """
        denied = self._route.permit(self._connection)
        if denied is not None:
            raise denied
        domain = (recipient.domain or self._connection.hostname).lower() if self._route.by_domain else ""
        if self._hop is not None and domain != self._domain:
            if self._accepted:
                # Two next hops would have to agree about one message, which none of them can take back.
                raise TooManyRecipients("Recipients of one domain at a time, please; send this one by itself")
            self._leave()
        hop = self._hop or await self._begin(domain)
        try:
            reply = await hop.client.rcpt(recipient, for_rcpt(options, hop.client))
        except _FAILURES as error:
            if self._route.waits_for_recipient and not self._accepted:
                self._leave()
            raise self._answer_of(error, hop.name) from error
        self._accepted = True
        return said(reply)

    async def data(self, body: IBody) -> Reply | str | None:
        """
        The message, while it arrives.

        :return: what the next hop has said: its name for the message, often. A next hop of LMTP answers for each
            recipient; see :func:`~smtpfw.backends.relay.answers.merged`.
        """
        hop = self._ready()
        if isinstance(hop.client, LMTPClientProtocol):
            return merged([outcome for _, outcome in await self._send_to_each(hop, hop.client, body)])
        return said(await self._sent(hop, hop.client.data(self._outgoing(hop, body))))

    async def lmtp_data(self, body: IBody, status: IStatusCollector) -> Reply | str | None:
        """The same for a client of LMTP: each recipient gets what the next hop says of it, if that speaks LMTP, too."""
        hop = self._ready()
        if not isinstance(hop.client, LMTPClientProtocol):
            return await self.data(body)
        for recipient, outcome in await self._send_to_each(hop, hop.client, body):
            status.set_status(recipient, outcome if isinstance(outcome, Exception) else said(outcome))
        return None

    def reset(self, reason: str) -> None:
        """The transaction is over here, so it is there."""
        self._leave()

    def logout(self, reason: str) -> None:
        """Nothing is kept for the next client."""
        self._leave()

    # -- our own ----------------------------------------------------------------

    async def _begin(self, domain: str) -> NextHop:
        if self._wanted is None:
            raise TryAgainLater  # whatever is in front of this backend has not passed on MAIL
        route, connection = self._route, self._connection
        connectors = await route.connectors(domain, connection)

        def would_loop(connector: Connector, client: SMTPClientProtocol) -> bool:
            return is_us(connector, client, connection, by_name=route.by_domain)

        hop = await route.openings.open(connectors, self._wanted, self._report, would_loop)
        self._hop, self._domain, self._accepted = hop, domain, False
        return hop

    def _ready(self) -> NextHop:
        """The next hop, if it knows the recipients that the client knows."""
        hop, transaction = self._hop, self._connection.transaction
        if hop is None or transaction is None:
            raise TryAgainLater  # whatever is in front of this backend must pass on MAIL and RCPT
        wire = hop.client.wire
        there = [] if wire.transaction is None else _addresses(wire.transaction.recipients)
        if not wire.is_over and there != _addresses(transaction.recipients):
            self._log.error(
                "{kind}: transaction {id} has other recipients here than at {next_hop}: whatever is in front of this "
                "backend must pass on every RCPT",
                kind=self._route.kind,
                id=transaction.id,
                next_hop=hop.name,
            )
            self._leave()
            raise TryAgainLater
        return hop

    def _outgoing(self, hop: NextHop, body: IBody) -> OutgoingBody:
        transaction = self._connection.transaction
        assert transaction is not None
        options = transaction.options
        utf8_missing = options.utf8 and hop.client.extension("SMTPUTF8") is None
        return passed_on(
            body,
            trace.received_line(self._connection),
            binary=options.body == "BINARYMIME",
            ascii_header=utf8_missing,
        )

    async def _send_to_each(
        self, hop: NextHop, client: LMTPClientProtocol, body: IBody
    ) -> list[tuple[Recipient, Exception | Reply | None]]:
        transaction = self._connection.transaction
        assert transaction is not None
        results: list[RecipientResult] = await self._sent(hop, client.lmtp_data(self._outgoing(hop, body)))
        if len(results) != len(transaction.recipients):
            # Whoever has no result must not pass for one who has a good one.
            raise TryAgainLater
        told: set[int] = set()
        return [(result.recipient, self._outcome(result, hop.name, told)) for result in results]

    async def _sent(self, hop: NextHop, sending: Awaitable[Any]) -> Any:
        """What has come of the message, and the transaction with it."""
        try:
            outcome = await sending
            if isinstance(outcome, list) and any(_breaks_off(result.error) for result in outcome):
                hop.client.close()
            return outcome
        except BaseException as error:
            if _breaks_off(error):
                # The next hop throws away now what it has of the message, and not when another one comes.
                hop.client.close()
            if isinstance(error, _FAILURES):
                raise self._answer_of(error, hop.name) from error
            raise
        finally:
            self._leave()

    def _outcome(self, result: RecipientResult, name: str, told: set[int]) -> Exception | Reply | None:
        error = result.error
        if error is None:
            return result.reply
        if is_ours(error) and id(error) not in told:
            # One lost connection is one line, however many recipients there were.
            told.add(id(error))
            self._report(error, name)
        return answer_of(error)

    def _answer_of(self, error: Exception, name: str) -> SMTPError:
        if is_ours(error) or is_broken(error):
            self._report(error, name)
        return answer_of(error)

    def _report(self, error: Exception, name: str) -> None:
        transaction = self._connection.transaction
        self._log.warn(
            "{kind}: {id}: {next_hop} failed{at}: {reason}",
            kind=self._route.kind,
            id=self._connection.id if transaction is None else transaction.id,
            next_hop=name,
            at=f" at {phase}" if (phase := getattr(error, "phase", "")) else "",
            reason=str(error),
        )

    def _leave(self) -> None:
        hop, self._hop = self._hop, None
        self._accepted = False
        if hop is not None:
            hop.leave()


def _breaks_off(error: BaseException | None) -> bool:
    """Whether the next hop may have a part of a message, and does not know that no more of it will come."""
    return error is not None and not isinstance(error, Refused)


def _addresses(recipients: Sequence[Recipient]) -> list[Any]:
    return [recipient.address for recipient in recipients]
