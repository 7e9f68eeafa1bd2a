"""One whole solve in time: nested grids in space and time, and their error bar."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from ..error_bar import SAFETY, neighbour_maximum
from ..exit_surface import surface_miss
from ..grid import Grid
from ..interpolation import Interpolant
from ..problem import ControlProblem
from ..progress import bar_over
from ..report import Report
from ..timed_solution import TimedSolution
from .corrections import all_central
from .marching import Marching, Run, Stepper, halved, march, romberg, time_grid
from .policy_iteration import nested_grids
from .state import set_obstacles

Array = NDArray[np.float64]


def run_marching(
    problem: ControlProblem,
    grid: Grid,
    method: Marching,
    outputs: Array,
    progress: bool = False,
) -> TimedSolution:
    """March on up to three nested grids and on halved time grids; bound the error."""
    start = time.perf_counter()
    grids = nested_grids(grid)[-3:]
    to_go = time_grid(float(problem.horizon or 0.0), outputs, method.steps)
    found, central = [], []
    for one, _ in bar_over(grids, [g.shape for g in grids], progress, "march"):
        best, before, run, stepper = _in_time(problem, one, method, to_go, outputs)
        found.append((best, before, run))
        missed = _surface(stepper, best, outputs)
        central.append(stepper.state.under is None or all_central(stepper.state))
    spent = time.perf_counter() - start
    closure = _closure_error(problem, grids[0], method, to_go, outputs, found[0][0])
    values, bar, parts = _in_space(found, grids, central, method)
    cut = np.stack([_carried(c, grids, grid) for c in closure])
    parts["truncation"] = float(np.max(cut[:, _inner(problem, grid)]))
    if problem.exit is not None:
        parts["exit surface"], bar = float(missed.max()), bar + missed
    run = found[-1][2]
    return TimedSolution(
        problem=problem,
        grid=grid,
        times=outputs,
        value=problem.sign * values,
        control=run.controls,
        error_bar=bar + cut + 8 * np.finfo(float).eps * float(np.max(np.abs(values))),
        stopping=run.stops if problem.stops else None,
        report=Report(
            status="converged",
            method=method.name,
            iterations=len(to_go) * (2**method.levels - 1),
            seconds={"march": spent},
            checks=("every step's residual or change measured",),
            error_parts=parts,
            details={"grids": [list(g.shape) for g in grids], "steps": len(to_go) - 1},
        ),
        scheme=method.scheme,
        second_opinion=_opinion(problem, values, found, grids),
        artificial_axes=problem.artificial_axes,
    )


def _in_time(
    problem: ControlProblem, grid: Grid, method: Marching, to_go: Array, outputs: Array
) -> tuple[Array, Array, Run, Stepper]:
    """The best value in time, the one before, the last run and its stepper."""
    values: list[Array] = []
    times = to_go
    for level in range(method.levels):
        times = times if level == 0 else halved(times)
        stepper = Stepper.of(problem, grid, method.scheme)
        run = march(stepper, times, outputs)
        values.append(run.values)
    highest = 2 if problem.stops else method.levels - 1
    best, before = romberg(values, highest)
    if problem.stops:
        best = _on_the_right_side(stepper, best, outputs)
    _remember(stepper)
    return best, before, run, stepper


def _on_the_right_side(stepper: Stepper, values: Array, outputs: Array) -> Array:
    """Extrapolated values (T, *shape) moved back to every stopping payoff passed."""
    state, problem = stepper.state, stepper.problem
    last, found = state.V, values.copy()
    for V, t in zip(found[::-1], outputs[::-1], strict=True):
        if problem.data_depend_on_time:
            set_obstacles(problem.at_time(float(t)), state)
        if state.least is not None:
            np.maximum(V, state.least, out=V)
        if state.most is not None:
            np.minimum(V, state.most, out=V)
    state.V = last
    return found


def _remember(stepper: Stepper) -> None:
    """The coefficients of the last policy, which the fused kernel does not keep."""
    stepper.state.under = stepper.state.tables.under(stepper.state.a)


def _surface(stepper: Stepper, values: Array, outputs: Array) -> Array:
    """What exit nodes beyond the surface cost at every output, (T, 1, ...).

    Felt at all earlier times; at the horizon itself V is the terminal value.
    """
    problem, state = stepper.problem, stepper.state
    found = [
        surface_miss(problem.at_time(float(t)), state, V)
        for t, V in zip(outputs[:-1], values[:-1], strict=True)
    ]
    until = np.maximum.accumulate([0.0, *found[::-1]])[::-1]
    return until.reshape(-1, *(1,) * stepper.grid.dimension)


def _in_space(
    found: list[tuple[Array, Array, Run]],
    grids: list[Grid],
    central: list[bool],
    method: Marching,
) -> tuple[Array, Array, dict[str, float]]:
    """The value returned, its bar (T, *shape), and the bar's parts."""
    grid = grids[-1]
    best, before, _ = found[-1]
    in_time = np.stack([neighbour_maximum(v, grid) for v in np.abs(best - before)])
    if len(found) == 1:
        change = np.full_like(best, np.max(np.abs(best)))
        return best, change, {"discretisation": float(np.max(change))}
    step = _gap(found, grids, -1)
    smooth = central[-1] and central[-2]
    better = best + step / 3.0
    size = np.stack([neighbour_maximum(v, grid) for v in np.abs(step)])
    if not smooth:
        return _packed(best, SAFETY * size, in_time)
    rest = 0.5 * size / 3.0
    if len(found) == 3:
        coarse = _gap(found[:-1], grids[:-1], -1) / 3.0
        previous = found[-2][0] + coarse
        index = np.ix_(*[grid.kept(k) for k in range(grid.dimension)])
        miss = np.abs(better[(slice(None), *index)] - previous)
        rest = np.stack([_to_fine(neighbour_maximum(m, grids[-2]), grid) for m in miss])
    if method.order == 4:
        return _packed(better, SAFETY * rest, in_time)
    return _packed(best, SAFETY * (size / 3.0 + rest), in_time)


def _opinion(
    problem: ControlProblem,
    values: Array,
    found: list[tuple[Array, Array, Run]],
    grids: list[Grid],
) -> Array | None:
    """What gradients of the values returned are measured against.

    The value before extrapolation; where there was none, one extrapolated at first
    order, which is off by as much the other way.
    """
    best = found[-1][0]
    if values is not best:
        return problem.sign * best
    return None if len(found) == 1 else problem.sign * (best + _gap(found, grids, -1))


def _packed(
    value: Array, space: Array, in_time: Array
) -> tuple[Array, Array, dict[str, float]]:
    parts = {"discretisation": float(np.max(space)), "time": float(np.max(in_time))}
    return value, space + SAFETY * in_time, parts


def _gap(found: list[tuple[Array, Array, Run]], grids: list[Grid], at: int) -> Array:
    """V_h - V_2h on the finer nodes, by cubic interpolation of the coarse gaps."""
    fine, coarse = grids[at], grids[at - 1]
    index = np.ix_(*[fine.kept(k) for k in range(fine.dimension)])
    gaps = found[at][0][(slice(None), *index)] - found[at - 1][0]
    nodes = fine.nodes()
    return np.stack([Interpolant(coarse, gap).cubic(nodes) for gap in gaps])


def _to_fine(values: Array, fine: Grid) -> Array:
    return Interpolant(fine.coarsened(), values).linear(fine.nodes())


def _carried(values: Array, grids: list[Grid], grid: Grid) -> Array:
    """Values on the coarsest of the grids, linear on the finest."""
    return Interpolant(grids[0], values).linear(grid.nodes())


def _closure_error(
    problem: ControlProblem,
    grid: Grid,
    method: Marching,
    to_go: Array,
    outputs: Array,
    closed: Array,
) -> Array:
    """How far another closure of artificial faces moves V on the coarsest grid.

    Slopes held where the terminal data have them, against slopes continued.
    """
    if not any(problem.artificial_axes):
        return np.zeros_like(closed)
    stepper = Stepper.of(problem, grid, method.scheme, closed=False)
    run = march(stepper, to_go, outputs)
    other = Stepper.of(problem, grid, method.scheme)
    same = march(other, to_go, outputs)
    return np.abs(run.values - same.values)


def _inner(problem: ControlProblem, grid: Grid) -> NDArray[np.bool_]:
    region = grid.domain.inner(0.75, problem.artificial_axes)
    return region.contains(grid.nodes(), 1e-12)
