"""
Which keys stand in which table of a configuration file.

What a key means, how its value is read and what its default is stands in
:mod:`smtpfw.config.settings`; here is only where it may be written, and under
which name. Errors, and the reference in the documentation, are made of both.
"""

from __future__ import annotations

from dataclasses import dataclass

from smtpfw.config.settings import SETTINGS

__all__ = ["AUTH", "LIMITS", "LISTEN", "LOG", "ROUTE", "SERVICE", "TableSchema"]


@dataclass(frozen=True, slots=True)
class TableSchema:
    """
    One table.

    :ivar title: as it is written, with NAME for what the operator chooses.
    :ivar settings: key -> the name of a setting.
    :ivar others: key -> what stands there, for what is more than one value.
    """

    title: str
    settings: dict[str, str]
    others: dict[str, str]

    @property
    def keys(self) -> list[str]:
        """All of them."""
        return [*self.settings, *self.others]


def _same(*names: str) -> dict[str, str]:
    return {name: name for name in names}


_LIMITS = [setting.name for title in ("Limits", "Time limits") for setting in SETTINGS[title]]

_OF_BOTH = _same("hostname", "tls", "tls_minimum_version", "client_ca", "require_client_certificate")

SERVICE = TableSchema(
    "",
    {**_OF_BOTH, **_same("python_path", "grace", "workers", "user", "group", "umask")},
    {
        "auth": "a table of who may authenticate: a name of yours, and a checker as --auth takes it",
        "deliver": "a table of where mail can go: a name of yours, and a backend as --backend takes it, or a table "
        "with `plugin` and its arguments",
        "listen": "a table of listeners: a name of yours, and a table",
        "limits": "limits of all listeners",
        "log": "what is logged",
    },
)

LISTEN = TableSchema(
    "listen.NAME",
    {**_OF_BOTH, **_same("protocol", "require_tls", "profile")},
    {
        "on": "where to listen, a list of endpoints as --listen takes them",
        "auth": "who may authenticate: a name in `[auth]`; then TLS comes before AUTH, and AUTH before MAIL. A table "
        "says more",
        "checks": "a list of checks, as --checks takes them",
        "routes": "a list of tables: where mail goes; the first that fits counts",
        "trusted": "a list of networks whose clients may use routes to others' domains without authentication; a "
        "listener on loopback trusts loopback",
        "without": "a list of extensions that are not offered",
        "limits": "limits of this listener, over those of all",
    },
)

AUTH = TableSchema(
    "listen.NAME.auth",
    {"required": "require_auth", "mechanisms": "auth_mechanisms", "allow_insecure": "allow_insecure_auth"},
    {"use": "a name in `[auth]`"},
)

ROUTE = TableSchema(
    "listen.NAME.routes",
    {},
    {
        "to": "an address, a domain, a pattern (`*@example.org`, `*.example.org`, `*`), `postmaster`; or several",
        "login": "true for clients that have authenticated, or their names",
        "network": "networks of clients",
        "deliver": "a name in `[deliver]`",
        "reject": "true, or the text of a refusal: 550 5.7.1 unless it begins with codes of its own",
        "discard": "true: mail is accepted and thrown away",
    },
)

LIMITS = TableSchema("limits", _same(*(name for name in _LIMITS if name != "grace")), {})

LOG = TableSchema("log", {"format": "log_format", "level": "log_level", "protocol": "protocol_log"}, {})
