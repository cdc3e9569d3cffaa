"""
An ESMTP extension as one value, and a listener's choice of them compiled into tables.

Rule 1: the core never asks "is X on?". An extension that is not in the
listener's list does not exist for it.

Rule 2: what is compiled once is looked up ever after. A :class:`Dialect`
belongs to a listener; an :class:`Offer` to a set of extensions that some
connections were offered, and is shared by all of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from smtpfw.errors import ConfigError, ExtensionMissing, SMTPError
from smtpfw.wire.parameters import Options, Parameter
from smtpfw.wire.phases import (
    EVERY_RECIPIENT_REFUSED,
    EXTENDED_ONLY,
    MAIL,
    NOT_IMPLEMENTED,
    PHASES,
    REFUSED,
    TLS_FIRST,
    UNIMPLEMENTED_VERB,
    UNKNOWN_VERB,
    Verb,
)
from smtpfw.wire.replies import Reply

if TYPE_CHECKING:
    from smtpfw.wire.client import ClientConnection
    from smtpfw.wire.grammar import Address
    from smtpfw.wire.message import OutgoingMessage
    from smtpfw.wire.server import ServerConnection
    from smtpfw.wire.transaction import Recipient
    from smtpfw.wire.transfer import Transfer

__all__ = ["Dialect", "Extension", "Offer", "checked"]


class Extension:
    """
    Base of all extensions: declares its words, and overrides the few rules that it has.

    Subclass it in a module of its own and put an instance into the list of a listener or a client; nothing else has to
    change.
    """

    # -- the server's half, and what both share -----------------------------

    #: The keyword of its line in the answer to EHLO.
    keyword: str = ""
    #: Keywords of other extensions that it makes no sense without.
    needs: tuple[str, ...] = ()
    #: Parameters that it adds to MAIL and to RCPT.
    mail_parameters: tuple[Parameter[Any], ...] = ()
    rcpt_parameters: tuple[Parameter[Any], ...] = ()
    #: Rows that it adds to the table of phases.
    verbs: tuple[Verb, ...] = ()
    #: Octets that it adds to the limit of a command line.
    extra_line_octets: int = 0
    #: Whether it promises something beyond the wire, so that it is offered only if the backend honours it.
    end_to_end: bool = False

    def advertise(self, connection: ServerConnection) -> str | None:
        """
        What stands behind the keyword in the answer to EHLO on this connection; an empty text for the keyword alone.

        :return: None to leave it out.
        """
        return ""

    def check_mail(self, connection: ServerConnection, sender: Address, options: Options) -> None:
        """A rule about MAIL that goes beyond one parameter's value; raise an SMTPError to refuse."""

    def amend_mail(self, connection: ServerConnection, options: Options) -> tuple[Options, Reply] | None:
        """
        Give a MAIL other values than were asked for, once all rules are kept.

        :return: what the application gets in the place of the options, and what the client is told when it accepts
            them; None to leave them as they are.
        """
        return None

    def check_rcpt(self, connection: ServerConnection, recipient: Address, options: Options) -> None:
        """A rule about RCPT; raise an SMTPError to refuse."""

    def check_data(self, connection: ServerConnection) -> None:
        """A rule about DATA in the transaction under way; raise an SMTPError to refuse."""

    # -- the client's half --------------------------------------------------

    def understand(self, argument: str) -> Any:
        """
        Read what a server says behind the keyword in its answer to EHLO.

        :return: what the other methods get as ``fact``; servers say all sorts of things, so nothing is raised.
        """
        return argument

    def needed_by(self, message: OutgoingMessage) -> str | None:
        """Why a message can't go to a server that does not offer this; None if it can."""

    def refuse_recipient(self, index: int, recipient: Recipient, fact: Any) -> SMTPError | None:
        """
        What is in the way of a recipient before it is named.

        :param index: how many the transaction has already.
        :param fact: None if the server does not offer this.
        """

    def watch(self, data: bytes) -> str | None:
        """Why these octets of a message, whose content nobody knew, can't go to a server that does not offer this."""

    def add(
        self, connection: ClientConnection, message: OutgoingMessage, fact: Any, parameters: dict[str, str | None]
    ) -> None:
        """
        Add the parameters of MAIL that a message needs, for a server that offers this.

        :raises SMTPError: if it can't be sent there all the same; nothing is sent then.
        """

    def transfer(self, connection: ClientConnection, message: OutgoingMessage) -> Transfer | None:
        """How a message shall travel to a server that offers this; None for DATA."""

    def missing(self, why: str) -> ExtensionMissing:
        """The error that says that a server does not offer this; ``why`` it would be needed."""
        return ExtensionMissing(self.keyword, why)

    def __repr__(self) -> str:
        return f"<Extension {self.keyword}>"


def checked(extensions: Iterable[Extension]) -> tuple[Extension, ...]:
    """
    The extensions of a list.

    :raises ConfigError: for what is none.
    """
    found = tuple(extensions)
    for extension in found:
        if not isinstance(extension, Extension):
            raise ConfigError(f"{extension!r} is no Extension; an instance is meant, not the class, nor a name")
    return found


#: RFC 5321 section 4.1.1.1, ehlo-keyword; in capitals, as all are written.
_KEYWORD = re.compile(r"[A-Z0-9][A-Z0-9-]*")


class Offer:
    """
    What follows from the extensions that one connection was offered.

    :ivar keywords: theirs.
    :ivar mail, rcpt: the known parameters by keyword.
    """

    __slots__ = ("keywords", "mail", "rcpt")

    def __init__(self, extensions: Iterable[Extension]) -> None:
        extensions = tuple(extensions)
        self.keywords = frozenset(extension.keyword for extension in extensions)
        self.mail = _merge(parameter for extension in extensions for parameter in extension.mail_parameters)
        self.rcpt = _merge(parameter for extension in extensions for parameter in extension.rcpt_parameters)


def _merge(parameters: Iterable[Parameter[Any]]) -> Mapping[str, Parameter[Any]]:
    known: dict[str, Parameter[Any]] = {}
    for parameter in parameters:
        other = known.get(parameter.keyword)
        if other is not None:
            choices = dict.fromkeys(other.choices + parameter.choices)
            parameter = Parameter.choice(parameter.keyword, *choices, default=other.default)
        known[parameter.keyword] = parameter
    return known


Serve = Callable[[Any, bytes], Any]


class Dialect:
    """
    A listener's extensions, compiled.

    :param extensions: in the order in which EHLO names them.
    :param core: the rows of the protocol itself.
    :param handlers: what serves them, by name.
    :param out_of_phase: phase -> what a verb gets that is not allowed there.
    :raises ConfigError: if one is missing what it needs, or two claim the same word.

    :ivar tables: (whether TLS is still required, whether EHLO was said) -> phase -> verb in capitals, as bytes -> what
        serves it.
    :ivar verbs: every row, by name.
    :ivar no_mail: the verbs that bring no message nearer; QUIT is always welcome.
    :ivar max_lines: limits of single verbs that need longer lines.
    """

    def __init__(
        self,
        extensions: Iterable[Extension],
        core: Iterable[Verb],
        handlers: Mapping[str, Serve],
        out_of_phase: Mapping[str, Reply],
    ) -> None:
        self.out_of_phase = out_of_phase
        self.extensions = checked(extensions)
        self._offers: dict[tuple[int, ...], Offer] = {}
        self.verbs: dict[str, Verb] = {}
        self._check()
        for verb in (*core, *(verb for extension in self.extensions for verb in extension.verbs)):
            if verb.name in self.verbs:
                raise ConfigError(f"two extensions, or one and the core, claim the verb {verb.name}")
            self.verbs[verb.name] = verb
        served = {verb.name: verb.serve or handlers[verb.name] for verb in self.verbs.values()}
        self.tables = {
            (tls_first, extended): self._compile(served, tls_first, extended)
            for tls_first in (False, True)
            for extended in (False, True)
        }
        self.no_mail = frozenset(verb.name.encode() for verb in self.verbs.values() if not verb.carries_mail) - {
            b"QUIT"
        }
        self.max_lines = {verb.name.encode(): verb.max_line for verb in self.verbs.values() if verb.max_line}
        self.extra_line_octets = sum(extension.extra_line_octets for extension in self.extensions)
        self.mail_checks = self._overridden("check_mail")
        self.mail_amendments = self._overridden("amend_mail")
        self.rcpt_checks = self._overridden("check_rcpt")
        self.data_checks = self._overridden("check_data")
        self.no_offer = self._offer(())

    def _check(self) -> None:
        for extension in self.extensions:
            if not _KEYWORD.fullmatch(extension.keyword):
                raise ConfigError(f"{extension.keyword!r} of {type(extension).__name__} is no keyword for EHLO")
        keywords = [extension.keyword for extension in self.extensions]
        for extension in self.extensions:
            if keywords.count(extension.keyword) > 1:
                raise ConfigError(f"extension {extension.keyword} is listed twice")
            for needed in extension.needs:
                if needed not in keywords:
                    raise ConfigError(f"extension {extension.keyword} needs {needed}, which is not in the list")
        for parameters in ("mail_parameters", "rcpt_parameters"):
            seen: dict[str, Parameter[Any]] = {}
            for extension in self.extensions:
                for parameter in getattr(extension, parameters):
                    other = seen.setdefault(parameter.keyword, parameter)
                    if other is not parameter and not (other.choices and parameter.choices):
                        raise ConfigError(f"extension {extension.keyword}: {parameter.keyword} is claimed by another")

    def _compile(self, served: Mapping[str, Serve], tls_first: bool, extended: bool) -> dict[str, dict[bytes, Serve]]:
        def allowed(verb: Verb) -> bool:
            return (verb.before_tls or not tls_first) and (verb.after_helo or extended)

        return {
            phase: {
                verb.name.encode(): served[verb.name]
                for verb in self.verbs.values()
                if phase in verb.phases and allowed(verb)
            }
            for phase in PHASES
        }

    def _overridden(self, name: str) -> tuple[Callable[..., Any], ...]:
        """The rules that some extension really has: the others cost nothing."""
        base = getattr(Extension, name)
        return tuple(getattr(e, name) for e in self.extensions if getattr(type(e), name) is not base)

    def why_not(self, name: str, phase: str, tls_first: bool, nobody_left: bool) -> Reply:
        """
        What a verb gets that is not in the table of the moment.

        :param nobody_left: whether every recipient of the transaction was refused.
        """
        row = self.verbs.get(name)
        if phase is REFUSED:
            return self.out_of_phase[REFUSED]
        if row is None:
            return UNIMPLEMENTED_VERB if name in NOT_IMPLEMENTED else UNKNOWN_VERB
        if tls_first and not row.before_tls:
            return TLS_FIRST
        if phase in row.phases:
            return EXTENDED_ONLY
        if name == "DATA" and phase is MAIL and nobody_left:
            return EVERY_RECIPIENT_REFUSED
        return self.out_of_phase[phase]

    def offer(self, connection: ServerConnection) -> tuple[Offer, list[str]]:
        """What this connection may use from now on, and the lines that say so."""
        chosen: list[int] = []
        lines: list[str] = []
        for index, extension in enumerate(self.extensions):
            argument = extension.advertise(connection)
            if argument is not None:
                chosen.append(index)
                lines.append(f"{extension.keyword} {argument}" if argument else extension.keyword)
        return self._offer(tuple(chosen)), lines

    def _offer(self, chosen: tuple[int, ...]) -> Offer:
        offer = self._offers.get(chosen)
        if offer is None:
            offer = self._offers[chosen] = Offer(self.extensions[index] for index in chosen)
        return offer
