"""The reference in the page on configuration is made of the schema, and the examples of the page are understood."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from smtpfw.config.file import tree_of_file
from smtpfw.config.places import Problems
from smtpfw.config.reference import main, reference, with_reference
from smtpfw.config.schema import ROUTE, TABLES
from smtpfw.config.settings import BY_NAME
from smtpfw.config.toml import TOMLFile
from tests.running import ROOT

PATH = ROOT / "docs" / "configuration.md"
PAGE = PATH.read_text()
EXAMPLES = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_page_is_up_to_date() -> None:
    assert with_reference(PAGE) == PAGE, "run python -m smtpfw.config.reference docs/configuration.md"


def test_it_is_written_into_a_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE.replace(reference(), "old\n"))
    assert page.read_text() != PAGE
    main(str(page))
    assert page.read_text() == PAGE
    with pytest.raises(ValueError, match="the page has no lines"):
        with_reference("no marks")


def test_it_has_each_key_and_a_table_that_is_one() -> None:
    rows = [line for line in reference().splitlines() if line.startswith("| `")]
    keys = [key for table in TABLES for key in (*table.others, *table.settings)]
    assert [row.split("`")[1] for row in rows] == keys
    assert all(len(row.split(" | ")) == 4 for row in rows)
    for table in TABLES:
        assert all(f"`--{BY_NAME[name].option}`" in reference() for name in table.settings.values())


def test_the_examples_of_routes_are_routes() -> None:
    values = ", ".join(f"{key} = {ROUTE.others[key].example}" for key in ("to", "login", "network", "deliver"))
    routes = (
        f"{{ {values} }}, {{ to = '*', reject = {ROUTE.others['reject'].example} }}, {{ to = '*', discard = true }}"
    )
    problems = Problems()
    tree = tree_of_file(TOMLFile("x", f"[listen.mx]\non = 'tcp:25'\nroutes = [ {routes} ]"), problems)
    problems.check()
    assert len(tree.listen[0].routes or ()) == 3


@pytest.mark.parametrize("text", EXAMPLES)
def test_the_examples_of_the_page(text: str) -> None:
    if text.startswith(("routes", "auth")):
        text = f"[listen.mx]\n{text}"
    if "[listen" in text and "on " not in text:
        text = text.replace("[listen.mx]", "[listen.mx]\non = 'tcp:25'")
    if "routes" not in text:
        text += "routes = [ { to = '*', deliver = 'local' } ]\n"
    assert tomllib.loads(text)
    problems = Problems()
    tree_of_file(TOMLFile("x", text), problems)
    problems.check()


def test_the_page_names_all_tables() -> None:
    assert len(EXAMPLES) >= 4
    for table in TABLES:
        assert f"### `[{table.title}]`\n" in PAGE or not table.title
