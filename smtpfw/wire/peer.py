"""
What a server has said of itself in its answer to EHLO, and what follows from it for a message.

Rule 1: a parameter is sent only if its extension is offered. What was asked
for, or what the content needs, and is not offered, is refused here, by an error
that names the extension; nothing has been sent then.

Rule 2: the rules of each extension stand in its own module
(:class:`~smtpfw.wire.dialect.Extension`, the client's half). Nothing in here
knows one by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from smtpfw.errors import LocalProtocolError, SMTPError
from smtpfw.wire.commands import NO_PARAMETERS
from smtpfw.wire.dialect import Extension, Offer
from smtpfw.wire.message import OutgoingMessage
from smtpfw.wire.parameters import Options, Parameter
from smtpfw.wire.replies import Reply
from smtpfw.wire.transaction import Recipient

if TYPE_CHECKING:
    from smtpfw.wire.client import ClientConnection
    from smtpfw.wire.transfer import Transfer

__all__ = ["NOBODY", "Peer"]


class Peer:
    """
    :param hello: the answer to EHLO, HELO or LHLO.
    :param extensions: those that the client knows.
    :param extended: whether the answer names what is offered. That to HELO does not, whatever its lines say.

    :ivar name: what the peer calls itself.
    :ivar arguments: keyword in capitals -> what stands behind it, of every extension that is offered.
    :ivar facts: the same, read by those extensions that the client knows.
    """

    __slots__ = (
        "_adders",
        "_judges",
        "_known",
        "_needed",
        "_offer",
        "_transfers",
        "_watchers",
        "arguments",
        "facts",
        "name",
    )

    def __init__(self, hello: Reply, extensions: Iterable[Extension] = (), *, extended: bool = True) -> None:
        first, *lines = hello.text.split("\n")
        self.name = first.partition(" ")[0]
        self.arguments = _read(lines) if extended else {}
        self._known = tuple(extensions)
        offered = [one for one in self._known if one.keyword in self.arguments]
        missing = [one for one in self._known if one.keyword not in self.arguments]
        self.facts = {one.keyword: one.understand(self.arguments[one.keyword]) for one in offered}
        self._offer = Offer(offered)
        # Only what some extension really has is asked for each message.
        self._needed = _overriding(missing, "needed_by")
        self._judges = [
            *((one.refuse_recipient, None) for one in _overriding(missing, "refuse_recipient")),
            *((one.refuse_recipient, self.facts[one.keyword]) for one in _overriding(offered, "refuse_recipient")),
        ]
        self._adders = [(one.add, self.facts[one.keyword]) for one in _overriding(offered, "add")]
        self._watchers = _overriding(missing, "watch")
        self._transfers = _overriding(offered, "transfer")

    def offers(self, keyword: str) -> bool:
        """Whether an extension is offered."""
        return keyword in self.arguments

    def uses(self, keyword: str) -> bool:
        """Whether it is offered, and the client has it: leaving it out turns it off."""
        return keyword in self.facts

    def mail_parameters(self, connection: ClientConnection, message: OutgoingMessage) -> Mapping[str, str | None]:
        """
        The parameters of MAIL: those that were asked for, and those that the content needs.

        :raises ExtensionMissing: if an extension is not offered.
        :raises LocalProtocolError: if a value can't be written.
        """
        self.check_content(message)
        parameters = self._asked_for(message.options, "mail_parameters")
        for add, fact in self._adders:
            add(connection, message, fact, parameters)
        return parameters

    def check_content(self, message: OutgoingMessage) -> None:
        """
        See to it that the message can go to this peer.

        :raises ExtensionMissing: if it needs an extension that is not offered.
        """
        for extension in self._needed:
            why = extension.needed_by(message)
            if why:
                raise extension.missing(why)

    def rcpt_parameters(self, options: Options) -> Mapping[str, str | None]:
        """The parameters of RCPT; it raises as :meth:`mail_parameters` does."""
        return self._asked_for(options, "rcpt_parameters") if options else NO_PARAMETERS

    def refuse_recipient(self, index: int, recipient: Recipient) -> SMTPError | None:
        """
        What is known beforehand to be in the way of a recipient.

        :param index: how many the transaction has already.
        """
        for judge, fact in self._judges:
            error = judge(index, recipient, fact)
            if error is not None:
                return error
        return None

    def watch(self, data: bytes) -> SMTPError | None:
        """What is in the way of some octets of a message whose content was not known beforehand."""
        for extension in self._watchers:
            why = extension.watch(data)
            if why:
                return extension.missing(why)
        return None

    def transfer(self, connection: ClientConnection, message: OutgoingMessage) -> Transfer | None:
        """How the octets of the message are to travel, if not by DATA."""
        for extension in self._transfers:
            transfer = extension.transfer(connection, message)
            if transfer is not None:
                return transfer
        return None

    def _asked_for(self, options: Options, where: str) -> dict[str, str | None]:
        known = self._offer.mail if where == "mail_parameters" else self._offer.rcpt
        parameters: dict[str, str | None] = {}
        for keyword, value in options.items():
            parameter = known.get(keyword)
            if parameter is None or (parameter.choices and value not in parameter.choices):
                raise self._not_offered(where, keyword, value)
            if value is False or value is None:
                # A flag that is not set, a value that was not given.
                continue
            try:
                parameters[keyword] = parameter.format(value)
            except (ValueError, TypeError, AttributeError) as error:
                raise LocalProtocolError(f"{keyword} can't be {value!r}: {error}") from None
        return parameters

    def _not_offered(self, where: str, keyword: str, value: Any) -> Exception:
        for extension in self._known:
            declared: tuple[Parameter[Any], ...] = getattr(extension, where)
            for parameter in declared:
                if parameter.keyword == keyword and (not parameter.choices or value in parameter.choices):
                    return extension.missing(f"{keyword} was asked for")
        return LocalProtocolError(self._no_such(where, keyword))

    def _no_such(self, where: str, keyword: str) -> str:
        command, other = ("MAIL", "RCPT") if where == "mail_parameters" else ("RCPT", "MAIL")
        for extension in self._known:
            for parameter in getattr(extension, where):
                if parameter.keyword == keyword:
                    return f"{keyword} must be one of {', '.join(parameter.choices)}"
        for extension in self._known:
            if keyword in [parameter.keyword for parameter in getattr(extension, f"{other.lower()}_parameters")]:
                return f"{keyword} is a parameter of {other}, not of {command}"
        return f"no extension of this client has the parameter {keyword} of {command}"


def _read(lines: Iterable[str]) -> dict[str, str]:
    arguments: dict[str, str] = {}
    for line in lines:
        keyword, _, argument = line.strip(" ").partition(" ")
        keyword = keyword.upper()
        if keyword.startswith("AUTH="):
            # What Netscape's client of 1996 understood; some servers still say both.
            keyword, argument = "AUTH", f"{keyword[5:]} {argument}".strip(" ")
            if keyword in arguments:
                continue
        arguments[keyword] = argument.strip(" ")
    return arguments


def _overriding(extensions: Iterable[Extension], name: str) -> list[Extension]:
    base = getattr(Extension, name)
    return [one for one in extensions if getattr(type(one), name) is not base]


#: Before EHLO.
NOBODY = Peer(Reply(250, ""))
