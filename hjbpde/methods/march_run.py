"""One whole solve in time: nested grids in space and time, and their error bar."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoint import Checkpoint
from ..exit_surface import surface_miss
from ..game_solution import GameSolution
from ..game_tables import GameTables
from ..grid import Grid
from ..problem import ControlProblem
from ..progress import bar_over
from ..prolongation import nested_grids
from ..report import Report
from ..timed_moded_solution import TimedModedSolution
from ..timed_solution import TimedSolution
from .adaptive_steps import adapted_times
from .marched_corrections import CorrectedStepper, can_be_corrected
from .marched_faces import MarchedFaces, Plan
from .marching import Marches, Marching, Run, march, romberg
from .marching_bar import Answer, InSpace, InTime
from .moded_marching import stepper_of
from .policy_iteration import EPS
from .state import set_obstacles
from .stationary_game import check_game_faces, gap_of
from .stepper import Stepper
from .time_grids import data_grid, goals_of, halved

Array = NDArray[np.float64]
MOST_ONE_SIDED = 0.05
"""Share of nodes, over all steps, that may be one-sided where weights count as central:
few are so, and soon after a steep terminal value only. None at the last step."""
RUNAWAY = 5.0
"""Times max|V| of the finest grid, from which on a coarser grid's V has run away."""


def run_marching(
    problem: ControlProblem,
    grid: Grid,
    method: Marching,
    outputs: Array,
    checkpoint: Checkpoint,
    progress: bool = False,
    beyond: bool = True,
) -> TimedSolution:
    """March on up to three nested grids and on halved time grids; bound the error.

    What lies beyond artificial faces is looked at where `beyond`.

    Returns
    -------
    TimedSolution; TimedModedSolution where the problem has modes, GameSolution where
    it has an adversary.
    """
    if problem.adversary is not None:
        check_game_faces(problem)
    start = time.perf_counter()
    grids = nested_grids(grid)[-3:]
    to_go = _times(problem, grids[0], method, outputs, checkpoint)
    plan = Plan(to_go, outputs, checkpoint)
    marched = [
        _in_time(problem, one, method, plan)
        for one, _ in bar_over(grids, [g.shape for g in grids], progress, "march")
    ]
    marched = _without_runaways(marched)
    nested = InSpace([one.level for one in marched])
    grids = [one.grid for one in nested.levels]
    found, details = nested.answer(method.order), _details(problem, grids, to_go)
    runs, stepper = marched[-1].runs, marched[-1].stepper
    controls, shape = runs[-1].controls, runs[-1].values.shape
    if can_be_corrected(problem, method, nested):
        found, controls, share = _corrected(
            problem, method, plan, marched, found, progress
        )
        details["corrected"] = share
    spent = time.perf_counter() - start
    values, bar, parts, opinion = found.value, found.bar, found.parts, found.opinion
    faces = MarchedFaces(problem, method, plan, runs[0], stepper)
    cut = faces.truncation(beyond)
    if beyond:
        solved = partial(_values_and_bars, method=method, outputs=outputs)
        cut = faces.narrowed(cut, bar, values, solved)
    parts["truncation"] = float(np.max(cut[:, faces.inner]))
    if problem.exit is not None:
        missed = _surface(stepper, nested.levels[-1].best, outputs)
        parts["exit surface"], bar = float(missed.max()), bar + missed
    if problem.stops:
        # Extrapolation in space may pass psi once more.
        values = _on_the_right_side(stepper, values, outputs)
    bar = bar + cut + 8 * EPS * float(np.max(np.abs(values)))
    fields: dict[str, Any] = {
        "problem": problem,
        "grid": grid,
        "times": outputs,
        "value": problem.sign * values.reshape(shape),
        "control": controls,
        "error_bar": bar.reshape(shape),
        "stopping": runs[-1].stops if problem.stops else None,
        "report": _report(method, parts, spent, details),
        "scheme": method.scheme,
        "second_opinion": (
            None if opinion is None else problem.sign * opinion.reshape(shape)
        ),
        "artificial_axes": problem.artificial_axes,
    }
    if problem.adversary is not None:
        return GameSolution(**{**fields, **_players(stepper.parts[0], runs[-1])})
    kind = TimedSolution if problem.modes is None else TimedModedSolution
    return kind(**fields)


def _times(
    problem: ControlProblem, coarsest: Grid, method: Marching, outputs: Array,
    checkpoint: Checkpoint,
) -> Array:  # fmt: skip
    """Times to go of the coarsest time grid; steps begin where data jump or bend."""
    page = checkpoint.page("times")
    kept = page.found()
    if kept is not None:
        return kept["to_go"]
    if method.local_error is None:
        to_go = data_grid(problem, outputs, method.steps)
    else:
        pilot = stepper_of(problem, coarsest, method.scheme)
        goals = goals_of(problem, outputs)
        to_go = adapted_times(pilot, goals, method.local_error, problem.dates)
    page.keep(lambda: {"to_go": to_go}, finished=True)
    return to_go


def _report(
    method: Marching, parts: dict[str, float], spent: float, details: dict[str, Any]
) -> Report:
    return Report(
        status="converged",
        method=method.name,
        iterations=(details["steps"] + 1) * (2 ** max(method.levels, 2) - 1),
        seconds={"march": spent},
        checks=("every step's residual or change measured",),
        error_parts=parts,
        details=details,
    )


def _players(stepper: Stepper, run: Run) -> dict[str, Any]:
    """Both players' controls in time, and what their order is worth at t = 0."""
    m, tables, grid = stepper.problem.n_controls, stepper.state.tables, stepper.grid
    assert isinstance(tables, GameTables)
    u = np.ascontiguousarray(run.controls[0].reshape(grid.size, -1).T)
    now = stepper.problem.slice_at(0.0, 1.0)
    return {
        "control": np.ascontiguousarray(run.controls[..., :m]),
        "adversary_control": np.ascontiguousarray(run.controls[..., m:]),
        "isaacs_gap": gap_of(now, grid, tables, run.values[0], u),
    }


def _values_and_bars(
    problem: ControlProblem, grid: Grid, method: Marching, outputs: Array
) -> tuple[Array, Array]:
    """V in the maximising sense and its bar, with what closures alone tell of faces."""
    found = run_marching(problem, grid, method, outputs, Checkpoint(), beyond=False)
    return problem.sign * np.asarray(found.value), np.asarray(found.error_bar)


def _details(
    problem: ControlProblem, grids: list[Grid], to_go: Array
) -> dict[str, Any]:
    """Grids and steps, and the dates after which V jumps."""
    found: dict[str, Any] = {"grids": [list(g.shape) for g in grids]}
    found["steps"] = len(to_go) - 1
    return {**found, "dates": list(problem.dates)} if problem.dates else found


@dataclass(frozen=True, eq=False)
class Marched:
    """A problem marched on one grid: values extrapolated in the step, the runs behind
    them and the last stepper."""

    level: InTime
    runs: list[Run]
    stepper: Marches


def _in_time(
    problem: ControlProblem,
    grid: Grid,
    method: Marching,
    plan: Plan,
    before: Marched | None = None,
) -> Marched:
    """March on one grid; with corrected steps where it was marched `before`."""
    runs: list[Run] = []
    times, stepper = plan.to_go, None if before is None else before.stepper
    kind, title = (Stepper, "") if before is None else (CorrectedStepper, "corrected, ")
    # One step size alone says nothing about its error: a second one judges it.
    for level in range(max(method.levels, 2)):
        times = times if level == 0 else halved(times)
        stepper = stepper_of(problem, grid, method.scheme, before=stepper, kind=kind)
        page = plan.checkpoint.page(f"{grid.shape}, {title}halved {level} times")
        # Whether the scheme is central, the steps of one run can tell for all.
        watch = level == 0 and before is None
        runs.append(march(stepper, times, plan.outputs, page, watch))
    assert stepper is not None
    values = [run.values.reshape(-1, *grid.shape) for run in runs]
    may_stop = any(stop.dates is None for stop in problem.stops)
    best, last, earlier = romberg(values, 2 if may_stop else method.levels - 1)
    if method.levels == 1:
        best, last, earlier = values[0], 2.0 * values[1] - values[0], None
    elif method.local_error is not None:
        # The best without the last halving, where that is farther away.
        less = romberg(values[:-1], 2 if may_stop else method.levels - 2)[0]
        further = np.abs(best - less) > np.abs(best - last)
        last = np.where(further, less, last)
    if problem.stops:
        best = _on_the_right_side(stepper, best, plan.outputs)
    every, last_one = runs[0].one_sided
    central = bool(every <= MOST_ONE_SIDED and last_one == 0.0)
    kinks = max(part.kinks for part in stepper.parts)
    kinds = (central, may_stop, bool(problem.dates), kinks)
    adapted = method.local_error is not None
    level = InTime(grid, best, last, earlier, *kinds, len(stepper.parts), adapted)
    return Marched(level, runs, stepper)


def _without_runaways(marched: list[Marched]) -> list[Marched]:
    """Without grids so coarse that V ran away there: they tell nothing of an order.

    Unbounded controls and a slope that a few nodes continue wrongly can do that.
    """
    scales = [float(np.abs(one.level.best).max()) for one in marched]
    gone = [i for i, scale in enumerate(scales) if scale > RUNAWAY * scales[-1]]
    return marched[max(gone, default=-1) + 1 :]


def _corrected(
    problem: ControlProblem,
    method: Marching,
    plan: Plan,
    marched: list[Marched],
    found: Answer,
    progress: bool,
) -> tuple[Answer, Array, float]:
    """The answer of corrected steps where it is taken, its controls, and its share."""
    shapes = [one.level.grid.shape for one in marched]
    again = [
        _in_time(problem, one.level.grid, method, plan, one)
        for one, _ in bar_over(marched, shapes, progress, "correct")
    ]
    answer, taken = found.corrected_by(
        InSpace([one.level for one in again]).corrected()
    )
    plain, better = (each[-1].runs[-1].controls for each in (marched, again))
    return answer, np.where(taken[..., None], better, plain), float(taken.mean())


def _on_the_right_side(stepper: Marches, values: Array, outputs: Array) -> Array:
    """Extrapolated values (T, *shape) moved back to every stopping payoff passed."""
    several, found = len(stepper.parts), values.copy()
    for k, part in enumerate(stepper.parts):
        state, problem, last = part.state, part.problem, part.state.V
        for V, t in zip(found[k::several][::-1], outputs[::-1], strict=True):
            set_obstacles(problem, state, problem.stops_at(float(t)))
            if state.least is not None:
                np.maximum(V, state.least, out=V)
            if state.most is not None:
                np.minimum(V, state.most, out=V)
        state.V = last
    return found


def _surface(stepper: Marches, values: Array, outputs: Array) -> Array:
    """What exit nodes beyond the surface cost at every output, (T, 1, ...).

    Felt at all earlier times, in all modes; at the horizon V is the terminal value.
    """
    several = len(stepper.parts)
    found = [
        max(
            surface_miss(part.problem.at_time(float(t)), part.state, values[row + k])
            for k, part in enumerate(stepper.parts)
        )
        for row, t in zip(range(0, len(values), several), outputs[:-1], strict=False)
    ]
    until = np.maximum.accumulate([0.0, *found[::-1]])[::-1]
    return np.repeat(until, several).reshape(-1, *(1,) * stepper.grid.dimension)
