"""
The plan of a service: all that it needs to know, checked, in one frozen value.

Values come in by the names of :mod:`smtpfw.config.settings`, wherever they were
read from. Making a plan reads certificates and imports backends, but binds
nothing and starts nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smtpfw.config.auth import auth_from_string, mechanisms_from_string
from smtpfw.config.backends import BUILT_IN, backend_from_string
from smtpfw.config.checks import check_from_string
from smtpfw.config.forwarding import defaults_for
from smtpfw.config.listeners import Listener, parse_listener
from smtpfw.config.settings import BY_NAME, SERVER_NAMES, default_hostname
from smtpfw.config.strings import split_words
from smtpfw.errors import ConfigError
from smtpfw.extensions import STANDARD, Auth
from smtpfw.policies import RequireAuth, SenderBelongsToLogin
from smtpfw.sasl import STANDARD as STANDARD_MECHANISMS
from smtpfw.sasl.plugins import available_mechanisms
from smtpfw.tls import server_context
from smtpfw.wire.config import ServerConfig
from smtpfw.wire.dialect import Extension

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime
    from twisted.internet.ssl import CertificateOptions

    from smtpfw.interfaces import IBackend, ICheck

__all__ = ["ServicePlan", "make_plan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicePlan:
    """
    What one service is to do.

    :ivar listeners: where to listen.
    :ivar backend: what takes the mail.
    :ivar backend_text: as the operator named it.
    :ivar config: name, limits and manners of every listener.
    :ivar tls: the context of STARTTLS and of implicit TLS; None for neither.
    :ivar extensions: what EHLO offers, AUTH among them if somebody may authenticate.
    :ivar checks: who is asked before the backend is.
    :ivar grace: seconds that a stop waits for messages under way.
    """

    listeners: tuple[Listener, ...]
    backend: IBackend
    backend_text: str
    config: ServerConfig
    tls: CertificateOptions | None
    extensions: tuple[Extension, ...] = STANDARD
    checks: tuple[ICheck, ...] = ()
    grace: float


def make_plan(values: Mapping[str, Any], reactor: IReactorTime) -> ServicePlan:
    """
    Make a plan of parsed settings.

    :param values: one for each name in the table of settings.
    :param reactor: for checks that need the time.
    :raises ConfigError: one line that names the setting and says what to do.
    """
    listeners = tuple(map(parse_listener, values["listen"]))
    server = {name: values[name] for name in SERVER_NAMES}
    server["hostname"] = server["hostname"] or default_hostname()
    if values["require_client_certificate"] and not values["client_ca"]:
        raise ConfigError("--require-client-certificate: by whom must they be signed? give --client-ca FILE")
    tls = _make_tls(values) if values["tls"] else None
    for name in ("require_tls", "client_ca", "require_client_certificate"):
        if tls is None and values[name]:
            option = BY_NAME[name].option
            raise ConfigError(f"--{option}: there is no certificate of our own to offer; give --tls CERT[:KEY]")
    for listener in listeners:
        if listener.implicit_tls and tls is None:
            raise ConfigError(f"--listen {listener.text}: smtps: needs a certificate; give --tls CERT[:KEY]")
    _extend_path(values["python_path"])
    extensions: tuple[Extension, ...] = STANDARD
    if values["auth"]:
        extensions = (*STANDARD, _make_auth(values, tls is not None))
    for name in ("require_auth", "allow_insecure_auth", "auth_mechanisms"):
        if values[name] and not values["auth"]:
            raise ConfigError(f"--{BY_NAME[name].option}: there is nobody who could authenticate; give --auth")
    checks = tuple(check_from_string(text, reactor) for text in values["checks"])
    for text, check in zip(values["checks"], checks, strict=True):
        if isinstance(check, (RequireAuth, SenderBelongsToLogin)) and not values["auth"]:
            raise ConfigError(f"--checks {text}: there is nobody who could authenticate; give --auth")
    prefix = values["backend"].partition(":")[0]
    if values["auth"] == "session" and prefix in BUILT_IN:
        raise ConfigError(f"--auth session: the sessions of {prefix} verify nobody; that is for a backend of your own")
    return ServicePlan(
        listeners=listeners,
        backend=_make_backend(values, listeners),
        backend_text=values["backend"],
        config=ServerConfig(**server),
        tls=tls,
        extensions=extensions,
        checks=checks,
        grace=values["grace"],
    )


def _make_backend(values: Mapping[str, Any], listeners: tuple[Listener, ...]) -> IBackend:
    text = values["backend"]
    backend = backend_from_string(text, defaults_for(listeners, values["hostname"]))
    if text.partition(":")[0] == "relay" and not (getattr(backend, "trusted", ()) or values["auth"]):
        raise ConfigError(f"--backend {text}: nobody could send; say who may: trusted=NETWORK,... behind it, or --auth")
    return backend


def _make_auth(values: Mapping[str, Any], has_tls: bool) -> Auth:
    if not (has_tls or values["allow_insecure_auth"]):
        raise ConfigError("--auth: it is offered under TLS only; give --tls CERT[:KEY], or --allow-insecure-auth")
    text = values["auth_mechanisms"]
    return auth_from_string(
        values["auth"],
        mechanisms=mechanisms_from_string(text, available_mechanisms()) if text else STANDARD_MECHANISMS,
        required=values["require_auth"],
        allow_insecure=values["allow_insecure_auth"],
        client_certificates=bool(values["client_ca"]),
    )


def _make_tls(values: Mapping[str, Any]) -> CertificateOptions:
    text = values["tls"]
    try:
        words = split_words(text)
        if len(words) > 2 or not all(words):
            raise ConfigError(f"{text}: write CERT or CERT:KEY; a colon in a path takes a backslash before it")
        return server_context(
            *words,
            client_ca=values["client_ca"],
            require_client_certificate=values["require_client_certificate"],
        )
    except ConfigError as error:
        client_ca = values["client_ca"]
        option = "--client-ca" if client_ca and str(error).startswith(client_ca) else "--tls"
        raise ConfigError(f"{option} {error}") from None


def _extend_path(folders: tuple[str, ...]) -> None:
    for folder in reversed(folders):
        path = Path(folder).absolute()
        if not path.is_dir():
            raise ConfigError(f"--python-path {folder}: there is no such folder")
        if str(path) not in sys.path:
            sys.path.insert(0, str(path))
