"""
The name that DNS has for an address, as :meth:`IConnection.look_up_name` gives it.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from twisted.internet.interfaces import IReactorTime

from smtpfw.policies.dns import NotKnown, reverse_names

#: Seconds for the answer; a dialog waits for it.
TIMEOUT = 5.0


async def reverse_name(resolver: Any, host: str, clock: IReactorTime) -> str:
    """
    Ask for the PTR record of an address.

    :param resolver: an :class:`~twisted.internet.interfaces.IResolver`.
    :param host: an IP address.
    :return: the first name in the answer, without a dot behind it; an empty text when there is none that can be used.
    """
    try:
        names = await reverse_names(resolver, ip_address(host.partition("%")[0]), clock=clock, timeout=TIMEOUT)
    except NotKnown:
        return ""
    return names[0] if names else ""
