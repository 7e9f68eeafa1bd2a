"""The README's code runs as printed, and what it names exists."""

import re
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.repository
ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
BLOCKS = (
    re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
    if (README.exists())
    else []
)


def test_the_main_use_runs_and_fits_twelve_lines(capsys):
    """V(0) = -sigma^2 P/(2 rho), P the positive root of the scalar Riccati equation."""
    pytest.importorskip("torch")
    lines = [line for line in BLOCKS[0].splitlines() if line.strip()]
    assert len(lines) <= 12
    names: dict = {}
    exec(BLOCKS[0], names)
    rho, alpha, r, sigma = 0.1, -0.5, 0.1, 0.3
    slope = rho - 2 * alpha
    P = r * (-slope + np.sqrt(slope**2 + 4 / r)) / 2
    wanted = -(sigma**2) * P / (2 * rho)
    found = float(names["truth"].value_at(np.zeros(1)))
    assert found == pytest.approx(wanted, abs=1e-6)
    assert names["verdict"].status == "agree"
    assert "agree" in capsys.readouterr().out


def test_the_second_block_runs_and_its_policy_loses(capsys):
    """a = -2x instead of the gain P/r_a = 2.66: worse, hence a positive loss."""
    names: dict = {}
    exec(BLOCKS[1], names)
    loss = float(capsys.readouterr().out.split("[")[1].split("]")[0])
    assert 0 < loss < 0.1
    assert names["solution"].report.converged


def test_every_link_of_the_readme_exists():
    for target in re.findall(r"\]\(([^)]+)\)", README.read_text()):
        assert (ROOT / target).exists(), target


def test_every_row_of_the_table_has_a_benchmark():
    rows = re.findall(r"^\| `(\w+)` \|", README.read_text(), re.M)
    assert len(rows) > 5
    for row in rows:
        assert (ROOT / "benchmarks" / f"{row}.py").exists(), row


def test_every_command_of_the_readme_is_in_the_makefile():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", README.read_text(), re.M):
        assert f"\n{target}:" in makefile, target
