"""A learned solution of a problem with a horizon: V(x, t) at any time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hjbpde.errors import MethodMismatch, ProblemError
from hjbpde.greedy import greedy_control
from hjbpde.real_numbers import real_array
from hjbpde.simulate import Paths

from .solution import LearnedSolution
from .time_state import root_clock

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False)
class TimedLearnedSolution(LearnedSolution):
    """V(x, t) and the greedy policy at any time 0 <= t <= T, t = 0 being today.

    Parameters
    ----------
    horizon : float
        T. The model's last state is t, for a surface on which somebody stops
        -sqrt(1 - t/T).
    """

    horizon: float = 0.0

    def value_at(self, x: Any, t: float = 0.0) -> Array:
        """V(x, t) at x (..., d), shape (...), in the problem's sense.

        Raises
        ------
        ProblemError
            A point outside the domain, not finite or of another dimension; a time
            outside [0, T].
        """
        y, lead = self._states(x, t)
        return self._ended(y, self.model.value(y)).reshape(lead)

    def gradient_at(self, x: Any, t: float = 0.0) -> Array:
        """grad V(x, t) in x at x (..., d), shape (..., d)."""
        y, lead = self._states(x, t)
        slope = self._stopped(y, self.model.gradient(y)[:, :-1], 0)
        return slope.reshape(*lead, -1)

    def hessian_at(self, x: Any, t: float = 0.0) -> Array:
        """hess V(x, t) in x at x (..., d), shape (..., d, d)."""
        y, lead = self._states(x, t)
        d = self.domain.dimension
        hess = self._stopped(y, self.model.hessian(y)[:, :-1, :-1], 1)
        return hess.reshape(*lead, d, d)

    def control_at(self, x: Any, t: float = 0.0) -> Array:
        """The maximiser of r + L^a V at time t, at x (..., d), shape (..., m)."""
        y, lead = self._states(x, t)
        if self.problem is None:
            raise ProblemError(
                "control_at: the policy is the greedy one of the value, which needs "
                "the problem: neural.load(path, problem=...)."
            )
        now = self.problem.slice_at(float(t), 1.0)
        hess = None
        if callable(now.diffusion):
            hess = self.model.hessian(y)[:, :-1, :-1]
        slope = np.ascontiguousarray(self.model.gradient(y)[:, :-1])
        now_at = np.ascontiguousarray(y[:, :-1])
        a = greedy_control(now, now_at, slope, hess)
        return a.reshape(*lead, a.shape[-1])

    def stopping_at(self, x: Any, t: float = 0.0) -> NDArray[np.bool_]:
        """Whether somebody stops at time t, at x (..., d), shape (...)."""
        y, lead = self._states(x, t)
        return self._stops(y).reshape(lead)

    def simulate(
        self, x0: Any, horizon: float, dt: float, paths: int, seed: int
    ) -> Paths:
        """Sample paths under this policy, see `hjbpde.simulate`.

        Raises
        ------
        MethodMismatch
            A rule for stopping: the simulator's exit regions do not move in time.
        """
        if self.stopping is not None:
            raise MethodMismatch(
                "simulate: a learned rule for stopping that moves in time cannot be "
                "followed yet; read it by stopping_at(x, t=...)."
            )
        return super().simulate(x0, horizon, dt, paths, seed)

    def _states(self, x: Any, t: float) -> tuple[Array, tuple[int, ...]]:
        slack = 1e-9 * self.horizon
        time = real_array(t, "t")
        if time.ndim or not -slack <= float(time) <= self.horizon + slack:
            raise ProblemError(
                f"t = {t} is not a time in [0, {self.horizon:g}]; give one number, "
                "t = 0 being today."
            )
        flat, lead = self._flat(x)
        now = min(max(float(time), 0.0), self.horizon)
        if self.stopping is not None and self.stopping.is_rooted:
            now = float(root_clock(now, self.horizon))
        return np.c_[flat, np.full(len(flat), now)], lead
