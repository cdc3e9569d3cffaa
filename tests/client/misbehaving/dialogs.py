"""Clients and peers that play a script, and what holds however their dialog has ended."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from smtpfw.client.protocol import LMTPClientProtocol, SMTPClientProtocol
from smtpfw.client.sending import send_mail
from smtpfw.errors import ClientError, ConnectionFailed, LocalProtocolError
from smtpfw.testing import MemoryEndpoint, ScriptedPeer, joined
from smtpfw.wire.results import SendResult
from tests.client.misbehaving.ways import BODY, CONFIG, Place, Way

PEER = "mx.test"


@contextmanager
def told(what: object) -> Iterator[None]:
    """Whatever fails within says of which row it was."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"in: {what}")
        raise


def value_of(outcome: Any) -> Any:
    return outcome.value if isinstance(outcome, Failure) else outcome


def check_error(error: Any, expected: type[Exception], phase: str, *, temporary: bool = True) -> None:
    """It is of exactly that kind, and says all that it has to say."""
    assert type(error) is expected, repr(error)
    assert (error.phase, error.temporary, error.peer) == (phase, temporary, PEER), repr(error)
    assert PEER in str(error) and str(error).isprintable()


class Dialog:
    """
    A client and a peer that plays a script.

    :ivar outcomes: what came of each thing that was asked, in the order of asking; None while it is open. The greeting
        is the first, if it is listened to.
    """

    def __init__(
        self, script: list[Any], *, lmtp: bool = False, chunk: int | None = None, listen: bool = True, **settings: Any
    ) -> None:
        self.clock = Clock()
        self.peer = ScriptedPeer(script)
        self.outcomes: list[Any] = []
        make = LMTPClientProtocol if lmtp else SMTPClientProtocol
        settings.setdefault("config", CONFIG)
        self.client = make(peer_name=PEER, clock=self.clock, **settings)
        if listen:
            self._note(self.client.greeting)
        self.link = joined(self.client, self.peer, chunk=chunk)

    def _note(self, deferred: Deferred[Any]) -> None:
        index = len(self.outcomes)
        self.outcomes.append(None)

        def tell(outcome: Any) -> None:
            assert self.outcomes[index] is None, "told twice"
            self.outcomes[index] = value_of(outcome) or "done"

        deferred.addBoth(tell)

    def ask(self, deferred: Deferred[Any]) -> Any:
        """Let flow, and return what has come of it by then."""
        self._note(deferred)
        self.link.flow()
        return self.outcomes[-1]

    def send(self, body: Any = BODY, recipients: tuple[str, ...] = ("c@d.test",), **options: Any) -> Any:
        return self.ask(self.client.send_mail("a@b.test", list(recipients), body, **options))

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.link.flow()

    @property
    def heard(self) -> bytes:
        """All that the peer was told, in clear and within TLS."""
        return self.peer.in_clear + self.peer.in_tls

    def error(self, expected: type[Exception], phase: str, *, temporary: bool = True, index: int = -1) -> Any:
        """The error that came of something, which has to be of exactly that kind."""
        error = self.outcomes[index]
        check_error(error, expected, phase, temporary=temporary)
        return error

    def end(self) -> None:
        """
        What holds however a dialog has ended, once the connection is over.

        Everybody has an answer, no timer is left, whoever asks for more is told so at once and not a word of it goes
        out, and no message was sent twice.
        """
        assert None not in self.outcomes
        assert self.link.client_transport.closed
        assert self.clock.getDelayedCalls() == []
        said = self.link.said_by_client
        assert isinstance(self.send(), ConnectionFailed), repr(self.outcomes[-1])
        assert isinstance(self.ask(self.client.noop()), ConnectionFailed), repr(self.outcomes[-1])
        assert self.link.said_by_client == said
        assert self.heard.count(b"MAIL FROM") <= 1
        assert self.heard.count(b"Subject:") <= 1
        self.peer.assert_played()


class Played(Dialog):
    """
    A way that goes well up to a place; what the peer does there instead of answering.

    :param asks: how much of the way is asked; all of it by default.
    """

    def __init__(
        self, way: Way, place: Place, *actions: Any, chunk: int | None = None, asks: int | None = None, behind: Any = ()
    ) -> None:
        super().__init__([*way.script(place, *actions), *behind], lmtp=way.lmtp, chunk=chunk, **way.settings)
        self.way, self.place, self._chunk = way, place, chunk
        for ask in way.asks[1:asks]:
            self.ask(ask(self.client))

    def broke(self, expected: type[Exception], *, temporary: bool = True, phase: str = "") -> Any:
        """
        The error of what was asked at that place.

        All before it went well; nothing that was asked behind it was said, and nothing but what a good peer was told up
        to there.
        """
        place = self.place
        assert not any(isinstance(one, Exception) for one in self.outcomes[: place.asked]), self.outcomes
        outcome = self.outcomes[place.asked]
        # In LMTP each recipient has a result of its own, and the error in it.
        error = outcome[0].error if isinstance(outcome, list) else outcome
        check_error(error, expected, phase or place.phase, temporary=temporary)
        for later in self.outcomes[place.asked + 1 :]:
            later = later[0].error if isinstance(later, list) else later
            assert type(later) in (ConnectionFailed, LocalProtocolError), repr(later)
            check_result(later)
        check_result(error)
        said = self.link.said_by_client if self._chunk else self.heard
        assert said == said_before(self.way, place)
        return error


def check_result(error: Exception) -> None:
    """
    If it was a message, nobody has got it, and each recipient has an error that says why.

    Of a message that was asked for as the last of several steps nobody knows the recipients before its turn comes.
    """
    result = getattr(error, "result", None)
    if result is not None:
        assert isinstance(result, SendResult)
        assert [str(one.recipient) for one in result.recipients] in (["c@d.test"], [])
        assert not result.accepted
        assert all(isinstance(one.error, (ClientError, LocalProtocolError)) for one in result.recipients)


@functools.cache
def _said(way_name: str) -> dict[str, bytes]:
    from tests.client.misbehaving.ways import way_of

    way, said = way_of(way_name), {}
    script: list[Any] = []

    def noted(place: Place) -> Any:
        return lambda connection: said.update({str(place): connection.in_clear + connection.in_tls})

    for place in way.places:
        script.append((place.expected, noted(place), place.reply))
    dialog = Dialog(script, lmtp=way.lmtp, **way.settings)
    for ask in way.asks[1:]:
        dialog.ask(ask(dialog.client))
    assert not any(isinstance(one, Exception) for one in dialog.outcomes), dialog.outcomes
    dialog.client.close()
    dialog.link.flow()
    return said


def said_before(way: Way, place: Place) -> bytes:
    """All that a client says to a good peer before it has the answer of that place."""
    return _said(way.name)[str(place)]


class Call:
    """
    :func:`~smtpfw.client.sending.send_mail`, to a peer that plays a script.

    :ivar outcome: what came of it; None while it is open.
    """

    def __init__(self, *scripts: list[Any], body: Any = BODY, **settings: Any) -> None:
        self.clock = Clock()
        self.peer = ScriptedPeer(*scripts)
        self.endpoint = MemoryEndpoint(self.peer)
        self.outcome: Any = None
        self.deferred = send_mail(
            self.endpoint, "a@b.test", ["c@d.test"], body, config=CONFIG, reactor=self.clock, **settings
        )
        self.deferred.addBoth(self._told)
        self.endpoint.flow()

    def _told(self, outcome: Any) -> None:
        assert self.outcome is None
        self.outcome = value_of(outcome)

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.endpoint.flow()

    def end(self) -> None:
        """One connection, which is over; one message at most; and nothing left behind."""
        assert self.outcome is not None
        assert [link.client_transport.closed for link in self.endpoint.links] == [True]
        assert self.clock.getDelayedCalls() == []
        heard = self.peer.in_clear + self.peer.in_tls
        assert heard.count(b"MAIL FROM") <= 1 and heard.count(b"Subject:") <= 1
        self.peer.assert_played()
