"""
Backends: from a string to an object that takes mail.

The grammar is that of endpoint strings: ``maildir:/var/mail:eol=lf``. A word
before the first colon is one of the built-in backends below; with a dot in it,
it is a Python module, and the next argument names a class or function in it:
``myapp.mail:Inbox``. ``handler:myapp.mail:handle`` is a function that takes
each message itself. ``relay:`` and ``lmtp:`` are followed by a destination; see
:mod:`smtpfw.config.forwarding`. Built-in modules are imported when they are
asked for.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from zope.interface.exceptions import Invalid
from zope.interface.verify import verifyObject

from smtpfw.config import forwarding, names, units
from smtpfw.config.settings import nearest
from smtpfw.config.strings import Description, parse_description
from smtpfw.errors import ConfigError
from smtpfw.interfaces import IBackend, ISession
from smtpfw.session import SessionBackend

__all__ = ["BUILT_IN", "BuiltIn", "backend_from_string"]


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """
    A backend of our own.

    :ivar usage: how its string is written.
    :ivar module: where it lives.
    :ivar name: its class.
    :ivar parsers: how named arguments are read; the others stay texts.
    :ivar forwards: whether it passes mail on, so that a destination stands in its string.
    """

    usage: str
    module: str
    name: str
    parsers: Mapping[str, Callable[[str], object]] = field(default_factory=dict)
    forwards: bool = False


_HANDLER = "handler"

BUILT_IN = {
    "discard": BuiltIn("discard", "smtpfw.backends.discard", "DiscardBackend"),
    _HANDLER: BuiltIn(
        "handler:MODULE:FUNCTION[:whole=yes|no]",
        "smtpfw.backends.handler",
        "HandlerBackend",
        {"whole": units.parse_yes_no},
    ),
    "lmtp": BuiltIn(
        forwarding.LMTP_USAGE, "smtpfw.backends.relay", "LMTPBackend", forwarding.LMTP_SETTINGS, forwards=True
    ),
    "maildir": BuiltIn(
        "maildir:PATH[:eol=crlf|lf][:create=yes|no]",
        "smtpfw.backends.maildir",
        "MaildirBackend",
        {"create": units.parse_yes_no},
    ),
    "memory": BuiltIn(
        "memory[:max_messages=N][:max_bytes=SIZE]",
        "smtpfw.backends.memory",
        "MemoryBackend",
        {"max_messages": units.parse_count, "max_bytes": units.parse_size},
    ),
    "relay": BuiltIn(
        forwarding.RELAY_USAGE, "smtpfw.backends.relay", "RelayBackend", forwarding.RELAY_SETTINGS, forwards=True
    ),
}


def backend_from_string(text: str, defaults: Mapping[str, object] | None = None) -> IBackend:
    """
    Make the backend that a string describes.

    :param defaults: settings of one that passes mail on, where the string does not name them; see
        :func:`smtpfw.config.forwarding.defaults_for`.
    :raises ConfigError: one line that names the string and says what to do.
    """
    prefix, _, rest = text.partition(":")
    forwarder = BUILT_IN.get(prefix)
    if forwarder is not None and forwarder.forwards:
        given, places = forwarding.read_string(prefix, rest, forwarder.parsers)
        return _forwarding_backend(forwarder, given, places, defaults or {})
    return _backend(parse_description(text))


def backend_from_table(
    plugin: str, arguments: Mapping[str, Any], defaults: Mapping[str, object] | None = None
) -> IBackend:
    """
    Make the backend that a table of a configuration file describes.

    :param plugin: what would stand before the arguments in a string: ``maildir``, ``myapp.mail:Inbox``.
    :param arguments: those of the backend, by their names.
    :param defaults: see :func:`backend_from_string`.
    :raises ConfigError: one line that says what is wrong.
    """
    built_in = BUILT_IN.get(plugin)
    if built_in is None:
        description = parse_description(plugin)
        if description.named or len(description.positional) > 1:
            raise ConfigError("arguments have keys of their own in a table")
        return _backend(description, dict(arguments))
    values = {name: _value(built_in, name, value) for name, value in arguments.items()}
    if built_in.forwards:
        via = values.pop("via", [])
        return _forwarding_backend(built_in, values, [via] if isinstance(via, str) else via, defaults or {})
    if plugin == _HANDLER:
        words = str(values.pop("function", "")).rpartition(":")
        values["handler"] = _find_handler(Description(plugin, plugin, (words[0], words[2])))
    maker = getattr(importlib.import_module(built_in.module), built_in.name)
    return _call(maker, (), values, f'{{ plugin = "{plugin}", ... }}, as {plugin}{names.signature(maker)} takes them')


def _value(built_in: BuiltIn, name: str, value: Any) -> Any:
    """A value of a table, as the backend takes it."""
    parse = built_in.parsers.get(name)
    if parse is None or isinstance(value, bool) or (name == "via" and isinstance(value, list)):
        return value
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    try:
        return parse(text)
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from None


def _forwarding_backend(
    built_in: BuiltIn, given: Mapping[str, object], places: list[str], defaults: Mapping[str, object]
) -> IBackend:
    if not places:
        raise ConfigError(f"say where mail goes next; it is written {built_in.usage}")
    arguments = forwarding.arguments_of(given, places, built_in.parsers, defaults)
    maker = getattr(importlib.import_module(built_in.module), built_in.name)
    return _call(maker, (), arguments, built_in.usage)


def _backend(description: Description, table: Mapping[str, Any] | None = None) -> IBackend:
    prefix = description.prefix
    built_in = BUILT_IN.get(prefix)
    if built_in is not None:
        return _built_in_backend(description, built_in)
    if "." in prefix or (description.positional and names.is_module(prefix)):
        return _python_backend(description, table or description.named)
    raise ConfigError(
        f"unknown backend {prefix!r}{nearest(prefix, BUILT_IN)} (known are {', '.join(BUILT_IN)}; "
        "your own is module:Name; --python-path DIR adds a folder to look in)"
    )


def _built_in_backend(description: Description, built_in: BuiltIn) -> IBackend:
    maker = getattr(importlib.import_module(built_in.module), built_in.name)
    named: dict[str, object] = {}
    for name, value in description.named.items():
        try:
            named[name] = built_in.parsers.get(name, str)(value)
        except ValueError as error:
            raise ConfigError(f"{name}: {error}") from None
    positional: tuple[Any, ...] = description.positional
    if description.prefix == _HANDLER:
        positional = (_find_handler(description), *positional[2:])
    return _call(maker, positional, named, built_in.usage)


def _python_backend(description: Description, named: Mapping[str, Any]) -> IBackend:
    module_name = description.prefix
    if not description.positional or not description.positional[0]:
        raise ConfigError(f"say which class or function: {module_name}:Name")
    name, *arguments = description.positional
    found = names.find(module_name, name)
    usage = f"{module_name}:{name}{names.signature(found)}"
    if inspect.isclass(found) and ISession.implementedBy(found) and not IBackend.implementedBy(found):
        if arguments or named:
            raise ConfigError("a session class takes no arguments; write a backend to pass some")
        return SessionBackend(found)
    if not arguments and _is_handler(found):
        usage += f"; a function that takes each message is {_HANDLER}:{module_name}:{name}"
    return _call(found, arguments, dict(named), usage)


def _find_handler(description: Description) -> Any:
    module_name, name, *_ = (*description.positional, "", "")
    if not (module_name and name):
        raise ConfigError(f"say which function: {_HANDLER}:package.module:function")
    found = names.find(module_name, name)
    if found is None:
        # To the backend it means: throw away.
        raise ConfigError(f"{name} is None, and a handler a function")
    if inspect.isclass(found) or IBackend.providedBy(found):
        # Many a class can be called with two arguments, and would swallow all mail.
        kind = "class" if inspect.isclass(found) else "backend"
        raise ConfigError(f"{name} is a {kind}, and a handler a function; a {kind} is written {module_name}:{name}")
    return found


def _is_handler(found: Any) -> bool:
    """Whether it looks like a function that takes each message, not like one that makes a backend."""
    if not inspect.isfunction(found):
        return False
    parameters = inspect.signature(found).parameters.values()
    return sum(parameter.default is parameter.empty for parameter in parameters) == 2


def _call(maker: Any, arguments: Any, named: Mapping[str, object], usage: str) -> IBackend:
    if IBackend.providedBy(maker):
        # An instance that the module made itself, to be used as it is.
        return maker
    if not callable(maker):
        raise ConfigError(f"{type(maker).__name__} is neither a class nor a function nor a backend")
    backend = names.make(maker, arguments, named, usage)
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
