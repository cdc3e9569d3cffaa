"""
Who may authenticate: from a string to the AUTH of a listener.

``htpasswd:PATH`` is a file of users of our own. A word with a dot before the
first colon is a Python name, ``myapp.users:check``: a plain or async function
of name and password, or an object that is a checker. Anything else is a
checker of twisted.cred, looked up as Twisted's strcred does: ``file:PATH``,
``memory:tim:secret``, and those that are installed.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from twisted.cred import strcred
from twisted.cred.credentials import IUsernamePassword

from smtpfw.config.settings import nearest
from smtpfw.errors import ConfigError
from smtpfw.extensions import Auth
from smtpfw.sasl import STANDARD
from smtpfw.sasl.checkers import CredChecker, FunctionChecker
from smtpfw.sasl.users import UsersFile

__all__ = ["auth_from_string", "checker_from_string"]

_USERS_FILE = "htpasswd"


def auth_from_string(text: str, *, required: bool = False, allow_insecure: bool = False) -> Auth:
    """
    Make the AUTH that a string describes.

    :raises ConfigError: one line that names the string and says what to do.
    """
    checker = checker_from_string(text)
    if not any(need.providedBy(checker) for mechanism in STANDARD for need in mechanism.needs):
        raise ConfigError(f"--auth {text}: {type(checker).__name__} is neither a function nor a checker")
    return Auth(checker, required=required, allow_insecure=allow_insecure)


def checker_from_string(text: str) -> Any:
    """
    Make what verifies the credentials.

    :raises ConfigError: as above.
    """
    prefix, _, rest = text.partition(":")
    if prefix == _USERS_FILE:
        return UsersFile(rest)
    if "." in prefix:
        return _python_checker(text, prefix, rest)
    usable = {
        factory.authType: factory
        for factory in strcred.findCheckerFactories()
        if IUsernamePassword in factory.credentialInterfaces
    }
    factory = usable.get(prefix)
    if factory is None:
        known = sorted([*usable, _USERS_FILE])
        raise ConfigError(
            f"--auth {text}: unknown kind {prefix!r}{nearest(prefix, known)} (known are {', '.join(known)}; "
            "your own is package.module:function)"
        )
    if prefix == "file" and not Path(rest).is_file():
        # Its checker would find out at the first login.
        raise ConfigError(f"--auth {text}: there is no such file")
    try:
        return CredChecker([factory.generateChecker(rest)])
    except Exception as error:
        words = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"--auth {prefix}: {words}; it is written {prefix}:{factory.argStringFormat}") from None


def _python_checker(text: str, module_name: str, name: str) -> Any:
    try:
        found: Any = importlib.import_module(module_name)
        for part in name.split("."):
            found = getattr(found, part)
    except ImportError as error:
        raise ConfigError(f"--auth {text}: {error}; --python-path DIR adds a folder to look in") from None
    except AttributeError:
        raise ConfigError(f"--auth {text}: {module_name} has no {name}") from None
    if any(need.providedBy(found) for mechanism in STANDARD for need in mechanism.needs):
        return found
    return FunctionChecker(found) if callable(found) else found
