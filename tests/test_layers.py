"""Who may import whom, and what must work without torch or a writable install."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import hjbpde

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path(hjbpde.__file__).parent

WITHOUT = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ImportError(f"{{name}} is blocked")
sys.meta_path.insert(0, Block())
"""


def run(code, *, blocked=(), env=None, path=None, cwd=None):
    """Run code in a fresh interpreter with some packages out of reach."""
    text = WITHOUT.format(blocked=tuple(blocked)) + code
    base = {**os.environ, "PYTHONPATH": str(path or PACKAGE.parent), **(env or {})}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", text],
        capture_output=True, text=True, env=base, cwd=cwd, timeout=300, check=False,
    )  # fmt: skip


SOLVE = """
import hjbpde as hjb
print(hjb.solve(hjb.catalogue.get("manufactured"), 33).report.status)
"""


def test_the_grid_side_works_without_torch_and_without_matplotlib(tmp_path):
    found = run(SOLVE, blocked=("torch", "matplotlib", "neural"), cwd=tmp_path)
    assert found.stdout.strip() == "converged", found.stderr


def test_importing_verification_needs_no_torch(tmp_path):
    pytest.importorskip("verification")
    found = run("import verification", blocked=("torch", "neural"), cwd=tmp_path)
    assert found.returncode == 0, found.stderr


EVERY_MODULE = """
import importlib, pkgutil
import hjbpde, verification
for package in (hjbpde, verification):
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
"""


def test_every_module_of_the_grid_side_and_of_the_checks_needs_no_torch(tmp_path):
    found = run(EVERY_MODULE, blocked=("torch", "neural"), cwd=tmp_path)
    assert found.returncode == 0, found.stderr


def test_importing_the_grid_side_loads_neither_torch_nor_matplotlib(tmp_path):
    code = """
import hjbpde, sys
print([m for m in ("torch", "matplotlib", "jinja2", "neural") if m in sys.modules])
"""
    assert run(code, cwd=tmp_path).stdout.strip() == "[]"


def test_importing_writes_nothing_to_the_terminal(tmp_path):
    found = run("import hjbpde", cwd=tmp_path)
    assert (found.returncode, found.stdout, found.stderr) == (0, "", "")


def copied_without_cache(target: Path) -> Path:
    """The package in a folder whose cache folders cannot be made.

    A file named __pycache__ stops even the superuser, unlike permissions.
    """
    for source in PACKAGE.rglob("*.py"):
        copy = target / "hjbpde" / source.relative_to(PACKAGE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(source.read_text())
        blocker = copy.parent / "__pycache__"
        if not blocker.exists():
            blocker.write_text("")
    return target


COMPILE = """
import numpy as np
from hjbpde.kernels.tridiagonal import thomas
one = np.ones(3)
thomas(one, one * 0, one * 0, one, np.empty(3), np.empty(3))
print(sum(thomas.stats.cache_misses.values()))
"""


def test_kernels_are_cached_for_the_user_when_the_install_is_read_only(tmp_path):
    install = copied_without_cache(tmp_path / "install")
    home = tmp_path / "home"
    home.mkdir()
    env = {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}
    env["PYTHONDONTWRITEBYTECODE"] = "1"
    misses = []
    for _ in range(2):
        found = run(COMPILE, env=env, path=install, cwd=tmp_path)
        assert found.returncode == 0, found.stderr
        misses.append(int(found.stdout))
    assert misses == [1, 0]
    assert list((home / "cache").rglob("*thomas*.nbi"))


def test_a_chosen_cache_folder_is_used(tmp_path):
    install = copied_without_cache(tmp_path / "install")
    env = {"NUMBA_CACHE_DIR": str(tmp_path / "chosen")}
    found = run(COMPILE, env=env, path=install, cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    assert list((tmp_path / "chosen").rglob("*thomas*.nbi"))


@pytest.mark.repository
def test_the_configured_folders_exist():
    """A checker pointed at a missing folder checks nothing and says so nowhere."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    folders = {
        *settings["pyright"]["include"],
        *settings["pytest"]["ini_options"]["testpaths"],
    }
    folders |= {
        p.rstrip("*") for p in settings["setuptools"]["packages"]["find"]["include"]
    }
    for folder in folders:
        assert list((ROOT / folder).rglob("*.py")), folder


@pytest.mark.repository
def test_every_package_says_that_it_is_typed():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    for package in settings["importlinter"]["root_packages"]:
        assert (ROOT / package / "py.typed").exists(), package
