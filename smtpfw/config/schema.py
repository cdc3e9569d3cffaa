"""
Which keys stand in which table of a configuration file.

What a key means, how its value is read and what its default is stands in
:mod:`smtpfw.config.settings`; here is only where it may be written, and under
which name. Errors, and the reference in the documentation, are made of both.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from smtpfw.config.settings import SETTINGS, nearest

__all__ = ["AUTH", "LIMITS", "LISTEN", "LOG", "ROUTE", "SERVICE", "TABLES", "Other", "TableSchema", "about_unknown"]


class Other(NamedTuple):
    """
    What is more than one value of a setting.

    :ivar example: how it may be written.
    :ivar help: what it means.
    """

    example: str
    help: str


@dataclass(frozen=True, slots=True)
class TableSchema:
    """
    One table.

    :ivar title: as it is written, with NAME for what the operator chooses.
    :ivar settings: key -> the name of a setting.
    :ivar others: key -> what stands there, for what is more than one value.
    :ivar defaults: key -> its value where this table is, if that is not the default of the setting.
    """

    title: str
    settings: dict[str, str]
    others: dict[str, Other]
    defaults: dict[str, Any] = field(default_factory=dict)

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
        "auth": Other(
            'users = "htpasswd:users"',
            "a table of who may authenticate: a name of yours, and a checker as `--auth` takes it",
        ),
        "deliver": Other(
            'local = "maildir:md/{user}"',
            "a table of where mail can go: a name of yours, and a backend as `--backend` takes it, or a table "
            "with `plugin` and its arguments",
        ),
        "listen": Other("[listen.mx]", "a table of listeners: a name of yours, and a table"),
        "limits": Other("[limits]", "limits of all listeners"),
        "log": Other("[log]", "what is logged"),
    },
)

LISTEN = TableSchema(
    "listen.NAME",
    {**_OF_BOTH, **_same("protocol", "require_tls", "submission", "profile", "proxy", "xclient")},
    {
        "on": Other('["tcp6:25"]', "where to listen, a list of endpoints as `--listen` takes them"),
        "auth": Other(
            '"users"',
            "who may authenticate: a name in `[auth]`; then TLS comes before AUTH, and AUTH before MAIL. A table "
            "says more",
        ),
        "checks": Other('["rate:ip=30/m"]', "a list of checks, as `--checks` takes them"),
        "routes": Other(
            '[ { to = "*", deliver = "local" } ]', "a list of tables: where mail goes; the first that fits counts"
        ),
        "trusted": Other(
            '["10.0.0.0/8"]',
            "a list of networks whose clients may use routes to others' domains without authentication; a "
            "listener on loopback trusts loopback, unless it has proxy or xclient",
        ),
        "extensions": Other('["-DSN"]', "a list of extensions to leave out or to add, as `--extensions` takes them"),
        "limits": Other("{ max_recipients = 5 }", "limits of this listener, over those of all"),
    },
)

AUTH = TableSchema(
    "listen.NAME.auth",
    {"required": "require_auth", "mechanisms": "auth_mechanisms", "allow_insecure": "allow_insecure_auth"},
    {"use": Other('"users"', "a name in `[auth]`")},
    # Who names users at a listener wants them to log in there.
    {"required": True},
)

ROUTE = TableSchema(
    "listen.NAME.routes",
    {},
    {
        "to": Other(
            '"example.org"',
            "an address, a domain, a pattern (`*@example.org`, `*.example.org`, `*`), `postmaster`; or several",
        ),
        "login": Other('["tim", "ann"]', "true for clients that have authenticated, or their names"),
        "network": Other('["10.0.0.0/8"]', "networks of clients"),
        "deliver": Other('"local"', "a name in `[deliver]`"),
        "reject": Other(
            '"550 5.1.6 Moved"', "true, or the text of a refusal: 550 5.7.1 unless it begins with codes of its own"
        ),
        "discard": Other("true", "true: mail is accepted and thrown away"),
    },
)

LIMITS = TableSchema("limits", _same(*(name for name in _LIMITS if name != "grace")), {})

LOG = TableSchema("log", {"format": "log_format", "level": "log_level", "protocol": "protocol_log"}, {})

#: All that have keys of ours, in the order in which they are explained.
TABLES = (SERVICE, LISTEN, AUTH, ROUTE, LIMITS, LOG)

#: Options that have no setting of a file, and what there is in their place.
_OPTIONS = {"listen": "on in [listen.NAME]", "backend": "a name of yours in [deliver]"}


def about_unknown(key: str, table: TableSchema) -> str:
    """What to do about a key that a table does not have: a half-sentence behind that."""
    # One of another table, or as it is called on the command line.
    name = key.replace("-", "_")
    if name in _OPTIONS:
        return f"; it is {_OPTIONS[name]}"
    for other in TABLES:
        where = f"in [{other.title}]" if other.title else "at the top, above the first [table]"
        known = [one for one, setting in other.settings.items() if name in (one, setting)]
        if other is not table and (known or key in other.others):
            return f"; it stands {where}" if key in other.keys else f"; it is {known[0]} {where}"
    return nearest(key, table.keys) or f" (there are {', '.join(table.keys)})"
