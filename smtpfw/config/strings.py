"""
The grammar of endpoint strings, which backend strings share.

``:`` separates arguments, the first ``=`` in an argument makes it a named one,
a backslash takes the next character as it is. These are the rules of
:func:`twisted.internet.endpoints.serverFromString`, so that nobody learns two.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from smtpfw.errors import ConfigError

__all__ = ["Description", "parse_description", "quote", "split_words"]


@dataclass(frozen=True, slots=True)
class Description:
    """
    One string, taken apart.

    :ivar text: the string as it was given.
    :ivar prefix: what stands before the first colon.
    :ivar positional: the arguments without a name, in their order.
    :ivar named: the others.
    """

    text: str
    prefix: str
    positional: tuple[str, ...] = ()
    named: dict[str, str] = field(default_factory=dict)


def parse_description(text: str) -> Description:
    """
    Take ``prefix:argument:name=value`` apart.

    :raises ConfigError: when the string ends in a lone backslash, or gives a name twice.
    """
    positional: list[str] = []
    named: dict[str, str] = {}
    for pieces in _arguments(text, equals=True):
        if len(pieces) == 1:
            positional.append(pieces[0])
        elif pieces[0] in named:
            raise ConfigError(f"{pieces[0]}= is given twice")
        else:
            named[pieces[0]] = pieces[1]
    # A first word with an equals sign in it is a name, not a prefix; whoever looks up the empty prefix says so.
    prefix, *rest = positional or [""]
    return Description(text, prefix, tuple(rest), named)


def split_words(text: str) -> list[str]:
    """
    Split at the colons that have no backslash before them; equals signs are ordinary.

    :raises ConfigError: when the string ends in a lone backslash.
    """
    return [pieces[0] for pieces in _arguments(text, equals=False)]


def quote(text: str) -> str:
    """Write a text so that it is read back as one argument, whatever it holds."""
    return "".join("\\" + char if char in "\\:=" else char for char in text)


def _arguments(text: str, *, equals: bool) -> list[list[str]]:
    arguments = [[""]]
    chars = iter(text)
    for char in chars:
        if char == ":":
            arguments.append([""])
        elif char == "=" and equals and len(arguments[-1]) == 1:
            arguments[-1].append("")
        elif char == "\\":
            try:
                arguments[-1][-1] += next(chars)
            except StopIteration:
                raise ConfigError("a backslash at the end quotes nothing; write two for one") from None
        else:
            arguments[-1][-1] += char
    return arguments
