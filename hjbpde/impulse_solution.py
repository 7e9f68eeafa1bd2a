"""The solution of a problem whose state may be moved at once: where, and to where."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .mdp import MDP
from .solution import GridSolution

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False)
class ImpulseSolution(GridSolution):
    """Value, control and error bar, with ``stopping`` where moving at once is best.

    Parameters
    ----------
    target : (*shape, d)
        The state moved to from every node where `stopping` holds, NaN elsewhere.
    """

    target: Array = field(default_factory=lambda: np.zeros(0))

    def as_mdp(self, controls: Any = None, dt: float | None = None) -> MDP:
        """Refused: moves take no time, so they are no step of a chain.

        Raises
        ------
        MethodMismatch
        """
        self._need_problem("as_mdp").require_only("as_mdp", "exit")
        return super().as_mdp(controls, dt)

    def _contents(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        arrays, header = super()._contents()
        return {**arrays, "target": self.target}, header
