"""
What is shipped: a wheel that twistd finds the plugin of, and a plugin that leaves the choice of reactor open.

The wheel is built with the setuptools that is here, if that can; what smtpfw depends on is lent to the fresh
environment by a .pth file. So usually nothing is downloaded.
"""

import ast
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

import smtpfw

ROOT = Path(__file__).parent.parent
SHIPPED = ("setup.py", "pyproject.toml", "LICENSE", "MANIFEST.in", "README.md")


def _try(*words: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        words, cwd=folder, env={**inherited, **environment}, capture_output=True, text=True, timeout=300, check=False
    )


def run(*words: str, folder: Path, **environment: str) -> str:
    """Run a command that must succeed, outside of the checkout; return what it said."""
    done = _try(*words, folder=folder, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel, built of a copy, because setuptools leaves its build folder in the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for path in ROOT.rglob("*"):
        relative = path.relative_to(ROOT)
        if path.is_file() and (str(relative) in SHIPPED or relative.parts[0] in ("smtpfw", "twisted")):
            if "__pycache__" in relative.parts or path.name == "dropin.cache":
                continue
            (source / relative).parent.mkdir(parents=True, exist_ok=True)
            (source / relative).write_bytes(path.read_bytes())
    build = f"from setuptools import build_meta; build_meta.build_wheel({str(folder)!r})"
    here = _try(sys.executable, "-c", build, folder=source)
    if here.returncode:
        # An old setuptools without the package wheel; pip fetches a new one, if it can.
        fetched = _try(sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", str(folder), ".", folder=source)
        if fetched.returncode:
            pytest.skip(f"no wheel can be built here: {(here.stderr + fetched.stderr).strip().splitlines()[-1]}")
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_what_it_must_and_nothing_of_twisted(wheel: Path) -> None:
    assert wheel.name == f"smtpfw-{smtpfw.__version__}-py3-none-any.whl"
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"smtpfw/py.typed", "smtpfw/service/service.py", "twisted/plugins/smtpfw_plugin.py"} <= names
    assert not {name for name in names if name.startswith(("tests", "examples", "benchmarks", "docs"))}
    assert {name for name in names if name.startswith("twisted/")} == {"twisted/plugins/smtpfw_plugin.py"}


def test_twistd_finds_the_plugin_of_an_installed_wheel(wheel: Path, tmp_path: Path) -> None:
    home = tmp_path / "venv"
    venv.create(home, with_pip=False)
    python = str(home / "bin" / "python")
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = home / "lib" / version / "site-packages"
    zipfile.ZipFile(wheel).extractall(packages)
    # Behind the new environment's own packages, so that an smtpfw in there could not hide a fault in this wheel.
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    twistd = "from twisted.scripts.twistd import run; run()"
    where = run(python, "-c", "import smtpfw; print(smtpfw.__file__)", folder=tmp_path)
    assert where.startswith(str(packages))
    assert "smtpfw " in run(python, "-c", twistd, "--help", folder=tmp_path)
    # A fresh cache is read by the second run; the first had none and imported every plugin while parsing options.
    for reactor in ("asyncio", "asyncio"):
        assert "--listen" in run(python, "-c", twistd, f"--reactor={reactor}", "smtpfw", "--help", folder=tmp_path)


def test_neither_folder_of_the_plugin_is_a_package() -> None:
    assert not (ROOT / "twisted" / "__init__.py").exists()
    assert not (ROOT / "twisted" / "plugins" / "__init__.py").exists()


def test_no_module_that_twistd_loads_installs_a_reactor() -> None:
    plugin = ast.parse((ROOT / "twisted" / "plugins" / "smtpfw_plugin.py").read_text())
    imported = [node.module for node in ast.walk(plugin) if isinstance(node, ast.ImportFrom)]
    assert imported == ["twisted.application.service"]
    code = (
        "import sys, smtpfw.service, smtpfw.backends.memory, smtpfw.backends.discard, twisted.plugins.smtpfw_plugin;"
        "assert 'twisted.internet.reactor' not in sys.modules"
    )
    run(sys.executable, "-c", code, folder=ROOT, PYTHONPATH=str(ROOT))
