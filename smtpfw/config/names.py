"""
Python names in strings: from ``package.module`` and ``Name`` to what stands there, and from a maker to what it makes.

Errors are one line for the operator; whoever calls puts the option and the
string in front of it.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from smtpfw.config.settings import nearest
from smtpfw.errors import ConfigError

__all__ = ["extend_path", "find", "is_module", "make", "one_line", "signature"]


def extend_path(folders: Sequence[str]) -> None:
    """
    Let modules be found in these folders first.

    :raises ConfigError: if one is not there.
    """
    for folder in reversed(folders):
        path = Path(folder).absolute()
        if not path.is_dir():
            raise ConfigError(f"{folder}: there is no such folder")
        if str(path) not in sys.path:
            sys.path.insert(0, str(path))


def is_module(name: str) -> bool:
    """Whether it is the name of a module that can be imported, one file in a folder of the path, say."""
    try:
        return name.isidentifier() and importlib.util.find_spec(name) is not None
    except ValueError:
        # A program that was started as a script is a module without a spec.
        return False


def find(module_name: str, name: str) -> Any:
    """
    What a name in a module stands for.

    :param name: may have dots.
    :raises ConfigError: when there is no such module, importing it fails, or it has no such name.
    """
    try:
        found: Any = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(f"{error}; --python-path DIR adds a folder to look in") from None
    except Exception as error:
        raise ConfigError(f"importing {module_name} failed: {one_line(error)}") from error
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            names = [one for one in vars(found) if not one.startswith("_")]
            raise ConfigError(f"{module_name} has no {name}{nearest(part, names)}") from None
    return found


def make(maker: Any, arguments: Sequence[Any], named: Mapping[str, object], usage: str) -> Any:
    """
    Call a class or a function.

    :param usage: how its string is written, for who has given it the wrong arguments.
    :raises ConfigError: when they don't fit, or the call fails.
    """
    try:
        # Asked beforehand: a TypeError out of the call itself could as well be a mistake inside.
        inspect.signature(maker).bind(*arguments, **named)
    except TypeError as error:
        raise ConfigError(f"{error}; it is written {usage}") from None
    except ValueError:
        # What is written in C may have no signature to be asked.
        pass
    try:
        return maker(*arguments, **named)
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(one_line(error)) from error


def signature(maker: Any) -> str:
    """What it takes, as Python writes it; empty where that is not known."""
    try:
        return str(inspect.signature(maker))
    except (TypeError, ValueError):
        return ""


def one_line(error: Exception) -> str:
    """The error in one line, with its class unless the text is meant for the operator."""
    text = " ".join(str(error).split())
    if isinstance(error, (OSError, ValueError)) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
