"""How well the gradient of a grid value is known, node by node; an estimate."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .error_bar import neighbour_maximum
from .grid import Grid
from .interpolation import Interpolant

Array = NDArray[np.float64]


def gradient_gaps(
    value: Interpolant, better: Interpolant, free_boundary: bool
) -> list[Array]:
    """|d_k (better - value)| on the nodes, (*shape) for every axis k.

    A neighbourhood's largest, as differences change sign. At a free boundary V''
    jumps, so that V' is known to ``h [V'']`` only wherever in the cell it lies, on
    every grid alike; the third difference over h sees that.
    """
    grid = value.grid
    nodes = grid.nodes()
    gaps = np.abs(better.gradient(nodes) - value.gradient(nodes))
    out = []
    for k in range(grid.dimension):
        gap = gaps[..., k]
        if free_boundary:
            gap = gap + _third_difference(grid, value.values.reshape(grid.shape), k)
        out.append(np.ascontiguousarray(neighbour_maximum(gap, grid)))
    return out


def _third_difference(grid: Grid, V: Array, axis: int) -> Array:
    """|third difference| / h along an axis, the largest of those around a node."""
    n, h = V.shape[axis], float(np.min(grid.spacing(axis)[1]))
    if n < 4:
        return np.zeros_like(V)
    bends = np.abs(np.diff(V, 3, axis=axis)) / h
    found = [
        bends.take(np.clip(np.arange(n) - shift, 0, n - 4), axis) for shift in range(4)
    ]
    return np.max(found, axis=0)
