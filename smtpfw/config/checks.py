"""
Checks: from a string to an object that is asked before the session is.

The grammar is that of backend strings: ``rate:ip=30/m:net=200/h``. A word
before the first colon is one of the built-in checks below; with a dot in it, it
is a Python module, and the next argument names a class, a function that makes
a check, or a check: ``myapp.policy:NoStrangers``.

Several networks or domains stand between colons or commas. An IPv6 address
takes a backslash before each of its colons, as in an endpoint string.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from twisted.internet.interfaces import IReactorTime

from smtpfw import policies
from smtpfw.config import names, units
from smtpfw.config.settings import nearest
from smtpfw.config.strings import Description, parse_description
from smtpfw.errors import ConfigError
from smtpfw.hooks import check_hooks
from smtpfw.interfaces import ICheck

__all__ = ["BUILT_IN", "BuiltInCheck", "check_from_string", "describe_check"]


def _parse_list(text: str) -> tuple[str, ...]:
    return tuple(piece.strip() for piece in text.split(",") if piece.strip())


@dataclass(frozen=True, slots=True)
class BuiltInCheck:
    """
    A check of our own.

    :ivar usage: how its string is written.
    :ivar make: its class.
    :ivar arguments: the name of an argument in the string -> that of the parameter, and how its value is read.
    :ivar rest: the parameter that the arguments without a name are for, as a list; empty if there may be none.
    :ivar timed: whether it takes the clock.
    """

    usage: str
    make: Callable[..., ICheck]
    arguments: Mapping[str, tuple[str, Callable[[str], object]]] = field(default_factory=dict)
    rest: str = ""
    timed: bool = False


_PREFIXES = {"ipv4_prefix": ("ipv4_prefix", units.parse_count), "ipv6_prefix": ("ipv6_prefix", units.parse_count)}

BUILT_IN = {
    "require_tls": BuiltInCheck("require_tls", policies.RequireTLS),
    "require_auth": BuiltInCheck(
        "require_auth[:except=NETWORK,...]", policies.RequireAuth, {"except": ("except_networks", _parse_list)}
    ),
    "sender_login": BuiltInCheck(
        "sender_login[:domains=DOMAIN,...]", policies.SenderBelongsToLogin, {"domains": ("domains", _parse_list)}
    ),
    "networks": BuiltInCheck(
        "networks:NETWORK[:NETWORK...][:except_authenticated=yes|no]",
        policies.AllowedNetworks,
        {"except_authenticated": ("except_authenticated", units.parse_yes_no)},
        rest="networks",
    ),
    "rate": BuiltInCheck(
        "rate[:ip=RATE][:net=RATE][:user=RATE][:count=messages|connections|recipients]"
        "[:ipv4_prefix=N][:ipv6_prefix=N][:max_keys=N]",
        policies.RateLimit,
        {
            **{kind: (kind, units.parse_rate) for kind in ("ip", "net", "user")},
            "count": ("count", str),
            **_PREFIXES,
            "max_keys": ("max_keys", units.parse_count),
        },
        timed=True,
    ),
    "concurrency": BuiltInCheck(
        "concurrency[:ip=N][:net=N][:user=N][:ipv4_prefix=N][:ipv6_prefix=N]",
        policies.Concurrency,
        {**{kind: (kind, units.parse_count) for kind in ("ip", "net", "user")}, **_PREFIXES},
    ),
    "early_talkers": BuiltInCheck(
        "early_talkers[:delay=TIME]", policies.EarlyTalkers, {"delay": ("delay", units.parse_duration)}
    ),
    "loop": BuiltInCheck("loop[:max=N]", policies.LoopLimit, {"max": ("max_received", units.parse_count)}),
}


def check_from_string(text: str, reactor: IReactorTime) -> ICheck:
    """
    Make the check that a string describes.

    :param reactor: for checks that need the time.
    :raises ConfigError: one line that names the string and says what to do.
    """
    description = parse_description(text)
    prefix = description.prefix
    built_in = BUILT_IN.get(prefix)
    if built_in is not None:
        return _built_in_check(description, built_in, reactor)
    if "." in prefix or (description.positional and names.is_module(prefix)):
        return _python_check(description)
    raise ConfigError(
        f"unknown check {prefix!r}{nearest(prefix, BUILT_IN)} (known are {', '.join(BUILT_IN)}; "
        "your own is module:Name; --python-path DIR adds a folder to look in)"
    )


def describe_check(check: ICheck) -> str:
    """What a check does, in its own words; one that says nothing is named."""
    describe = getattr(check, "describe", None)
    return str(describe()) if describe is not None else type(check).__name__


def _built_in_check(description: Description, built_in: BuiltInCheck, reactor: IReactorTime) -> ICheck:
    usage = built_in.usage
    given: dict[str, object] = {"clock": reactor} if built_in.timed else {}
    if built_in.rest:
        given[built_in.rest] = [item for argument in description.positional for item in _parse_list(argument)]
    elif description.positional:
        lost = description.positional[0]
        raise ConfigError(f"{lost!r} has no name before it{_about_colons(description, usage)}; it is written {usage}")
    for name, value in description.named.items():
        if name not in built_in.arguments:
            near = nearest(name, built_in.arguments)
            raise ConfigError(f"{description.prefix} takes no {name}={near} (it is written {usage})")
        parameter, parse = built_in.arguments[name]
        try:
            given[parameter] = parse(value)
        except ValueError as error:
            raise ConfigError(f"{name}: {error}") from None
    try:
        return built_in.make(**given)
    except ValueError as error:
        raise ConfigError(f"{error}{_about_colons(description, usage)}; it is written {usage}") from None


def _about_colons(description: Description, usage: str) -> str:
    """A half-sentence for who wrote an IPv6 address as it is; empty for others."""
    words = (*description.positional, *description.named.values())
    split = "NETWORK" in usage and any(word == "" or word.startswith("/") for word in words)
    return r" (an IPv6 address takes a backslash before each colon: 2001\:db8\:\:/32)" if split else ""


def _python_check(description: Description) -> ICheck:
    module_name = description.prefix
    if not description.positional or not description.positional[0]:
        raise ConfigError(f"say which class or function: {module_name}:Name")
    name, *arguments = description.positional
    found = names.find(module_name, name)
    if not isinstance(found, type) and ICheck.providedBy(found):
        if arguments or description.named:
            raise ConfigError(f"{module_name}:{name} is a check already, and takes no arguments")
        return found
    if not callable(found):
        raise ConfigError(f"{type(found).__name__} is neither a class nor a function nor a check")
    usage = f"{module_name}:{name}{names.signature(found)}"
    check = names.make(found, arguments, description.named, usage)
    if not ICheck.providedBy(check):
        if inspect.iscoroutine(check):
            check.close()
        raise ConfigError(f"{type(check).__name__} is no check; subclass smtpfw.Check, or make a FunctionCheck")
    try:
        check_hooks(check, ICheck)
    except TypeError as error:
        raise ConfigError(f"it can't be asked: {error}") from None
    return check
