"""Figures of solutions (kind: contract); looked at by eye, tested for content."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import hjbpde as hjb
from hjbpde.plotting import plot_solution


@pytest.mark.parametrize(
    ("name", "parameters", "shape", "panels"),
    [
        ("lqr", {}, 51, ["Value", "Control", "Error bar"]),
        (
            "manufactured",
            {"dimension": 2},
            (21, 21),
            ["Value $V$", "Control $a_{1}$", "Control $a_{2}$", "Error bar"],
        ),
        (
            "manufactured",
            {"dimension": 3},
            (9, 9, 9),
            ["Value $V$", "Control $a_{1}$", "Control $a_{2}$", "Control $a_{3}$",
             "Error bar"],
        ),
    ],
)  # fmt: skip
def test_every_dimension_has_its_panels(
    name: str,
    parameters: dict[str, int],
    shape: int | tuple[int, ...],
    panels: list[str],
    tmp_path: Path,
) -> None:
    solution = hjb.solve(hjb.catalogue.get(name, **parameters), shape)
    figure = solution.plot()
    titles = [
        axes.get_title() or axes.get_title(loc="left")
        for axes in figure.axes
        if axes.get_title() or axes.get_title(loc="left")
    ]
    assert titles == panels
    figure.savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_a_loaded_solution_without_its_problem_plots(tmp_path: Path) -> None:
    solution = hjb.solve(hjb.catalogue.get("lqr"), 51)
    loaded = hjb.load(solution.save(tmp_path / "lqr.npz"))
    assert len(plot_solution(loaded).axes) == 3


def test_plots_need_no_display_and_no_pyplot() -> None:
    code = (
        "import sys, hjbpde as hjb\n"
        "assert 'matplotlib' not in sys.modules\n"
        "hjb.solve(hjb.catalogue.get('lqr'), 21).plot()\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
