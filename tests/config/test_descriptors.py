"""The limit on open files: raised as far as it may be, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
CODE = """
import resource
from smtpfw.config.descriptors import SPARE, allow_connections

resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
print(allow_connections({count}), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(
    ("soft", "hard", "count", "said"),
    [
        (300, 900, 50, "None 300 900"),
        (300, 900, 400, "None 600 900"),
        (300, 900, 700, "None 900 900"),
        (300, 900, 701, "900 900 900"),
        (300, 900, 10_000, "900 900 900"),
        (300, 900, 0, "None 900 900"),
        (900, 900, 0, "None 900 900"),
    ],
)
def test_limits(soft: int, hard: int, count: int, said: str) -> None:
    code = CODE.format(soft=soft, hard=hard, count=count)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == said
