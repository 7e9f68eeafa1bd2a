"""The solution of a two-player game with a horizon: both players' controls."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .timed_solution import TimedSolution

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class GameSolution(TimedSolution):
    """Value, bar and both controls at calendar times 0 <= t <= T.

    Parameters
    ----------
    adversary_control : (T, *shape, mb)
        The best reply to the first player's control.
    isaacs_gap : float
        Largest difference at t = 0 that the order of the players makes in the
        Hamiltonian; 0 where Isaacs' condition holds.
    """

    adversary_control: Array = field(default_factory=lambda: np.zeros(0))
    isaacs_gap: float = 0.0

    def _contents(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        arrays, header = super()._contents()
        own = {
            "adversary_control": self.adversary_control,
            "isaacs_gap": np.asarray(self.isaacs_gap),
        }
        return {**arrays, **own}, header
