"""The Solution protocol: what every checker may ask of a solved problem.

A grid solution and a learned one both offer it; verification reads nothing else.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from .problem import ControlProblem
from .report import Report
from .sets import Box


@runtime_checkable
class Solution(Protocol):
    """A value, a policy and what is known of their error.

    Implementer's contract
    ----------------------
    1. Points are float64 arrays ``(..., d)``; answers are NumPy arrays.
    2. `value_at` is in the problem's own sense: costs are costs.
    3. A point outside `region` is a ProblemError naming it.
    """

    @property
    def problem(self) -> ControlProblem | None:
        """The problem solved, None when only arrays were loaded."""
        ...

    @property
    def region(self) -> Box:
        """Where the answer is meant to hold."""
        ...

    @property
    def report(self) -> Report:
        """How it came about."""
        ...

    def value_at(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """V at x (..., d), shape (...)."""
        ...

    def gradient_at(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """grad V at x (..., d), shape (..., d)."""
        ...

    def control_at(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The policy at x (..., d), shape (..., m)."""
        ...

    def save(self, path: str | Path) -> Any:
        """Write everything to one file, atomically."""
        ...
