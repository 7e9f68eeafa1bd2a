"""One whole semi-Lagrangian march: steps, nested grids, error bar, solution."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoint import Checkpoint
from ..data_in_time import Breaks, DataInTime
from ..error_bar import ErrorBar
from ..errors import ProblemError
from ..game_solution import GameSolution
from ..grid import Grid
from ..methods.end_slopes import Closing
from ..methods.run import Clock as Stopwatch
from ..players import one_player
from ..problem import ControlProblem
from ..progress import bar_over
from ..prolongation import nested_grids
from ..report import Report
from ..schemes import Hybrid
from ..timed_moded_solution import TimedModedSolution
from ..timed_solution import TimedSolution
from .march import Clock, March, Marched
from .method import SemiLagrangian
from .nested import LEVELS, planned, sampled
from .order_of_play import weighed
from .parts import parts_of
from .step_length import StepLength, active_columns
from .system import extrapolated
from .timed_bar import timed_bound

Array = NDArray[np.float64]


def run_timed(
    problem: ControlProblem,
    grid: Grid,
    method: SemiLagrangian,
    outputs: Array,
    file: Checkpoint,
    progress: bool = False,
) -> TimedSolution:
    """March on nested grids, with steps tied to their cells, and bound the error."""
    clock = Stopwatch()
    with clock.phase("march"):
        plan = Plan.of(problem, grid, method, file)
        levels = [
            plan.march(i, outputs)
            for i, _ in bar_over(
                range(len(plan.grids)),
                [g.shape for g in plan.grids],
                progress,
                "march",
            )
        ]
    with clock.phase("error bar"):
        bars = _bars(plan, levels, outputs)
    arrays: list[dict[str, Any]] = [
        _arrays(problem, [march[k] for march in levels], bar, method.order)
        for k, bar in enumerate(bars)
    ]
    kind: type[TimedSolution] = TimedSolution
    joined: dict[str, Any] = arrays[0]
    if problem.adversary is not None:
        kind, joined = GameSolution, _players(problem, grid, joined)
    if problem.modes is not None:
        kind = TimedModedSolution
        joined = {
            name: None if v is None else np.stack([one[name] for one in arrays], axis=1)
            for name, v in joined.items()
        }
    fine = [march[0] for march in levels]
    return kind(
        problem=problem,
        grid=grid,
        times=outputs,
        report=_report(problem, method, fine, bars, dict(clock.seconds)),
        scheme=Hybrid(),
        artificial_axes=problem.artificial_axes,
        **joined,
    )


def _bars(plan: Plan, levels: list[list[Marched]], outputs: Array) -> list[ErrorBar]:
    """The bar of every mode."""
    other = plan.march_otherwise(outputs)
    found = []
    for k in range(len(levels[0])):
        known = None
        if other is not None:
            known = other[0], [march[k].values for march in other[1]]
        alone = [march[k] for march in levels]
        found.append(timed_bound(outputs, alone, plan.method.order, known))
    return found


def _arrays(
    problem: ControlProblem, levels: list[Marched], bar: ErrorBar, order: int
) -> dict[str, Any]:
    """What a solution keeps of one mode."""
    fine = levels[-1]
    return {
        "value": problem.sign * fine.values,
        "control": fine.controls,
        "error_bar": bar.total,
        "second_opinion": _opinion(problem, levels, order),
        "stopping": fine.stops if problem.stops else None,
    }


def _players(
    problem: ControlProblem, grid: Grid, arrays: dict[str, Any]
) -> dict[str, Any]:
    """Both players' controls in time, and what their order is worth at t = 0."""
    u, m = arrays["control"], problem.n_controls
    now = problem.slice_at(0.0, 1.0)
    return {
        **arrays,
        "control": np.ascontiguousarray(u[..., :m]),
        "adversary_control": np.ascontiguousarray(u[..., m:]),
        "isaacs_gap": weighed(now, grid, problem.sign * arrays["value"][0], u[0])[0],
    }


class Plan:
    """The grids from coarse to fine and the steps taken on each.

    Raises
    ------
    ProblemError
        More steps than `SemiLagrangian.max_steps`.
    """

    def __init__(
        self,
        problem: ControlProblem,
        grids: list[Grid],
        method: SemiLagrangian,
        columns: list[int],
        length: StepLength,
        marks: tuple[Array, Breaks],
        file: Checkpoint,
    ) -> None:
        self.problem, self.grids, self.method = problem, grids, method
        self.breaks = marks[1]
        self.columns, self.power, self.file = columns, length.power, file
        self._check_steps(length)
        self.clock = Clock.of(marks[0], length.at(len(grids) - 1))

    def _check_steps(self, length: StepLength) -> None:
        """Refuse a horizon of too many steps before their times are laid out."""
        steps = float(self.problem.horizon or 0.0) / length.delta
        if steps <= self.method.max_steps:
            return
        why = "noise" if self.power == 2 else "drift"
        if self.method.step is not None:
            why = f"step = {self.method.step:g}"
        raise ProblemError(
            f"SemiLagrangian: the {why} asks for {steps:.0f} steps to the horizon "
            f"on the grid {self.grids[-1].shape}, more than max_steps = "
            f"{self.method.max_steps}. Take a coarser grid, linear readings or a "
            "longer step=; hjb.Marching takes long steps where noise is large."
        )

    @classmethod
    def of(
        cls,
        problem: ControlProblem,
        grid: Grid,
        method: SemiLagrangian,
        file: Checkpoint,
    ) -> Plan:
        """Steps for the speeds of sampled controls, then of those found best.

        The latter are those of a first march on the coarsest grid.
        """
        grids = nested_grids(grid)[-LEVELS:]
        f, sigma = _sampled(problem, grids[0])
        columns = active_columns(sigma)
        length = planned(problem, grid, f, sigma[:, :, columns], method)
        marks = _marks(problem)
        plan = cls(problem, grids, method, columns, length, marks, file)
        if method.step is not None or one_player(problem).n_controls == 0:
            return plan
        ends = np.array([0.0, float(problem.horizon or 0.0)])
        trial = plan.march(0, ends, part="trial ")
        f = np.concatenate([one.fastest.f for one in trial])
        sigma = np.concatenate([one.fastest.sigma for one in trial])
        length = planned(problem, grid, f, sigma, method)
        return cls(problem, grids, method, columns, length, marks, file)

    def march(
        self,
        level: int,
        outputs: Array,
        closing: Closing = Closing.ANCHORED,
        bent: bool = False,
        part: str = "",
    ) -> list[Marched]:
        """On one of the grids, all modes; `part` begins the name of its page."""
        grid = self.grids[level]
        given = (self.problem, grid, self.method, self.columns, self.breaks)
        march = March(*given, closing, bent)
        name = f"{part}{grid.shape}, {closing.value}{', bent' if bent else ''}"
        return march.run(self._clock(level), outputs, self.file.page(name))

    def _clock(self, level: int) -> Clock:
        return replace(self.clock, cuts=2 ** (self.power * level))

    def march_otherwise(self, outputs: Array) -> tuple[int, list[list[Marched]]] | None:
        """Marches with artificial faces closed otherwise, and on which of the grids."""
        if not any(self.problem.artificial_axes):
            return None
        level = max(len(self.grids) - 2, 0)
        others = [
            self.march(level, outputs, one) for one in (Closing.HELD, Closing.CONTINUED)
        ]
        if self.problem.jumps is not None:
            others.append(self.march(level, outputs, bent=True))
        return level, others


def _marks(problem: ControlProblem) -> tuple[Array, Breaks]:
    """Times that end steps on all grids, 0, T and all dates among them; the breaks."""
    ends = np.unique(np.r_[0.0, problem.dates, float(problem.horizon or 0.0)])
    data = DataInTime.of(problem)
    breaks = data.breaks()
    return data.followed(ends, breaks), breaks


def _sampled(problem: ControlProblem, grid: Grid) -> tuple[Array, Array]:
    """Drifts and noises of a few controls, today, half way and at the horizon."""
    end = float(problem.horizon or 0.0)
    found = [
        sampled(part.at(s * end), grid)
        for part in parts_of(problem)
        for s in (0.0, 0.5, 1.0)
    ]
    return np.concatenate([f for f, _ in found]), np.concatenate([s for _, s in found])


def _opinion(
    problem: ControlProblem, levels: list[Marched], order: int
) -> Array | None:
    """Values (T, *shape) extrapolated from two grids."""
    if len(levels) < 2:
        return None
    fine, coarse = levels[-1], levels[-2]
    return problem.sign * extrapolated(fine.values, coarse.values, fine.grid, order)


def _report(
    problem: ControlProblem,
    method: SemiLagrangian,
    levels: list[Marched],
    bars: list[ErrorBar],
    seconds: dict[str, float],
) -> Report:
    """One report for all modes, of which `levels` are the first one's."""
    details: dict[str, Any] = {
        "grids": [list(level.grid.shape) for level in levels],
        "steps": [level.steps for level in levels],
    }
    if problem.dates:
        details["dates"] = list(problem.dates)
    notes = dict.fromkeys(note for bar in bars for note in bar.notes)
    orders = [bar.observed_order for bar in bars if bar.observed_order is not None]
    return Report(
        status="converged",
        method=f"{method.name}, marched",
        iterations=sum(level.steps for level in levels),
        seconds=seconds,
        checks=("every step's value finite", *notes),
        error_parts={n: max(bar.parts[n] for bar in bars) for n in bars[0].parts},
        observed_order=min(orders, default=None),
        details=details,
    )
