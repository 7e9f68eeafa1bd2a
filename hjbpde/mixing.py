"""Anderson mixing: a fixed-point iteration sped up by its own history."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class Anderson:
    """The next iterate x + step, mixed with the last few by least squares.

    Walker and Ni, SIAM J. Numer. Anal. 49 (2011) 1715, algorithm AA.
    """

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.values: list[Array] = []
        self.steps: list[Array] = []

    def next(self, x: Array, step: Array) -> Array:
        """Walker and Ni's update in difference form; x and step are flat."""
        self.values.append(x.copy())
        self.steps.append(step.copy())
        del self.values[: -self.depth - 1], self.steps[: -self.depth - 1]
        k = len(self.steps) - 1
        plain = x + step
        if k == 0:
            return plain
        dF = [self.steps[i + 1] - self.steps[i] for i in range(k)]
        # Sums, not dot products: those depend on the number of threads.
        gram = np.array([[np.sum(a * b) for a in dF] for b in dF])
        rhs = np.array([np.sum(a * step) for a in dF])
        ridge = 1e-12 * np.trace(gram) / k + 1e-300
        gamma = np.linalg.solve(gram + ridge * np.eye(k), rhs)
        for i in range(k):
            move = self.values[i + 1] - self.values[i] + dF[i]
            plain = plain - gamma[i] * move
        return plain
