"""
How many mistakes a peer may make: kinds of errors, counted apart; and how many commands that lead to no mail.

Apart, since they mean different things: a broken client makes syntax errors, a
confused one errors of sequence, who guesses passwords fails to authenticate,
and who guesses addresses makes refused recipients, at a rate that an honest
mailing list reaches, too.
"""

from __future__ import annotations

from smtpfw.wire.config import ServerConfig

# A kind is named as its limit is.
SYNTAX = "max_syntax_errors"
SEQUENCE = "max_sequence_errors"
RECIPIENT = "max_recipient_errors"
AUTHENTICATION = "max_authentication_errors"

_KIND_OF_CODE = {
    **dict.fromkeys((500, 501, 502, 504, 555), SYNTAX),
    **dict.fromkeys((503, 530), SEQUENCE),
    535: AUTHENTICATION,
}


class ErrorBudget:
    """
    The errors of one connection.

    :param config: has the limit of each kind; 0 for none.
    """

    __slots__ = ("_config", "_counts", "_idle")

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        # Most connections see no error.
        self._counts: dict[str, int] | None = None
        self._idle = 0

    def spend(self, verb: bytes, code: int) -> bool:
        """
        Count an error.

        :param verb: what was answered, in capitals.
        :param code: the reply's.
        :return: whether the peer has made too many of this kind.
        """
        kind = _KIND_OF_CODE.get(code)
        if kind is None:
            if verb != b"RCPT" or code < 500:
                # Our own trouble, or somebody's policy: no mistake of the peer.
                return False
            kind = RECIPIENT
        if self._counts is None:
            self._counts = {}
        count = self._counts[kind] = self._counts.get(kind, 0) + 1
        limit: int = getattr(self._config, kind)
        return 0 < limit <= count

    def spend_idle(self) -> bool:
        """Count a command that brings no message nearer; return whether it is one too many."""
        self._idle += 1
        return 0 < self._config.max_commands_without_mail < self._idle

    def mail_came(self) -> None:
        """A message was sent: the peer is here for mail."""
        self._idle = 0
