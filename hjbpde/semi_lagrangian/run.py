"""One whole semi-Lagrangian solve: steps, nested grids, error bar, solution."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..error_bar import ErrorBar
from ..faces import Faces
from ..game_solution import StationaryGameSolution
from ..grid import Grid
from ..methods.nested import carry_slope
from ..methods.policy_iteration import (
    cubically_prolonged,
    nested_grids,
    prolonged_policy,
)
from ..methods.run import Clock
from ..moded_solution import ModedSolution
from ..players import swapped
from ..problem import ControlProblem
from ..progress import bar_over
from ..report import Report
from ..schemes import Hybrid
from ..solution import GridSolution
from .bar import bound
from .game_search import search_of
from .level import Level, spread_policy
from .lookahead import Lookahead
from .method import SemiLagrangian
from .obstacles import Obstacles
from .order_of_play import weighed
from .parts import parts_of
from .step_length import StepLength, active_columns, balanced, sampled_motion
from .system import System, settle

Array = NDArray[np.float64]
LEVELS = 3
"""Nested grids that are solved: two differences tell an order."""


def run_semi_lagrangian(
    problem: ControlProblem,
    grid: Grid,
    method: SemiLagrangian,
    progress: bool = False,
) -> GridSolution:
    """Solve on nested grids and bound the error; with modes, a ModedSolution, with an
    adversary a StationaryGameSolution.
    """
    clock = Clock()
    with clock.phase("solve"):
        systems = solve_systems(problem, grid, method, progress)
    fine = systems[-1]
    with clock.phase("error bar"):
        bar = bound(systems, method.order)
    arrays: dict[str, Any] = {
        "value": problem.sign * fine.V,
        "control": np.stack(
            [spread_policy(one.look, one.faces, one.a) for one in fine.levels]
        ),
        "error_bar": bar.total,
        "second_opinion": _opinion(problem, systems, method.order),
        "stopping": _stopping(fine),
    }
    if problem.modes is None:
        arrays = {name: None if v is None else v[0] for name, v in arrays.items()}
    fields: dict[str, Any] = {
        "problem": problem,
        "grid": grid,
        "report": _report(method, systems, bar, dict(clock.seconds)),
        "scheme": Hybrid(),
        "artificial_axes": problem.artificial_axes,
        **arrays,
    }
    if problem.adversary is not None:
        return _played(problem, grid, method, fields, clock)
    return (GridSolution if problem.modes is None else ModedSolution)(**fields)


def _report(
    method: SemiLagrangian,
    systems: list[System],
    bar: ErrorBar,
    seconds: dict[str, float],
) -> Report:
    fine = systems[-1]
    return Report(
        status=fine.status,
        method=method.name,
        iterations=len(fine.changes),
        residuals=tuple(fine.changes),
        seconds=seconds,
        checks=(f"linear systems by {fine.solver}, residuals measured", *bar.notes),
        error_parts=bar.parts,
        observed_order=bar.observed_order,
        details={
            "grids": [list(system.grid.shape) for system in systems],
            "steps": [system.looks[0].delta for system in systems],
        },
    )


def _played(
    problem: ControlProblem,
    grid: Grid,
    method: SemiLagrangian,
    fields: dict[str, Any],
    clock: Clock,
) -> StationaryGameSolution:
    """The solution of a game: both controls, and what their order is worth."""
    u, m, report, other = fields["control"], problem.n_controls, fields["report"], None
    with clock.phase("order of play"):
        V = problem.sign * fields["value"]
        gap, matters, note = weighed(problem, grid, V, u)
        if matters and report.converged:
            last = solve_systems(swapped(problem), grid, method, False)[-1]
            other = -problem.sign * last.V[0]
            apart = float(np.max(np.abs(other - fields["value"])))
            note = f"the order of play moves V by up to {apart:.3g} (swapped_value)"
    checks = (*report.checks, note) if note else report.checks
    fields["report"] = replace(report, checks=checks, seconds=dict(clock.seconds))
    fields["control"] = np.ascontiguousarray(u[..., :m])
    return StationaryGameSolution(
        **fields,
        adversary_control=np.ascontiguousarray(u[..., m:]),
        isaacs_gap=gap,
        swapped_value=other,
    )


def _opinion(
    problem: ControlProblem, systems: list[System], order: int
) -> Array | None:
    """Values (K, *shape) extrapolated from two grids."""
    if len(systems) < 2:
        return None
    fine, coarse = systems[-1], systems[-2]
    return problem.sign * extrapolated(fine.V, coarse.V, fine.grid, order)


def extrapolated(fine: Array, coarse: Array, grid: Grid, order: int) -> Array:
    """Values (q, *shape) from those on the grid and on its coarsening."""
    kept = np.ix_(*(grid.kept(k) for k in range(grid.dimension)))
    change = [
        cubically_prolonged(V[kept] - W, grid)
        for V, W in zip(fine, coarse, strict=True)
    ]
    return fine + np.stack(change) / (2.0**order - 1.0)


def _stopping(system: System) -> NDArray[np.bool_] | None:
    """Nodes (K, *shape) where somebody stops; None where nobody may."""
    levels = system.levels
    if levels[0].obstacles is None:
        return None
    return np.stack([v.obstacles.met(v.V) for v in levels if v.obstacles is not None])


def _obstacles(problem: ControlProblem, grid: Grid) -> Obstacles | None:
    return Obstacles.of(problem, grid) if problem.stops else None


def solve_systems(
    problem: ControlProblem, grid: Grid, method: SemiLagrangian, progress: bool
) -> list[System]:
    """The settled systems from coarse to fine."""
    grids = nested_grids(grid)[-LEVELS:]
    coarsest = len(grids) - 1
    plan, columns = first_plan(problem, grid, method)
    before = _start(problem, grids[0], plan.at(coarsest), method, columns)
    moved = [level.look.motion_under(level.a) for level in before.levels]
    plan = planned(
        problem,
        grid,
        np.concatenate([m.f for m in moved]),
        np.concatenate([m.sigma for m in moved]),
        method,
    )
    systems: list[System] = []
    for i, _ in bar_over(
        range(len(grids)), [g.shape for g in grids], progress, "solve"
    ):
        delta = plan.at(coarsest - i)
        system = _system(problem, grids[i], delta, method, columns, before)
        updates = 4 if systems else 30
        settle(system, method.tolerance, method.max_policies, updates)
        if system.status == "not converged" and i < coarsest:
            # Too coarse for cubic readings: the next grid starts afresh.
            systems, delta = [], plan.at(coarsest - i - 1)
            before = _start(problem, grids[i + 1], delta, method, columns)
            continue
        systems.append(system)
        before = system
    return systems


def first_plan(
    problem: ControlProblem, grid: Grid, method: SemiLagrangian
) -> tuple[StepLength, list[int]]:
    """The step before any policy is known, and the columns of noise that count."""
    found = [sampled(part.joint, grid) for part in parts_of(problem)]
    f = np.concatenate([f for f, _ in found])
    sigma = np.concatenate([s for _, s in found])
    columns = active_columns(sigma)
    return planned(problem, grid, f, sigma[:, :, columns], method), columns


def sampled(problem: ControlProblem, grid: Grid) -> tuple[Array, Array]:
    """Drifts and noises of a few controls on the free nodes of one mode."""
    mask = Faces.of(problem, grid).fixed_mask
    free = np.arange(grid.size) if mask is None else np.flatnonzero(~mask.ravel())
    return sampled_motion(problem, grid.nodes_of(free))


def planned(
    problem: ControlProblem, grid: Grid, f: Array, sigma: Array, method: SemiLagrangian
) -> StepLength:
    """The step for these drifts and noises, or the one that was asked for."""
    x, rate = grid.nodes().reshape(grid.size, -1), 0.0
    if problem.modes is not None:
        rate = float(np.max(problem.modes.at(x).sum(axis=-1)))
    if problem.jumps is not None:
        rate = float(np.max(problem.at_time(0.0).jumps.rate_at(x)))
    found = balanced(grid, f, sigma, method.width, rate)
    return found if method.step is None else StepLength(method.step, found.power)


def _start(
    problem: ControlProblem,
    grid: Grid,
    delta: float,
    method: SemiLagrangian,
    columns: list[int],
) -> System:
    """A middle policy's value, improved with linear readings, which are monotone.

    Cubic ones have no maximum principle: far from the answer they may go astray.
    """
    levels, midpoint = [], method.feet == "rk2"
    for part in parts_of(problem):
        one, switching = part.joint, part.switching
        faces = Faces.of(one, grid)
        look = Lookahead(one, faces, delta, 2, midpoint, columns, switching)
        search, V = search_of(look, part), np.zeros(grid.shape)
        faces.set_fixed(V)
        levels.append(
            Level(faces, look, search, V, search.start(), _obstacles(one, grid))
        )
    system = System(levels)
    system.admit()
    system.evaluate()
    settle(system, 1e-6, method.max_policies, 30, wide=True)
    return system


def _system(
    problem: ControlProblem,
    grid: Grid,
    delta: float,
    method: SemiLagrangian,
    columns: list[int],
    before: System,
) -> System:
    """A system that starts from the values and policies of the one before."""
    levels, midpoint = [], method.feet == "rk2"
    for part, old in zip(parts_of(problem), before.levels, strict=True):
        one, switching = part.joint, part.switching
        faces = Faces.of(one, grid)
        for face, coarse in zip(faces.faces, old.faces.faces, strict=True):
            carry_slope(face, coarse, grid)
        look = Lookahead(one, faces, delta, method.width, midpoint, columns, switching)
        V, a = _carried(old, grid)
        faces.set_fixed(V)
        a = np.ascontiguousarray(a[look.free])
        search = search_of(look, part)
        levels.append(Level(faces, look, search, V, a, _obstacles(one, grid)))
    system = System(levels)
    system.admit()
    return system


def _carried(level: Level, grid: Grid) -> tuple[Array, Array]:
    """Value (*shape) and policy (N, m) of a level on the same grid or the next."""
    V, a = level.V.copy(), spread_policy(level.look, level.faces, level.a)
    if not grid.matches(level.grid):
        V = cubically_prolonged(V, grid)
        flat = a.reshape(level.grid.size, -1).T
        a = prolonged_policy(flat, level.grid, grid).T
    return V, a.reshape(grid.size, -1)
