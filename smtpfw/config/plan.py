"""
The plan of a service: all that it needs to know, checked, in one frozen value.

It is made of the tree that an operator has written (:mod:`smtpfw.config.tree`).
Making it reads certificates and imports backends, but binds nothing and starts
nothing. All that is wrong is told together.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smtpfw.backends.mux.routing import passes_on
from smtpfw.config.auth import auth_from_string, mechanisms_from_string, without_secrets
from smtpfw.config.backends import BUILT_IN, backend_from_string, backend_from_table
from smtpfw.config.certificates import Stores, StoresOfPlan
from smtpfw.config.checks import check_from_string
from smtpfw.config.forwarding import GUARDED, defaults_for
from smtpfw.config.listeners import Listener, parse_listener
from smtpfw.config.places import Problems
from smtpfw.config.routes import backend_of_routes
from smtpfw.config.settings import SERVER_NAMES, default_hostname, nearest
from smtpfw.config.tree import ListenTree, ServiceTree, Text, Values
from smtpfw.errors import ConfigError
from smtpfw.extensions import STANDARD, Auth
from smtpfw.policies import RequireAuth, SenderBelongsToLogin
from smtpfw.sasl import STANDARD as STANDARD_MECHANISMS
from smtpfw.sasl.plugins import available_mechanisms
from smtpfw.tls import CertificateStore
from smtpfw.wire.config import ServerConfig
from smtpfw.wire.dialect import Extension

if TYPE_CHECKING:
    from twisted.internet.interfaces import IOpenSSLServerConnectionCreator, IReactorTime

    from smtpfw.interfaces import IBackend, ICheck

__all__ = ["Delivery", "ListenPlan", "ServicePlan", "make_plan"]


@dataclass(frozen=True, slots=True)
class Delivery:
    """
    Where mail can go.

    :ivar name: as the operator calls it.
    :ivar text: what it was made of.
    """

    name: str
    text: str
    backend: IBackend


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenPlan:
    """
    Some sockets that behave alike.

    :ivar name: as the operator calls it.
    :ivar listeners: where to listen.
    :ivar backend: what takes the mail: a delivery, or routes to several.
    :ivar config: name, limits and manners.
    :ivar tls: the context of STARTTLS and of implicit TLS; None for neither.
    :ivar extensions: what EHLO offers, AUTH among them if somebody may authenticate.
    :ivar checks: who is asked before the backend is.
    """

    name: str
    listeners: tuple[Listener, ...]
    backend: IBackend
    config: ServerConfig
    tls: IOpenSSLServerConnectionCreator | None
    extensions: tuple[Extension, ...] = STANDARD
    checks: tuple[ICheck, ...] = ()

    @property
    def auth(self) -> Auth | None:
        """Who may authenticate; None where nobody can."""
        return next((one for one in self.extensions if isinstance(one, Auth)), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicePlan:
    """
    What one service is to do.

    :ivar listen: its listeners.
    :ivar deliveries: where mail can go, each once.
    :ivar settings: those of the whole process: what is logged, say.
    :ivar stores: the certificates that are shown.
    """

    listen: tuple[ListenPlan, ...]
    deliveries: tuple[Delivery, ...]
    settings: Values
    stores: tuple[CertificateStore, ...] = ()

    @property
    def grace(self) -> float:
        """Seconds that a stop waits for messages under way."""
        seconds: float = self.settings["grace"]
        return seconds


def make_plan(
    tree: ServiceTree,
    reactor: IReactorTime,
    problems: Problems | None = None,
    stores: StoresOfPlan | None = None,
) -> ServicePlan:
    """
    Make a plan.

    :param reactor: for checks that need the time.
    :param problems: what is known to be wrong already.
    :param stores: certificates of the plan before.
    :raises ConfigError: a line for each thing that is wrong: where it stands, and what to do.
    """
    return _Planner(tree, reactor, problems or Problems(), stores or Stores().begin()).plan()


class _Planner:
    def __init__(self, tree: ServiceTree, reactor: IReactorTime, problems: Problems, stores: StoresOfPlan) -> None:
        self._tree = tree
        self._reactor = reactor
        self._problems = problems
        self._stores = stores
        self._listeners: dict[str, list[Listener]] = {}
        self._deliveries: dict[str, Delivery] = {}

    def plan(self) -> ServicePlan:
        tree, problems = self._tree, self._problems
        with problems.at(tree.settings.place_of("python_path")):
            _extend_path(tree.settings["python_path"])
        for listen in tree.listen:
            self._listeners[listen.name] = self._parse_listeners(listen)
        for name, text in tree.deliver.items():
            shown = text.text if text.table is None else ""
            with problems.at(text.place, shown):
                self._deliveries[name] = Delivery(name, text.text, self._deliver(text))
        plans = [self._listen(listen) for listen in tree.listen]
        problems.check()
        return ServicePlan(
            listen=tuple(plan for plan in plans if plan is not None),
            deliveries=tuple(self._deliveries.values()),
            settings=tree.settings,
            stores=tuple(self._stores.used.values()),
        )

    def _listen(self, listen: ListenTree) -> ListenPlan | None:
        problems = self._problems
        settings = listen.settings.over(self._tree.settings)
        config = self._config(settings)
        tls = self._tls(settings)
        listeners = self._listeners[listen.name]
        for listener in listeners:
            if listener.implicit_tls and not settings["tls"]:
                problems.add(listener.place, "smtps: needs a certificate; give tls, --tls CERT[:KEY]", listener.text)
        extensions = self._extensions(listen, settings)
        checks = tuple(self._checks(listen))
        backend = self._backend(listen, extensions, listeners, config)
        if backend is None or config is None:
            return None
        return ListenPlan(
            name=listen.name,
            listeners=tuple(listeners),
            backend=backend,
            config=config,
            tls=tls,
            extensions=extensions,
            checks=checks,
        )

    def _parse_listeners(self, listen: ListenTree) -> list[Listener]:
        listeners = []
        for on in listen.on:
            with self._problems.at(on.place, on.text):
                listeners.append(parse_listener(on.text, on.place))
        return listeners

    def _deliver(self, text: Text) -> IBackend:
        hostname = self._tree.settings["hostname"]
        if self._tree.listen and self._tree.listen[0].routes is None:
            # The command line: nobody but the backend asks who the client is.
            (listen,) = self._tree.listen
            backend = backend_from_string(text.text, defaults_for(self._listeners[listen.name], hostname))
            if passes_on(backend) and not (getattr(backend, "trusted", True) or listen.auth):
                raise ConfigError("nobody could send; say who may: trusted=NETWORK,... behind it, or --auth")
            return backend
        defaults = {GUARDED: False, **({"hello_name": hostname} if hostname else {})}
        if text.table is None:
            return backend_from_string(text.text, defaults)
        return backend_from_table(text.text, text.table, defaults)

    def _config(self, settings: Values) -> ServerConfig | None:
        server = {name: settings[name] for name in SERVER_NAMES}
        server["hostname"] = server["hostname"] or default_hostname()
        with self._problems.at(settings.place):
            return ServerConfig(**server)
        return None

    def _tls(self, settings: Values) -> IOpenSSLServerConnectionCreator | None:
        problems, text = self._problems, settings["tls"]
        if settings["require_client_certificate"] and not settings["client_ca"]:
            problems.add(
                settings.place_of("require_client_certificate"),
                "by whom must they be signed? give client_ca, --client-ca FILE",
            )
        if not text:
            for name in ("require_tls", "client_ca", "require_client_certificate"):
                if settings[name]:
                    problems.add(
                        settings.place_of(name),
                        "there is no certificate of our own to offer; give tls, --tls CERT[:KEY]",
                    )
            return None
        with problems.at(settings.place_of("tls")):
            store = self._stores.of(text, settings["hostname"] or default_hostname())
            with problems.at(settings.place_of("client_ca")):
                return store.listener(
                    minimum_version=settings["tls_minimum_version"],
                    client_ca=settings["client_ca"],
                    require_client_certificate=settings["require_client_certificate"],
                )
        return None

    def _extensions(self, listen: ListenTree, settings: Values) -> tuple[Extension, ...]:
        left_out = {keyword.upper() for keyword in listen.without}
        known = [extension.keyword for extension in STANDARD]
        for keyword in left_out.difference(known):
            self._problems.add(
                listen.place.within("without"), f"there is no extension {keyword}{nearest(keyword, known)}"
            )
        extensions = tuple(extension for extension in STANDARD if extension.keyword not in left_out)
        auth = self._auth(listen, settings)
        return extensions if auth is None else (*extensions, auth)

    def _auth(self, listen: ListenTree, settings: Values) -> Auth | None:
        problems, tree = self._problems, listen.auth
        if tree is None:
            for name in ("require_auth", "allow_insecure_auth", "auth_mechanisms"):
                if settings[name]:
                    problems.add(settings.place_of(name), "there is nobody who could authenticate; give auth, --auth")
            return None
        users = self._tree.users.get(tree.users)
        if users is None:
            known = self._tree.users
            problems.add(tree.place, f"there is no {tree.users!r} in [auth]{nearest(tree.users, known)}")
            return None
        own = tree.settings.over(settings)
        if not (settings["tls"] or own["allow_insecure_auth"]):
            problems.add(tree.place, "it is offered under TLS only; give tls, --tls CERT[:KEY], or allow_insecure_auth")
            return None
        mechanisms: Any = STANDARD_MECHANISMS
        words = own["auth_mechanisms"]
        if words:
            with problems.at(own.place_of("auth_mechanisms"), words):
                mechanisms = mechanisms_from_string(words, available_mechanisms())
        if users.text == "session" and not listen.routes:
            text = self._tree.deliver[listen.deliver].text if listen.deliver in self._tree.deliver else ""
            if text.partition(":")[0] in BUILT_IN:
                problems.add(
                    users.place,
                    f"the sessions of {text.partition(':')[0]} verify nobody; that is for a backend of your own",
                    users.text,
                )
        with problems.at(users.place, without_secrets(users.text)):
            return auth_from_string(
                users.text,
                mechanisms=mechanisms,
                required=own["require_auth"],
                allow_insecure=own["allow_insecure_auth"],
                client_certificates=bool(settings["client_ca"]),
            )
        return None

    def _checks(self, listen: ListenTree) -> list[ICheck]:
        made = []
        for text in listen.checks:
            with self._problems.at(text.place, text.text):
                check = check_from_string(text.text, self._reactor)
                if isinstance(check, (RequireAuth, SenderBelongsToLogin)) and listen.auth is None:
                    raise ConfigError("there is nobody who could authenticate; give auth, --auth")
                made.append(check)
        return made

    def _backend(
        self, listen: ListenTree, extensions: tuple[Extension, ...], listeners: list[Listener], config: Any
    ) -> IBackend | None:
        if listen.routes is None:
            delivery = self._deliveries.get(listen.deliver)
            return None if delivery is None else delivery.backend
        broken = [name for name in self._tree.deliver if name not in self._deliveries]
        return backend_of_routes(listen, self._deliveries, broken, listeners, self._problems)


def _extend_path(folders: tuple[str, ...]) -> None:
    for folder in reversed(folders):
        path = Path(folder).absolute()
        if not path.is_dir():
            raise ConfigError(f"{folder}: there is no such folder")
        if str(path) not in sys.path:
            sys.path.insert(0, str(path))
