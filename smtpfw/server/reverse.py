"""
The name that DNS has for an address, as :meth:`IConnection.look_up_name` gives it.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from smtpfw.dns.questions import NotKnown, reverse_names

#: Seconds for the answer; a dialog waits for it.
TIMEOUT = 5.0


async def reverse_name(server: Any, host: str) -> str:
    """
    Ask for the PTR record of an address.

    :param server: has a ``resolver`` and a ``clock``.
    :param host: an IP address.
    :return: the first name in the answer, without a dot behind it; an empty text when there is none that can be used,
        or nobody can be asked.
    """
    address = ip_address(host.partition("%")[0])
    try:
        names = await reverse_names(server.resolver, address, clock=server.clock, timeout=TIMEOUT)
    except NotKnown:
        return ""
    return names[0] if names else ""
