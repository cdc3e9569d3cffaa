r"""
The strings of the backends that pass mail on: where to, and in which manner.

``relay:smtp.isp.example:587:login=isp.secret``, ``lmtp:unix:/run/dovecot/lmtp``

Rule 1: a next hop is written as any destination of the client's is
(:mod:`smtpfw.client.destination`). It has colons in it, so what has one of the
names below is a setting, and all the rest is next hops. Several stand between
commas.

Rule 2: who may send is said, or follows from where clients can come from at
all. A relay that nobody could use is a mistake, and an open one can't be
written by accident.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from smtpfw.client.quoting import split_quoted, unquote
from smtpfw.config import arguments
from smtpfw.config.listeners import Listener, trusted_by_default
from smtpfw.config.settings import nearest
from smtpfw.errors import ConfigError
from smtpfw.plugins import BackendPlugin

__all__ = [
    "GUARDED",
    "LMTP_SETTINGS",
    "LMTP_USAGE",
    "RELAY_SETTINGS",
    "RELAY_USAGE",
    "arguments_of",
    "defaults_for",
    "read_string",
]

#: Among the defaults of a relay: False where routes ask who the client is.
GUARDED = "guarded"

_NAMED = re.compile(r"([A-Za-z_]\w*)=(.*)")

#: Arguments that destinations have themselves.
_OF_DESTINATIONS = frozenset({"host", "port", "path", "bindAddress"})

#: Settings that belong to a ClientConfig.
_OF_THE_CLIENT: Mapping[str, str] = {
    "hello_name": "text",
    "connect_timeout": "duration",
    "greeting_timeout": "duration",
    "command_timeout": "duration",
    "data_timeout": "duration",
    "block_timeout": "duration",
    "end_timeout": "duration",
}

#: The name of a setting -> its kind, see :mod:`smtpfw.plugins`.
LMTP_SETTINGS: Mapping[str, str] = {
    "tls": "text",
    "tls_name": "text",
    "ca": "text",
    "certificate": "text",
    "key": "text",
    "honours": "texts",
    "max_connections": "count",
    "opening_timeout": "duration",
    **_OF_THE_CLIENT,
}

RELAY_SETTINGS: Mapping[str, str] = {
    "trusted": "networks",
    "login": "login",
    "allow_private": "yes_no",
    **LMTP_SETTINGS,
}

_MANNER = "[:tls=none|opportunistic|required][:ca=PATH][:max_connections=N] ..."
RELAY_USAGE = f"relay:HOST[:PORT][,HOST[:PORT]...][:trusted=NETWORK,...][:login=FILE]{_MANNER}"
LMTP_USAGE = f"lmtp:unix:PATH or lmtp:HOST:PORT{_MANNER}"


def read_string(plugin: BackendPlugin, text: str) -> tuple[dict[str, object], list[str]]:
    """
    Take apart what stands behind the prefix.

    :return: the settings, and the next hops.
    :raises ConfigError: for a name or a value that can't be used.
    """
    try:
        words = split_quoted(text)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    settings = plugin.parameters or {}
    rest: list[str] = []
    given: dict[str, str] = {}
    for argument in words:
        named = _NAMED.fullmatch(argument)
        if named is None or named[1] in _OF_DESTINATIONS:
            rest.append(argument)
            continue
        name = named[1]
        if name not in settings:
            near = nearest(name, settings)
            raise ConfigError(f"{plugin.name} takes no {name}={near} (it takes {', '.join(settings)})")
        if name in given:
            raise ConfigError(f"{name}= is given twice")
        given[name] = unquote(named[2])
    places = [place for place in split_quoted(":".join(rest), ",") if place]
    return arguments.read_table(plugin, given), places


def arguments_of(
    given: Mapping[str, object], places: list[str], settings: Mapping[str, Any], defaults: Mapping[str, object]
) -> dict[str, Any]:
    """
    The arguments of the backend.

    :param given: settings by their names, read.
    :param settings: all that there are.
    :param defaults: the values of those that are not given; what the backend does not have is left out.
    """
    # Not above: built-in backends are imported when they are asked for.
    from smtpfw.backends.relay.places import DEFAULT_CONFIG

    if defaults.get(GUARDED) is False and "trusted" in given:
        raise ConfigError("write trusted in [listen.NAME]: its routes ask who may send, and this delivery does not")
    values = {**{name: value for name, value in defaults.items() if name in (*settings, GUARDED)}, **given}
    if "trusted" not in settings:
        values.pop(GUARDED, None)
    client = {name: values.pop(name) for name in _OF_THE_CLIENT if name in values}
    config: Any = replace(DEFAULT_CONFIG, **client)  # type: ignore[arg-type]
    return {**values, "via": places, "config": config}


def defaults_for(listeners: Sequence[Listener], hostname: str | None) -> dict[str, object]:
    """
    What the place of a relay says of it.

    :param listeners: where its clients come from. If that is this machine alone, its clients are trusted.
    :param hostname: our own name, if the operator has given one.
    """
    defaults: dict[str, object] = {"hello_name": hostname} if hostname else {}
    trusted = trusted_by_default(listeners)
    return {**defaults, "trusted": trusted} if trusted else defaults
