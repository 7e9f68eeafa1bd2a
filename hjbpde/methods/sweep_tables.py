"""What sweeping needs to know of a problem: speeds, slowness, arcs, directions."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from ..errors import MemoryBudgetError, MethodMismatch, ProblemError
from ..grid import Grid
from ..problem import ControlProblem
from ..sets import Box, Finite
from .sweeping import ArcTables, Sweeping
from .target import Target

Array = NDArray[np.float64]
DENSE = {0: 1, 1: 1441, 2: 73}
"""Controls along an axis of the box when directions are inspected."""
LARGEST = 8e9
"""Bytes of drift tables beyond which a solve is refused."""


@dataclass(frozen=True)
class Isotropy:
    """Velocities form a ball: every direction at the same speed and cost.

    `controls` (A, m) are samples and `directions` (A, d) their unit velocities;
    `fixed` tells whether a control means the same direction in every state.
    """

    controls: Array
    directions: Array
    fixed: bool


def flow(problem: ControlProblem, x: Array, a: Array) -> tuple[Array, Array]:
    """Drift (n, d) and running cost (n) at states x under one control a (m,).

    The cost may be infinite (an obstacle), never negative or NaN.
    """
    given = np.broadcast_to(a, (len(x), a.size))
    f = np.asarray(problem.drift_at(x, given), dtype=float)
    cost = -problem.sign * np.asarray(problem.payoff_at(x, given), dtype=float)
    bad = ~np.isfinite(f).all(axis=1)
    if bad.any():
        raise ProblemError(f"'drift' is not finite at x = {x[bad][0]}, a = {a}.")
    bad = ~(cost >= 0)
    if bad.any():
        raise ProblemError(
            f"the running cost is {cost[bad][0]:g} at x = {x[bad][0]}, a = {a}: "
            "sweeping needs cost >= 0 (reward <= 0); infinity marks an obstacle."
        )
    return f, cost


def samples(problem: ControlProblem, n: int) -> Array:
    """Controls on a lattice of the box, or all of a finite set, (A, m)."""
    controls = problem.controls
    if controls is None:
        return np.zeros((1, 0))
    if isinstance(controls, Finite):
        return np.asarray(controls.points, dtype=float)
    assert isinstance(controls, Box)
    if controls.varies or not np.isfinite(np.r_[controls.low, controls.high]).all():
        raise MethodMismatch(
            "Sweeping needs a bounded, constant control box or a finite set."
        )
    ends = zip(np.asarray(controls.low), np.asarray(controls.high), strict=True)
    return np.array(list(itertools.product(*[np.linspace(a, b, n) for a, b in ends])))


def isotropy(problem: ControlProblem, grid: Grid) -> Isotropy | None:
    """Whether the velocities form a ball around 0, seen at 24 scattered nodes.

    Same speed and cost under every sampled control, and a control within half a degree
    of the grid of samples for every direction.
    """
    m, d = problem.n_controls, grid.dimension
    if m > 2 or m == 0:
        return None
    controls = samples(problem, DENSE[m])
    rng = np.random.default_rng(0)
    x = grid.nodes().reshape(-1, d)[rng.integers(0, grid.size, 24)]
    directions, fixed = np.empty((0, d)), True
    for place in x:
        rows = np.broadcast_to(place, (len(controls), d))
        f = np.asarray(problem.drift_at(rows, controls), float)
        cost = np.asarray(problem.payoff_at(rows, controls), float)
        if not np.isfinite(cost).all():
            continue
        speed = np.linalg.norm(f, axis=1)
        if np.ptp(speed) > 1e-9 * speed.max() or np.ptp(cost) > 1e-9 * abs(cost).max():
            return None
        if speed[0] == 0:
            continue
        unit = f / speed[:, None]
        wanted = rng.normal(size=(32, d))
        wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
        if (wanted @ unit.T).max(axis=1).min() < 1 - 2e-3:
            return None
        if directions.size:
            fixed = fixed and bool(np.allclose(unit, directions, atol=1e-9))
        directions = unit
    return Isotropy(controls, directions, fixed) if directions.size else None


def source_factor(
    grid: Grid, point: Array, s: Array, slowness: Any
) -> tuple[Array, Array]:
    """Time along the straight ray from a point source, and its gradient.

    The mean slowness along the ray by Simpson's rule; that of the source alone where
    the slowness jumps (its gradient would be as rough).
    """
    off = grid.nodes() - point
    away = np.linalg.norm(off, axis=-1)
    unit = off / np.where(away == 0.0, 1.0, away)[..., None]
    here = float(slowness(point[None, :])[0])
    finite = np.isfinite(s)
    with np.errstate(invalid="ignore"):
        jumps = [np.abs(np.diff(s, axis=k)) for k in range(s.ndim)]
    smooth = finite.all() and max(j.max() for j in jumps) <= 0.2 * np.ptp(s)
    mean = np.full(s.shape, here)
    slopes = np.zeros((s.ndim, *s.shape))
    if smooth:
        mean = (s + here + 4.0 * slowness(point + 0.5 * off)) / 6.0
        rise: Any = np.gradient(mean, *spacing_of(grid), edge_order=2)
        slopes = np.stack(rise if s.ndim > 1 else [rise])
    return away * mean, np.moveaxis(unit, -1, 0) * mean + away * slopes


def candidates(problem: ControlProblem, grid: Grid, method: Sweeping) -> Array:
    """Corners of the box where drift is affine in a and the cost free of it."""
    if isinstance(problem.controls, Finite) or problem.controls is None:
        return samples(problem, 2)
    corners = samples(problem, 2)
    rng = np.random.default_rng(1)
    x = grid.nodes().reshape(-1, grid.dimension)[rng.integers(0, grid.size, 32)]
    box = problem.controls
    for _ in range(3):
        one, two = box.sample(rng, 2)
        (f1, l1), (f2, l2) = (flow(problem, x, a) for a in (one, two))
        f, cost = flow(problem, x, 0.5 * (one + two))
        same = np.array_equal(l1, l2) and np.array_equal(l1, cost)
        if not same or not np.allclose(f, 0.5 * (f1 + f2), rtol=1e-10, atol=1e-12):
            return samples(problem, method.candidates)
    return corners


def arc_tables(
    problem: ControlProblem, grid: Grid, method: Sweeping, target: Target
) -> ArcTables:
    controls = candidates(problem, grid, method)
    need = 16.0 * len(controls) * (grid.dimension + 1) * grid.size
    if need > LARGEST:
        raise MemoryBudgetError(
            f"Sweeping: drift tables of {len(controls)} controls on {grid.size} nodes "
            f"would take {need / 1e9:.1f} GB; use fewer candidates or nodes."
        )
    x = grid.nodes().reshape(-1, grid.dimension)
    found = [flow(problem, x, a) for a in controls]
    drift = np.stack([f.T.reshape(grid.dimension, *grid.shape) for f, _ in found])
    cost = np.stack([c.reshape(grid.shape) for _, c in found])
    if all(np.array_equal(c, cost[0]) for c in cost[1:]):
        cost = cost[:1]
    return ArcTables(drift, cost, target.phi, target.g, target.on_faces)


def nearest_direction(directions: Array, wanted: Array) -> NDArray[np.intp]:
    """Number of the unit direction (A, d) nearest to each vector (n, d)."""
    if directions.shape[1] != 2:
        size = np.maximum(np.linalg.norm(wanted, axis=1, keepdims=True), 1e-300)
        return np.asarray(KDTree(directions).query(wanted / size)[1])
    angles = np.arctan2(directions[:, 1], directions[:, 0])
    sorted_by = np.argsort(angles)
    angles = angles[sorted_by]
    closed = np.r_[angles[-1] - 2 * np.pi, angles, angles[0] + 2 * np.pi]
    middles = 0.5 * (closed[1:] + closed[:-1])
    place = np.searchsorted(middles, np.arctan2(wanted[:, 1], wanted[:, 0])) - 1
    return sorted_by[place % len(angles)]


def spacing_of(grid: Grid) -> Array:
    return np.array([float(grid.spacing(k)[0][0]) for k in range(grid.dimension)])
