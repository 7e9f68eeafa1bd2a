"""Rights to stop: what V is kept above and below on the nodes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..events import Stop
from ..grid import Grid
from ..methods.state import set_obstacles
from ..problem import ControlProblem

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(eq=False)
class Obstacles:
    """psi of the controller, `least`, and of the adversary, `most`, both (*shape).

    Maximised, None where nobody may stop. V (*shape) is what they last held.
    """

    grid: Grid
    V: Array
    least: Array | None = None
    most: Array | None = None

    @classmethod
    def of(
        cls,
        problem: ControlProblem,
        grid: Grid,
        V: Array | None = None,
        stops: tuple[Stop, ...] | None = None,
    ) -> Obstacles:
        """Of all rights of the problem, or of `stops`; V is moved to their right side.

        Raises
        ------
        ProblemError
            A payoff of a wrong shape, not finite, or better than the adversary's.
        """
        out = cls(grid, np.zeros(grid.shape) if V is None else V.copy())
        set_obstacles(problem, out, stops)
        return out

    @property
    def psi(self) -> Array:
        """What stopping at once is worth, to the controller where he may."""
        found = self.most if self.least is None else self.least
        assert found is not None
        return found

    def memory(self) -> dict[str, Array]:
        """The arrays that these are made of."""
        known = {"V": self.V, "least": self.least, "most": self.most}
        return {name: psi for name, psi in known.items() if psi is not None}

    def hold(self, values: Array, at: NDArray[np.intp]) -> Array:
        """Values on the nodes with these flat numbers, on the right side."""
        if self.least is not None:
            values = np.maximum(values, self.least.ravel()[at])
        if self.most is not None:
            values = np.minimum(values, self.most.ravel()[at])
        return values

    def met(self, V: Array) -> Mask:
        """Nodes (*shape) where V sits on a payoff that somebody may stop for."""
        out, size = np.zeros(V.shape, bool), float(np.max(np.abs(V))) or 1.0
        for psi in (self.least, self.most):
            if psi is not None:
                out |= np.abs(V - psi) <= 1e-12 * size
        return out
