"""Implicit steps as long as their local error allows, chosen on the coarsest grid.

One step dt of Euler's rule and two of dt / 2 differ by the local error of the latter,
to leading order ``dt^2 |V_tt| / 4``; the next step is the one at which that would be
the tolerance (Hairer and Wanner, Solving Ordinary Differential Equations II, 1996,
section IV.8, at order 1). All grids then march on these times and on their halves,
where errors expand in powers of the halving as on graded ones, whatever the times.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..errors import NotConverged
from .stepper import end_of

if TYPE_CHECKING:
    from .marching import Marches
    from .state import GridState

Array = NDArray[np.float64]
FIRST = 1e-6
"""First step after the horizon and after each date, as a share of the horizon."""
LONGEST = 1 / 32
"""Share of the horizon that no step exceeds: data may move between two steps."""
SAFETY, LEAST, MOST = 0.9, 0.2, 5.0
"""On the step proposed, and how much it may shrink or grow at once."""
ROUNDING = 1e-13
"""Share of the horizon below which a step is lost in the rounding of the time."""


def adapted_times(
    stepper: Marches, outputs: Array, local_error: float, dates: tuple[float, ...] = ()
) -> Array:
    """Times to go, increasing from 0, all outputs (T,) and dates among them.

    The stepper is marched along. Errors are relative to the largest |V| so far; the
    first steps after the horizon and after a date, where V gets kinks, are short.

    Raises
    ------
    NotConverged
        A step that would be lost in the rounding of the time.
    """
    horizon = end_of(stepper.problem)
    kinked = np.unique(np.r_[0.0, horizon - np.asarray(dates, dtype=float)])
    goals = np.unique(np.r_[kinked, horizon, horizon - outputs])
    stepper.soften(horizon)
    scale, times, dt = float(np.abs(stepper.value).max()), [0.0], 0.0
    for start, end in pairwise(goals.tolist()):
        dt = FIRST * horizon if start in kinked else dt
        while times[-1] < end:
            at = times[-1]
            dt = _within(min(dt, LONGEST * horizon), end - at)
            before = _Before.of(stepper)
            error = _step_twice(stepper, horizon - at, dt, before)
            scale = max(scale, float(np.abs(stepper.value).max()))
            allowed = local_error * scale
            change = SAFETY * np.sqrt(allowed / error) if error > 0.0 else MOST
            if error > allowed:
                before.restore()
                dt *= max(float(change), LEAST)
                _check_step(dt, horizon - at, horizon)
                continue
            times.append(end if dt == end - at else at + dt)
            stepper.exercise(horizon - times[-1])
            stepper.soften(horizon - times[-1])
            dt *= float(np.clip(change, LEAST, MOST))
    return np.array(times)


def _within(dt: float, left: float) -> float:
    """The step, or all or half of what is left where little would be left after it."""
    return left if dt >= left else min(dt, 0.5 * left)


def _step_twice(stepper: Marches, t: float, dt: float, before: _Before) -> float:
    """Two steps of dt / 2 back from calendar time t; how far one of dt ends from it."""
    stepper.step(t - dt, dt)
    once = stepper.value.copy()
    before.restore()
    stepper.step(t - 0.5 * dt, 0.5 * dt)
    stepper.step(t - dt, 0.5 * dt)
    return float(np.abs(stepper.value - once).max())


def _check_step(dt: float, t: float, horizon: float) -> None:
    if dt < ROUNDING * horizon:
        raise NotConverged(
            f"steps by local error fell to {dt:.3g} before t = {t:.6g}, below the "
            "rounding of the time: V jumps there, whatever the step. Likely data that "
            "jump in time (a payoff, or values on faces); raise local_error, or march "
            "to that time and from there on as two problems."
        )


@dataclass(frozen=True, eq=False)
class _Before:
    """V and policy in every mode, to go back to."""

    kept: list[tuple[GridState, Array, Array]]

    @classmethod
    def of(cls, stepper: Marches) -> _Before:
        """As the stepper stands."""
        states = [part.state for part in stepper.parts]
        return cls([(state, state.V.copy(), state.a.copy()) for state in states])

    def restore(self) -> None:
        """Back to it."""
        for state, V, a in self.kept:
            state.V, state.a = V.copy(), a.copy()
