"""
Who may authenticate, and how: from strings to the AUTH of a listener.

``htpasswd:PATH`` is a file of users of our own. ``certificate`` lets in
whomever a verified certificate names. ``session`` leaves it to the backend's
sessions. Other words are plugins that are installed; checkers of twisted.cred
are among them, as Twisted's strcred has them: ``file:PATH``,
``memory:tim:secret``. A module before the first colon makes it a Python name,
``myapp.users:check``: a plain or async function of name and password, an object
that is a checker, or a class of such.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from twisted.cred.credentials import IUsernamePassword
from twisted.cred.strcred import ICheckerFactory
from zope.interface.interface import InterfaceClass

from smtpfw import installed
from smtpfw.config import arguments, names
from smtpfw.config.catalogue import Catalogue, maker_of
from smtpfw.config.settings import nearest
from smtpfw.config.strings import parse_description
from smtpfw.errors import ConfigError
from smtpfw.extensions import Auth
from smtpfw.plugins import AuthPlugin, IAuthPlugin
from smtpfw.sasl import STANDARD, CertificateChecker, ICertificateChecker, ISASLServerFactory
from smtpfw.sasl.checkers import CredChecker, FunctionChecker
from smtpfw.sasl.users import UsersFile

__all__ = ["AUTH", "auth_from_string", "checker_from_string", "mechanisms_from_string", "without_secrets"]

_SESSION = "session"


def _make_users_file(path: str = "") -> UsersFile:
    if not path:
        raise ConfigError("it is written htpasswd:PATH")
    return UsersFile(path)


_OURS = (
    AuthPlugin(
        "htpasswd",
        _make_users_file,
        help="A file of users of our own, read again when it changes.",
        parameters={"path": "text"},
        positional=("path",),
    ),
    AuthPlugin("certificate", CertificateChecker, help="Whomever a verified client certificate names."),
    AuthPlugin(_SESSION, lambda: None, help="The backend's sessions verify users themselves."),
)


def _checkers_of_cred(package: ModuleType | None) -> Iterator[installed.Claim]:
    """Those that strcred would find and that take a password."""
    for factory, origin in installed.twisted_plugins(ICheckerFactory, package):
        if IUsernamePassword in factory.credentialInterfaces:
            plugin = _plugin_of_cred(factory)
            yield installed.of_twisted(plugin.name, plugin, origin)


def _plugin_of_cred(factory: Any) -> AuthPlugin:
    def make(text: str) -> CredChecker:
        if factory.authType == "file" and not Path(text).is_file():
            # Its checker would find out at the first login.
            raise ConfigError("there is no such file")
        try:
            return CredChecker([factory.generateChecker(text)])
        except Exception as error:
            words = " ".join(str(error).split()) or type(error).__name__
            raise ConfigError(f"{words}; it is written {factory.authType}:{factory.argStringFormat}") from None

    words = " ".join(factory.argStringFormat.split())
    return AuthPlugin(
        factory.authType,
        make,
        help=f"A checker of twisted.cred. Behind the colon: {words}",
        usage=f"{factory.authType}:...",
        raw=True,
    )


AUTH = Catalogue("kind", "smtpfw.auth", IAuthPlugin, AuthPlugin, _OURS, own="module:function", others=_checkers_of_cred)


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
    checker = checker_from_string(text, mechanisms)
    if text == _SESSION:
        return Auth(None, mechanisms=mechanisms, required=required, allow_insecure=allow_insecure)
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
    return text if prefix in AUTH.built_in or prefix == "file" else AUTH.without_arguments(text)


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
    :return: None for the sessions of the backend.
    :raises ConfigError: as above.
    """
    prefix, _, rest = text.partition(":")
    found = AUTH.plugin(prefix)
    if found is not None and found.raw:
        return _checker(found, (rest,), {}, mechanisms)
    description = parse_description(text)
    plugin, positional = AUTH.find(description.prefix, description.positional)
    return _checker(plugin, *arguments.read_string(plugin, positional, description.named), mechanisms)


def _checker(
    plugin: AuthPlugin, positional: Sequence[str], named: Mapping[str, Any], mechanisms: Iterable[ISASLServerFactory]
) -> Any:
    found = maker_of(plugin)
    if plugin.parameters is None and not isinstance(found, type):
        if positional or named:
            raise ConfigError(f"{plugin.name} takes no arguments; a class, or a plugin, could")
    else:
        found = names.make(found, positional, named, plugin.usage)
    if not _needs_of(found, (*STANDARD, *mechanisms)) and callable(found):
        return FunctionChecker(found)
    return found


def _needs_of(checker: Any, mechanisms: Iterable[ISASLServerFactory]) -> set[InterfaceClass]:
    """The interfaces for which these mechanisms can work with a checker."""
    return {need for mechanism in mechanisms for need in mechanism.needs if need.providedBy(checker)}
