"""
Parameters of MAIL and RCPT: how each is read, written, and asked for.

A :class:`Parameter` is declaration, parser, formatter, default and the typed
key at once: ``options[SIZE]`` is an ``int`` to the type checker. Extensions
declare them; nothing in here knows an extension by name, except that
:class:`Options` has one-line properties for the five that every mail program
asks for. That set is closed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Generic, TypeVar

from smtpfw.errors import SyntaxProblem, UnknownParameter

T = TypeVar("T")


class Parameter(Generic[T]):
    """
    One parameter of MAIL or RCPT.

    :param keyword: as it is written, in capitals.
    :param parse: from the text behind the ``=`` (None when there is no ``=``) to the value; raises ValueError with
        what would be right.
    :param format: the twin of ``parse``.
    :param default: the value when the client did not give the parameter.
    """

    __slots__ = ("choices", "default", "format", "keyword", "parse")

    def __init__(
        self,
        keyword: str,
        *,
        parse: Callable[[str | None], T],
        format: Callable[[T], str | None],
        default: T,
    ) -> None:
        self.keyword = keyword
        self.parse = parse
        self.format = format
        self.default = default
        #: The words of :meth:`choice`; empty for other parameters.
        self.choices: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Parameter {self.keyword}>"

    @staticmethod
    def flag(keyword: str) -> Parameter[bool]:
        """A parameter without a value: there or not."""

        def parse(text: str | None) -> bool:
            if text is not None:
                raise ValueError("takes no value")
            return True

        return Parameter(keyword, parse=parse, format=lambda value: None, default=False)

    @staticmethod
    def choice(keyword: str, *choices: str, default: str) -> Parameter[str]:
        """
        A parameter whose value is one of some words, in any case.

        When several extensions declare the same keyword, a listener takes the words of all of them: so
        BINARYMIME adds its word to the BODY of 8BITMIME.
        """

        def parse(text: str | None) -> str:
            # Some letters become ASCII when they are made capitals (U+0131, U+017F): they are not the word.
            value = text.upper() if text is not None and text.isascii() else ""
            if value not in choices:
                raise ValueError(f"must be one of {', '.join(choices)}")
            return value

        parameter = Parameter(keyword, parse=parse, format=str, default=default)
        parameter.choices = choices
        return parameter


class Options:
    """The parameters that a client gives with one MAIL or RCPT. Treat it as immutable."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        self._values: Mapping[str, Any] = values or {}

    def __getitem__(self, parameter: Parameter[T]) -> T:
        """The value of a parameter, or its default."""
        value: T = self._values.get(parameter.keyword, parameter.default)
        return value

    def __contains__(self, parameter: Parameter[Any]) -> bool:
        """Whether the client gave it."""
        return parameter.keyword in self._values

    def __bool__(self) -> bool:
        return bool(self._values)

    @classmethod
    def of(cls, values: Mapping[Parameter[Any], Any]) -> Options:
        """Make them from ``{SIZE: 1000}``."""
        return cls({parameter.keyword: value for parameter, value in values.items()}) if values else NO_OPTIONS

    def items(self) -> Iterable[tuple[str, Any]]:
        """Keywords and values of all that were given."""
        return self._values.items()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Options) and self._values == other._values

    def __hash__(self) -> int:
        return hash(tuple(sorted(self._values)))

    def __repr__(self) -> str:
        return f"Options({dict(self._values)!r})"

    @property
    def body(self) -> str:
        """BODY: ``7BIT``, ``8BITMIME`` or ``BINARYMIME``; ``7BIT`` when not given (RFC 6152 section 3)."""
        value: str = self._values.get("BODY", "7BIT")
        return value

    @property
    def size(self) -> int:
        """SIZE in octets as the client declared it; 0 when it did not (RFC 1870)."""
        value: int = self._values.get("SIZE", 0)
        return value

    @property
    def require_tls(self) -> bool:
        """Whether REQUIRETLS was given (RFC 8689)."""
        value: bool = self._values.get("REQUIRETLS", False)
        return value

    @property
    def utf8(self) -> bool:
        """Whether SMTPUTF8 was given (RFC 6531)."""
        value: bool = self._values.get("SMTPUTF8", False)
        return value

    @property
    def auth(self) -> Any:
        """AUTH: None when not given, else an Address, false for ``<>`` (RFC 4954 section 5)."""
        return self._values.get("AUTH")


#: Characters of an unknown keyword that go back to the peer.
MAX_KEYWORD_SHOWN = 32

#: What a command without parameters has; one object for all of them.
NO_OPTIONS = Options()


def parse_options(raw: Mapping[str, str | None], known: Mapping[str, Parameter[Any]]) -> Options:
    """
    Turn raw parameters into values.

    :param raw: keyword in capitals -> text or None, as :mod:`smtpfw.wire.commands` reads them.
    :param known: the parameters that are offered on this connection, by keyword.
    :raises SMTPError: 555 5.5.4 for an unknown parameter, 501 5.5.4 for a bad value.
    """
    if not raw:
        return NO_OPTIONS
    values: dict[str, Any] = {}
    for keyword, text in raw.items():
        parameter = known.get(keyword)
        if parameter is None:
            raise UnknownParameter(f"{keyword[:MAX_KEYWORD_SHOWN]} is not recognized or not offered here")
        try:
            values[keyword] = parameter.parse(text)
        except ValueError as error:
            raise SyntaxProblem(f"{keyword} {error}") from None
    return Options(values)
