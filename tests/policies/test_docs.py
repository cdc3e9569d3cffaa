"""The page on checks, held against what is there."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.names.error import DNSServerError

from smtpfw.check import STAGES, Check
from smtpfw.config.checks import BUILT_IN, check_from_string
from smtpfw.policies import Greylist
from smtpfw.session import overridden
from tests.dns.fake_dns import FakeResolver, listed
from tests.policies.fakes import connect, connection
from tests.running import ROOT
from tests.test_readme import blocks, commands, table

PAGE = ROOT / "docs" / "policies.md"

ROWS = table(PAGE, "string", "asked at", "who is refused", "with")
METHODS = {"connect": "connect", "MAIL": "mail", "RCPT": "rcpt", "the end of the message": "message"}


def test_every_check_is_in_the_table() -> None:
    strings = [row[0].strip("`") for row in ROWS]
    assert {text.partition(":")[0] for text in strings} == {*BUILT_IN, "package.module"}


@pytest.mark.parametrize("row", ROWS[:-1], ids=lambda row: str(row[0]))
def test_every_string_makes_a_check_that_is_asked_then(row: list[str]) -> None:
    check = check_from_string(row[0].strip("`"), Clock())
    assert overridden(check, METHODS[row[1]], Check) is not None


def test_every_method_is_told() -> None:
    told = [row[0].strip("`").partition("(")[0] for row in table(PAGE, "method", "when")]
    assert told == [*STAGES, "disconnected"]
    assert all(hasattr(Check, name) for name in told)


def test_the_command_line_is_understood() -> None:
    (line,) = commands(PAGE)
    words = line.split()
    for option, value in pairwise(words):
        if option == "--checks":
            check_from_string(value, Clock())
    assert line.count("--checks") == 3


def test_the_lists_are_understood() -> None:
    strings = [line for block in blocks(PAGE, "text") for line in block.splitlines() if line.startswith("dnsbl:")]
    assert len([check_from_string(text, Clock()) for text in strings]) == 3


def test_what_the_page_asks_of_a_greylist(tmp_path: Path) -> None:
    check = Greylist(tmp_path / "greylist.db")
    check._store.ask("192.0.2.0/24", "a@b.test", "c@d.test", 0.0)
    (question,) = re.findall(r'sqlite3 greylist.db "(select [^"]+)"', PAGE.read_text())
    (update,) = re.findall(r'sqlite3 greylist.db "(update [^"]+)"', PAGE.read_text())
    with closing(sqlite3.connect(tmp_path / "greylist.db")) as connection, connection:
        assert connection.execute(question).fetchall() == [("a@b.test", "c@d.test", 0, "1970-01-01 00:00:00")]
        connection.execute(update)
    assert check._store.ask("192.0.2.0/24", "a@b.test", "c@d.test", 1.0) == 0
    check._store.close()


#: Those that make a check, or several; the last one is a test of one.
MAKE_CHECKS = [block for block in blocks(PAGE, "python")[:-1] if "class " not in block]


@pytest.mark.parametrize("block", MAKE_CHECKS, ids=range(len(MAKE_CHECKS)))
def test_the_code_runs(block: str) -> None:
    names: dict[str, Any] = {"reactor": Clock(), "SMTPServerFactory": lambda *args, checks: checks}
    names |= {"backend": None, "config": None}
    exec(block, names)
    assert all(isinstance(check, Check) for check in names.get("factory", [names.get("check")]))


def test_the_test_passes() -> None:
    names: dict[str, Any] = {}
    exec(blocks(PAGE, "python")[-1], names)
    names["test_one_message_a_minute"]()


def test_the_check_that_asks_dns() -> None:
    (program,) = (block for block in blocks(PAGE, "python") if "class " in block)
    names: dict[str, Any] = {}
    exec(program, names)
    answers = listed(("partners.example.org", "192.0.2.1"))
    for host, known, answer in (
        ("192.0.2.1", answers, ""),
        ("192.0.2.2", answers, "554 5.7.1 We don't know you"),
        ("192.0.2.1", {"partners.example.org": DNSServerError()}, "421 4.7.1 Come back later"),
    ):
        client = connection(host, resolver=FakeResolver(known))
        assert connect(names["OnlyPartners"](), client) == answer
