"""
Checks: from a string to an object that is asked before the session is.

The grammar is that of backend strings: ``rate:ip=30/m:net=200/h``. A word
before the first colon is one of the built-in checks below, or one that is
installed; with a dot in it, it is a Python module, and the next argument names
a class, a function that makes a check, or a check: ``myapp.policy:NoStrangers``.

Several networks or domains stand between colons or commas. An IPv6 address
takes a backslash before each of its colons, as in an endpoint string.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.interfaces import IReactorTime

from smtpfw import policies
from smtpfw.config import arguments, names
from smtpfw.config.catalogue import Catalogue, maker_of
from smtpfw.config.strings import Description, parse_description
from smtpfw.errors import ConfigError
from smtpfw.hooks import check_hooks
from smtpfw.interfaces import ICheck
from smtpfw.plugins import Argument, CheckPlugin, ICheckPlugin

__all__ = ["BUILT_IN", "CHECKS", "check_from_string", "describe_check"]

_PREFIXES = {"ipv4_prefix": "count", "ipv6_prefix": "count"}

_LOOK_UP: dict[str, str | Argument] = {
    "at": "text",
    "unknown": "text",
    "timeout": "duration",
    "except": Argument("networks", into="except_networks"),
}
_LOOK_UP_USAGE = "[:at=connect|mail|rcpt][:unknown=pass|refuse][:timeout=TIME][:except=NETWORK,...]"

_OURS = (
    CheckPlugin("require_tls", policies.RequireTLS, help="Refuses MAIL without TLS."),
    CheckPlugin(
        "require_auth",
        policies.RequireAuth,
        help="Refuses MAIL from clients that have not authenticated.",
        usage="require_auth[:except=NETWORK,...]",
        parameters={"except": Argument("networks", into="except_networks")},
    ),
    CheckPlugin(
        "sender_login",
        policies.SenderBelongsToLogin,
        help="Lets authenticated clients send under their own addresses only.",
        usage="sender_login[:domains=DOMAIN,...]",
        parameters={"domains": "texts"},
    ),
    CheckPlugin(
        "networks",
        policies.AllowedNetworks,
        help="Serves clients from these networks only.",
        usage="networks:NETWORK[:NETWORK...][:except_authenticated=yes|no]",
        parameters={"networks": "networks", "except_authenticated": "yes_no"},
        positional=("networks",),
    ),
    CheckPlugin(
        "rate",
        policies.RateLimit,
        help="So much in so much time, of one address, one network, one user.",
        usage="rate[:ip=RATE][:net=RATE][:user=RATE][:count=messages|connections|recipients]"
        "[:ipv4_prefix=N][:ipv6_prefix=N][:max_keys=N]",
        parameters={"ip": "rate", "net": "rate", "user": "rate", "count": "text", **_PREFIXES, "max_keys": "count"},
        timed=True,
    ),
    CheckPlugin(
        "concurrency",
        policies.Concurrency,
        help="So many connections at the same time.",
        parameters={"ip": "count", "net": "count", "user": "count", **_PREFIXES},
    ),
    CheckPlugin(
        "dnsbl",
        policies.DNSBL,
        help="Refuses clients that DNS block lists have.",
        usage=f"dnsbl:ZONE[/ANSWERS][*WEIGHT][:ZONE...][:threshold=N]{_LOOK_UP_USAGE}",
        parameters={"zones": "texts", "threshold": "count", **_LOOK_UP},
        positional=("zones",),
    ),
    CheckPlugin(
        "reverse_dns",
        policies.ReverseDNS,
        help="Refuses clients whose address has no name in DNS that leads back to it.",
        usage=f"reverse_dns[:require=name|confirmed][:permanent=yes|no]{_LOOK_UP_USAGE}",
        parameters={"require": "text", "permanent": "yes_no", **_LOOK_UP},
    ),
    CheckPlugin(
        "greylist",
        policies.Greylist,
        help="Tells who is seen for the first time to come back later.",
        usage="greylist[:file=PATH][:delay=TIME][:window=TIME][:keep=TIME][:trust_after=N][:max_entries=N]"
        "[:except=NETWORK,...][:unknown=pass|refuse][:ipv4_prefix=N][:ipv6_prefix=N]",
        parameters={
            "file": "text",
            "delay": "duration",
            "window": "duration",
            "keep": "duration",
            "trust_after": "count",
            "max_entries": "count",
            "except": Argument("networks", into="except_networks"),
            "unknown": "text",
            **_PREFIXES,
        },
    ),
    CheckPlugin(
        "early_talkers",
        policies.EarlyTalkers,
        help="Lets the greeting wait, and refuses who talks before it.",
        parameters={"delay": "duration"},
    ),
    CheckPlugin(
        "loop",
        policies.LoopLimit,
        help="Refuses messages with too many Received fields.",
        parameters={"max": Argument("count", into="max_received")},
    ),
)

CHECKS = Catalogue("check", "smtpfw.checks", ICheckPlugin, CheckPlugin, _OURS)
BUILT_IN = CHECKS.built_in


def check_from_string(text: str, reactor: IReactorTime) -> ICheck:
    """
    Make the check that a string describes.

    :param reactor: for checks that need the time.
    :raises ConfigError: one line that names the string and says what to do.
    """
    description = parse_description(text)
    plugin, rest = CHECKS.find(description.prefix, description.positional)
    positional, named = arguments.read_string(plugin, rest, description.named)
    if plugin.timed:
        named["clock"] = reactor
    if plugin is BUILT_IN.get(plugin.name):
        return _ours(plugin, named, description)
    return _check(plugin, positional, named)


def describe_check(check: ICheck) -> str:
    """What a check does, in its own words; one that says nothing is named."""
    describe = getattr(check, "describe", None)
    return str(describe()) if describe is not None else type(check).__name__


def _ours(plugin: CheckPlugin, named: Mapping[str, Any], description: Description) -> ICheck:
    try:
        check: ICheck = plugin.make(**named)
    except ValueError as error:
        hint = arguments.about_colons(plugin, description.positional, description.named)
        raise ConfigError(f"{error}{hint}; it is written {plugin.usage}") from None
    return check


def _check(plugin: CheckPlugin, positional: Sequence[str], named: Mapping[str, Any]) -> ICheck:
    found: Any = maker_of(plugin)
    if not isinstance(found, type) and ICheck.providedBy(found):
        if positional or named:
            raise ConfigError(f"{plugin.name} is a check already, and takes no arguments")
        check = found
    elif not callable(found):
        raise ConfigError(f"{type(found).__name__} is neither a class nor a function nor a check")
    else:
        check = names.make(found, positional, named, plugin.usage)
    if not ICheck.providedBy(check):
        if inspect.iscoroutine(check):
            check.close()
        raise ConfigError(f"{type(check).__name__} is no check; subclass smtpfw.Check, or make a FunctionCheck")
    try:
        check_hooks(check, ICheck)
    except TypeError as error:
        raise ConfigError(f"it can't be asked: {error}") from None
    return check
