"""One whole semi-Lagrangian solve: steps, nested grids, error bar, solution."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoint import Checkpoint
from ..error_bar import ErrorBar
from ..game_solution import StationaryGameSolution
from ..grid import Grid
from ..impulse_solution import ImpulseSolution
from ..methods.run import Clock
from ..moded_solution import ModedSolution
from ..players import swapped
from ..problem import ControlProblem
from ..report import Report
from ..schemes import Hybrid
from ..solution import GridSolution
from .arriving import arriving
from .average import Averaging
from .beyond import judged
from .impulse import Impulses
from .kruzkov import is_undiscounted
from .level import spread_policy
from .method import SemiLagrangian
from .nested import Nested, Pages
from .order_of_play import weighed
from .system import System, extrapolated

Array = NDArray[np.float64]


def run_semi_lagrangian(
    problem: ControlProblem,
    grid: Grid,
    method: SemiLagrangian,
    file: Checkpoint,
    progress: bool = False,
) -> GridSolution:
    """Solve on nested grids and bound the error; with modes, a ModedSolution, with an
    adversary a StationaryGameSolution, with impulses an ImpulseSolution.
    """
    clock = Clock()
    with clock.phase("solve"):
        nested = nested_of(problem, grid, method, Pages(file, progress=progress))
        systems = nested.solve()
    fine, method = systems[-1], nested.method
    with clock.phase("error bar"):
        bar, details = judged(nested, systems)
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
        "report": _report(nested, systems, bar, dict(clock.seconds), details),
        "scheme": Hybrid(),
        "artificial_axes": problem.artificial_axes,
        **arrays,
        **nested.answers(systems),
    }
    if problem.adversary is not None:
        return _played(problem, grid, method, fields, (clock, file))
    kind = GridSolution if problem.modes is None else ModedSolution
    kind = ImpulseSolution if problem.impulse is not None else kind
    return kind(**fields)


def nested_of(
    problem: ControlProblem, grid: Grid, method: SemiLagrangian, pages: Pages
) -> Nested:
    """The solve that a kind of problem asks for."""
    if is_undiscounted(problem, grid):
        return arriving(problem, grid, method, pages)
    kind = Averaging if problem.average else Nested
    kind = Impulses if problem.impulse is not None else kind
    return kind(problem, grid, method, pages)


def _report(
    nested: Nested,
    systems: list[System],
    bar: ErrorBar,
    seconds: dict[str, float],
    details: dict[str, Any],
) -> Report:
    fine = systems[-1]
    return Report(
        status=fine.status,
        method=nested.method.name,
        iterations=len(fine.changes),
        residuals=tuple(fine.changes),
        seconds=seconds,
        checks=(f"linear systems by {fine.solver}, residuals measured", *bar.notes),
        fallbacks=nested.fallbacks,
        error_parts=bar.parts,
        observed_order=bar.observed_order,
        details={
            "grids": [list(system.grid.shape) for system in systems],
            "steps": [system.looks[0].delta for system in systems],
            **details,
        },
    )


def _played(
    problem: ControlProblem,
    grid: Grid,
    method: SemiLagrangian,
    fields: dict[str, Any],
    run: tuple[Clock, Checkpoint],
) -> StationaryGameSolution:
    """The solution of a game: both controls, and what their order is worth."""
    clock, file = run
    u, m, report, other = fields["control"], problem.n_controls, fields["report"], None
    with clock.phase("order of play"):
        V = problem.sign * fields["value"]
        gap, matters, note = weighed(problem, grid, V, u)
        if matters and report.converged:
            pages = Pages(file, "swapped ")
            last = Nested(swapped(problem), grid, method, pages).solve()[-1]
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


def _stopping(system: System) -> NDArray[np.bool_] | None:
    """Nodes (K, *shape) where somebody stops; None where nobody may."""
    levels = system.levels
    if levels[0].obstacles is None:
        return None
    return np.stack([v.obstacles.met(v.V) for v in levels if v.obstacles is not None])
