"""
What a transaction is: a sender, its parameters, and the recipients that were accepted.

It is made at MAIL and replaced, never cleared field by field: what a session
still holds of an earlier message can't change under its hands.
"""

from __future__ import annotations

from typing import NamedTuple

from smtpfw.wire.grammar import Address
from smtpfw.wire.parameters import Options


class Recipient(NamedTuple):
    """One accepted RCPT; the same address may come twice. Its text is that of the address."""

    address: Address
    options: Options

    def __str__(self) -> str:
        return str(self.address)


class Transaction:
    """
    :ivar id: names the transaction in logs and Received lines; unique within the process.
    :ivar sender: the reverse-path; the null sender is false.
    :ivar options: the parameters of MAIL.
    :ivar recipients: the accepted recipients in the order of the RCPTs.
    """

    __slots__ = ("id", "options", "recipients", "sender")

    def __init__(self, id: str, sender: Address, options: Options) -> None:
        self.id = id
        self.sender = sender
        self.options = options
        self.recipients: list[Recipient] = []
