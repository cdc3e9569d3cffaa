"""
Backends: from a string to an object that takes mail.

The grammar is that of endpoint strings: ``maildir:/var/mail:eol=lf``. A word
before the first colon is one of the built-in backends below; with a dot in it,
it is a Python module, and the next argument names a class or function in it:
``myapp.mail:Inbox``. ``handler:myapp.mail:handle`` is a function that takes
each message itself. Built-in modules are imported when they are asked for.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from zope.interface.exceptions import Invalid
from zope.interface.verify import verifyObject

from smtpfw.config import units
from smtpfw.config.settings import nearest
from smtpfw.config.strings import Description, parse_description
from smtpfw.errors import ConfigError
from smtpfw.interfaces import IBackend, ISession
from smtpfw.session import SessionBackend

__all__ = ["BUILT_IN", "BuiltIn", "backend_from_string"]


def _parse_yes_no(text: str) -> bool:
    try:
        return {"yes": True, "true": True, "no": False, "false": False}[text.lower()]
    except KeyError:
        raise ValueError(f"{text!r} is neither yes nor no") from None


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """
    A backend of our own.

    :ivar usage: how its string is written.
    :ivar module: where it lives.
    :ivar name: its class.
    :ivar parsers: how named arguments are read; the others stay texts.
    """

    usage: str
    module: str
    name: str
    parsers: Mapping[str, Callable[[str], object]] = field(default_factory=dict)


_HANDLER = "handler"

BUILT_IN = {
    "discard": BuiltIn("discard", "smtpfw.backends.discard", "DiscardBackend"),
    _HANDLER: BuiltIn(
        "handler:MODULE:FUNCTION[:whole=yes|no]",
        "smtpfw.backends.handler",
        "HandlerBackend",
        {"whole": _parse_yes_no},
    ),
    "maildir": BuiltIn(
        "maildir:PATH[:eol=crlf|lf][:create=yes|no]",
        "smtpfw.backends.maildir",
        "MaildirBackend",
        {"create": _parse_yes_no},
    ),
    "memory": BuiltIn(
        "memory[:max_messages=N][:max_bytes=SIZE]",
        "smtpfw.backends.memory",
        "MemoryBackend",
        {"max_messages": units.parse_count, "max_bytes": units.parse_size},
    ),
}


def backend_from_string(text: str) -> IBackend:
    """
    Make the backend that a string describes.

    :raises ConfigError: one line that names the string and says what to do.
    """
    try:
        description = parse_description(text)
    except ConfigError as error:
        raise ConfigError(f"--backend {error}") from None
    if "." in description.prefix:
        return _python_backend(description)
    built_in = BUILT_IN.get(description.prefix)
    if built_in is None and description.positional and _is_module(description.prefix):
        return _python_backend(description)
    if built_in is None:
        known = ", ".join(BUILT_IN)
        near = nearest(description.prefix, BUILT_IN)
        raise ConfigError(
            f"--backend {text}: unknown backend {description.prefix!r}{near} (known are {known}; "
            "your own is module:Name; --python-path DIR adds a folder to look in)"
        )
    return _built_in_backend(description, built_in)


def _is_module(name: str) -> bool:
    """Whether it is the name of a module that can be imported, one file in a folder of the path, say."""
    return name.isidentifier() and importlib.util.find_spec(name) is not None


def _built_in_backend(description: Description, built_in: BuiltIn) -> IBackend:
    maker = getattr(importlib.import_module(built_in.module), built_in.name)
    named: dict[str, object] = {}
    for name, value in description.named.items():
        try:
            named[name] = built_in.parsers.get(name, str)(value)
        except ValueError as error:
            raise ConfigError(f"--backend {description.text}: {name}: {error}") from None
    positional: tuple[Any, ...] = description.positional
    if description.prefix == _HANDLER:
        positional = (_find_handler(description), *positional[2:])
    return _call(description, maker, positional, named, built_in.usage)


def _python_backend(description: Description) -> IBackend:
    module_name, text = description.prefix, description.text
    if not description.positional or not description.positional[0]:
        raise ConfigError(f"--backend {text}: say which class or function: {module_name}:Name")
    name, *arguments = description.positional
    found = _find(text, module_name, name)
    usage = f"{module_name}:{name}{_signature(found)}"
    if inspect.isclass(found) and ISession.implementedBy(found) and not IBackend.implementedBy(found):
        if arguments or description.named:
            raise ConfigError(f"--backend {text}: a session class takes no arguments; write a backend to pass some")
        return SessionBackend(found)
    if not arguments and _is_handler(found):
        usage += f"; a function that takes each message is {_HANDLER}:{module_name}:{name}"
    return _call(description, found, arguments, dict(description.named), usage)


def _find_handler(description: Description) -> Any:
    text = description.text
    module_name, name, *_ = (*description.positional, "", "")
    if not (module_name and name):
        raise ConfigError(f"--backend {text}: say which function: {_HANDLER}:package.module:function")
    found = _find(text, module_name, name)
    if found is None:
        # To the backend it means: throw away.
        raise ConfigError(f"--backend {text}: {name} is None, and a handler a function")
    if inspect.isclass(found) or IBackend.providedBy(found):
        # Many a class can be called with two arguments, and would swallow all mail.
        kind = "class" if inspect.isclass(found) else "backend"
        raise ConfigError(
            f"--backend {text}: {name} is a {kind}, and a handler a function; a {kind} is written {module_name}:{name}"
        )
    return found


def _find(text: str, module_name: str, name: str) -> Any:
    """What a Python name stands for."""
    try:
        found: Any = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(f"--backend {text}: {error}; --python-path DIR adds a folder to look in") from None
    except Exception as error:
        raise ConfigError(f"--backend {text}: importing {module_name} failed: {_one_line(error)}") from error
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            names = [one for one in vars(found) if not one.startswith("_")]
            raise ConfigError(f"--backend {text}: {module_name} has no {name}{nearest(part, names)}") from None
    return found


def _is_handler(found: Any) -> bool:
    """Whether it looks like a function that takes each message, not like one that makes a backend."""
    if not inspect.isfunction(found):
        return False
    parameters = inspect.signature(found).parameters.values()
    return sum(parameter.default is parameter.empty for parameter in parameters) == 2


def _call(description: Description, maker: Any, arguments: Any, named: Mapping[str, object], usage: str) -> IBackend:
    text = description.text
    if IBackend.providedBy(maker):
        # An instance that the module made itself, to be used as it is.
        return maker
    if not callable(maker):
        raise ConfigError(f"--backend {text}: {type(maker).__name__} is neither a class nor a function nor a backend")
    try:
        # Asked beforehand: a TypeError out of the call itself could as well be a mistake inside.
        inspect.signature(maker).bind(*arguments, **named)
    except TypeError as error:
        raise ConfigError(f"--backend {text}: {error}; it is written {usage}") from None
    try:
        backend = maker(*arguments, **named)
    except ConfigError as error:
        raise ConfigError(f"--backend {text}: {error}") from None
    except Exception as error:
        raise ConfigError(f"--backend {text}: {_one_line(error)}") from error
    if not callable(getattr(backend, "new_session", None)):
        raise ConfigError(
            f"--backend {text}: {type(backend).__name__} is neither a session class (@implementer(ISession)) "
            "nor a backend: it has no new_session(connection)"
        )
    try:
        verifyObject(IBackend, backend)
    except Invalid as error:
        raise ConfigError(f"--backend {text}: {_one_line(error)}") from None
    return cast(IBackend, backend)


def _signature(maker: Any) -> str:
    try:
        return str(inspect.signature(maker))
    except (TypeError, ValueError):
        return ""


def _one_line(error: Exception) -> str:
    """The error in one line, with its class unless the text is meant for the operator."""
    text = " ".join(str(error).split())
    if isinstance(error, (OSError, ValueError)) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
