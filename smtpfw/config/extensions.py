"""
The extensions of a listener: the standard ones, without what the operator leaves out, and with what he adds.

``-DSN`` leaves one out. ``XTHING`` adds one that is installed,
``myapp.words:Weather`` one by its Python name, and ``LIMITS:max_transactions=100``
replaces a standard one by the same with other arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from smtpfw.config import arguments, names
from smtpfw.config.catalogue import Catalogue, maker_of
from smtpfw.config.places import Problems
from smtpfw.config.settings import nearest
from smtpfw.config.strings import parse_description
from smtpfw.config.tree import Text
from smtpfw.errors import ConfigError
from smtpfw.extensions import STANDARD
from smtpfw.plugins import ExtensionPlugin, IExtensionPlugin
from smtpfw.wire.dialect import Extension
from smtpfw.wire.verbs import compile_dialect

__all__ = ["EXTENSIONS", "LEAVE_OUT", "extension_from_string", "extensions_of"]

#: Stands before a keyword that is not to be offered.
LEAVE_OUT = "-"

#: What the standard ones do. AUTH is not among them: it comes with users.
_HELP = {
    "PIPELINING": "Commands may be sent without waiting for replies (RFC 2920).",
    "SIZE": "The largest message is told, and MAIL may say how large one is (RFC 1870).",
    "8BITMIME": "Bodies may have octets above 127 (RFC 6152).",
    "ENHANCEDSTATUSCODES": "Replies have codes such as 5.1.1 (RFC 2034).",
    "SMTPUTF8": "Addresses may be in UTF-8 (RFC 6531).",
    "CHUNKING": "BDAT (RFC 3030).",
    "BINARYMIME": "Bodies of any octets, by BDAT (RFC 3030).",
    "DSN": "Delivery notifications, where the backend honours them (RFC 3461).",
    "REQUIRETLS": "Verified TLS on every hop, where the backend honours it (RFC 8689).",
    "DELIVERBY": "Returned or told of if late, where the backend honours it (RFC 2852).",
    "MT-PRIORITY": "What is urgent first, where the backend honours it (RFC 6710).",
    "RRVS": "Only to who had the address then, where the backend honours it (RFC 7293).",
    "FUTURERELEASE": "Held until later, where the backend honours it (RFC 4865).",
    "LIMITS": "Tells how much one message and one connection may have (RFC 9422).",
    "STARTTLS": "TLS, where there is a certificate (RFC 3207).",
}
#: Extensions that are more than a name: keyword -> what they come with.
_BY_SETTING = {"AUTH": "auth, --auth", "XCLIENT": "xclient, --xclient"}
#: Those that take arguments: the name of each -> its kind.
_PARAMETERS = {
    "DELIVERBY": {"min_by_time": "duration"},
    "MT-PRIORITY": {"profile": "text", "trusted": "networks"},
    "FUTURERELEASE": {"max_interval": "duration"},
    "LIMITS": {"max_transactions": "count", "max_recipient_domains": "count"},
}


def _ours(extension: Extension) -> ExtensionPlugin:
    keyword = extension.keyword
    parameters = _PARAMETERS.get(keyword, {})
    make: Any = type(extension) if parameters else lambda: extension
    return ExtensionPlugin(keyword, make, help=_HELP[keyword], parameters=parameters)


EXTENSIONS = Catalogue(
    "extension",
    "smtpfw.extensions",
    IExtensionPlugin,
    ExtensionPlugin,
    [_ours(extension) for extension in STANDARD],
    fold=lambda word: word if "." in word else word.upper(),
)


def extension_from_string(text: str) -> Extension:
    """
    Make the extension that a string describes.

    :raises ConfigError: one line that says what to do.
    """
    description = parse_description(text)
    elsewhere = _BY_SETTING.get(description.prefix.upper())
    if elsewhere:
        raise ConfigError(f"it comes with {elsewhere}")
    plugin, rest = EXTENSIONS.find(description.prefix, description.positional)
    positional, named = arguments.read_string(plugin, rest, description.named)
    found: Any = maker_of(plugin)
    if isinstance(found, Extension):
        if positional or named:
            raise ConfigError(f"{plugin.name} is an extension already, and takes no arguments")
        return found
    if not callable(found):
        raise ConfigError(f"{type(found).__name__} is neither a class nor a function nor an extension")
    made = names.make(found, positional, named, plugin.usage)
    if not isinstance(made, Extension):
        raise ConfigError(f"{type(made).__name__} is no extension; subclass smtpfw.wire.dialect.Extension")
    return made


def extensions_of(texts: Sequence[Text], protocol: str, problems: Problems) -> tuple[Extension, ...]:
    """
    The extensions of a listener, but for AUTH.

    :param texts: what the operator has written.
    :param protocol: ``smtp`` or ``lmtp``.
    """
    if not texts:
        return STANDARD
    chosen = {extension.keyword: extension for extension in STANDARD}
    said: set[str] = set()
    left_out = [text for text in texts if text.text.startswith(LEAVE_OUT)]
    for text in (text for text in texts if text not in left_out):
        with problems.at(text.place, text.text):
            extension = extension_from_string(text.text)
            if extension.keyword in said:
                raise ConfigError(f"{extension.keyword} stands there twice")
            said.add(extension.keyword)
            chosen[extension.keyword] = extension
    for text in left_out:
        keyword = _keyword(text)
        if keyword in said:
            problems.add(text.place, f"{keyword} is named with and without {LEAVE_OUT}", text.text)
        elif chosen.pop(keyword, None) is None:
            problems.add(text.place, f"there is no extension {keyword}{nearest(keyword, chosen)}", text.text)
    for text in left_out:
        for extension in chosen.values():
            if _keyword(text) in extension.needs:
                problems.add(text.place, f"{extension.keyword} needs {_keyword(text)}; leave that out, too", text.text)
                return STANDARD
    with problems.at(texts[0].place):
        compile_dialect(chosen.values(), protocol)
    return tuple(chosen.values())


def _keyword(text: Text) -> str:
    return text.text.removeprefix(LEAVE_OUT).upper()
