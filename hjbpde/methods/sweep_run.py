"""One whole solve by sweeping: what kind of drift, nested grids, bar, solution."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from ..error_bar import NESTED_SAFETY, neighbour_maximum, nested_estimate
from ..errors import MemoryBudgetError, MethodMismatch, ProblemError
from ..greedy import greedy_control
from ..grid import Grid
from ..problem import ControlProblem
from ..report import Report
from ..schemes import Upwind
from ..sets import Box, Finite
from ..solution import GridSolution
from .policy_iteration import prolonged
from .sweeping import ArcTables, Sweeping, Swept, sweep_arcs, sweep_eikonal
from .target import Target, target_of

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


def run_sweeping(problem: ControlProblem, grid: Grid, method: Sweeping) -> GridSolution:
    """Sweep on up to three nested grids and bound the error.

    Raises
    ------
    MethodMismatch
        Noise, discount, a stretched grid, or no exit.
    ProblemError
        A running cost that is negative or NaN, drift that is not finite, an exit
        region without nodes.
    """
    check_sweepable(problem, grid)
    start = time.perf_counter()
    ball = isotropy(problem, grid)
    grids = _nested(grid)
    swept = [_on(problem, one, method, ball) for one in grids]
    spent = time.perf_counter() - start
    target = target_of(problem, grid)
    fine = swept[-1]
    order = method.order if ball is not None else 1
    bar, seen = _bar([s.value for s in swept], grids, order)
    bar[target.inside] = 0.0
    control = _controls(problem, grid, method, ball, fine)
    return GridSolution(
        problem=problem,
        grid=grid,
        value=-problem.sign * fine.value,
        control=control,
        error_bar=bar,
        report=_report(problem, grid, method, ball, swept, target, bar, seen, spent),
        scheme=Upwind(),
        artificial_axes=problem.artificial_axes,
    )


def check_sweepable(problem: ControlProblem, grid: Grid) -> None:
    """Refuse what sweeping cannot take, naming what fits."""
    noise = problem.diffusion
    if callable(noise) or (noise is not None and np.any(np.asarray(noise) != 0)):
        raise MethodMismatch("Sweeping takes no noise; hjb.PolicyIteration does.")
    if callable(problem.discount) or float(problem.discount) != 0.0:
        raise MethodMismatch("Sweeping needs discount=0; hjb.PolicyIteration does not.")
    if problem.special != {"exit"}:
        raise MethodMismatch(
            "Sweeping takes problems with exit= and no other special field; this one "
            f"has {sorted(problem.special)}."
        )
    for axis, x in enumerate(grid.axes):
        if np.ptp(np.diff(x)) > 1e-9 * np.ptp(x):
            raise MethodMismatch(
                f"Sweeping needs a uniform grid; axis {axis} is stretched."
            )


def _nested(grid: Grid) -> list[Grid]:
    """Up to three uniform grids, each the coarsening of the next."""
    grids = [grid]
    while len(grids) < 3:
        old = grids[0]
        halves = all(
            n % 2 == (0 if p else 1) and n >= 17
            for n, p in zip(old.shape, old.periodic, strict=True)
        )
        if not halves:
            break
        grids.insert(0, old.coarsened())
    return grids


def _spacing(grid: Grid) -> Array:
    return np.array([float(grid.spacing(k)[0][0]) for k in range(grid.dimension)])


def _tables(problem: ControlProblem, x: Array, a: Array) -> tuple[Array, Array]:
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


def _samples(problem: ControlProblem, n: int) -> Array:
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
    controls = _samples(problem, DENSE[m])
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


def _on(
    problem: ControlProblem, grid: Grid, method: Sweeping, ball: Isotropy | None
) -> Swept:
    target = target_of(problem, grid)
    if ball is not None:
        return _eikonal(problem, grid, method, target, ball)
    if not target.inside.any():
        raise ProblemError(
            "'exit': no node of the grid lies in the exit region; drift that is not "
            "the same in all directions needs a region of some cells."
        )
    tables = _arc_tables(problem, grid, method, target)
    free = np.isfinite(tables.cost).all(axis=0) & ~target.inside
    if not free.any():
        raise ProblemError("'exit': every node is in the region or an obstacle.")
    speed = np.median(np.abs(tables.drift[:, :, free]).max(axis=(0, 1)))
    size = float(np.median(tables.cost[:, free])) * float(np.max(grid.domain.width))
    rate = float(speed) / size if speed > 0 and size > 0 else 1.0
    return sweep_arcs(tables, _spacing(grid), grid.periodic, method, rate)


def _eikonal(
    problem: ControlProblem,
    grid: Grid,
    method: Sweeping,
    target: Target,
    ball: Isotropy,
) -> Swept:
    """Slowness l / c, values within the band by straight rays, then sweeps."""
    nodes = grid.nodes()

    def slowness(x: Array) -> Array:
        f, cost = _tables(problem, x.reshape(-1, x.shape[-1]), ball.controls[0])
        speed = np.linalg.norm(f, axis=1)
        with np.errstate(divide="ignore"):
            return np.where(speed > 0, cost / speed, np.inf).reshape(x.shape[:-1])

    s = slowness(nodes)
    known = np.where(target.inside, target.g, np.inf)
    x = nodes[target.band]
    if len(x):
        middle = slowness(0.5 * (x + target.nearest))
        mean = (s[target.band] + 4.0 * middle + slowness(target.nearest)) / 6.0
        way = np.linalg.norm(x - target.nearest, axis=-1)
        known[target.band] = target.value_nearest + way * mean
    factor = None
    if target.point is not None and not any(grid.periodic):
        factor = _factor(grid, target.point, s, slowness)
    return sweep_eikonal(known, s, _spacing(grid), grid.periodic, method, factor)


def _factor(grid: Grid, point: Array, s: Array, slowness: Any) -> tuple[Array, Array]:
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
        rise: Any = np.gradient(mean, *_spacing(grid), edge_order=2)
        slopes = np.stack(rise if s.ndim > 1 else [rise])
    return away * mean, np.moveaxis(unit, -1, 0) * mean + away * slopes


def _candidates(problem: ControlProblem, grid: Grid, method: Sweeping) -> Array:
    """Corners of the box where drift is affine in a and the cost free of it."""
    if isinstance(problem.controls, Finite) or problem.controls is None:
        return _samples(problem, 2)
    corners = _samples(problem, 2)
    rng = np.random.default_rng(1)
    x = grid.nodes().reshape(-1, grid.dimension)[rng.integers(0, grid.size, 32)]
    box = problem.controls
    for _ in range(3):
        one, two = box.sample(rng, 2)
        (f1, l1), (f2, l2) = (_tables(problem, x, a) for a in (one, two))
        f, cost = _tables(problem, x, 0.5 * (one + two))
        same = np.array_equal(l1, l2) and np.array_equal(l1, cost)
        if not same or not np.allclose(f, 0.5 * (f1 + f2), rtol=1e-10, atol=1e-12):
            return _samples(problem, method.candidates)
    return corners


def _arc_tables(
    problem: ControlProblem, grid: Grid, method: Sweeping, target: Target
) -> ArcTables:
    controls = _candidates(problem, grid, method)
    need = 16.0 * len(controls) * (grid.dimension + 1) * grid.size
    if need > LARGEST:
        raise MemoryBudgetError(
            f"Sweeping: drift tables of {len(controls)} controls on {grid.size} nodes "
            f"would take {need / 1e9:.1f} GB; use fewer candidates or nodes."
        )
    x = grid.nodes().reshape(-1, grid.dimension)
    found = [_tables(problem, x, a) for a in controls]
    drift = np.stack([f.T.reshape(grid.dimension, *grid.shape) for f, _ in found])
    cost = np.stack([c.reshape(grid.shape) for _, c in found])
    if all(np.array_equal(c, cost[0]) for c in cost[1:]):
        cost = cost[:1]
    return ArcTables(drift, cost, target.phi, target.g)


def _bar(
    values: list[Array], grids: list[Grid], order: int
) -> tuple[Array, float | None]:
    """Bar of the finest value (*shape), infinite where a coarser grid sees no path."""
    grid = grids[-1]
    if len(values) == 1:
        return np.full(grid.shape, np.inf), None
    lost = [~np.isfinite(v) for v in values]
    filled = [np.where(gone, 0.0, v) for gone, v in zip(lost, values, strict=True)]
    found = nested_estimate(filled, grids, float(order))
    unknown = lost[-1]
    for level, gone in enumerate(lost[:-1]):
        wide = neighbour_maximum(gone.astype(float), grids[level])
        for finer in grids[level + 1 :]:
            wide = prolonged(wide, finer)
        unknown = unknown | (wide > 0)
    return np.where(unknown, np.inf, found.bar), found.order


def _controls(
    problem: ControlProblem,
    grid: Grid,
    method: Sweeping,
    ball: Isotropy | None,
    fine: Swept,
) -> Array:
    """The minimising control (*shape, m); the first candidate where there is none."""
    m = problem.n_controls
    if fine.best is not None:
        return _candidates(problem, grid, method)[np.maximum(fine.best, 0)]
    assert ball is not None
    filled = np.where(np.isfinite(fine.value), fine.value, np.nan)
    rise: Any = np.gradient(filled, *_spacing(grid))
    slope = np.stack(rise if grid.dimension > 1 else [rise], axis=-1)
    slope = np.nan_to_num(slope).reshape(-1, grid.dimension)
    if ball.fixed:
        _, nearest = KDTree(ball.directions).query(
            -slope / np.maximum(np.linalg.norm(slope, axis=1), 1e-300)[:, None]
        )
        return ball.controls[nearest].reshape(*grid.shape, m)
    x = grid.nodes().reshape(-1, grid.dimension)
    return greedy_control(problem, x, -problem.sign * slope).reshape(*grid.shape, m)


def _report(
    problem: ControlProblem,
    grid: Grid,
    method: Sweeping,
    ball: Isotropy | None,
    swept: list[Swept],
    target: Target,
    bar: Array,
    seen: float | None,
    spent: float,
) -> Report:
    fine = swept[-1]
    kind = f"eikonal, order {method.order}" if ball is not None else "arcs of drift"
    if ball is not None and target.point is not None:
        kind += ", factored at the source"
    checks = [f"{int(target.inside.sum())} nodes in the exit region"]
    lost = int(np.count_nonzero(~np.isfinite(fine.value)))
    if lost:
        checks.append(
            f"{lost} of {grid.size} nodes cannot reach the exit region inside the "
            "domain (or are obstacles): value infinite, control arbitrary"
        )
    for axis, side in (face for face, rule in problem.faces.items() if rule is None):
        checks.append(
            f"face ({axis}, {side}) is artificial: closed as a wall; paths that would "
            "leave and come back are not counted, and no bar answers for them"
        )
    notes = () if seen is not None else ("order not observed: too few grids",)
    finite = bar[np.isfinite(bar)]
    return Report(
        status="converged" if all(s.converged for s in swept) else "not converged",
        method=f"fast sweeping, {kind}",
        iterations=len(fine.changes),
        residuals=fine.changes,
        seconds={"sweep": spent},
        checks=(*checks, *notes),
        error_parts={"discretisation": float(np.max(finite, initial=0.0))},
        observed_order=seen,
        details={"unreachable": lost, "safety": NESTED_SAFETY},
    )
