"""The modes of files count, even for root, who runs the tests where all of them run."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

_NAMES = ((os.R_OK, stat.S_IRUSR), (os.W_OK, stat.S_IWUSR), (os.X_OK, stat.S_IXUSR))


def obey_modes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``os.access`` and ``os.open`` go by the bits of the owner."""
    really_open = os.open

    def access(path: Any, mode: int, **settings: Any) -> bool:
        bits = Path(path).stat().st_mode
        return all(bits & bit for asked, bit in _NAMES if mode & asked)

    def open_file(path: Any, flags: int, *more: Any, **settings: Any) -> int:
        there = os.path.lexists(path)
        if not access(path if there else Path(path).parent, os.R_OK if there else os.W_OK):
            raise PermissionError(13, "Permission denied", path)
        return really_open(path, flags, *more, **settings)

    monkeypatch.setattr(os, "access", access)
    monkeypatch.setattr(os, "open", open_file)
