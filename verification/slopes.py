"""Gradients compared, with the kinks of the reference judged apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import convolve1d, distance_transform_edt, maximum_filter1d

from hjbpde import Box, Grid

from .reference import Instant, is_quiet, running
from .subject import Subject

Array = NDArray[np.float64]

KINK = 0.2
"""A bend between neighbours beyond this share of the slope's whole range is a kink."""
ISOLATED = 8.0
"""... if it also stands out this much from the median bend."""
FLAT = 1e-6
"""... and changes the value across the domain by more than this share of it."""
REACH = 2
"""Cells around a kink, or beside an exit, where gradients are not compared."""


@dataclass(frozen=True, eq=False)
class Slopes:
    """``max_k |d_k e| width_k / osc V`` at the points compared.

    `error` and `bar` (n,), `excess` (n,) is the largest ``|d_k e| - bar_k`` over the
    axes, all in those units; NaN near a kink. `kinks` counts the kinks of the
    reference met, `wrong_kinks` (k, d) are where the candidate bends the other way;
    `finite` (n,) holds NaN where the candidate's gradient is not finite.
    """

    x: Array
    error: Array
    bar: Array
    excess: Array
    kinks: int
    wrong_kinks: Array
    finite: Array


def compare_slopes(
    instant: Instant, grid: Grid, x: Array, region: Box, osc: float
) -> Slopes:
    """Compare grad V of candidate and reference at x (n, d)."""
    subject, reference = instant.subject, instant.reference
    unit = region.width / osc
    mine, theirs = subject.gradient(x), reference.gradient_at(x)
    gap = np.abs(mine - theirs) * unit
    away = cells_from_exit(instant, grid)
    bar = (_gradient_bar(reference, x) + _exit_bar(reference, grid, away, x)) * unit
    smeared = is_quiet(instant.problem)
    places, axes, signs = find_kinks(reference, grid, region, away, smeared)
    error, worst_bar = gap.max(axis=1), bar.max(axis=1)
    excess = (gap - bar).max(axis=1)
    finite = mine.sum(axis=1)
    near = near_places(x, places, grid)
    if away is not None:
        near |= grid.interpolate(away, x) <= REACH
    for array in (error, worst_bar, excess):
        array[near] = np.nan
    bends = _bends(subject, places, axes, grid, region)
    wrong = instant.places(places[signs * bends <= 0.0])
    return Slopes(x, error, worst_bar, excess, len(places), wrong, finite)


def cells_from_exit(instant: Instant, grid: Grid) -> Array | None:
    """How many cells every node lies from an exit or an infinite value, (*shape).

    None without an exit.
    """
    if instant.problem.exit is None:
        return None
    nodes = grid.nodes()
    runs = running(instant.problem, nodes)
    runs = runs & np.isfinite(instant.reference.value_at(nodes))
    if runs.all():
        return np.full(grid.shape, float(grid.size))
    return np.asarray(distance_transform_edt(runs))


def _exit_bar(reference: Any, grid: Grid, away: Array | None, x: Array) -> Array:
    """What exit data that are met to ``miss`` only can do to the gradient.

    An error of the boundary values bends the solution by about itself over the
    distance to the boundary (the gradient estimate of harmonic functions).
    """
    parts = getattr(reference.report, "error_parts", {})
    miss = float(parts.get("exit surface", 0.0))
    if away is None or miss == 0.0:
        return np.zeros(x.shape)
    steps = np.array([np.diff(axis).min() for axis in grid.axes])
    cells = np.maximum(grid.interpolate(away, x), 1.0)
    return miss / (cells[:, None] * steps)


def _gradient_bar(reference: Any, x: Array) -> Array:
    # Learned references know no bar of their gradient.
    if hasattr(reference, "gradient_error_at"):
        return np.asarray(reference.gradient_error_at(x))
    return np.full(x.shape, np.inf)


def find_kinks(
    reference: Any,
    grid: Grid,
    region: Box,
    away: Array | None = None,
    smeared: bool = False,
) -> tuple[Array, NDArray[np.intp], Array]:
    """Nodes where the reference bends sharply: places (k, d), axes (k,), signs (k,).

    Not beside an exit, `away` cells off: there V meets data that are no part of it.
    Kinks that are `smeared` over three nodes are found as well: schemes do that to
    those that move.
    """
    d = grid.dimension
    values = np.array(reference.value_at(grid.nodes()), dtype=float)
    lost = ~np.isfinite(values)
    if away is not None:
        lost |= away <= 0
    values[lost] = 0.0
    places, axes, signs = [np.zeros((0, d))], [np.zeros(0, np.intp)], [np.zeros(0)]
    inside = Box(region.low, region.high).contains(grid.nodes())
    if away is not None:
        inside &= away > REACH
    for k in range(d):
        step = np.diff(grid.axes[k]).reshape([-1 if i == k else 1 for i in range(d)])
        slope = np.diff(values, axis=k) / step
        bend = np.zeros_like(values)
        middle = tuple(slice(1, -1) if i == k else slice(None) for i in range(d))
        bend[middle] = np.diff(slope, axis=k)
        known = _beside(~lost, k)
        if not known.any():
            continue
        span = float(np.ptp(slope[_beside(~lost, k, pairs=True)])) + 1e-300
        # A constant bends by its round-off only.
        least = FLAT * float(np.abs(values).max()) / float(np.ptp(grid.axes[k]))
        least = max(KINK * span, least)
        sharp = inside & _stands_out(bend, known, least)
        if smeared and grid.shape[k] > 2 * REACH:
            wide = convolve1d(bend, np.ones(3), axis=k, mode="nearest")
            top = np.abs(wide) == maximum_filter1d(np.abs(wide), 2 * REACH + 1, axis=k)
            alone = maximum_filter1d(sharp.astype(int), 4 * REACH + 1, axis=k) == 0
            sharp |= inside & top & alone & _stands_out(wide, known, least)
        found = grid.nodes()[sharp]
        places.append(found)
        axes.append(np.full(len(found), k))
        signs.append(np.sign(bend[sharp]))
    return np.concatenate(places), np.concatenate(axes), np.concatenate(signs)


def _stands_out(bend: Array, known: NDArray[np.bool_], least: float) -> Any:
    """Known nodes whose bend is larger than `least`, and than most others."""
    size = np.abs(bend)
    usual = max(float(np.median(size[known])), 1e-300)
    return known & (size > least) & (size > ISOLATED * usual)


def _beside(known: NDArray[np.bool_], axis: int, pairs: bool = False) -> Any:
    """Nodes whose two neighbours along `axis` are known too; or pairs of neighbours."""
    low = np.take(known, range(known.shape[axis] - 1), axis)
    high = np.take(known, range(1, known.shape[axis]), axis)
    both = low & high
    if pairs:
        return both
    out = np.zeros_like(known)
    middle = tuple(
        slice(1, -1) if i == axis else slice(None) for i in range(known.ndim)
    )
    out[middle] = np.take(both, range(both.shape[axis] - 1), axis) & np.take(
        both, range(1, both.shape[axis]), axis
    )
    return out


def near_places(x: Array, places: Array, grid: Grid) -> NDArray[np.bool_]:
    """Which points x (n, d) lie within `REACH` cells of one of the places (k, d)."""
    steps = np.array([np.diff(axis).max() for axis in grid.axes])
    near = np.zeros(len(x), bool)
    for place in places:
        near |= (np.abs(x - place) <= REACH * steps).all(axis=1)
    return near


def _bends(
    subject: Subject,
    places: Array,
    axes: NDArray[np.intp],
    grid: Grid,
    region: Box,
) -> Array:
    """Change of the candidate's slope across each kink, along its axis."""
    if not len(places):
        return np.zeros(0)
    steps = np.array([np.diff(axis).max() for axis in grid.axes])
    shift = np.zeros_like(places)
    rows = np.arange(len(places))
    shift[rows, axes] = REACH * steps[axes]
    above = subject.gradient(region.clip(places + shift))
    below = subject.gradient(region.clip(places - shift))
    return (above - below)[rows, axes]
