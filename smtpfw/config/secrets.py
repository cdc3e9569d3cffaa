"""
Secrets of a configuration: they stand elsewhere, and only where is written down.

=====================  ===================================================================
``file:PATH``          the first line of a file
``env:NAME``           a variable of the environment
``credential:NAME``    a credential that systemd passes (``LoadCredential=``)
=====================  ===================================================================
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

__all__ = ["read_login", "read_secret"]

#: Octets of a file that are looked through for its first line.
_MAX_SECRET = 4096

_FOLDER = "CREDENTIALS_DIRECTORY"

#: How a path may begin that is no secret by mistake.
_PATHS = ("/", "./", "../")


def read_secret(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """
    Read a secret.

    :param text: as above; a path alone is a file, too.
    :raises ValueError: saying where it was looked for; nothing of the secret stands in it.
    """
    kind, colon, name = text.partition(":")
    if kind == "env" and colon:
        if not environment.get(name):
            raise ValueError(f"there is no variable {name} in the environment")
        return environment[name]
    if kind == "credential" and colon:
        if _FOLDER not in environment:
            raise ValueError(f"systemd has passed no credentials; write LoadCredential={name}:PATH into the unit")
        return _first_line(str(Path(environment[_FOLDER], name)))
    if kind == "file" and colon:
        return _first_line(name)
    if not text.startswith(_PATHS) and not Path(text).is_file():
        # It may be the secret itself, which must not be shown.
        raise ValueError("no such file; a secret is written file:PATH, env:NAME or credential:NAME")
    return _first_line(text)


def read_login(text: str) -> tuple[str, str]:
    """
    Read a name and a password, ``name:password``, as :func:`read_secret` does.

    :raises ValueError: as it does.
    """
    name, _, password = read_secret(text).partition(":")
    if not (name and password):
        raise ValueError(f"{text}: its first line must be name:password")
    return name, password


def _first_line(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            return file.read(_MAX_SECRET).partition(b"\n")[0].removesuffix(b"\r").decode()
    except OSError as error:
        raise ValueError(f"{path}: {(error.strerror or str(error)).lower()}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: its first line is no text in UTF-8") from None
