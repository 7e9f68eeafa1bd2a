"""Implicit marching of problems with a horizon, with or without a right to stop.

Backward Euler, monotone and L-stable, runs on one graded time grid and on its halves;
the values at the requested times are extrapolated in the step (Romberg's table for
smooth problems, one step of it where somebody may stop). Every step is a stationary
problem with discount rho + 1/dt and payoff r + V/dt, solved by policy iteration. Not
Crank-Nicolson: it is not monotone and can converge to a wrong value of controlled
diffusions (Pooley, Forsyth and Vetzal, IMA J. Numer. Anal. 23 (2003) 241).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..checkpoint import Page
from ..errors import ProblemError
from ..grid import Grid
from ..problem import ControlProblem
from ..schemes import Hybrid, Scheme
from .kinked_data import Kinks
from .memory import memory_of, recall
from .stepper import Stepper, end_of

Array = NDArray[np.float64]
MOST_STEPS = 100_000
"""The first step of the finest of five time grids is still 2e4 roundings of T."""


@dataclass(frozen=True)
class Marching:
    """Implicit marching for problems with a horizon, 1 to 4 dimensions.

    Parameters
    ----------
    scheme : Upwind or Hybrid
        The monotone scheme in space.
    order : {1, 2, 4}
        In space: 1 and 2 return the scheme's own solution (order 2 where it is
        central), 4 extrapolates it from two grids where it is central on both and
        else corrects its steps, see `marched_corrections`.
    steps : int
        Steps of the coarsest time grid, graded towards the horizon.
    levels : int
        Halvings of the time grid that are extrapolated, 1 to 5.
    local_error : float, optional
        Steps of the coarsest time grid are chosen so that the local error of each,
        relative to max|V|, stays below it (1e-3 to 1e-5, say), instead of `steps`: for
        values that change fast at times. They are found on the coarsest grid in space.

    Steps begin where data jump or bend in time, see `DataInTime`, and more are taken
    where data pass quickly.

    Raises
    ------
    ProblemError
        Options out of range; steps so many that the first, T / steps^2, is lost in
        the rounding of the time.
    """

    scheme: Scheme = field(default_factory=Hybrid)
    order: int = 4
    steps: int = 64
    levels: int = 3
    local_error: float | None = None

    def __post_init__(self) -> None:
        if self.order not in (1, 2, 4):
            raise ProblemError(f"Marching: order = {self.order!r} is not 1, 2 or 4.")
        if not 1 <= self.steps <= MOST_STEPS:
            raise ProblemError(
                f"Marching: steps = {self.steps}; give 1 to {MOST_STEPS:,}. Beyond, "
                "the smallest step is below the rounding of the time itself; raise "
                "levels instead, accuracy comes cheaper from them."
            )
        if not 1 <= self.levels <= 5:
            raise ProblemError(f"Marching: levels = {self.levels}; give 1 to 5.")
        if self.local_error is not None and not 1e-12 <= self.local_error < 1.0:
            raise ProblemError(
                f"Marching: local_error = {self.local_error}; give 1e-12 to 1, "
                "say 1e-4."
            )

    @property
    def name(self) -> str:
        """The method in words."""
        label = type(self.scheme).__name__.lower()
        text = f"implicit marching, {label} scheme, {self.levels} time grids"
        text += "" if self.local_error is None else " of steps by local error"
        return text + (", extrapolated in space" if self.order == 4 else "")


class Marches(Protocol):
    """What is marched: one state, or the states of all modes together."""

    problem: ControlProblem
    grid: Grid

    @property
    def parts(self) -> list[Stepper]:
        """One stepper a mode."""
        ...

    @property
    def value(self) -> Array:
        """V (*shape), maximised; with modes (K, *shape), and so on below."""
        ...

    def step(self, t: float, dt: float) -> None:
        """From V(t + dt) to V(t)."""
        ...

    def exercise(self, t: float) -> None:
        """Where t is a date: V moved to the right side of the stops that hold then."""
        ...

    def soften(self, t: float) -> None:
        """After the terminal time or a date: V averaged around the kinks it has there.

        Outputs are kept before.
        """
        ...

    def control(self) -> Array:
        """The control of the last step, (*shape, m)."""
        ...

    def stopped(self) -> NDArray[np.bool_]:
        """Where somebody stops, (*shape)."""
        ...


@dataclass(frozen=True)
class Run:
    """Values (T, *shape), maximised, and controls and stops at the output times.

    With modes (T, K, *shape), here and below. `one_sided` (2,): share of nodes where
    some weight was not central, of all steps and of the last, where these were watched.
    """

    values: Array
    controls: Array
    stops: NDArray[np.bool_]
    one_sided: Array

    @classmethod
    def empty(cls, stepper: Marches, outputs: int) -> Run:
        """Arrays to be filled."""
        shape = (outputs, *stepper.value.shape)
        controls = np.zeros((*shape, len(stepper.parts[0].state.a)))
        return cls(np.zeros(shape), controls, np.zeros(shape, bool), np.zeros(2))


def march(
    stepper: Marches,
    to_go: Array,
    outputs: Array,
    page: Page | None = None,
    watch: bool = False,
) -> Run:
    """March through the times to go; keep what belongs to `outputs`.

    A run kept on `page` goes on from there. It is kept for good before its last step,
    so that taking it up again also leaves the stepper where a whole run leaves it.
    """
    horizon, page = end_of(stepper.problem), page or Page()
    wanted = {float(round(t, 12)): i for i, t in enumerate(horizon - outputs)}
    run = Run.empty(stepper, len(outputs))
    first = _resume(page, stepper, run)
    for j, time in enumerate(to_go[first:], start=first):
        if j > first:
            last = j == len(to_go) - 1
            page.keep(lambda j=j: _kept(stepper, run, j), finished=last)
        if j:
            stepper.step(horizon - time, time - to_go[j - 1])
            if watch:
                share = max(part.one_sided() for part in stepper.parts)
                run.one_sided[0] += share / (len(to_go) - 1)
                run.one_sided[1] = share
            stepper.exercise(horizon - time)
        at = wanted.get(float(round(time, 12)))
        if at is not None:
            run.values[at] = stepper.value
            run.controls[at] = stepper.control()
            run.stops[at] = stepper.stopped()
        stepper.soften(horizon - time)
    return run


def _kept(stepper: Marches, run: Run, step: int) -> dict[str, Any]:
    """All that the steps from number `step` on depend on, and what is kept of a run."""
    kept = {**vars(run), "step": np.array(step)}
    for k, part in enumerate(stepper.parts):
        memory = memory_of(part.state)
        kept |= {f"part{k}.{name}": values for name, values in memory.items()}
        kept[f"part{k}.kinks"] = np.array(int(part.kinks))
    return kept


def _resume(page: Page, stepper: Marches, run: Run) -> int:
    """Bring stepper and run to where `page` left them; the step to take next."""
    kept = page.found()
    if kept is None:
        return 0
    for k, part in enumerate(stepper.parts):
        prefix = f"part{k}."
        own = {n.removeprefix(prefix): v for n, v in kept.items() if prefix in n}
        recall(part.state, own)
        part.kinks = Kinks(int(own["kinks"]))
    for name, values in vars(run).items():
        values[...] = kept[name]
    return int(kept["step"])


def romberg(values: list[Array], highest: int) -> tuple[Array, Array, Array | None]:
    """Extrapolate Euler values on halved steps: the best, the one before, the earlier.

    Errors expand in dt, dt^2, ...: ``T_kj = (2^j T_k,j-1 - T_k-1,j-1)/(2^j - 1)``.
    The earlier one is None where there is none of another order.
    """
    row, earlier = list(values), None
    best = before = row[-1]
    for j in range(1, min(len(values) - 1, highest) + 1):
        factor = 2.0**j
        row = [
            (factor * fine - coarse) / (factor - 1.0) for coarse, fine in pairwise(row)
        ]
        earlier = before if j > 1 else None
        before, best = best, row[-1]
        if j == highest and len(row) > 1:
            before, earlier = row[-2], None
    return best, before, earlier


def output_times(problem: ControlProblem, times: Any) -> Array:
    """The calendar times to keep: 33 equally spaced and the dates of rights to stop by
    default, 0 and T included.

    Raises
    ------
    ProblemError
        Times outside [0, T].
    """
    end = end_of(problem)
    if times is None:
        return _merged(np.linspace(0.0, end, 33), problem.dates, end)
    found = np.unique(np.atleast_1d(np.asarray(times, float)))
    if not np.isfinite(found).all() or found[0] < 0 or found[-1] > end:
        raise ProblemError(
            f"solve: times must lie in [0, {end:g}], got {found[0]:g} to "
            f"{found[-1]:g}; t = 0 is today, t = T = {end:g} is terminal."
        )
    return np.unique(np.concatenate([[0.0], found, [end]]))


def _merged(times: Array, dates: tuple[float, ...], end: float) -> Array:
    """Both in order; of a time and a date that agree up to rounding, the date."""
    if not dates:
        return times
    apart = np.abs(times[:, None] - np.asarray(dates)).min(axis=1) > 1e-9 * end
    return np.sort(np.r_[times[apart], dates])
