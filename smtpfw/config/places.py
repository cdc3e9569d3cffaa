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
        shown = value if value.isprintable() else repr(value)
        # What others raise may have several lines, and a line here is a mistake.
        words = " ".join(str(problem).split("\n"))
        return ConfigError(f"{self} {shown}: {words}" if value else f"{self}: {words}")


class Problems:
    """
    Collects errors, and warnings: what is served all the same, and most likely not meant.
    """

    def __init__(self) -> None:
        self._errors: list[tuple[int, str]] = []
        self._warnings: list[tuple[int, str]] = []

    def add(self, place: Place, problem: object, value: str = "") -> None:
        """Note an error."""
        self._errors.append((place.line, str(place.error(problem, value))))

    def warn(self, place: Place, problem: object, value: str = "") -> None:
        """Note a warning."""
        self._warnings.append((place.line, str(place.error(problem, value))))

    @property
    def warnings(self) -> tuple[str, ...]:
        """A line for each, in the order of the lines of the file."""
        return _in_order(self._warnings)

    @contextmanager
    def at(self, place: Place, value: str = "") -> Iterator[None]:
        """Note a ValueError, OSError or ConfigError that comes of what is done here, and go on behind it."""
        try:
            yield
        except OSError as error:
            # Its own text would repeat a path, of any length.
            self.add(place, (error.strerror or str(error)).lower(), value)
        except (ValueError, ConfigError) as error:
            self.add(place, error, value)

    def __bool__(self) -> bool:
        return bool(self._errors)

    def __len__(self) -> int:
        return len(self._errors)

    def check(self) -> None:
        """
        Go on only if there was none.

        :raises ConfigError: a line for each, in the order of the lines of the file.
        """
        if self._errors:
            raise ConfigError("\n".join(_in_order(self._errors)))


def _in_order(lines: list[tuple[int, str]]) -> tuple[str, ...]:
    # What all listeners have in common is looked at for each of them, and told once.
    return tuple(dict.fromkeys(line for _, line in sorted(lines, key=lambda one: one[0])))
