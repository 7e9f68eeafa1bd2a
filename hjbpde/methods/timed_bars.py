"""The error of values at several times, from the same on halved grids.

What the cells and steps miss is seen in the differences between grids; what artificial
faces miss, in V of a box whose faces are farther off.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d

from ..error_bar import NESTED_SAFETY, neighbour_maximum
from ..grid import Grid
from ..interpolation import Interpolant
from ..problem import ControlProblem
from .explicit import ExplicitMarching
from .farther_faces import FAR, NEAR, farther

Array = NDArray[np.float64]
Nested = list[tuple[Grid, Array]]
Far = Callable[[ControlProblem, Grid, int, bool], Array]
"""Values (T, *shape) of a problem on a grid, halved `int` times from the problem's own,
by the closure of artificial faces in use or, where not, by another."""


class KinksOf(Enum):
    """What has kinks."""

    NOTHING = 0
    VALUES = 1
    CONTROLS = 2
    """The Hamiltonian, where controls are a few points: V gets ever new ones."""


MOST_ORDER = 2
"""Order of h believed in the bar: faces and kinks are felt by smooth nodes as well."""
REACH = 1 / 16
"""Part of an axis over which kinks are felt."""
FASTEST = 5
"""Order at which differences fall at most, that of the best scheme: where errors of the
steps and of the cells cancel for a moment, they seem to fall faster."""
FELT = 0.3
"""Share of what faces farther off change, from which on these are felt themselves."""


def carried(values: Array, coarse: Grid, grid: Grid) -> Array:
    """Values (T, *shape) of a coarser grid on `grid`."""
    if coarse is grid:
        return values
    nodes = grid.nodes()
    return np.stack([Interpolant(coarse, v).cubic(nodes) for v in values])


def discretisation(
    fine: Array, others: Nested, grid: Grid, method: ExplicitMarching, kinks: KinksOf
) -> tuple[Array, float | None]:
    """The bar (T, *shape) from halved grids, and the order seen in the mean.

    The order is taken node by node from the largest difference around, between the
    scheme's p and p / (p + 1), at which schemes of order p smear kinks that are carried
    along: those of first order spread them over the root of h. With kinks p is 1 at
    most; where those of the Hamiltonian make ever new ones, differences, which change
    their signs as these move through their cells, are those within `REACH`.
    """
    if not others:
        return np.full_like(fine, np.ptp(fine)), None
    spread = [carried(v, coarse, grid) for coarse, v in others]
    gaps = [np.abs(fine - spread[-1])]
    if len(spread) == 2:
        gaps.append(np.abs(spread[-1] - spread[0]))
    near = [around(gap, grid) for gap in gaps]
    if kinks is KinksOf.CONTROLS:
        near = [_spread(gap, grid) for gap in near]
    if len(near) == 1:
        return NESTED_SAFETY * near[0], None
    near[0] = np.maximum(near[0], 2.0**-FASTEST * near[1])
    tiny = 1e-14 * max(float(np.ptp(fine)), 1e-300)
    ratio = (near[1] + tiny) / (near[0] + tiny)
    believed = MOST_ORDER if kinks is KinksOf.NOTHING else 1
    most = 2.0 ** min(method.scheme.order, method.stages, believed)
    least = 2.0 ** (method.scheme.order / (method.scheme.order + 1))
    if method.stages == 1:
        # Whole steps: those of two grids can be as 5 to 3, which one-stage rules feel.
        least = min(least, 1.5)
    bar = NESTED_SAFETY * near[0] / (np.clip(ratio, least, most + 1e-9) - 1.0)
    order = float(np.log2(max(gaps[1].mean(), tiny) / max(gaps[0].mean(), tiny)))
    return bar, order


def around(gap: Array, grid: Grid) -> Array:
    """The largest entry around every node of gaps (T, *shape), dips in time filled.

    A difference that changes its sign says nothing at that time.
    """
    near = np.stack([neighbour_maximum(g, grid) for g in gap])
    beside = np.minimum(near[:-2], near[2:])
    near[1:-1] = np.maximum(near[1:-1], beside)
    return near


def _spread(gap: Array, grid: Grid) -> Array:
    """The largest of gaps (T, *shape) within `REACH` of every axis."""
    for k, (n, periodic) in enumerate(zip(grid.shape, grid.periodic, strict=True), 1):
        window = 2 * max(1, round(REACH * n)) + 1
        mode = "wrap" if periodic else "nearest"
        gap = maximum_filter1d(gap, window, axis=k, mode=mode)
    return gap


def truncation(problem: ControlProblem, grid: Grid, others: Nested, far: Far) -> Array:
    """How far artificial faces move V: by what V is on a larger box, on halved grids.

    Where the problem's functions do not reach beyond the box: by what another closure
    of the faces gives.
    """
    if not any(problem.artificial_axes) or not others:
        return np.zeros(grid.shape)
    try:
        return _beyond(problem, grid, others, far)
    # The user's own functions are called where they need not be defined.
    except Exception:
        coarse, values = others[0]
        gap = np.abs(far(problem, coarse, len(others), False) - values)
        return np.abs(carried(gap, coarse, grid))


def _beyond(problem: ControlProblem, grid: Grid, others: Nested, far: Far) -> Array:
    """From V of boxes half as large again and, where these do not do, four times."""
    gaps, felt = [], False
    for i, one in enumerate(reversed(others)):
        change, rest = _changes(problem, one, i + 1, NEAR, far)
        felt = felt or float(rest.max()) > FELT * float(change.max())
        gaps.append(_widened(NESTED_SAFETY * change + rest, one[0], grid))
    gap = gaps[0]
    if len(gaps) == 2:
        # What the closure misses is of some order in h, what the box misses of none.
        gap = np.maximum(gap - 0.25 * np.maximum(gaps[1] - gap, 0.0), 0.5 * gap)
    if felt:
        change, rest = _changes(problem, others[0], len(others), FAR, far)
        most = _widened(NESTED_SAFETY * change + rest, others[0][0], grid)
        gap = np.maximum(gap, most)
    return gap


def _changes(
    problem: ControlProblem, nested: tuple[Grid, Array], halved: int, share: float,
    far: Far,
) -> tuple[Array, Array]:  # fmt: skip
    """What faces farther off change, and what another closure of those changes then."""
    coarse, values = nested
    wider, wide, own = farther(problem, coarse, share)
    with np.errstate(all="ignore"):
        found, other = (
            far(wider, wide, halved, closed)[(slice(None), *own)]
            for closed in (True, False)
        )
    if not (np.isfinite(found).all() and np.isfinite(other).all()):
        raise FloatingPointError("V beyond the box is not finite")
    return np.abs(found - values), np.abs(found - other)


def _widened(gap: Array, coarse: Grid, grid: Grid) -> Array:
    return np.abs(carried(around(gap, coarse), coarse, grid))
