"""The solution of a problem with a horizon: one value, control and bar a time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import ProblemError
from .grid import Grid
from .problem import ControlProblem
from .report import Report
from .schemes import Scheme
from .sets import Box
from .solution import GridSolution
from .storage import write_arrays

Array = NDArray[np.float64]
TIMED = "hjbpde timed solution"


@dataclass(frozen=True, eq=False)
class TimedSolution:
    """Value, control and error bar at calendar times 0 <= t <= T.

    Parameters
    ----------
    times : (T,)
        Increasing; ``times[0] = 0`` is today, ``times[-1]`` is the horizon.
    value, error_bar : (T, *shape)
        In the units of V and the problem's own sense.
    control : (T, *shape, m)
    stopping : bool (T, *shape) or None
        Where stopping is best.
    """

    problem: ControlProblem
    grid: Grid
    times: Array
    value: Array
    control: Array
    error_bar: Array
    report: Report
    scheme: Scheme
    stopping: NDArray[np.bool_] | None = None
    artificial_axes: tuple[bool, ...] = ()

    @property
    def region(self) -> Box:
        """Where the answer is meant to hold: the inner 75 % along artificial axes."""
        return self.grid.domain.inner(0.75, self.artificial_axes)

    def at(self, t: float) -> GridSolution:
        """The solution at time t, linear between the times kept."""
        return _snapshot(self, float(t))

    def value_at(self, x: Any, t: float = 0.0) -> Array:
        """V(t, x) at x (..., d), shape (...)."""
        return self.at(t).value_at(x)

    def gradient_at(self, x: Any, t: float = 0.0) -> Array:
        """grad V(t, x) at x (..., d), shape (..., d)."""
        return self.at(t).gradient_at(x)

    def error_at(self, x: Any, t: float = 0.0) -> Array:
        """The error bar at x (..., d), interpolation in x included."""
        return self.at(t).error_at(x)

    def control_at(self, x: Any, t: float = 0.0) -> Array:
        """The policy at x (..., d), shape (..., m)."""
        return self.at(t).interpolated_control(x)

    def plot(self, t: float = 0.0) -> Any:
        """A figure of the solution at time t: value with its bar, control, bar."""
        return self.at(t).plot()

    def save(self, path: str | Path) -> Path:
        """One labelled file: arrays, grid and report; atomically, no pickle."""
        arrays: dict[str, NDArray[Any]] = {
            "times": self.times,
            "value": self.value,
            "control": self.control,
            "error_bar": self.error_bar,
            **{f"axis{k}": axis for k, axis in enumerate(self.grid.axes)},
        }
        if self.stopping is not None:
            arrays["stopping"] = self.stopping
        header = {"problem": self.problem.name, "report": self.report.to_dict()}
        return write_arrays(path, TIMED, arrays, header)

    def __repr__(self) -> str:
        shape = (len(self.times), *self.grid.shape)
        return f"TimedSolution({self.problem.name!r}, shape={shape})\n{self.report}"


@lru_cache(maxsize=64)
def _snapshot(solution: TimedSolution, t: float) -> GridSolution:
    times = solution.times
    if not times[0] <= t <= times[-1]:
        raise ProblemError(
            f"t = {t:g} lies outside [{times[0]:g}, {times[-1]:g}]; t = 0 is today."
        )
    right = int(np.clip(np.searchsorted(times, t), 1, len(times) - 1))
    share = (t - times[right - 1]) / (times[right] - times[right - 1])
    near = right if share > 0.5 else right - 1

    def between(table: Array) -> Array:
        return (1.0 - share) * table[right - 1] + share * table[right]

    inside = 0.0 < share < 1.0
    bends = 0.5 * np.abs(solution.value[right] - solution.value[right - 1])
    return GridSolution(
        problem=solution.problem.slice_at(t, 1.0),
        grid=solution.grid,
        value=between(solution.value),
        control=solution.control[near],
        error_bar=between(solution.error_bar) + (bends if inside else 0.0),
        report=solution.report,
        scheme=solution.scheme,
        artificial_axes=solution.artificial_axes,
    )
