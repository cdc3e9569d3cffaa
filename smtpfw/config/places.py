"""
Where an operator wrote something, and all that is wrong there.

Rule: an error names the option, or file, line and key; and an operator hears of
all of them at once, not of one after each correction.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from smtpfw.errors import ConfigError

__all__ = ["Place", "Problems"]


@dataclass(frozen=True, slots=True)
class Place:
    """
    An option, or a key in a file.

    :ivar key: ``--tls``, or ``listen.mx.tls``; empty for a whole file.
    :ivar file: empty for the command line.
    :ivar line: in the file, from 1.
    """

    key: str
    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        if not self.file:
            return self.key
        return f"{self.file}:{self.line}: {self.key}" if self.key else f"{self.file}:{self.line}"

    def within(self, key: str) -> Place:
        """A part of it that has no line of its own."""
        return Place(f"{self.key}.{key}" if self.key else key, self.file, self.line)

    def error(self, problem: object, value: str = "") -> ConfigError:
        """
        What is wrong here, in one line.

        :param value: as the operator wrote it, where that helps.
        """
        return ConfigError(f"{self} {value}: {problem}" if value else f"{self}: {problem}")


class Problems:
    """Collects errors."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, place: Place, problem: object, value: str = "") -> None:
        """Note one."""
        self._lines.append(str(place.error(problem, value)))

    @contextmanager
    def at(self, place: Place, value: str = "") -> Iterator[None]:
        """Note a ValueError or a ConfigError that comes of what is done here, and go on behind it."""
        try:
            yield
        except (ValueError, ConfigError) as error:
            self.add(place, error, value)

    def __bool__(self) -> bool:
        return bool(self._lines)

    def check(self) -> None:
        """
        Go on only if there was none.

        :raises ConfigError: a line for each.
        """
        if self._lines:
            raise ConfigError("\n".join(dict.fromkeys(self._lines)))
