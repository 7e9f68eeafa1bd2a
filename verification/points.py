"""Where a candidate is looked at, and how narrow a fault could still hide."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc

from hjbpde import Box, ControlProblem, Grid, ProblemError

from .reference import running

Array = NDArray[np.float64]

PER_NODE = 16
"""Quasi-random points for each grid node, up to the largest number."""
MOST_POINTS = 2**18
FEW = 4096
"""Points for controls and residuals, whose greedy steps cost more than a value."""


@dataclass(frozen=True, eq=False)
class SamplePoints:
    """Points of a region: nodes, cell centres, half-cell nodes, quasi-random ones.

    x (n, d); the first `n_nodes` are grid nodes. `resolution` (d,) are the sides of
    a box: every box of that size inside the region holds at least one point, so a
    fault at least that wide cannot be missed.
    """

    x: Array
    n_nodes: int
    resolution: Array


def judged_points(
    problem: ControlProblem, points: SamplePoints, reference: Any
) -> SamplePoints:
    """The points where the process runs and the reference's value is finite.

    It is infinite where no control reaches the exit. A box of the resolution's size
    that lies among them keeps its point.

    Raises
    ------
    ProblemError
        Hardly a point runs.
    """
    runs = running(problem, points.x) & np.isfinite(reference.value_at(points.x))
    if runs.sum() < points.x.shape[1] + 1:
        raise ProblemError(
            "cross_check: the process has ended, or the value is infinite, nearly "
            "everywhere in the region; judge elsewhere, or check the sign of the "
            "exit's region(x), which is negative where it has ended."
        )
    n_nodes = int(runs[: points.n_nodes].sum())
    return SamplePoints(points.x[runs], n_nodes, points.resolution)


def sample_points(grid: Grid, region: Box, seed: int) -> SamplePoints:
    """Nodes, cell centres, half-cell nodes where they fit, and a scrambled Sobol net.

    Half-cell nodes (of the refined grid) bring the resolution below a cell; where they
    would be more than `MOST_POINTS`, the net takes their place. The net has a power
    of two points.
    """
    nodes = _inside(grid.nodes().reshape(-1, grid.dimension), region)
    centres = _inside(_centres(grid), region)
    half = np.zeros((0, grid.dimension))
    lattice = grid
    if grid.size * 2**grid.dimension <= MOST_POINTS:
        lattice = grid.refined()
        half = _inside(lattice.nodes().reshape(-1, grid.dimension), region)
    wanted = MOST_POINTS // 2 if len(half) == 0 else PER_NODE * len(nodes)
    wanted = np.clip(
        wanted, 2**12, 2**14 if len(half) and grid.dimension > 1 else 2**16
    )
    net = qmc.Sobol(grid.dimension, scramble=True, rng=np.random.default_rng(seed))
    unit = net.random_base2(int(np.ceil(np.log2(wanted))))
    extra = np.asarray(region.low) + unit * region.width
    x = np.concatenate([nodes, centres, half, _corners(region), extra])
    choices = (_gaps(lattice, region), covering(x, region))
    resolution = min(choices, key=lambda sides: float(np.prod(sides)))
    return SamplePoints(x, len(nodes), resolution)


def _gaps(lattice: Grid, region: Box) -> Array:
    """Sides of a box that always holds a point of the lattice."""
    low, high = np.asarray(region.low), np.asarray(region.high)
    sides = []
    for k, axis in enumerate(lattice.axes):
        inside = axis[(axis >= low[k]) & (axis <= high[k])]
        sides.append(np.diff(np.r_[low[k], inside, high[k]]).max())
    return np.array(sides)


def covering(x: Array, region: Box) -> Array:
    """Sides (d,) of a box that cannot be placed in `region` without holding a point.

    In one dimension the widest gap; else twice the side of the finest uniform bins
    that all hold a point (any box twice a bin wide contains a whole bin).
    """
    if x.shape[1] == 1:
        ends = np.r_[np.asarray(region.low), x[:, 0], np.asarray(region.high)]
        return np.array([np.diff(np.sort(ends)).max()])
    unit = (x - np.asarray(region.low)) / region.width
    most = int(len(x) ** (1.0 / x.shape[1]))
    for bins in range(most, 1, -1):
        cell = np.minimum((unit * bins).astype(int), bins - 1)
        flat = np.ravel_multi_index(tuple(cell.T), (bins,) * x.shape[1])
        if np.bincount(flat, minlength=bins ** x.shape[1]).all():
            return 2.0 * region.width / bins
    return np.array(region.width)


def climb(
    score: Callable[[Array], Array], x: Array, region: Box, width: Array, seed: int
) -> Array:
    """Points near `x` (n, d) with a larger score: three rounds, each four times closer.

    A sample rarely meets a narrow fault at its top; this looks around the worst ones.
    """
    rng = np.random.default_rng(seed)
    best = x
    for shrink in (1.0, 0.25, 0.0625):
        shift = rng.uniform(-1.0, 1.0, (32, *best.shape)) * width * shrink
        trial = np.concatenate([best[None], region.clip(best + shift)])
        found = score(trial.reshape(-1, x.shape[1])).reshape(trial.shape[:2])
        best = trial[found.argmax(axis=0), np.arange(len(best))]
    return best


def few(x: Array, seed: int) -> Array:
    """At most FEW of the points, spread over all of them."""
    if len(x) <= FEW:
        return x
    keep = np.random.default_rng(seed).choice(len(x), FEW, replace=False)
    return x[np.sort(keep)]


def _inside(x: Array, region: Box) -> Array:
    slack = 1e-12 * float(np.max(region.width))
    kept = x[Box(region.low, region.high).contains(x, slack)]
    return region.clip(kept)


def _centres(grid: Grid) -> Array:
    # Periodic axes have one more interval, across the seam.
    middles = [
        axis + 0.5 * grid.spacing(k)[1]
        if grid.periodic[k]
        else axis[:-1] + 0.5 * np.diff(axis)
        for k, axis in enumerate(grid.axes)
    ]
    mesh = np.stack(np.meshgrid(*middles, indexing="ij"), axis=-1)
    return mesh.reshape(-1, grid.dimension)


def _corners(region: Box) -> Array:
    sides = zip(np.asarray(region.low), np.asarray(region.high), strict=True)
    mesh = np.stack(np.meshgrid(*sides, indexing="ij"), axis=-1)
    return mesh.reshape(-1, region.dimension)
