"""What nodes do not see of kinked terminal values: the rest of the bar's march.

Explicit marching reads terminal values at nodes. Where a kink lies in its cell it
cannot know, and nested grids, which share the nodes next to it, need not differ by
that: a valley ``|x - k|`` is too shallow by up to h/2 on all of them, for ever.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..grid import Grid
from ..interpolation import Interpolant

Array = NDArray[np.float64]
SHARES = (0.25, 0.5, 0.75)
"""Where edges between nodes are looked at."""
SMOOTH = 0.25
"""What cubics miss between nodes, of what lines miss, up to which data are smooth."""
LEAST = 1e-6
"""What nodes miss, of the range of the data, that is no matter."""
KINKED = 1.5
"""How much more than at the points looked at may be missed between them."""


def unseen(data: Callable[[Array], Array], grid: Grid, values: Array) -> Array | None:
    """By how much nodal values (*shape) of data(x) miss it beside each node, signed.

    The largest of ``data - lines`` on the edges at a node, at kinks alone; None where
    there are none.
    """
    least, found = LEAST * float(np.ptp(values)), np.zeros(grid.shape)
    if not np.isfinite(least):
        return None
    lines, nodes = Interpolant(grid, values), grid.nodes()
    for k in range(grid.dimension):
        missed = _on_edges(data, lines, nodes, grid, k, least)
        for each in (missed, _shifted(missed, grid, k)):
            found = np.where(np.abs(each) > np.abs(found), each, found)
    return KINKED * found if found.any() else None


def _on_edges(
    data: Callable[[Array], Array],
    lines: Interpolant,
    nodes: Array,
    grid: Grid,
    axis: int,
    least: float,
) -> Array:
    """What lines miss on the edge from every node upward; 0 where data are smooth."""
    steps = grid.spacing(axis)[1].reshape(
        [-1 if k == axis else 1 for k in range(grid.dimension)]
    )
    missed, curved = np.zeros(grid.shape), np.zeros(grid.shape)
    inside = [slice(None)] * grid.dimension
    if not grid.periodic[axis]:
        inside[axis] = slice(0, -1)
    at = tuple(inside)
    for share in SHARES:
        x = nodes.copy()
        x[..., axis] += share * steps
        x = grid.domain.wrap(x)[at]
        exact = np.asarray(data(x), dtype=float)
        gap = exact - lines.linear(x)
        missed[at] = np.where(np.abs(gap) > np.abs(missed[at]), gap, missed[at])
        curved[at] = np.maximum(curved[at], np.abs(exact - lines.cubic(x)))
    return np.where(
        (curved > SMOOTH * np.abs(missed)) & (np.abs(missed) > least), missed, 0.0
    )


def _shifted(missed: Array, grid: Grid, axis: int) -> Array:
    """The same on the edge from every node downward."""
    down = np.roll(missed, 1, axis)
    if not grid.periodic[axis]:
        np.moveaxis(down, axis, 0)[0] = 0.0
    return down
