"""Terminal data with kinks and jumps, as differences should be given them.

Where a kink lies in its cell decides how wrong nodal values are: at random, to second
order for a kink and to first for a jump, so that no extrapolation helps. Averages

    g_i = sum over axes' tensor product of  int g(x) phi((x - x_i) / h) dx / h,
    phi^(w) = (sin(w/2) / (w/2))^4 (1 + 2/3 sin^2(w/2)),

are free of that: phi reproduces cubics, so g_i differs from a smooth g by O(h^4), and
phi^ has zeros of order four where the grid mistakes short waves for long ones. phi is
the cubic B-spline B, then ``(1 + (2 - E - E^-1) / 6)`` with the shift E by a node.

Source: Kreiss, Thomee and Widlund, Comm. Pure Appl. Math. 23 (1970) 241, section 2.
Averaging payoffs for options: Pooley, Vetzal and Forsyth, J. Comput. Finance 6 (2003).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.ndimage import maximum_filter1d

from ..grid import Grid

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

POINTS = {1: 4096, 2: 12}
"""Samples a cell and axis, by the number of axes averaged along: a kink between two
of them is off by their distance squared."""
REACH = 3
"""Nodes that phi reaches to either side."""
ROUGH = 0.5
"""Fourth over second differences above which data count as rough; 0 as h falls where
they are smooth, 1 and more beside a kink."""
NOTHING = 1e-8
"""Second differences below this share of the largest value are none."""
LITTLE = 1e-6
"""Nor are those below this share of the largest of them."""
MOST_AXES = max(POINTS)
BLOCK = 2_000_000
"""Samples held at a time."""


class Kinks(IntEnum):
    """What data have: nothing rough, or something averaged or left as it was."""

    NONE = 0
    AVERAGED = 1
    JUMPS_AVERAGED = 2
    LEFT = 3


def averaged(
    data: Callable[[Array], Array],
    grid: Grid,
    values: Array,
    axes: list[int],
    fixed: Mask | None = None,
) -> tuple[Array, Kinks]:
    """Nodal `values` (*shape) of data(x), averaged along `axes` around its kinks.

    Nodes far from kinks keep their value, as do those within `REACH` of a face or of
    a `fixed` node, and all where more than two axes are asked for. Also returns
    what was found.
    """
    # Fewer nodes tell nothing of kinks.
    every = [k for k in range(grid.dimension) if grid.shape[k] > 2 * REACH]
    rough = np.zeros(grid.shape, bool)
    if every:
        rough = rough_nodes(values, grid, every)
    if not rough.any():
        return values, Kinks.NONE
    if not 0 < len(axes) <= MOST_AXES:
        return values, Kinks.LEFT
    room = _room(grid, axes, fixed)
    means, kind = values.copy(), np.where(rough & ~room, Kinks.LEFT, Kinks.NONE)
    beside = _dilated(rough & room, axes, 1)
    least = _least(values, grid, every)
    means[beside], kind[beside] = _means(data, grid, np.argwhere(beside), axes, least)
    for axis in axes:
        means = means + _bend(means, axis) / 6.0
    kinked = _dilated(kind > Kinks.NONE, axes, 1)
    whole = len(axes) == grid.dimension and bool((room | ~kinked).all())
    worst = Kinks(int(kind.max())) if whole else Kinks.LEFT
    return np.where(kinked & room, means, values), worst


def rough_nodes(values: Array, grid: Grid, axes: list[int]) -> Mask:
    """Nodes (*shape) that phi joins with a kink or a jump across one of `axes`."""
    rough = np.zeros(grid.shape, bool)
    least = _least(values, grid, axes)
    for axis in axes:
        second = _inner(_bend(values, axis), grid, axis, 1)
        fourth = _inner(_bend(second, axis), grid, axis, 2)
        around = maximum_filter1d(np.abs(second), 3, axis=axis, mode="nearest")
        rough |= (around > least) & (np.abs(fourth) > ROUGH * around)
    return _dilated(rough, axes, REACH - 1)


def _least(values: Array, grid: Grid, axes: list[int]) -> float:
    """The smallest second difference that counts."""
    bends = [_inner(_bend(values, axis), grid, axis, 1) for axis in axes]
    largest = max(float(np.max(np.abs(bend))) for bend in bends)
    return max(NOTHING * float(np.max(np.abs(values))), LITTLE * largest)


def _bend(values: Array, axis: int) -> Array:
    """2 v_i - v_(i-1) - v_(i+1) along an axis, as if it were periodic."""
    return 2.0 * values - np.roll(values, 1, axis) - np.roll(values, -1, axis)


def _inner(values: Array, grid: Grid, axis: int, layers: int) -> Array:
    """0 in the outermost layers of an axis that is not periodic."""
    if grid.periodic[axis]:
        return values
    out, n = values.copy(), grid.shape[axis]
    ends = [slice(None)] * grid.dimension
    for layer in (slice(0, layers), slice(n - layers, n)):
        ends[axis] = layer
        out[tuple(ends)] = 0.0
    return out


def _dilated(mask: Mask, axes: list[int], nodes: int) -> Mask:
    for axis in axes:
        wide = maximum_filter1d(mask, 2 * nodes + 1, axis=axis, mode="wrap")
        mask = np.asarray(wide, dtype=bool)
    return mask


def _room(grid: Grid, axes: list[int], fixed: Mask | None) -> Mask:
    """Nodes whose averages reach no face and no fixed node."""
    taken = np.zeros(grid.shape, bool) if fixed is None else fixed.copy()
    taken = _dilated(taken, axes, REACH)
    for axis in axes:
        ones = np.ones(grid.shape)
        taken |= _inner(ones, grid, axis, REACH) == 0.0
    return ~taken


def _means(
    data: Callable[[Array], Array],
    grid: Grid,
    nodes: NDArray[np.intp],
    axes: list[int],
    least: float,
) -> tuple[Array, NDArray[np.int_]]:
    """Means of the data under B at nodes (n, d), and the kinks it meets, both (n,).

    Of second differences between nodes, all is left between samples beside a jump,
    ``1 / POINTS`` beside a kink, and the square of that where data are only steep.
    Those below `least` are not looked at.
    """
    count = POINTS[len(axes)]
    shift = (np.arange(-2 * count, 2 * count) + 0.5) / count
    weight = _spline(shift) / _spline(shift).sum()
    shifts = list(itertools.product(shift, repeat=len(axes)))
    weights = np.prod(list(itertools.product(weight, repeat=len(axes))), axis=1)
    means, kind = np.empty(len(nodes)), np.full(len(nodes), int(Kinks.NONE))
    size = max(BLOCK // len(shifts), 1)
    maps = {axis: _coordinates(grid, axis) for axis in axes}
    for start in range(0, len(nodes), size):
        block = slice(start, start + size)
        at = nodes[block].astype(float)
        x = np.empty((len(at), len(shifts), grid.dimension))
        for k, axis in enumerate(grid.axes):
            x[..., k] = axis[nodes[block, k], None]
        for column, axis in enumerate(axes):
            place = at[:, axis, None] + np.array(shifts)[None, :, column]
            x[..., axis] = maps[axis](place)
        samples = np.asarray(data(grid.domain.wrap(x)))
        means[block] = samples @ weights
        square = samples.reshape(len(at), *(shift.size,) * len(axes))
        for column in range(len(axes)):
            line = np.moveaxis(square, column + 1, 0)
            between = np.maximum(_largest_bend(line, count), least)
            left = _largest_bend(line, 1)
            here = np.where(left * count**1.5 > between, Kinks.AVERAGED, Kinks.NONE)
            here[left * count**0.5 > between] = Kinks.JUMPS_AVERAGED
            kind[block] = np.maximum(kind[block], here)
    return means, kind


def _largest_bend(line: Array, step: int) -> Array:
    """The largest second difference of samples (s, n, ...) so many apart, (n,)."""
    found = np.abs(line[2 * step :] - 2.0 * line[step:-step] + line[: -2 * step])
    return found.max(axis=tuple(k for k in range(found.ndim) if k != 1))


def _spline(s: Array) -> Array:
    """The cubic B-spline on [-2, 2]."""
    s = np.abs(s)
    return np.where(s < 1, 2 / 3 - s**2 + s**3 / 2, np.maximum(2 - s, 0) ** 3 / 6)


def _coordinates(grid: Grid, axis: int) -> Callable[[Array], Array]:
    """x as a smooth function of the node's number, past a periodic seam as well."""
    x = grid.axes[axis]
    if not grid.periodic[axis]:
        return CubicSpline(np.arange(x.size), x)
    width, n = float(np.asarray(grid.domain.width)[axis]), x.size
    turns = np.concatenate([x - width, x, x + width])
    return CubicSpline(np.arange(-n, 2 * n), turns)
