"""What a candidate is compared with: the problem, its grid, and when it is asked."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import hjbpde as hjb
from hjbpde import ControlProblem, Grid, HJBError, MethodMismatch, ProblemError

from .subject import Subject
from .when import When

Array = NDArray[np.float64]

TAKES = (
    *("horizon", "exit", "stop", "jumps", "adversary", "modes", "average"),
    "impulse",
)
"""Special fields of problems that can be judged."""
DEFAULT_BUDGET = 60.0
DEFAULT_SHAPE = {1: 401, 2: 101, 3: 33, 4: 17}
DEFAULT_TIMES = (0.0, 0.25, 0.5, 0.75)
"""Shares of the horizon; at the horizon itself the value is data."""
GROWTH = 2.5
"""How much longer than 2^d times the last one a refined comparison may take."""


def problem_of(reference: Any) -> ControlProblem:
    """The problem that the reference answers, or is."""
    if isinstance(reference, ControlProblem):
        return reference
    problem = getattr(reference, "problem", None)
    if not isinstance(problem, ControlProblem) or not hasattr(reference, "value_at"):
        raise ProblemError(
            f"cross_check: the reference is a {type(reference).__name__} without its "
            "problem; give a Solution (loaded ones with hjb.load(path, problem=...)) "
            "or a ControlProblem, which is then solved."
        )
    return problem


WITH_MODES = {"modes", "horizon"}
"""Special fields that can be judged together with modes."""


def check_taken(what: str, problem: ControlProblem) -> None:
    """Refuse, before any work, problems that cannot be judged.

    Raises
    ------
    MethodMismatch
        Naming the fields.
    """
    problem.require_only(what, *TAKES)
    more = sorted(problem.special - WITH_MODES)
    if problem.modes is not None and more:
        raise MethodMismatch(
            f"{what} does not know the field {', '.join(map(repr, more))} together "
            "with 'modes'; with modes it takes discounted problems, and horizons."
        )


def grid_of(solution: Any, problem: ControlProblem) -> Grid:
    """The reference's own grid, or the problem's where it has none."""
    grid = getattr(solution, "grid", None)
    return grid if isinstance(grid, Grid) else first_grid(problem)


def first_grid(problem: ControlProblem) -> Grid:
    """The suggested grid, else a default shape for the dimension."""
    if problem.suggested_grid is not None:
        return problem.suggested_grid
    assert problem.domain is not None
    return Grid(problem.domain, (DEFAULT_SHAPE.get(problem.dimension, 9),))


def times_of(
    problem: ControlProblem, reference: Any, asked: Sequence[float] | None
) -> Array | None:
    """Calendar times to judge at, increasing; None without a horizon.

    By default 0 and the first three quarters of the horizon, or those times nearest
    to them that the reference has kept, where its bar is smallest.

    Raises
    ------
    ProblemError
        Times without a horizon, outside [0, T), or none.
    """
    if problem.horizon is None:
        if asked is not None:
            raise ProblemError("cross_check: times= needs a problem with a horizon.")
        return None
    end = float(problem.horizon)
    if asked is None:
        wanted = end * np.array(DEFAULT_TIMES)
        kept = np.asarray(getattr(reference, "times", wanted), float)
        kept = kept[kept < end] if (kept < end).any() else wanted
        return np.unique([kept[np.abs(kept - t).argmin()] for t in wanted])
    times = np.unique(np.atleast_1d(np.asarray(asked, float)))
    if not times.size or not ((times >= 0) & (times < end)).all():
        raise ProblemError(
            f"cross_check: times= must lie in [0, {end:g}), got {times}; t = 0 is "
            f"today, and at T = {end:g} the value is given."
        )
    return times


def references(
    reference: Any, times: Array | None, budget: float | None, progress: bool
) -> Iterator[Any]:
    """The reference itself, or solutions on finer and finer grids within `budget`."""
    if not isinstance(reference, ControlProblem):
        yield reference
        return
    problem, options = reference, {"times": times, "progress": progress}
    limit = DEFAULT_BUDGET if budget is None else budget
    begin, grid = time.perf_counter(), first_grid(problem)
    last = begin
    solution = hjb.solve(problem, grid, **options)
    while True:
        yield solution
        now = time.perf_counter()
        growth = GROWTH * 2**problem.dimension
        if now - begin + growth * (now - last) > limit:
            return
        last, grid = now, grid.refined()
        try:
            solution = hjb.solve(problem, grid, **options)
        except HJBError:
            # The coarser comparison stands; a finer grid was only a hope.
            return


@dataclass(frozen=True, eq=False)
class Instant:
    """Problem, candidate and reference at one time and in one mode, where there are."""

    when: When
    problem: ControlProblem
    subject: Subject
    reference: Any
    level_bar: float = 0.0
    """How well the constant of a relative value is known."""

    @classmethod
    def of(
        cls, subject: Subject, reference: Any, when: When, level_bar: float = 0.0
    ) -> Instant:
        """The instant at that time and in that mode."""
        if when.time is not None:
            subject, at = subject.at(when.time), getattr(reference, "at", None)
            frozen = Frozen(reference, when.time) if at is None else at(when.time)
            reference = frozen
        if when.mode is not None:
            subject, reference = subject.in_mode(when.mode), reference.mode(when.mode)
        return cls(when, subject.problem, subject, reference, level_bar)

    def bar_at(self, x: Array) -> Array:
        """The reference's bar at x (n, d), (n,); infinite where it knows none."""
        if not hasattr(self.reference, "error_at"):
            return np.full(len(x), np.inf)
        return np.asarray(self.reference.error_at(x)) + self.level_bar

    def reference_choices(self, x: Array) -> Array:
        """The reference's controls at x (n, d), an adversary's beside them."""
        a = np.asarray(self.reference.control_at(x))
        if self.problem.adversary is None:
            return a
        b = np.asarray(self.reference.adversary_control_at(x))
        return np.concatenate([a, b], axis=1)

    def places(self, x: Array) -> Array:
        """Points x (n, d), with time and mode as last columns where there are any."""
        return self.when.places(x)


@dataclass(frozen=True, eq=False)
class Frozen:
    """A reference that only answers ``value_at(x, t=)``, at one time."""

    solution: Any
    time: float

    @property
    def report(self) -> Any:
        """How the reference came about."""
        return self.solution.report

    def value_at(self, x: Array) -> Array:
        """V at x (..., d)."""
        return self.solution.value_at(x, t=self.time)

    def gradient_at(self, x: Array) -> Array:
        """grad V at x (..., d)."""
        return self.solution.gradient_at(x, t=self.time)

    def control_at(self, x: Array) -> Array:
        """The policy at x (..., d)."""
        return self.solution.control_at(x, t=self.time)

    def adversary_control_at(self, x: Array) -> Array:
        """The adversary's reply to it at x (..., d)."""
        return self.solution.adversary_control_at(x, t=self.time)


def is_quiet(problem: ControlProblem) -> bool:
    """Whether there is surely no noise."""
    noise = problem.diffusion
    return noise is None or not (callable(noise) or bool(np.any(noise)))


def running(problem: ControlProblem, x: Array) -> NDArray[np.bool_]:
    """Whether the process still runs at x (..., d): outside every exit region."""
    if problem.exit is None:
        return np.ones(x.shape[:-1], bool)
    return np.array(np.broadcast_to(problem.exit.region(x) > 0, x.shape[:-1]))
