"""
Backends: from a string to an object that takes mail.

The grammar is that of endpoint strings: ``maildir:/var/mail:eol=lf``. A word
before the first colon is one of the built-in backends below, or one that is
installed; with a dot in it, it is a Python module, and the next argument names
a class or function in it: ``myapp.mail:Inbox``. ``handler:myapp.mail:handle``
is a function that takes each message itself. ``relay:`` and ``lmtp:`` are
followed by a destination; see :mod:`smtpfw.config.forwarding`. What a plugin
makes is imported when it is asked for.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, cast

from zope.interface.exceptions import Invalid
from zope.interface.verify import verifyObject

from smtpfw.config import arguments, forwarding, names
from smtpfw.config.catalogue import Catalogue, maker_of
from smtpfw.config.strings import parse_description
from smtpfw.errors import ConfigError
from smtpfw.interfaces import IBackend, ISession
from smtpfw.plugins import Argument, BackendPlugin, IBackendPlugin
from smtpfw.session import SessionBackend

__all__ = ["BACKENDS", "BUILT_IN", "backend_from_string", "backend_from_table"]


def make_handler(module: str = "", function: str = "", whole: bool | None = None) -> IBackend:
    """
    The backend that calls a function; see :class:`smtpfw.backends.handler.HandlerBackend`.

    :param module: empty where it stands before the function, ``myapp.mail:handle``.
    """
    if not module:
        module, _, function = function.rpartition(":")
    if not (module and function):
        raise ConfigError("say which function: handler:package.module:function")
    found = names.find(module, function)
    if found is None:
        # To the backend it means: throw away.
        raise ConfigError(f"{function} is None, and a handler a function")
    if inspect.isclass(found) or IBackend.providedBy(found):
        # Many a class can be called with two arguments, and would swallow all mail.
        kind = "class" if inspect.isclass(found) else "backend"
        raise ConfigError(f"{function} is a {kind}, and a handler a function; a {kind} is written {module}:{function}")
    # Not above: built-in backends are imported when they are asked for.
    from smtpfw.backends.handler import HandlerBackend

    return HandlerBackend(found, whole=whole)


_OURS = (
    BackendPlugin("discard", "smtpfw.backends.discard:DiscardBackend", help="Accepts mail and throws it away."),
    BackendPlugin(
        "handler",
        make_handler,
        help="Gives each message to a function of yours.",
        usage="handler:MODULE:FUNCTION[:whole=yes|no]",
        parameters={"module": "text", "function": "text", "whole": "yes_no"},
        positional=("module", "function"),
    ),
    BackendPlugin(
        "lmtp",
        "smtpfw.backends.relay:LMTPBackend",
        help="Passes mail on by LMTP while it arrives, with an outcome for each recipient.",
        usage=forwarding.LMTP_USAGE,
        parameters=forwarding.LMTP_SETTINGS,
        next_hops="via",
    ),
    BackendPlugin(
        "maildir",
        "smtpfw.backends.maildir:MaildirBackend",
        help="Stores mail in Maildirs, durably.",
        usage="maildir:PATH[:eol=crlf|lf][:create=yes|no]",
        parameters={"path": Argument("text", into="path_template"), "eol": "text", "create": "yes_no"},
        positional=("path",),
    ),
    BackendPlugin(
        "memory",
        "smtpfw.backends.memory:MemoryBackend",
        help="Keeps mail in memory, for tests.",
        parameters={"max_messages": "count", "max_bytes": "size"},
    ),
    BackendPlugin(
        "relay",
        "smtpfw.backends.relay:RelayBackend",
        help="Passes mail on to another server while it arrives, or to those of each domain.",
        usage=forwarding.RELAY_USAGE,
        parameters=forwarding.RELAY_SETTINGS,
        next_hops="via",
    ),
)

BACKENDS = Catalogue("backend", "smtpfw.backends", IBackendPlugin, BackendPlugin, _OURS)
BUILT_IN = BACKENDS.built_in


def backend_from_string(text: str, defaults: Mapping[str, object] | None = None) -> IBackend:
    """
    Make the backend that a string describes.

    :param defaults: settings of one that passes mail on, where the string does not name them; see
        :func:`smtpfw.config.forwarding.defaults_for`.
    :raises ConfigError: one line that names the string and says what to do.
    """
    prefix, _, rest = text.partition(":")
    forwarder = BACKENDS.plugin(prefix)
    if forwarder is not None and forwarder.next_hops:
        given, places = forwarding.read_string(forwarder, rest)
        return _forwarding_backend(forwarder, given, places, defaults or {})
    description = parse_description(text)
    plugin, positional = BACKENDS.find(description.prefix, description.positional)
    return _backend(plugin, *arguments.read_string(plugin, positional, description.named))


def backend_from_table(plugin: str, table: Mapping[str, Any], defaults: Mapping[str, object] | None = None) -> IBackend:
    """
    Make the backend that a table of a configuration file describes.

    :param plugin: what would stand before the arguments in a string: ``maildir``, ``myapp.mail:Inbox``.
    :param table: its arguments, by their names.
    :param defaults: see :func:`backend_from_string`.
    :raises ConfigError: one line that says what is wrong.
    """
    description = parse_description(plugin)
    found, positional = BACKENDS.find(description.prefix, description.positional)
    if description.named or positional:
        raise ConfigError("arguments have keys of their own in a table")
    if not found.next_hops:
        return _backend(found, (), arguments.read_table(found, table))
    given = {name: value for name, value in table.items() if name != found.next_hops}
    via = table.get(found.next_hops, [])
    places = [via] if isinstance(via, str) else via
    if not (isinstance(places, list) and all(isinstance(one, str) for one in places)):
        raise ConfigError(f"{found.next_hops}: it should be a text, or a list of texts")
    return _forwarding_backend(found, arguments.read_table(found, given), places, defaults or {})


def _forwarding_backend(
    plugin: BackendPlugin, given: Mapping[str, object], places: list[str], defaults: Mapping[str, object]
) -> IBackend:
    if not places:
        raise ConfigError(f"say where mail goes next; it is written {plugin.usage}")
    if plugin is BUILT_IN.get(plugin.name):
        named = forwarding.arguments_of(given, places, plugin.parameters or {}, defaults)
    else:
        fitting = {name: value for name, value in defaults.items() if name in (plugin.parameters or {})}
        named = {**fitting, **given, plugin.next_hops: places}
    return _backend(plugin, (), named)


def _backend(plugin: BackendPlugin, positional: Sequence[str], named: Mapping[str, Any]) -> IBackend:
    found, usage = maker_of(plugin), plugin.usage
    if IBackend.providedBy(found):
        # An instance that the module made itself, to be used as it is.
        if positional or named:
            raise ConfigError(f"{plugin.name} is a backend already, and takes no arguments")
        return found
    if inspect.isclass(found) and ISession.implementedBy(found) and not IBackend.implementedBy(found):
        if positional or named:
            raise ConfigError("a session class takes no arguments; write a backend to pass some")
        return SessionBackend(found)
    if not callable(found):
        raise ConfigError(f"{type(found).__name__} is neither a class nor a function nor a backend")
    if plugin.parameters is None and not positional and _is_handler(found):
        usage += f"; a function that takes each message is handler:{found.__module__}:{found.__qualname__}"
    return _checked(names.make(found, positional, named, usage))


def _checked(backend: Any) -> IBackend:
    if not callable(getattr(backend, "new_session", None)):
        raise ConfigError(
            f"{type(backend).__name__} is neither a session class (@implementer(ISession)) "
            "nor a backend: it has no new_session(connection)"
        )
    try:
        verifyObject(IBackend, backend)
    except Invalid as error:
        raise ConfigError(names.one_line(error)) from None
    return cast(IBackend, backend)


def _is_handler(found: Any) -> bool:
    """Whether it looks like a function that takes each message, not like one that makes a backend."""
    if not inspect.isfunction(found):
        return False
    parameters = inspect.signature(found).parameters.values()
    return sum(parameter.default is parameter.empty for parameter in parameters) == 2
