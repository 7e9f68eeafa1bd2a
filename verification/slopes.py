"""Gradients compared, with the kinks of the reference judged apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hjbpde import Box, Grid

from .candidate import Subject

Array = NDArray[np.float64]

KINK = 0.2
"""A bend between neighbours beyond this share of the slope's whole range is a kink."""
ISOLATED = 8.0
"""... if it also stands out this much from the median bend."""
REACH = 2
"""Cells around a kink where gradients are not compared."""


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
    subject: Subject, reference: Any, grid: Grid, x: Array, region: Box, osc: float
) -> Slopes:
    """Compare grad V of subject and reference at x (n, d)."""
    unit = region.width / osc
    mine, theirs = subject.gradient(x), reference.gradient_at(x)
    gap = np.abs(mine - theirs) * unit
    bar = _gradient_bar(reference, x) * unit
    places, axes, signs = find_kinks(reference, grid, region)
    error, worst_bar = gap.max(axis=1), bar.max(axis=1)
    excess = (gap - bar).max(axis=1)
    finite = mine.sum(axis=1)
    near = _near(x, places, grid)
    for array in (error, worst_bar, excess):
        array[near] = np.nan
    bends = _bends(subject, places, axes, grid, region)
    wrong = places[signs * bends <= 0.0]
    return Slopes(x, error, worst_bar, excess, len(places), wrong, finite)


def _gradient_bar(reference: Any, x: Array) -> Array:
    # Learned references know no bar of their gradient.
    if hasattr(reference, "gradient_error_at"):
        return np.asarray(reference.gradient_error_at(x))
    return np.full(x.shape, np.inf)


def find_kinks(
    reference: Any, grid: Grid, region: Box
) -> tuple[Array, NDArray[np.intp], Array]:
    """Nodes where the reference bends sharply: places (k, d), axes (k,), signs (k,)."""
    d = grid.dimension
    values = np.asarray(reference.value_at(grid.nodes()))
    places, axes, signs = [np.zeros((0, d))], [np.zeros(0, np.intp)], [np.zeros(0)]
    inside = Box(region.low, region.high).contains(grid.nodes())
    for k in range(d):
        step = np.diff(grid.axes[k]).reshape([-1 if i == k else 1 for i in range(d)])
        slope = np.diff(values, axis=k) / step
        bend = np.zeros_like(values)
        middle = tuple(slice(1, -1) if i == k else slice(None) for i in range(d))
        bend[middle] = np.diff(slope, axis=k)
        size, held = np.abs(bend), inside.copy()
        span = float(np.ptp(slope)) + 1e-300
        sharp = held & (size > KINK * span)
        sharp &= size > ISOLATED * max(float(np.median(size[middle])), 1e-300)
        found = grid.nodes()[sharp]
        places.append(found)
        axes.append(np.full(len(found), k))
        signs.append(np.sign(bend[sharp]))
    return np.concatenate(places), np.concatenate(axes), np.concatenate(signs)


def _near(x: Array, places: Array, grid: Grid) -> NDArray[np.bool_]:
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
