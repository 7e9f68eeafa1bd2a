"""The node nearest to a point."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hjbpde import Grid

Array = NDArray[np.float64]


def nearest(grid: Grid, x: Array) -> tuple[Any, ...]:
    """Index of the node nearest to x (..., d), one array (...) an axis."""
    found = []
    for k, axis in enumerate(grid.axes):
        right = np.clip(np.searchsorted(axis, x[..., k]), 1, axis.size - 1)
        nearer = x[..., k] - axis[right - 1] <= axis[right] - x[..., k]
        found.append(right - nearer)
    return tuple(found)
