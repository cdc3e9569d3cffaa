"""
From what the operator gave on the command line to the tree: of the options themselves, or of the file that they name.
"""

from __future__ import annotations

from smtpfw.config import schema
from smtpfw.config.file import tree_of_file
from smtpfw.config.options import ServerOptions
from smtpfw.config.places import Place, Problems
from smtpfw.config.settings import BY_NAME
from smtpfw.config.toml import read_toml
from smtpfw.config.tree import ServiceTree, tree_of_options

__all__ = ["read_tree"]

#: What may be given beside a file, and counts more than what it says at its top, in [limits] and in [log]. What a
#: listener says of its own counts more still.
_BESIDE = frozenset(name for table in (schema.SERVICE, schema.LIMITS, schema.LOG) for name in table.settings.values())


def read_tree(options: ServerOptions, octets: bytes | None = None) -> tuple[ServiceTree, Problems]:
    """
    Read the configuration.

    :param octets: what stands in the file, where that is known already.
    :return: the tree, and what is known to be wrong with it.
    :raises ConfigError: if there is no file, or it is no TOML.
    """
    problems = Problems()
    if not options["config"]:
        return tree_of_options(options), problems
    tree = tree_of_file(read_toml(options["config"], octets), problems)
    for name in (name for name in BY_NAME if name in options.given):
        place = Place(f"--{BY_NAME[name].option}")
        if name in _BESIDE:
            tree.settings.set(name, options[name], place)
        elif name != "config":
            problems.add(place, f"the listeners stand in {options['config']}; write it there")
    return tree, problems
