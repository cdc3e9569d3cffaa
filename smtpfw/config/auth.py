"""
Who may authenticate, and how: from strings to the AUTH of a listener.

``htpasswd:PATH`` is a file of users of our own. ``certificate`` lets in
whomever a verified certificate names. ``session`` leaves it to the backend's
sessions. A module before the first colon makes it a Python name,
``myapp.users:check``: a plain or async function of name and password, or an
object that is a checker. Anything else is a checker of twisted.cred, looked up
as Twisted's strcred does: ``file:PATH``, ``memory:tim:secret``, and those that
are installed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from twisted.cred import strcred
from twisted.cred.credentials import IUsernamePassword
from zope.interface.interface import InterfaceClass

from smtpfw.config import names
from smtpfw.config.settings import nearest
from smtpfw.errors import ConfigError
from smtpfw.extensions import Auth
from smtpfw.sasl import STANDARD, CertificateChecker, ICertificateChecker, ISASLServerFactory
from smtpfw.sasl.checkers import CredChecker, FunctionChecker
from smtpfw.sasl.users import UsersFile

__all__ = ["auth_from_string", "checker_from_string", "mechanisms_from_string", "without_secrets"]

_USERS_FILE, _CERTIFICATE, _SESSION = "htpasswd", "certificate", "session"


def auth_from_string(
    text: str,
    *,
    mechanisms: Iterable[ISASLServerFactory] = STANDARD,
    required: bool = False,
    allow_insecure: bool = False,
    client_certificates: bool = True,
) -> Auth:
    """
    Make the AUTH that a string describes.

    :param mechanisms: what may be offered, the best first, as :func:`mechanisms_from_string` gives it.
    :param client_certificates: whether clients are asked for certificates at all.
    :raises ConfigError: one line that says what to do.
    """
    mechanisms = tuple(mechanisms)
    if text == _SESSION:
        return Auth(None, mechanisms=mechanisms, required=required, allow_insecure=allow_insecure)
    checker = checker_from_string(text, mechanisms)
    if not _needs_of(checker, (*STANDARD, *mechanisms)):
        raise ConfigError(f"{type(checker).__name__} is neither a function nor a checker")
    needs = _needs_of(checker, mechanisms)
    if not needs:
        wanted = " ".join(mechanism.name for mechanism in mechanisms)
        raise ConfigError(f"it can verify none of the mechanisms {wanted}")
    if needs == {ICertificateChecker} and not client_certificates:
        raise ConfigError("no client is asked for a certificate; give client_ca, --client-ca FILE")
    return Auth(checker, mechanisms=mechanisms, required=required, allow_insecure=allow_insecure)


def without_secrets(text: str) -> str:
    """What may be shown of a string: of a kind that is not ours the arguments may be passwords."""
    prefix = text.partition(":")[0]
    return text if prefix in (_USERS_FILE, _CERTIFICATE, _SESSION, "file") or "." in prefix else prefix


def mechanisms_from_string(text: str, available: Mapping[str, ISASLServerFactory]) -> tuple[ISASLServerFactory, ...]:
    """
    Choose mechanisms: ``SCRAM-SHA-256 PLAIN``, the best first, in any case.

    :param available: by name, as :func:`smtpfw.sasl.plugins.available_mechanisms` gives it.
    :raises ConfigError: one line that names the word that is wrong.
    """
    chosen: dict[str, ISASLServerFactory] = {}
    for word in text.split():
        name = word.upper()
        if name not in available:
            raise ConfigError(
                f"unknown mechanism {word!r}{nearest(name, available)} (known are {', '.join(available)})"
            )
        if name in chosen:
            raise ConfigError(f"{name} stands there twice")
        chosen[name] = available[name]
    if not chosen:
        raise ConfigError("it is empty; name one or more, the best first")
    return tuple(chosen.values())


def checker_from_string(text: str, mechanisms: Iterable[ISASLServerFactory] = STANDARD) -> Any:
    """
    Make what verifies the credentials.

    :param mechanisms: an object that one of these can work with is a checker, not a function.
    :raises ConfigError: as above.
    """
    prefix, colon, rest = text.partition(":")
    if prefix == _USERS_FILE:
        if not rest:
            raise ConfigError(f"it is written {_USERS_FILE}:PATH")
        return UsersFile(rest)
    if prefix == _CERTIFICATE:
        if colon:
            raise ConfigError(f"it is written {_CERTIFICATE}, and takes nothing behind it")
        return CertificateChecker()
    if "." in prefix:
        return _python_checker(prefix, rest, mechanisms)
    usable = {
        factory.authType: factory
        for factory in strcred.findCheckerFactories()
        if IUsernamePassword in factory.credentialInterfaces
    }
    factory = usable.get(prefix)
    if factory is None and rest and names.is_module(prefix):
        return _python_checker(prefix, rest, mechanisms)
    if factory is None:
        known = sorted([*usable, _USERS_FILE, _CERTIFICATE, _SESSION])
        raise ConfigError(
            f"unknown kind {prefix!r}{nearest(prefix, known)} (known are {', '.join(known)}; "
            "your own is module:function; --python-path DIR adds a folder to look in)"
        )
    if prefix == "file" and not Path(rest).is_file():
        # Its checker would find out at the first login.
        raise ConfigError("there is no such file")
    try:
        return CredChecker([factory.generateChecker(rest)])
    except Exception as error:
        words = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"{words}; it is written {prefix}:{factory.argStringFormat}") from None


def _needs_of(checker: Any, mechanisms: Iterable[ISASLServerFactory]) -> set[InterfaceClass]:
    """The interfaces for which these mechanisms can work with a checker."""
    return {need for mechanism in mechanisms for need in mechanism.needs if need.providedBy(checker)}


def _python_checker(module_name: str, name: str, mechanisms: Iterable[ISASLServerFactory]) -> Any:
    found = names.find(module_name, name)
    if _needs_of(found, (*STANDARD, *mechanisms)):
        return found
    return FunctionChecker(found) if callable(found) else found
