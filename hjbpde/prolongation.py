"""Nested grids, and how values and policies come from the coarse ones to the fine."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .grid import Grid
from .multigrid import Transfer
from .offsets import evenly_spaced

Array = NDArray[np.float64]


def prolonged(coarse: Array, fine: Grid) -> Array:
    """Values of the coarsened grid on `fine`, multilinear."""
    values, shape = coarse.ravel(), list(coarse.shape)
    for axis in range(fine.dimension):
        transfer = Transfer.of(fine, axis, (False, False))
        values = transfer.prolong(values, tuple(shape))
        shape[axis] = fine.shape[axis]
    return values.reshape(fine.shape)


def cubically_prolonged(coarse: Array, fine: Grid) -> Array:
    """Values of the coarsened grid on `fine`, by the cubic through four nodes an axis.

    A start for the next grid: its residual is that of the scheme, where multilinear
    interpolation would leave kinks of size h V'' at every kept node.
    """
    values = coarse
    for axis in range(fine.dimension):
        kept, x = fine.kept(axis), fine.axes[axis]
        if kept.size < 4:
            return prolonged(coarse, fine)
        start = np.searchsorted(kept, np.arange(x.size), side="right") - 2
        if fine.periodic[axis]:
            turns, index = np.divmod(start[:, None] + np.arange(4), kept.size)
            nodes = x[kept][index] + turns * fine.domain.width[axis]
        else:
            start = np.clip(start, 0, kept.size - 4)
            index = start[:, None] + np.arange(4)
            nodes = x[kept][index]
        weights = _lagrange(nodes, x)
        shape = [1] * fine.dimension
        shape[axis] = x.size
        parts = [
            values.take(index[:, q], axis) * weights[:, q].reshape(shape)
            for q in range(4)
        ]
        values = parts[0] + parts[1] + parts[2] + parts[3]
    return values


def _lagrange(nodes: Array, x: Array) -> Array:
    """Weights (n, 4) of the cubic through nodes (n, 4) at x (n,)."""
    weights = np.ones_like(nodes)
    for q in range(4):
        for other in range(4):
            if other != q:
                gap = nodes[:, q] - nodes[:, other]
                weights[:, q] *= (x - nodes[:, other]) / gap
    return weights


def prolonged_policy(a: Array, coarse: Grid, fine: Grid) -> Array:
    """The control of the nearest coarse node below, (m, N)."""
    index = [
        np.searchsorted(fine.kept(k), np.arange(fine.shape[k]), side="right") - 1
        for k in range(fine.dimension)
    ]
    return (
        np.stack([row.reshape(coarse.shape)[np.ix_(*index)].ravel() for row in a])
        if len(a)
        else np.zeros((0, fine.size))
    )


def nested_grids(grid: Grid, least: int = 5, even: tuple[int, ...] = ()) -> list[Grid]:
    """Grids from coarse to `grid`, each the coarsening of the next.

    None has fewer than `least` nodes along an axis, unless `grid` itself has; the axes
    in `even` stay evenly spaced (correlated noise needs them so).
    """
    grids = [grid]
    while min(grids[0].shape) >= 2 * least - 1:
        coarser = grids[0].coarsened()
        if not all(evenly_spaced(coarser, axis) for axis in even):
            break
        grids.insert(0, coarser)
    return grids


def kept_nodes(fine: Grid) -> NDArray[np.intp]:
    """Flat numbers of the nodes that `fine.coarsened` keeps."""
    index = np.ix_(*[fine.kept(k) for k in range(fine.dimension)])
    return np.arange(fine.size).reshape(fine.shape)[index].ravel()
