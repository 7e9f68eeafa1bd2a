"""How wrong marched values can be: nested grids with steps tied to their cells."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d

from ..error_bar import ErrorBar, neighbour_maximum, nested_estimate
from ..grid import Grid
from ..interpolation import Interpolant
from ..methods.bounds import region_mask
from ..methods.end_slopes import CLOSURE_SAFETY
from .bar import rough_factor
from .march import Marched
from .step_length import order_of_steps

Array = NDArray[np.float64]
LEAST = 1e-5
"""Share of the largest bar that noise carries everywhere: branches end, it does not."""
FEW_CELLS = 15
"""Cells on an axis of the coarsest grid with which differences tell little of an order
where there is noise: branches span the box, and differences are small by chance."""
FEW_SAFETY = 2.0
"""Factor on differences where the coarsest grid has so few cells."""


def timed_bound(
    times: Array,
    levels: list[Marched],
    order: int,
    other: tuple[int, list[Array]] | None,
) -> ErrorBar:
    """The bar (T, *shape) of the finest level's values.

    `other` are values (T, *shape) with artificial faces closed in two other ways, and
    the number of the level they were marched on.
    """
    fine = levels[-1]
    part, seen = _discretisation(times, levels, order)
    fixed = fine.faces.fixed_mask
    if fixed is not None:
        part[:, fixed] = 0.0
    cut = np.zeros_like(part)
    if other is not None:
        cut = _truncation(levels[other[0]], other[1], fine.grid)
    rounding = 4 * float(np.finfo(float).eps * np.max(np.abs(fine.values)))
    rounding *= 8 + fine.steps
    inner = region_mask(fine)
    parts: dict[str, Any] = {
        "discretisation": float(np.max(part[:, inner])),
        "truncation": float(np.max(cut[:, inner])),
        "round-off": rounding,
    }
    notes = () if seen is not None else ("order not observed: too few grids",)
    return ErrorBar(part + cut + rounding, parts, seen, notes)


def _discretisation(
    times: Array, levels: list[Marched], order: int
) -> tuple[Array, float | None]:
    """What steps and readings miss, (T, *shape), and the order seen in the middle.

    From differences between grids, the largest that a step of the coarsest reaches in
    time and space: with noise, a kink of the data comes back once for every branch, so
    differences change sign where errors do not.
    """
    fine = levels[-1]
    if len(levels) < 2:
        return np.full_like(fine.values, np.ptp(fine.values)), None
    grids, shrunk = (
        [v.grid for v in levels],
        [b.steps / a.steps for a, b in pairwise(levels)],
    )
    noisy = bool(fine.fastest.sigma.any())
    highest = order_of_steps(shrunk, noisy, order)
    found = [
        nested_estimate([level.values[i] for level in levels], grids, highest)
        for i in range(len(fine.values) - 1)
    ]
    few = noisy and min(grids[0].shape) - 1 <= FEW_CELLS
    factor = max(rough_factor(fine.look), FEW_SAFETY if few else 1.0)
    bars = factor * np.stack([one.bar for one in found])
    bars = _spread(bars, fine)
    # The terminal value is exact on the nodes.
    whole = np.zeros_like(fine.values)
    stride = fine.clock.stride * (1 + 1e-9)
    for i, t in enumerate(times[:-1]):
        near = np.abs(times[:-1] - t) <= stride
        near[max(i - 1, 0) : i + 2] = True
        whole[i] = bars[near].max(axis=0)
    seen = [one.order for one in found if one.order is not None]
    return whole, float(np.median(seen)) if seen else None


def _spread(bars: Array, level: Marched) -> Array:
    """The largest of bars (T, *shape) within the branches of a stride."""
    sigma = level.fastest.sigma[0]
    arms = np.sqrt(sigma.shape[1] * level.clock.stride) * sigma.max(axis=1, initial=0.0)
    for k, arm in enumerate(arms):
        axis = level.grid.axes[k]
        cells = int(np.ceil(arm / np.min(np.diff(axis)) * (1 - 1e-9)))
        window = 2 * min(cells, axis.size) + 1
        mode = "wrap" if level.grid.periodic[k] else "nearest"
        bars = maximum_filter1d(bars, window, axis=k + 1, mode=mode)
    if not sigma.any():
        return bars
    most = bars.reshape(len(bars), -1).max(axis=1)
    return np.maximum(bars, LEAST * most.reshape(-1, *(1,) * level.grid.dimension))


def _truncation(level: Marched, others: list[Array], grid: Grid) -> Array:
    """How far other closures of artificial faces move V, (T, *shape)."""
    nodes, found = grid.nodes(), []
    for apart in np.abs(np.stack(others) - level.values).sum(axis=0):
        widest = neighbour_maximum(apart, level.grid)
        found.append(Interpolant(level.grid, widest).linear(nodes))
    return CLOSURE_SAFETY * np.stack(found)
