"""Where the process is taken at a rate within a step: other modes.

Until the first switch the process stays in its mode k, so that with c = sum_j q_kj

    V_k(x) = E[ int_0^delta e^{-(rho + c) s} (r_k + sum_j q_kj V_j)(X_s) ds
                + e^{-(rho + c) delta} V_k(X_delta) ]

exactly: the rate of leaving discounts, and what is found elsewhere is one more payoff.
It is taken half way, at m and t + delta / 2, like r itself, which keeps the order of
the step: O(delta^3) a step without noise, O(delta^2) with noise. The weights of linear
readings stay >= 0 and sum to less than 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..events import Modes
from .step import Reading

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Switching:
    """The rates q_kj at which one mode k is left for the others."""

    modes: Modes
    mode: int

    def rates(self, x: Array) -> Array:
        """q_kj at x (n, d), 0 for the own mode, (n, K)."""
        q = self.modes.at(x)[:, self.mode]
        return np.broadcast_to(q, (len(x), self.modes.n))

    def readings(self, x: Array, rates: Array, paid: Array) -> list[Reading]:
        """What the payoff ``sum_j rates_j V_j`` at x (n, d) adds, `paid` (n,) times."""
        rows = np.arange(len(x))
        return [
            Reading(rows, x, paid * rates[:, j], j, 0.5)
            for j in range(self.modes.n)
            if rates[:, j].any()
        ]
