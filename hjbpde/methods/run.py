"""One whole solve: tables, nested grids, corrections, error bar, solution."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..error_bar import ErrorBar, neighbour_maximum, truncation_bar
from ..exit_surface import surface_miss
from ..faces import Faces
from ..game_tables import GameTables
from ..grid import Grid
from ..problem import ControlProblem
from ..prolongation import cubically_prolonged
from ..report import Report
from ..solution import GridSolution
from ..table_checks import hold_inside
from ..tabulate import GeneralTables, Tables, fixed_policy_tables, tabulate
from .bounds import bound, region_mask
from .corrections import Corrections
from .face_controls import complete_ends
from .larger_box import LargerBox, require_settled
from .nested import RunOptions, Settling, solve_nested
from .policy_iteration import PolicyIteration
from .state import GridState, on_nodes

Array = NDArray[np.float64]
Tabulated = Callable[[ControlProblem, Grid], Tables | GameTables]


@dataclass(eq=False)
class Clock:
    """Seconds by phase."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time inside to a phase."""
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            self.seconds[name] = self.seconds.get(name, 0.0) + spent


def run(
    problem: ControlProblem, grid: Grid, method: PolicyIteration, options: RunOptions
) -> GridSolution:
    """Solve on nested grids and bound the error."""
    clock = Clock()
    with clock.phase("tabulate"):
        tables = _tabulated(problem, grid)
    fields, a = solved_fields(problem, grid, tables, method, options, clock, _tabulated)
    return GridSolution(**fields, control=on_nodes(grid, a))


def _tabulated(problem: ControlProblem, grid: Grid) -> Tables:
    return tabulate(problem, grid, Faces.of(problem, grid))


def run_fixed(
    problem: ControlProblem,
    grid: Grid,
    a: Array,
    method: PolicyIteration,
    beyond: Callable[[Grid], Array],
) -> GridSolution:
    """The value of the policy a (N, m) on the grid's nodes, and `beyond` on others'."""
    clock = Clock()

    def tabulated(wider: ControlProblem, wide: Grid) -> Tables:
        return _fixed(wider, wide, beyond(wide))

    with clock.phase("tabulate"):
        tables = _fixed(problem, grid, a)
    fields, _ = solved_fields(
        problem, grid, tables, method, RunOptions.of(), clock, tabulated
    )
    return GridSolution(**fields, control=on_nodes(grid, a.T))


def _fixed(problem: ControlProblem, grid: Grid, a: Array) -> Tables:
    faces = Faces.of(problem, grid)
    tables = fixed_policy_tables(problem, grid, faces, a)
    hold_inside(grid, faces, tables.f0, a)
    return tables


def solved_fields(
    problem: ControlProblem,
    grid: Grid,
    tables: Tables | GameTables,
    method: PolicyIteration,
    options: RunOptions,
    clock: Clock,
    tabulated: Tabulated,
    settled: Callable[..., None] | None = None,
) -> tuple[dict[str, Any], Array]:
    """Nested grids, corrections and bar: a solution's fields and its policy (m, N).

    One grid is solved by `settled`, see `solve_nested`; `tabulated` tells the tables
    on larger boxes.
    """
    with clock.phase("solve"):
        states = solve_nested(problem, grid, tables, method, options, Settling(settled))
    fine = states[-1]
    complete_ends(fine)
    value, a, corrections = fine.V, fine.a, Corrections()
    if fine.status != "not converged":
        if method.order > 1:
            with clock.phase("defect correction"):
                corrections = Corrections.on(states, method.order)
                value, a = corrections.pick(fine, method.order)
        elif method.richardson:
            value = corrections.extrapolate(states)
        with clock.phase("error bar"):
            bar = bound(states, corrections, value, method)
            box = _larger(problem, states, method, options, settled, tabulated)
            (bar,) = box.widened([bar], region_mask(fine))
            bar = with_surface(bar, problem, fine)
    else:
        unknown = np.full(grid.shape, np.inf)
        bar = ErrorBar(unknown, {}, None, ("no bar: the iteration did not converge",))
    fields = {
        "problem": problem,
        "grid": grid,
        "value": problem.sign * value,
        "error_bar": bar.total,
        "report": report_of(problem, states, method, clock, corrections, bar),
        "scheme": method.scheme,
        "second_opinion": opinion(problem, states, corrections),
        "artificial_axes": problem.artificial_axes,
        "stopping": fine.stopped_nodes() if problem.stops else None,
    }
    return fields, a


def _larger(
    problem: ControlProblem,
    states: list[GridState],
    method: PolicyIteration,
    options: RunOptions,
    settled: Callable[..., None] | None,
    tabulated: Tabulated,
) -> LargerBox:
    """The same scheme with the artificial faces farther off."""

    def solved(wider: ControlProblem, wide: Grid, _: int) -> tuple[Array, Array]:
        tables, solver = tabulated(wider, wide), Settling(settled)
        there = options.on(wider)
        last = solve_nested(wider, wide, tables, method, there, solver)[-1]
        require_settled(last.status)
        return last.V, truncation_bar(last, last.V)

    return LargerBox(problem, [s.grid for s in states], [s.V for s in states], solved)


def with_surface(
    bar: ErrorBar, problem: ControlProblem, fine: GridState, miss: float | None = None
) -> ErrorBar:
    """The bar with what exit nodes beyond the surface can cost, everywhere.

    By `miss`, where other modes may be off by more at surfaces of theirs.
    """
    if problem.exit is None:
        return bar
    miss = surface_miss(problem, fine, fine.V) if miss is None else miss
    running = (np.asarray(problem.exit.region(fine.grid.nodes())) > 0).astype(float)
    # Cells cut by the surface read the bar of their exit nodes as well.
    felt = neighbour_maximum(np.broadcast_to(running, fine.grid.shape), fine.grid)
    parts = {**bar.parts, "exit surface": miss}
    return replace(bar, total=bar.total + miss * felt, parts=parts)


def opinion(
    problem: ControlProblem, states: list[GridState], corrections: Corrections
) -> Array | None:
    """A value that knows the gradient better, or errs as much the other way."""
    fine = states[-1]
    if corrections.fourth and corrections.fourth[-1].settled:
        return problem.sign * corrections.fourth[-1].V
    if not (fine.may_stop or fine.faces.inside) or len(states) < 2:
        return None
    # Extrapolated at first order: no more is certain beside an exit or an obstacle.
    return problem.sign * extrapolated(fine.grid, fine.V, states[-2].V)


def extrapolated(grid: Grid, fine: Array, coarse: Array) -> Array:
    """``2 V_h - V_2h`` at the nodes of `grid`, of values on it and its coarsening."""
    kept = fine[np.ix_(*(grid.kept(k) for k in range(fine.ndim)))]
    return fine + cubically_prolonged(kept - coarse, grid)


def report_of(
    problem: ControlProblem,
    states: list[GridState],
    method: PolicyIteration,
    clock: Clock,
    corrections: Corrections,
    bar: ErrorBar,
) -> Report:
    """What the solution says about how it was found."""
    fine = states[-1]
    checks = [f"linear solves by {fine.ladder.name}, every residual measured"]
    for (axis, side), rule in problem.faces.items():
        if rule is None:
            checks.append(
                f"face ({axis}, {side}) is artificial: closed by continuing the slope "
                "of V from inside; the truncation part answers for it"
            )
    if fine.off_axes is not None:
        checks += fine.off_axes.notes
    note = fine.tables.note
    if isinstance(fine.tables, GeneralTables) and note:
        checks.append(f"controls searched at every node ({note})")
    if isinstance(fine.tables, GameTables):
        checks.append(note)
    fallbacks = [text for s in states for text in s.ladder.fallbacks]
    return Report(
        status=fine.status,
        method=method.name,
        iterations=len(fine.bounds),
        residuals=tuple(fine.bounds),
        seconds=dict(clock.seconds),
        checks=(*checks, *bar.notes),
        fallbacks=(*dict.fromkeys(fallbacks), *corrections.notes),
        error_parts=bar.parts,
        observed_order=bar.observed_order,
        details={"grids": [list(s.grid.shape) for s in states]},
    )
