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
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from smtpfw.client.hosts import is_loopback
from smtpfw.client.quoting import split_quoted, unquote
from smtpfw.config import units
from smtpfw.config.listeners import Listener
from smtpfw.config.settings import nearest
from smtpfw.config.strings import parse_description
from smtpfw.errors import ConfigError

__all__ = ["LMTP_SETTINGS", "LMTP_USAGE", "RELAY_SETTINGS", "RELAY_USAGE", "defaults_for", "read_arguments"]

#: Where the clients of a listener on loopback come from.
_LOOPBACK = ("127.0.0.0/8", "::1")

_NAMED = re.compile(r"([A-Za-z_]\w*)=(.*)")

#: Arguments that destinations have themselves.
_OF_DESTINATIONS = frozenset({"host", "port", "path", "bindAddress"})

#: Octets of a file that are looked through for a line.
_MAX_LOGIN = 4096

Parser = Callable[[str], object]


def _read_networks(text: str) -> tuple[str, ...]:
    return tuple(piece.strip() for piece in text.split(",") if piece.strip())


def _read_login(path: str) -> tuple[str, str]:
    """
    Name and password: the first line of a file, ``name:password``.

    :raises ValueError: in which nothing of it stands.
    """
    try:
        with Path(path).open("rb") as file:
            line = file.read(_MAX_LOGIN).partition(b"\n")[0].removesuffix(b"\r").decode()
    except OSError as error:
        raise ValueError(f"{path}: {(error.strerror or str(error)).lower()}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: its first line is no text in UTF-8") from None
    name, _, password = line.partition(":")
    if not (name and password):
        raise ValueError(f"{path}: its first line must be name:password")
    return name, password


#: Settings that belong to a ClientConfig.
_OF_THE_CLIENT: Mapping[str, Parser] = {
    "hello_name": str,
    "connect_timeout": units.parse_duration,
    "greeting_timeout": units.parse_duration,
    "command_timeout": units.parse_duration,
    "data_timeout": units.parse_duration,
    "block_timeout": units.parse_duration,
    "end_timeout": units.parse_duration,
}

#: The name of a setting -> how it is read.
LMTP_SETTINGS: Mapping[str, Parser] = {
    "tls": str,
    "tls_name": str,
    "ca": str,
    "certificate": str,
    "key": str,
    "dsn": units.parse_yes_no,
    "max_connections": units.parse_count,
    "opening_timeout": units.parse_duration,
    **_OF_THE_CLIENT,
}

RELAY_SETTINGS: Mapping[str, Parser] = {
    "trusted": _read_networks,
    "login": _read_login,
    "allow_private": units.parse_yes_no,
    **LMTP_SETTINGS,
}

_MANNER = "[:tls=none|opportunistic|required][:ca=PATH][:max_connections=N] ..."
RELAY_USAGE = f"relay:HOST[:PORT][,HOST[:PORT]...][:trusted=NETWORK,...][:login=FILE]{_MANNER}"
LMTP_USAGE = f"lmtp:unix:PATH or lmtp:HOST:PORT{_MANNER}"


def read_arguments(
    prefix: str, text: str, settings: Mapping[str, Parser], defaults: Mapping[str, object]
) -> dict[str, Any]:
    """
    Take apart what stands behind the prefix.

    :param settings: how each is read.
    :param defaults: the values of those that are not given; what the backend does not have is left out.
    :return: the arguments of the backend.
    :raises ConfigError: for a name or a value that can't be used.
    """
    try:
        arguments = split_quoted(text)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    rest: list[str] = []
    given: dict[str, object] = {name: value for name, value in defaults.items() if name in settings}
    names: set[str] = set()
    for argument in arguments:
        named = _NAMED.fullmatch(argument)
        if named is None or named[1] in _OF_DESTINATIONS:
            rest.append(argument)
            continue
        name = named[1]
        if name not in settings:
            raise ConfigError(f"{prefix} takes no {name}={nearest(name, settings)} (it takes {', '.join(settings)})")
        if name in names:
            raise ConfigError(f"{name}= is given twice")
        names.add(name)
        try:
            given[name] = settings[name](unquote(named[2]))
        except ValueError as error:
            raise ConfigError(f"{name}: {error}") from None
    # Not above: built-in backends are imported when they are asked for.
    from smtpfw.backends.relay.places import DEFAULT_CONFIG

    places = [place for place in split_quoted(":".join(rest), ",") if place]
    client = {name: given.pop(name) for name in _OF_THE_CLIENT if name in given}
    config: Any = replace(DEFAULT_CONFIG, **client)  # type: ignore[arg-type]
    return {**given, "via": places, "config": config}


def defaults_for(listeners: Iterable[Listener], hostname: str | None) -> dict[str, object]:
    """
    What the place of a relay says of it.

    :param listeners: where its clients come from. If that is this machine alone, its clients are trusted.
    :param hostname: our own name, if the operator has given one.
    """
    defaults: dict[str, object] = {"hello_name": hostname} if hostname else {}
    kinds = {_kind(listener) for listener in listeners}
    if "loopback" in kinds and kinds <= {"loopback", "unix"}:
        defaults["trusted"] = _LOOPBACK
    return defaults


def _kind(listener: Listener) -> str:
    description = parse_description(listener.endpoint)
    if description.prefix == "unix":
        return "unix"
    interface = description.named.get("interface", "".join(description.positional[1:2]))
    internet = description.prefix in ("tcp", "tcp6", "ssl")
    return "loopback" if internet and is_loopback(interface) else "elsewhere"
