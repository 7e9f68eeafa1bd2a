"""One whole semi-Lagrangian solve: steps, nested grids, error bar, solution."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..faces import Faces
from ..grid import Grid
from ..methods.nested import carry_slope
from ..methods.policy_iteration import (
    cubically_prolonged,
    nested_grids,
    prolonged_policy,
)
from ..methods.run import Clock
from ..problem import ControlProblem
from ..progress import bar_over
from ..report import Report
from ..schemes import Hybrid
from ..solution import GridSolution
from .bar import bound
from .level import Level, admit, settle, solve_rows, spread_policy
from .lookahead import Lookahead
from .method import SemiLagrangian
from .obstacles import Obstacles
from .search import Search
from .step_length import StepLength, active_columns, balanced, sampled_motion

Array = NDArray[np.float64]
LEVELS = 3
"""Nested grids that are solved: two differences tell an order."""


def run_semi_lagrangian(
    problem: ControlProblem,
    grid: Grid,
    method: SemiLagrangian,
    progress: bool = False,
) -> GridSolution:
    """Solve on nested grids and bound the error."""
    clock = Clock()
    with clock.phase("solve"):
        levels = solve_levels(problem, grid, method, progress)
    fine = levels[-1]
    with clock.phase("error bar"):
        bar = bound(levels, method.order)
    opinion = None
    if len(levels) > 1:
        coarse = fine.V[np.ix_(*(grid.kept(k) for k in range(grid.dimension)))]
        change = cubically_prolonged(coarse - levels[-2].V, grid)
        opinion = problem.sign * (fine.V + change / (2.0**method.order - 1.0))
    return GridSolution(
        problem=problem,
        grid=grid,
        value=problem.sign * fine.V,
        control=spread_policy(fine.look, fine.faces, fine.a),
        error_bar=bar.total,
        report=Report(
            status=fine.status,
            method=method.name,
            iterations=len(fine.changes),
            residuals=tuple(fine.changes),
            seconds=dict(clock.seconds),
            checks=(f"linear systems by {fine.solver}, residuals measured", *bar.notes),
            error_parts=bar.parts,
            observed_order=bar.observed_order,
            details={
                "grids": [list(level.grid.shape) for level in levels],
                "steps": [level.look.delta for level in levels],
            },
        ),
        scheme=Hybrid(),
        second_opinion=opinion,
        artificial_axes=problem.artificial_axes,
        stopping=None if fine.obstacles is None else fine.obstacles.met(fine.V),
    )


def _obstacles(problem: ControlProblem, grid: Grid) -> Obstacles | None:
    return Obstacles.of(problem, grid) if problem.stops else None


def solve_levels(
    problem: ControlProblem, grid: Grid, method: SemiLagrangian, progress: bool
) -> list[Level]:
    """The settled levels from coarse to fine."""
    grids = nested_grids(grid)[-LEVELS:]
    coarsest = len(grids) - 1
    plan, columns = first_plan(problem, grid, method)
    before = _start(problem, grids[0], plan.at(coarsest), method, columns)
    moved = before.look.motion_under(before.a)
    plan = planned(grid, moved.f, moved.sigma, method)
    levels: list[Level] = []
    for i, _ in bar_over(
        range(len(grids)), [g.shape for g in grids], progress, "solve"
    ):
        delta = plan.at(coarsest - i)
        level = _level(problem, grids[i], delta, method, columns, before)
        updates = 4 if levels else 30
        settle(level, method.tolerance, method.max_policies, updates)
        if level.status == "not converged" and i < coarsest:
            # Too coarse for cubic readings: the next grid starts afresh.
            levels, delta = [], plan.at(coarsest - i - 1)
            before = _start(problem, grids[i + 1], delta, method, columns)
            continue
        levels.append(level)
        before = level
    return levels


def first_plan(
    problem: ControlProblem, grid: Grid, method: SemiLagrangian
) -> tuple[StepLength, list[int]]:
    """The step before any policy is known, and the columns of noise that count."""
    mask = Faces.of(problem, grid).fixed_mask
    free = np.arange(grid.size) if mask is None else np.flatnonzero(~mask.ravel())
    f, sigma = sampled_motion(problem, grid.nodes_of(free))
    columns = active_columns(sigma)
    return planned(grid, f, sigma[:, :, columns], method), columns


def planned(grid: Grid, f: Array, sigma: Array, method: SemiLagrangian) -> StepLength:
    """The step for these drifts and noises, or the one that was asked for."""
    found = balanced(grid, f, sigma, method.width)
    return found if method.step is None else StepLength(method.step, found.power)


def _start(
    problem: ControlProblem,
    grid: Grid,
    delta: float,
    method: SemiLagrangian,
    columns: list[int],
) -> Level:
    """A middle policy's value, improved with linear readings, which are monotone.

    Cubic ones have no maximum principle: far from the answer they may go astray.
    """
    faces = Faces.of(problem, grid)
    look = Lookahead(problem, faces, delta, 2, method.feet == "rk2", columns)
    search = Search.of(look)
    V = np.zeros(grid.shape)
    faces.set_fixed(V)
    level = Level(faces, look, search, V, search.start(), _obstacles(problem, grid))
    admit(level)
    rows, rhs = level.rows()
    level.V = solve_rows(rows, rhs, V.ravel())[0].reshape(grid.shape)
    settle(level, 1e-6, method.max_policies, 30, wide=True)
    return level


def _level(
    problem: ControlProblem,
    grid: Grid,
    delta: float,
    method: SemiLagrangian,
    columns: list[int],
    before: Level,
) -> Level:
    """A level that starts from the value and policy of the one before."""
    faces = Faces.of(problem, grid)
    for face, coarse in zip(faces.faces, before.faces.faces, strict=True):
        carry_slope(face, coarse, grid)
    look = Lookahead(problem, faces, delta, method.width, method.feet == "rk2", columns)
    V, a = before.V.copy(), spread_policy(before.look, before.faces, before.a)
    if not grid.matches(before.grid):
        V = cubically_prolonged(V, grid)
        flat = a.reshape(before.grid.size, -1).T
        a = prolonged_policy(flat, before.grid, grid).T
    faces.set_fixed(V)
    a = np.ascontiguousarray(a.reshape(grid.size, -1)[look.free])
    level = Level(faces, look, Search.of(look), V, a, _obstacles(problem, grid))
    admit(level)
    return level
