"""A learned solution of a problem with a horizon: V(x, t) at any time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hjbpde.errors import ProblemError
from hjbpde.greedy import greedy_control

from .solution import LearnedSolution

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False)
class TimedLearnedSolution(LearnedSolution):
    """V(x, t) and the greedy policy at any time 0 <= t <= T, t = 0 being today.

    Parameters
    ----------
    horizon : float
        T. The model's last state is t.
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
        return self._ended(y[:, :-1], self.model.value(y)).reshape(lead)

    def gradient_at(self, x: Any, t: float = 0.0) -> Array:
        """grad V(x, t) in x at x (..., d), shape (..., d)."""
        y, lead = self._states(x, t)
        return self.model.gradient(y)[:, :-1].reshape(*lead, -1)

    def hessian_at(self, x: Any, t: float = 0.0) -> Array:
        """hess V(x, t) in x at x (..., d), shape (..., d, d)."""
        y, lead = self._states(x, t)
        d = self.domain.dimension
        return self.model.hessian(y)[:, :-1, :-1].reshape(*lead, d, d)

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
        a = greedy_control(now, np.ascontiguousarray(y[:, :-1]), slope, hess)
        return a.reshape(*lead, a.shape[-1])

    def _states(self, x: Any, t: float) -> tuple[Array, tuple[int, ...]]:
        slack = 1e-9 * self.horizon
        if np.ndim(t) or not -slack <= float(t) <= self.horizon + slack:
            raise ProblemError(
                f"t = {t} is not a time in [0, {self.horizon:g}]; give one number, "
                "t = 0 being today."
            )
        flat, lead = self._flat(x)
        now = min(max(float(t), 0.0), self.horizon)
        return np.c_[flat, np.full(len(flat), now)], lead
