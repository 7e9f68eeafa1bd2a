"""The solution of a problem with a horizon: one value, control and bar a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import ProblemError
from .simulate import Paths, simulate
from .solution import SWITCH, GridSolution

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TimedSolution(GridSolution):
    """Value, control and error bar at calendar times 0 <= t <= T.

    Parameters
    ----------
    times : (T,)
        Increasing; ``times[0] = 0`` is today, ``times[-1]`` is the horizon.
    value, error_bar : (T, *shape)
        In the units of V and the problem's own sense.
    control : (T, *shape, m)
    stopping : bool (T, *shape) or None
        Where stopping is best; at other times than its dates nowhere.
    """

    times: Array = field(default_factory=lambda: np.zeros(0))

    def _leading(self) -> dict[str, NDArray[Any]]:
        return {"time": self.times}

    def at(self, t: float) -> GridSolution:
        """The solution at time t, linear between the times kept."""
        return self._snapshot(t, GridSolution)

    def _snapshot(self, t: float, kind: type[GridSolution]) -> GridSolution:
        t = float(t)
        if t not in self._snapshots:
            self._snapshots[t] = _snapshot(self, t, kind)
        return self._snapshots[t]

    def value_at(self, x: Any, t: float = 0.0) -> Array:
        """V(t, x) at x (..., d), shape (...)."""
        return self.at(t).value_at(x)

    def gradient_at(self, x: Any, t: float = 0.0) -> Array:
        """grad V(t, x) at x (..., d), shape (..., d)."""
        return self.at(t).gradient_at(x)

    def error_at(self, x: Any, t: float = 0.0) -> Array:
        """The error bar at x (..., d), interpolation in x included."""
        return self.at(t).error_at(x)

    def gradient_error_at(self, x: Any, t: float = 0.0) -> Array:
        """A bar of the gradient at x (..., d), shape (..., d); an estimate."""
        return self.at(t).gradient_error_at(x)

    def control_at(self, x: Any, t: float = 0.0) -> Array:
        """The policy at x (..., d), shape (..., m)."""
        return self.at(t).interpolated_control(x)

    def simulate(
        self, x0: Any, horizon: float, dt: float, paths: int, seed: int
    ) -> Paths:
        """Sample paths from today on under this policy, see `hjbpde.simulate`.

        Between the times kept the control is linear where both agree, else that of
        the nearer time; at ``horizon = T`` the terminal payoff is collected.
        """
        problem = self._need_problem("simulate")
        span = np.ptp(self.control, axis=tuple(range(self.control.ndim - 1)))

        def policy(x: Array, t: float) -> Array:
            right, share = _place(self.times, min(t, float(self.times[-1])))
            ends = [
                self.at(self.times[i]).interpolated_control(x)
                for i in (right - 1, right)
            ]
            jump = (np.abs(ends[1] - ends[0]) > SWITCH * span).any(-1, keepdims=True)
            between = (1.0 - share) * ends[0] + share * ends[1]
            return np.where(jump, ends[int(share > 0.5)], between)

        return simulate(problem, policy, x0, horizon, dt, paths, seed)

    def plot(self, t: float = 0.0) -> Any:
        """A figure of the solution at time t: value with its bar, control, bar."""
        return self.at(t).plot()

    def _contents(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        arrays, header = super()._contents()
        return {**arrays, "times": self.times}, header

    @cached_property
    def _snapshots(self) -> dict[float, GridSolution]:
        return {}

    def __repr__(self) -> str:
        name = "" if self.problem is None else self.problem.name
        shape = (len(self.times), *self.grid.shape)
        return f"TimedSolution({name!r}, shape={shape})\n{self.report}"


def _place(times: Array, t: float) -> tuple[int, float]:
    """The number of the time kept after t, and the share of the interval gone by."""
    right = int(np.clip(np.searchsorted(times, t), 1, len(times) - 1))
    return right, (t - times[right - 1]) / (times[right] - times[right - 1])


def nearest_kept(times: Array, t: float) -> int:
    """Number of the time kept whose control holds at t."""
    right, share = _place(times, t)
    return right if share > 0.5 else right - 1


def _refuse_jump(solution: TimedSolution, t: float, right: int, share: float) -> None:
    """Between a date of a right to stop and the next time kept, V is not known.

    Just after a date the right is gone, so V jumps there; before it V is continuous.
    """
    start, end = solution.times[right - 1], solution.times[right]
    dates = np.asarray(solution.report.details.get("dates", ()), dtype=float)
    slack = 1e-12 * float(solution.times[-1])
    if 0.0 < share < 1.0 and ((dates >= start - slack) & (dates < end - slack)).any():
        raise ProblemError(
            f"t = {t:g} lies between {start:g} and {end:g}, and V jumps at the dates "
            "of the right to stop on the way: it cannot be interpolated. Ask solve for "
            f"it: times=[..., {t:g}]."
        )


def _snapshot(
    solution: TimedSolution, t: float, kind: type[GridSolution]
) -> GridSolution:
    times = solution.times
    if not times[0] <= t <= times[-1]:
        raise ProblemError(
            f"t = {t:g} lies outside [{times[0]:g}, {times[-1]:g}]; t = 0 is today."
        )
    right, share = _place(times, t)
    near = nearest_kept(times, t)
    _refuse_jump(solution, t, right, share)

    def between(table: Array) -> Array:
        return (1.0 - share) * table[right - 1] + share * table[right]

    inside = 0.0 < share < 1.0
    bends = 0.5 * np.abs(solution.value[right] - solution.value[right - 1])
    problem, opinion = solution.problem, solution.second_opinion
    return kind(
        problem=None if problem is None else problem.slice_at(t, 1.0),
        grid=solution.grid,
        value=between(solution.value),
        control=solution.control[near],
        error_bar=between(solution.error_bar) + (bends if inside else 0.0),
        report=solution.report,
        scheme=solution.scheme,
        second_opinion=None if opinion is None else between(opinion),
        artificial_axes=solution.artificial_axes,
        stopping=None if solution.stopping is None else solution.stopping[near],
    )
