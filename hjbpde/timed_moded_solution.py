"""The solution of a problem with a horizon that switches between modes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import ProblemError
from .moded_solution import ModedSolution
from .simulate import Paths
from .timed_solution import TimedSolution

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TimedModedSolution(TimedSolution):
    """Value, control and error bar at every time kept and in every mode.

    Parameters
    ----------
    value, error_bar : (T, K, *shape)
        In the units of V and the problem's own sense.
    control : (T, K, *shape, m)
    stopping : bool (T, K, *shape) or None
        Where stopping is best.
    """

    @property
    def n_modes(self) -> int:
        """Number of modes K."""
        return self.value.shape[1]

    def _leading(self) -> dict[str, NDArray[Any]]:
        return {**super()._leading(), "mode": np.arange(self.n_modes)}

    def at(self, t: float) -> ModedSolution:
        """All modes at time t, linear between the times kept."""
        found = self._snapshot(t, ModedSolution)
        assert isinstance(found, ModedSolution)
        return found

    def mode(self, k: int) -> TimedSolution:
        """Mode k at all times: arrays and their evaluation.

        Its equation alone, with what the other modes are worth in the payoff, is that
        of one time: ``solution.at(t).mode(k).problem``.

        Raises
        ------
        ProblemError
            No such mode.
        """
        if not 0 <= k < self.n_modes:
            raise ProblemError(
                f"mode {k} does not exist; the modes are 0 to {self.n_modes - 1}."
            )
        stopping, opinion = self.stopping, self.second_opinion
        return TimedSolution(
            problem=None,
            grid=self.grid,
            times=self.times,
            value=self.value[:, k],
            control=self.control[:, k],
            error_bar=self.error_bar[:, k],
            report=self.report,
            scheme=self.scheme,
            second_opinion=None if opinion is None else opinion[:, k],
            artificial_axes=self.artificial_axes,
            stopping=None if stopping is None else stopping[:, k],
        )

    def value_at(self, x: Any, t: float = 0.0, mode: int = 0) -> Array:
        """V_k(t, x) at x (..., d), shape (...)."""
        return self.at(t).value_at(x, mode)

    def gradient_at(self, x: Any, t: float = 0.0, mode: int = 0) -> Array:
        """grad V_k(t, x) at x (..., d), shape (..., d)."""
        return self.at(t).gradient_at(x, mode)

    def error_at(self, x: Any, t: float = 0.0, mode: int = 0) -> Array:
        """The error bar at x (..., d), interpolation in x included."""
        return self.at(t).error_at(x, mode)

    def gradient_error_at(self, x: Any, t: float = 0.0, mode: int = 0) -> Array:
        """A bar of the gradient at x (..., d), shape (..., d); an estimate."""
        return self.at(t).gradient_error_at(x, mode)

    def control_at(self, x: Any, t: float = 0.0, mode: int = 0) -> Array:
        """The policy at x (..., d), shape (..., m)."""
        return self.at(t).interpolated_control(x, mode)

    def simulate(
        self, x0: Any, horizon: float, dt: float, paths: int, seed: int
    ) -> Paths:
        """Refused: no path switches between modes yet.

        Raises
        ------
        ProblemError
        """
        raise ProblemError("simulate: paths that switch between modes do not exist.")

    def plot(self, t: float = 0.0, mode: int = 0) -> Any:
        """A figure of one mode at time t: value with its bar, control, bar."""
        return self.at(t).plot(mode)

    def _contents(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        arrays, header = super()._contents()
        return {**arrays, "modes": np.arange(self.n_modes)}, header

    def __repr__(self) -> str:
        name = "" if self.problem is None else self.problem.name
        shape = (len(self.times), self.n_modes, *self.grid.shape)
        return f"TimedModedSolution({name!r}, shape={shape})\n{self.report}"
