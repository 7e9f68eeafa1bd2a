"""One whole solve in time: nested grids in space and time, and their error bar."""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from ..exit_surface import surface_miss
from ..grid import Grid
from ..problem import ControlProblem
from ..progress import bar_over
from ..report import Report
from ..timed_solution import TimedSolution
from .corrections import all_central
from .marching import Marching, Run, Stepper, halved, march, romberg, time_grid
from .marching_bar import InSpace, InTime, carried
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
    levels: list[InTime] = []
    for one, _ in bar_over(grids, [g.shape for g in grids], progress, "march"):
        level, run, stepper = _in_time(problem, one, method, to_go, outputs)
        levels.append(level)
    spent = time.perf_counter() - start
    closure = _closure_error(problem, grids[0], method, to_go, outputs)
    nested = InSpace(levels)
    values, bar, parts = nested.answer(method.order)
    cut = carried(closure, grids[0], grid)
    parts["truncation"] = float(np.max(cut[:, _inner(problem, grid)]))
    if problem.exit is not None:
        missed = _surface(stepper, levels[-1].best, outputs)
        parts["exit surface"], bar = float(missed.max()), bar + missed
    opinion = nested.opinion(values)
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
            iterations=len(to_go) * (2 ** max(method.levels, 2) - 1),
            seconds={"march": spent},
            checks=("every step's residual or change measured",),
            error_parts=parts,
            details={"grids": [list(g.shape) for g in grids], "steps": len(to_go) - 1},
        ),
        scheme=method.scheme,
        second_opinion=None if opinion is None else problem.sign * opinion,
        artificial_axes=problem.artificial_axes,
    )


def _in_time(
    problem: ControlProblem, grid: Grid, method: Marching, to_go: Array, outputs: Array
) -> tuple[InTime, Run, Stepper]:
    """Values extrapolated in the step, the last run and its stepper."""
    runs: list[Run] = []
    times = to_go
    # One step size alone says nothing about its error: a second one judges it.
    for level in range(max(method.levels, 2)):
        times = times if level == 0 else halved(times)
        stepper = Stepper.of(problem, grid, method.scheme)
        runs.append(march(stepper, times, outputs))
    values = [run.values for run in runs]
    best, before, earlier = romberg(values, 2 if problem.stops else method.levels - 1)
    if method.levels == 1:
        best, before, earlier = values[0], 2.0 * values[1] - values[0], None
    if problem.stops:
        best = _on_the_right_side(stepper, best, outputs)
    _remember(stepper)
    central = stepper.state.under is None or all_central(stepper.state)
    level = InTime(grid, best, before, earlier, central, bool(problem.stops))
    return level, runs[-1], stepper


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


def _closure_error(
    problem: ControlProblem,
    grid: Grid,
    method: Marching,
    to_go: Array,
    outputs: Array,
) -> Array:
    """How far another closure of artificial faces moves V on the coarsest grid.

    Slopes held where the terminal data have them, against slopes continued.
    """
    if not any(problem.artificial_axes):
        return np.zeros((len(outputs), *grid.shape))
    stepper = Stepper.of(problem, grid, method.scheme, closed=False)
    run = march(stepper, to_go, outputs)
    other = Stepper.of(problem, grid, method.scheme)
    same = march(other, to_go, outputs)
    return np.abs(run.values - same.values)


def _inner(problem: ControlProblem, grid: Grid) -> NDArray[np.bool_]:
    region = grid.domain.inner(0.75, problem.artificial_axes)
    return region.contains(grid.nodes(), 1e-12)
