"""The times of implicit steps: short after kinks, and beginning where data jump."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ..data_in_time import Breaks, DataInTime
from ..problem import ControlProblem

Array = NDArray[np.float64]
LEAST_STEPS = 6
"""Steps of the coarsest time grid between two dates."""
MOST_BETWEEN = 4
"""Times put where data move fast, at most so many a step."""


def time_grid(
    horizon: float,
    outputs: Array,
    steps: int,
    dates: tuple[float, ...],
    breaks: Breaks,
) -> Array:
    """Times to go, increasing from 0: graded as j^2, outputs and dates among them.

    Small steps follow the terminal data, whose kinks are smoothed there, and every
    date at which somebody may stop, where V gets new ones. An interval between dates
    of length L takes ``steps sqrt(L / T)`` steps, so that all begin alike. `breaks` are
    among the times but where an output or a date is as near as the shortest steps.
    """
    marks = np.unique(np.r_[0.0, horizon, horizon - np.asarray(dates, float)])
    graded = np.concatenate(
        [_graded(*pair, horizon, steps) for pair in pairwise(marks)]
    )
    least = 1e-3 * min(horizon / steps**2, float(np.diff(marks).min()))
    fixed = np.r_[horizon - outputs, marks]
    to_go = np.r_[horizon - breaks.beside(horizon - fixed, 2.0 * least), fixed]
    merged = np.sort(np.r_[0.0, graded, to_go])
    kept = merged[np.concatenate([[True], np.diff(merged) > least])]
    nearest = np.abs(kept[:, None] - to_go[None, :]).argmin(axis=0)
    kept[nearest] = to_go
    return kept


def _graded(start: float, end: float, horizon: float, steps: int) -> Array:
    """Times after `start` up to `end`, graded as j^2."""
    share = np.sqrt((end - start) / horizon)
    count = steps if share == 1.0 else max(LEAST_STEPS, round(steps * share))
    return start + (end - start) * (np.arange(1, count + 1) / count) ** 2


def data_grid(problem: ControlProblem, outputs: Array, steps: int) -> Array:
    """`time_grid` that begins steps where data jump or bend, and has more of them where
    data move fast, up to `MOST_BETWEEN` times as many."""
    horizon = float(problem.horizon or 0.0)
    data = DataInTime.of(problem)
    to_go = time_grid(horizon, outputs, steps, problem.dates, data.breaks())
    between = data.between(horizon - to_go[::-1], MOST_BETWEEN * steps)
    return np.sort(np.r_[to_go, horizon - between])


def goals_of(problem: ControlProblem, outputs: Array) -> Array:
    """Calendar times at which steps end: outputs, dates, and what the data ask for."""
    data = DataInTime.of(problem)
    return data.followed(np.union1d(outputs, problem.dates), data.breaks())


def halved(times: Array) -> Array:
    """The grid with every interval cut in two."""
    middle = 0.5 * (times[1:] + times[:-1])
    return np.sort(np.concatenate([times, middle]))
