"""
The reference of the configuration file, in Markdown, made of :mod:`smtpfw.config.schema` and the table of settings.

``python -m smtpfw.config.reference docs/configuration.md`` writes it anew between
the two marks of that page.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from smtpfw.config.schema import TABLES, TableSchema
from smtpfw.config.settings import BY_NAME, FLAG

__all__ = ["BEGIN", "END", "reference", "with_reference"]

BEGIN = "<!-- made by python -m smtpfw.config.reference: begin -->\n"
END = "<!-- made by python -m smtpfw.config.reference: end -->\n"

_TOP = "At the top, above the first table"
_HEADER = "| key | as in | default | meaning |\n|---|---|---|---|\n"


def reference() -> str:
    """A section for each table, with a row for each key: an example of its value, its default, what it means."""
    return "\n".join(_section(table) for table in TABLES)


def with_reference(page: str) -> str:
    """
    A page, with the reference as it is now.

    :raises ValueError: if it has not the two marks.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, behind = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the page has no lines {BEGIN!r} and {END!r}")
    return f"{before}{begin}\n{reference()}\n{end}{behind}"


def _section(table: TableSchema) -> str:
    title = f"`[{table.title}]`" if table.title else _TOP
    return f"### {title}\n\n{_HEADER}" + "".join(f"| {' | '.join(row)} |\n" for row in _rows(table))


def _rows(table: TableSchema) -> Iterator[tuple[str, str, str, str]]:
    for key, other in table.others.items():
        yield f"`{key}`", f"`{other.example}`", "", other.help
    for key, name in table.settings.items():
        setting = BY_NAME[name]
        example = f"[{setting.kind.example}]" if setting.repeatable else setting.kind.example
        default = setting.describe_default()
        if setting.kind is FLAG:
            default = "`true`" if table.defaults.get(key) else "`false`"
        yield (
            f"`{key}`",
            f"`{example}`",
            default,
            f"{setting.help.removesuffix('. May be repeated')}; `--{setting.option}`",
        )


def main(path: str) -> None:
    """Write the reference into a page."""
    page = Path(path)
    page.write_text(with_reference(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
