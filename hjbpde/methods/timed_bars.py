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
    """From V of boxes half as large again and, where these do not do, four times.

    The larger of the two only tells what the smaller one misses: what both change is
    blurred by coarse steps in h, and seen best on the finest halved grid.
    """
    gaps, missed, felt = [], [], False
    found = []
    for i, (coarse, values) in enumerate(reversed(others)):
        near, other = _wider(problem, coarse, i + 1, NEAR, far)
        change, rest = np.abs(near - values), np.abs(near - other)
        felt = felt or float(rest.max()) > FELT * float(change.max())
        gaps.append(_widened(NESTED_SAFETY * change, coarse, grid))
        missed.append(_widened(rest, coarse, grid))
        found.append((coarse, near, i + 1))
    if felt:
        # With three states and more the finer one would take longer than the solve.
        levels = found if grid.dimension < 3 else found[-1:]
        worst = [
            _missed(problem, coarse, near, halved, grid, far)
            for coarse, near, halved in levels
        ]
        missed = [np.max(worst, axis=0)] * len(gaps)
    gaps = [gap + rest for gap, rest in zip(gaps, missed, strict=True)]
    if len(gaps) == 1:
        return gaps[0]
    # What the closure misses is of some order in h, what the box misses of none.
    return np.maximum(gaps[0] - 0.25 * np.maximum(gaps[1] - gaps[0], 0), 0.5 * gaps[0])


def _missed(
    problem: ControlProblem, coarse: Grid, near: Array, halved: int, grid: Grid,
    far: Far,
) -> Array:  # fmt: skip
    """What faces yet farther off change, and what another closure of those does."""
    found, other = _wider(problem, coarse, halved, FAR, far)
    missed = NESTED_SAFETY * np.abs(found - near) + np.abs(found - other)
    return _widened(missed, coarse, grid)


def _wider(
    problem: ControlProblem, coarse: Grid, halved: int, share: float, far: Far
) -> tuple[Array, Array]:
    """V at the nodes of `coarse` with faces farther off, closed one way and another."""
    wider, wide, own = farther(problem, coarse, share)
    with np.errstate(all="ignore"):
        found, other = (
            far(wider, wide, halved, closed)[(slice(None), *own)]
            for closed in (True, False)
        )
    if not (np.isfinite(found).all() and np.isfinite(other).all()):
        raise FloatingPointError("V beyond the box is not finite")
    return found, other


def _widened(gap: Array, coarse: Grid, grid: Grid) -> Array:
    return np.abs(carried(around(gap, coarse), coarse, grid))
