"""Plans for tests: of a command line, or of a file."""

from __future__ import annotations

from pathlib import Path

import pytest
from twisted.internet.task import Clock

from smtpfw.config import ServicePlan, make_plan, read_tree
from smtpfw.config.options import ServerOptions
from smtpfw.errors import ConfigError


def parsed(*words: str) -> ServerOptions:
    """A command line, parsed."""
    options = ServerOptions()
    options.parseOptions(list(words))
    return options


def plan_of(*words: str) -> ServicePlan:
    """The plan of a command line."""
    tree, problems = read_tree(parsed(*words))
    return make_plan(tree, Clock(), problems)


def plan_of_file(path: Path, text: str, *words: str) -> ServicePlan:
    """The plan of a file that has this text, with options beside it."""
    path.write_text(text)
    return plan_of("--config", str(path), *words)


def mistakes(*words: str) -> list[str]:
    """What is wrong with a command line, line by line."""
    with pytest.raises(ConfigError) as caught:
        plan_of(*words)
    return str(caught.value).split("\n")


def mistakes_of_file(path: Path, text: str, *words: str) -> list[str]:
    """What is wrong with a file, line by line."""
    path.write_text(text)
    return mistakes("--config", str(path), *words)
