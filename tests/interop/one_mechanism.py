"""A client of AUTH that uses one mechanism, even where the server offers what it would like better."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from zope.interface import implementer

from smtpfw.sasl import ISASLClient, ServerInfo


@implementer(ISASLClient)
class OneMechanism:
    """
    :param name: the only mechanism that ``client`` shall see.
    """

    def __init__(self, name: str, client: Any) -> None:
        self._name = name
        self._client = client

    def start(self, server_info: ServerInfo) -> tuple[str, bytes | None]:
        # A client that could bind the channel, and sees no mechanism that does, takes that for an attack.
        bindings = server_info.channel_bindings if self._name.endswith("-PLUS") else {}
        offered = [name for name in server_info.mechanisms if name == self._name]
        mechanism, response = self._client.start(replace(server_info, mechanisms=offered, channel_bindings=bindings))
        assert mechanism == self._name
        return mechanism, response

    def next(self, challenge: bytes, more: bool) -> bytes | None:
        response: bytes | None = self._client.next(challenge, more)
        return response
