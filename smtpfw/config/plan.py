"""
The plan of a service: all that it needs to know, checked, in one frozen value.

It is made of the tree that an operator has written (:mod:`smtpfw.config.tree`).
Making it reads certificates and imports backends, but binds nothing and starts
nothing. All that is wrong is told together.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from smtpfw.backends.mux import MuxBackend, Route, RouteList
from smtpfw.backends.mux.routing import passes_on
from smtpfw.config import names
from smtpfw.config.auth import auth_from_string, mechanisms_from_string, without_secrets
from smtpfw.config.backends import BACKENDS, BUILT_IN, backend_from_string, backend_from_table
from smtpfw.config.certificates import Stores, StoresOfPlan
from smtpfw.config.checks import check_from_string
from smtpfw.config.extensions import LEAVE_OUT, extensions_of
from smtpfw.config.forwarding import GUARDED, defaults_for
from smtpfw.config.listeners import Listener, check_endpoint, parse_listener, trusted_by_default
from smtpfw.config.places import Problems
from smtpfw.config.routes import backend_of_routes
from smtpfw.config.settings import SERVER_NAMES, default_hostname, nearest
from smtpfw.config.tree import ListenTree, ServiceTree, Text, Values
from smtpfw.errors import ConfigError
from smtpfw.extensions import STANDARD, Auth, StartTLS, XClient
from smtpfw.networks import Networks, networks_of_proxies
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
    :ivar proxy: networks whose connections begin with a PROXY header; None if there are none.
    """

    name: str
    listeners: tuple[Listener, ...]
    backend: IBackend
    config: ServerConfig
    tls: IOpenSSLServerConnectionCreator | None
    extensions: tuple[Extension, ...] = STANDARD
    checks: tuple[ICheck, ...] = ()
    proxy: Networks | None = None

    @property
    def xclient(self) -> Networks | None:
        """Whose clients may say XCLIENT; None if nobody's."""
        return next((one.networks for one in self.extensions if isinstance(one, XClient)), None)

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
    :ivar warnings: what is most likely not meant, a line for each.
    """

    listen: tuple[ListenPlan, ...]
    deliveries: tuple[Delivery, ...]
    settings: Values
    stores: tuple[CertificateStore, ...] = ()
    warnings: tuple[str, ...] = ()

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
        # What stands before a relay of the command line that does not ask who the client is.
        self._guards: dict[str, IBackend] = {}

    def plan(self) -> ServicePlan:
        tree, problems = self._tree, self._problems
        with problems.at(tree.settings.place_of("python_path")):
            names.extend_path(tree.settings["python_path"])
        for listen in tree.listen:
            self._listeners[listen.name] = self._parse_listeners(listen)
        for name, text in tree.deliver.items():
            # Never the whole: its arguments may be passwords.
            shown = BACKENDS.without_arguments(text.text) if text.table is None else ""
            with problems.at(text.place, shown):
                self._deliveries[name] = Delivery(name, text.text, self._deliver(text))
        self._find_twins()
        plans = [self._listen(listen) for listen in tree.listen]
        problems.check()
        unused = self._find_unused()
        return ServicePlan(
            listen=tuple(plan for plan in plans if plan is not None),
            deliveries=tuple(one for one in self._deliveries.values() if one.name not in unused),
            settings=tree.settings,
            stores=tuple(self._stores.used.values()),
            warnings=problems.warnings,
        )

    def _find_twins(self) -> None:
        """Two can't listen at one place, and an error of the system would not say who the other one is."""
        seen: dict[str, Listener] = {}
        for listener in (listener for listeners in self._listeners.values() for listener in listeners):
            # Port 0 is another one each time.
            description = listener.description
            if "0" in (*description.positional[:1], description.named.get("port")):
                continue
            other = seen.setdefault(listener.endpoint, listener)
            if other is not listener:
                where = f"{other.place.key} in line {other.place.line}" if other.place.line else "it"
                self._problems.add(listener.place, f"{where} listens there already", listener.text)

    def _find_unused(self) -> set[str]:
        """Where no mail can go, and who can log in nowhere: no error, for it may be so for a while."""
        tree, warn = self._tree, self._problems.warn
        led_to = {route.deliver for listen in tree.listen for route in listen.routes or ()}
        led_to.update(listen.deliver for listen in tree.listen)
        unused = set(tree.deliver).difference(led_to)
        for name in unused:
            warn(tree.deliver[name].place, "no route leads there, so it is not used")
        for name in set(tree.users).difference(listen.auth.users for listen in tree.listen if listen.auth):
            warn(tree.users[name].place, "no listener names it, so it is not used")
        return unused

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
        proxy = self._proxies("proxy", settings)
        for listener in listeners:
            if proxy is not None and listener.description.prefix == "ssl":
                problems.add(listener.place, "PROXY comes before TLS; write smtps: and the port", listener.text)
        backend = self._backend(listen, extensions, listeners, config)
        if backend is None or config is None:
            return None
        if config.submission is None:
            # RFC 6409 section 4.3: who has to authenticate submits.
            required = any(isinstance(extension, Auth) and extension.required for extension in extensions)
            config = replace(config, submission=required)
        return ListenPlan(
            name=listen.name,
            listeners=tuple(listeners),
            backend=backend,
            config=config,
            tls=tls,
            extensions=extensions,
            checks=checks,
            proxy=proxy,
        )

    def _parse_listeners(self, listen: ListenTree) -> list[Listener]:
        listeners = []
        proxied = bool(listen.settings["proxy"] or listen.settings["xclient"])
        for on in listen.on:
            with self._problems.at(on.place, on.text):
                listener = replace(parse_listener(on.text, on.place), proxied=proxied)
                check_endpoint(listener, self._reactor)
                listeners.append(listener)
        listen.is_whole = listen.is_whole and len(listeners) == len(listen.on)
        return listeners

    def _deliver(self, text: Text) -> IBackend:
        hostname = self._tree.settings["hostname"]
        if self._tree.listen and self._tree.listen[0].routes is None:
            # The command line: nobody but the backend asks who the client is.
            (listen,) = self._tree.listen
            backend = backend_from_string(text.text, defaults_for(self._listeners[listen.name], hostname))
            return self._asked(backend, listen) if passes_on(backend) else backend
        defaults = {GUARDED: False, **({"hello_name": hostname} if hostname else {})}
        if text.table is None:
            return backend_from_string(text.text, defaults)
        return backend_from_table(text.text, text.table, defaults)

    def _asked(self, backend: IBackend, listen: ListenTree) -> IBackend:
        """See to it that a relay asks who the client is: by itself, or by a guard of ours that stands before it."""
        if _is_open(backend):
            self._guards[listen.name] = self._guard(backend, listen)
        elif not (getattr(backend, "trusted", True) or listen.knows_logins):
            raise ConfigError("nobody could send; say who may: trusted=NETWORK,... behind it, or --auth")
        if getattr(getattr(backend, "trusted", None), "everybody", False):
            raise ConfigError("trusted= is everybody, which makes an open relay; name the networks that are yours")
        return backend

    def _guard(self, backend: IBackend, listen: ListenTree) -> MuxBackend:
        """
        One route to a relay that does not ask who the client is: it is guarded, as those of a file are.

        :raises ConfigError: if nobody could use it.
        """
        trusted = trusted_by_default(self._listeners[listen.name])
        if not (trusted or listen.knows_logins):
            raise ConfigError("it passes mail on, and nobody could send; give --auth, or listen on loopback alone")
        if listen.auth and self._tree.users[listen.auth.users].text == "session":
            raise ConfigError(
                "it passes mail on and has no trusted, so it is asked behind a guard, which its sessions can't be; "
                "give it an attribute trusted, or --auth another kind"
            )
        routes = RouteList([Route("*", backend)], trusted=trusted, auth=listen.knows_logins)
        return MuxBackend(routes, owns_targets=False)

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
            return None
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
        extensions = extensions_of(listen.extensions, settings["protocol"], self._problems)
        auth = self._auth(listen, settings)
        wanted = settings["require_tls"] or (auth is not None and auth.required and not auth.allow_insecure)
        clear = any(not listener.implicit_tls for listener in self._listeners[listen.name])
        left_out = [text for text in listen.extensions if text.text.upper() == f"{LEAVE_OUT}{StartTLS.keyword}"]
        if wanted and clear and left_out:
            self._problems.add(left_out[0].place, "TLS is required here, and only smtps: could have it without this")
        xclient = self._proxies("xclient", settings)
        own = [] if xclient is None else [XClient(xclient)]
        return (*extensions, *own) if auth is None else (*extensions, auth, *own)

    def _proxies(self, name: str, settings: Values) -> Networks | None:
        """The networks of a setting; None for none."""
        if not settings[name]:
            return None
        with self._problems.at(settings.place_of(name)):
            try:
                return networks_of_proxies(settings[name])
            except ValueError as error:
                raise ConfigError(str(error)) from None
        return None

    def _auth(self, listen: ListenTree, settings: Values) -> Auth | None:
        problems, tree = self._problems, listen.auth
        if tree is None:
            for name in ("require_auth", "allow_insecure_auth", "auth_mechanisms"):
                if settings[name]:
                    hint = "; for who is known by XCLIENT there is the check require_auth" * listen.knows_logins
                    problems.add(
                        settings.place_of(name), f"there is nobody who could authenticate; give auth, --auth{hint}"
                    )
            return None
        users = self._tree.users.get(tree.users)
        if users is None:
            known = self._tree.users
            if ("auth", tree.users) not in self._tree.broken:
                problems.add(tree.place, f"there is no {tree.users!r} in [auth]{nearest(tree.users, known)}")
            return None
        own = tree.settings.over(settings)
        if not (settings["tls"] or own["allow_insecure_auth"]):
            problems.add(tree.place, "it is offered under TLS only; give tls, --tls CERT[:KEY], or allow it without")
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
                if isinstance(check, (RequireAuth, SenderBelongsToLogin)) and not listen.knows_logins:
                    raise ConfigError("there is nobody who could authenticate; give auth, --auth")
                made.append(check)
        return made

    def _backend(
        self, listen: ListenTree, extensions: tuple[Extension, ...], listeners: list[Listener], config: Any
    ) -> IBackend | None:
        if listen.routes is None:
            delivery = self._deliveries.get(listen.deliver)
            return None if delivery is None else self._guards.get(listen.name, delivery.backend)
        broken = [name for name in self._tree.deliver if name not in self._deliveries]
        broken += [name for key, name in self._tree.broken if key == "deliver"]
        return backend_of_routes(listen, self._deliveries, broken, listeners, self._problems)


def _is_open(backend: Any) -> bool:
    """Whether a relay carries anybody's mail: it, or one behind a table of routes, has no ``trusted`` to ask."""
    if not passes_on(backend) or getattr(backend, "trusted", None) is not None:
        return False
    return not isinstance(backend, MuxBackend) or any(map(_is_open, backend.routes.backends))
