"""
What the README and the pages of docs say, held against what is there: code, commands, options, tables, links.
"""

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.scripts.twistd import ServerOptions as TwistdOptions

from smtpfw import ServerConfig, Session, SessionBackend, SMTPServerFactory
from smtpfw.config.listing import LISTINGS
from smtpfw.config.settings import BY_NAME, SETTINGS, Setting
from smtpfw.extensions import STANDARD
from smtpfw.service import Options
from smtpfw.testing import MemoryClient
from smtpfw.wire.dialect import Extension
from smtpfw.wire.profiles import PROFILES
from tests.running import ROOT, Twistd

README = ROOT / "README.md"
OPERATING = ROOT / "docs" / "operating.md"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])

#: Options of pip, curl and swaks.
OF_OTHERS = {"--quiet", "--mail-from", "--mail-rcpt", "--server", "--from", "--to", "--stdin"}

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def blocks(page: Path, language: str) -> list[str]:
    return [text for found, text in _BLOCK.findall(page.read_text()) if found == language]


def commands(page: Path) -> list[str]:
    return [line for block in blocks(page, "") for line in block.splitlines()]


def table(page: Path, *header: str) -> list[list[str]]:
    """The cells of the table with this header, row by row."""
    head = f"| {' | '.join(header)} |\n|{'---|' * len(header)}\n"
    _, found, behind = page.read_text().partition(head)
    assert found, f"{page.name} has no table {header}"
    lines = behind.split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def namesake(setting: Setting) -> str:
    return f"--{setting.option}"


def test_the_backend_of_the_readme_is_the_example() -> None:
    source = (ROOT / "examples" / "inbox.py").read_text()
    docstring = ast.parse(source).body[0]
    code = "".join(source.splitlines(keepends=True)[docstring.end_lineno :]).lstrip("\n")
    assert blocks(README, "python")[0] == code
    assert len(code.splitlines()) <= 15


def test_the_command_behind_it_is_the_one_of_the_example() -> None:
    docstring = ast.get_docstring(ast.parse((ROOT / "examples" / "inbox.py").read_text())) or ""
    assert commands(README)[0] == docstring.splitlines()[-1].strip()


def test_set_up_and_run_and_set_up_and_test_are_one_line_each() -> None:
    setting_up = [line for line in commands(README) if line.startswith("python3 -m venv .venv && ")]
    run, test = (line.split(" && ") for line in setting_up)
    assert run[1:] == [".venv/bin/pip install --quiet -e .", ".venv/bin/twistd -n smtpfw"]
    assert test[1] == ".venv/bin/pip install --quiet -e '.[test]'"
    assert test[2] == ".venv/bin/python -m pytest"
    # .ci/run takes the line from the README by its end.
    assert "$(grep -m1 'pytest$' README.md)" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize("page", [README, OPERATING], ids=lambda page: str(page.name))
def test_every_option_is_named_and_every_name_is_an_option(page: Path) -> None:
    ours = {namesake(setting) for setting in BY_NAME.values()}
    no_settings = {"--check", "--help", "--version", *(f"--help-{topic}" for topic in LISTINGS)}
    assert ours | no_settings == set(_OPTION.findall(Options().getUsage()))
    of_twistd = {f"--{name.rstrip('=')}" for name in TwistdOptions().longOpt}  # type: ignore[no-untyped-call]
    named = set(_OPTION.findall(page.read_text()))
    assert ours - named == set()
    assert named - ours - no_settings - of_twistd - OF_OTHERS == set()


def test_the_table_of_options_shows_names_defaults_and_meanings() -> None:
    rows = [
        [f"`{namesake(setting)} {setting.kind.metavar}".rstrip() + "`", setting.describe_default(), setting.help]
        for group in SETTINGS.values()
        for setting in group
    ]
    assert table(README, "option", "default", "meaning") == rows


def test_the_table_of_limits_shows_their_defaults() -> None:
    rows = {option.strip("`"): default for option, default, _ in table(OPERATING, "option", "default", "past it")}
    limits = [*SETTINGS["Limits"], *SETTINGS["Time limits"]]
    assert rows == {namesake(setting): setting.describe_default() for setting in limits}


def test_the_table_of_extensions_is_what_is_served() -> None:
    rows = table(README, "EHLO says", "RFC", "module")
    served = STANDARD
    assert [row[0] for row in rows] == [extension.keyword for extension in served]
    for (keyword, rfc, link), extension in zip(rows, served, strict=True):
        path = f"{type(extension).__module__.replace('.', '/')}.py"
        assert link == f"[{path}]({path})"
        assert (ROOT / path).read_text().startswith(f'"""\n{keyword} (RFC {rfc}')


def test_the_table_of_profiles_is_the_table_of_profiles() -> None:
    words: dict[str, Callable[[Any], str]] = {
        "bare_lf_commands": lambda value: "yes" if value else "no",
        "hello_first_word": lambda value: "the first counts" if value else "no",
        "space_after_colon": lambda value: "yes" if value else "no",
        "bare_paths": lambda value: "yes" if value else "no",
        "stray_dots": lambda value: "yes" if value else "no",
        "underscores": lambda value: "yes" if value else "no",
        "max_local_part": lambda value: str(value or "no limit"),
        "max_command_line": str,
        "bare_newlines": {"normalize": "becomes CRLF", "reject": "refused"}.__getitem__,
        "max_text_line": lambda value: str(value or "no limit"),
        "greeting_delay": lambda value: f"refused: the greeting waits {value:g} s" if value else "served",
    }
    rows = table(ROOT / "docs" / "wire.md", "what", *PROFILES)
    assert [row[1:] for row in rows] == [
        [say(getattr(profile, name)) for profile in PROFILES.values()] for name, say in words.items()
    ]


def slug(heading: str) -> str:
    """The anchor that renderers of Markdown give to a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in _LINK.findall(page.read_text()):
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        if anchor:
            assert anchor in map(slug, re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)), link


def test_all_pages_are_linked_from_the_readme() -> None:
    links = set(_LINK.findall(README.read_text()))
    assert {str(page.relative_to(ROOT)) for page in PAGES} - {"README.md"} <= links


def test_what_the_readme_sends_arrives(tmp_path: Path) -> None:
    shell = [line for line in commands(README) if "127.0.0.1:2525" in line]
    assert {re.search("curl|swaks", line)[0] for line in shell} == {"curl", "swaks"}  # type: ignore[index]
    here = [line for line in shell if shutil.which("curl" if "curl" in line else "swaks")]
    (by_smtplib,) = (block for block in blocks(README, "python") if "smtplib" in block)
    (by_send_mail,) = (block for block in blocks(README, "python") if "send_mail" in block)
    with Twistd(folder=tmp_path) as server:
        for line in here:
            words = ["bash", "-c", line.replace("2525", str(server.port))]
            done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
        exec(by_smtplib.replace("2525", str(server.port)))
        script = [sys.executable, "-c", by_send_mail.replace("2525", str(server.port))]
        ours = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(script, capture_output=True, text=True, timeout=60, check=False, env=ours)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("stored as ")
        assert server.stop() == 0
    stored = [path.read_text() for path in (tmp_path / "Maildir" / "new").iterdir()]
    assert len(stored) == len(here) + 2
    assert all("you@example.org" in text for text in stored)


def test_the_test_in_the_page_on_backends_passes() -> None:
    (block,) = (block for block in blocks(ROOT / "docs" / "backends.md", "python") if "def test_" in block)
    names: dict[str, Any] = {}
    exec(block, names)
    names["test_other_domains_are_refused"]()


def test_the_verb_in_the_page_on_extensions_is_served() -> None:
    (block,) = (block for block in blocks(ROOT / "docs" / "extensions.md", "python") if "XPING" in block)
    names: dict[str, Any] = {"Extension": Extension}
    exec(block, names)
    config = ServerConfig(hostname="mx.test")
    extensions = [*STANDARD, names["Ping"]()]
    factory = SMTPServerFactory(SessionBackend(Session), config, extensions=extensions, reactor=Clock())
    client = MemoryClient.of(factory)
    assert b"XPING\r\n" in client.send(b"EHLO me\r\n")
    assert client.send(b"XPING\r\n") == b"250 2.0.0 pong\r\n"
    client.disconnect()


def test_the_unit_in_the_page_on_operating_runs_a_command_line_that_is_understood() -> None:
    (unit,) = blocks(OPERATING, "ini")
    command = shlex.split(re.search("^ExecStart=(.*)$", unit, re.MULTILINE)[1])  # type: ignore[index]
    options = Options()
    options.parseOptions(command[command.index("smtpfw") + 1 :])
    assert options["listen"] == ("tcp6:25",)
