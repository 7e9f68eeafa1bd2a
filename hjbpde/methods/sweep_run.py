"""One whole solve by sweeping: what kind of drift, nested grids, bar, solution."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..boundary import Robin
from ..checkpoint import Checkpoint
from ..error_bar import NESTED_SAFETY, SAFETY, neighbour_maximum, nested_estimate
from ..errors import MethodMismatch, ProblemError
from ..greedy import greedy_control
from ..grid import Grid
from ..interpolation import Interpolant
from ..problem import ControlProblem
from ..prolongation import prolonged
from ..report import Report
from ..schemes import Upwind
from ..solution import GridSolution
from .sweep_tables import (
    Isotropy,
    arc_tables,
    candidates,
    flow,
    isotropy,
    nearest_direction,
    samples,
    source_factor,
    spacing_of,
)
from .sweeping import Sweeping, Swept, sweep_arcs, sweep_eikonal
from .target import Target, target_of

Array = NDArray[np.float64]


def run_sweeping(
    problem: ControlProblem, grid: Grid, method: Sweeping, checkpoint: Checkpoint
) -> GridSolution:
    """Sweep on up to three nested grids, each kept, and bound the error.

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
    # A grid that does not halve is judged by one that does.
    judge = grid if grid.halves else _next_that_halves(grid)
    grids = _nested(judge)
    every = [*grids, *([] if judge is grid else [grid])]
    targets = [target_of(problem, one) for one in every]
    swept = []
    for one, target in zip(every, targets, strict=True):
        page = checkpoint.page(f"{one.shape}")
        kept = page.found()
        if kept is not None:
            swept.append(Swept.recalled(kept))
            continue
        swept.append(_on(problem, one, method, ball, target))
        page.keep(swept[-1].memory, finished=True)
    spent, target = time.perf_counter() - start, targets[-1]
    fine = swept[-1]
    order = method.order if ball is not None else 1
    nested = swept[: len(grids)]
    bar, seen = _bar([s.value for s in nested], grids, order)
    sampled = _sampling(problem, grids, method, nested, ball)
    if judge is not grid:
        bar = _judged(fine.value, grid, nested[-1].value, bar, judge)
        sampled = Interpolant(judge, sampled).linear(grid.nodes())
    bar = bar + sampled
    bar[target.inside | np.isfinite(target.on_faces)] = 0.0
    control = _controls(problem, grid, method, ball, fine)
    checks = _checks(problem, grid, fine.value, target)
    if seen is None:
        checks.append("order not observed: too few grids")
    largest = float(np.max(bar[np.isfinite(bar)], initial=0.0))
    report = Report(
        status="converged" if all(s.converged for s in swept) else "not converged",
        method=_name(method, ball, target),
        iterations=len(fine.changes),
        residuals=fine.changes,
        seconds={"sweep": spent},
        checks=tuple(checks),
        error_parts={
            "discretisation": largest,
            "controls sampled": float(np.max(sampled)),
        },
        observed_order=seen,
        details={"grids": [list(one.shape) for one in every]},
    )
    return GridSolution(
        problem=problem,
        grid=grid,
        value=-problem.sign * fine.value,
        control=control,
        error_bar=bar,
        report=report,
        scheme=Upwind(),
        artificial_axes=problem.artificial_axes,
    )


def sweepable(problem: ControlProblem, grid: Grid) -> bool:
    """Whether `check_sweepable` lets the problem pass."""
    try:
        check_sweepable(problem, grid)
        if problem.controls is not None:
            samples(problem, 2)
    except MethodMismatch:
        return False
    return True


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
    for face, rule in problem.faces.items():
        if isinstance(rule, Robin):
            raise MethodMismatch(
                "Sweeping takes Dirichlet data on a face, or closes it as a wall; "
                f"face {face} has a Robin rule. Give the value on the face, or leave "
                "the rule out."
            )
    for axis, x in enumerate(grid.axes):
        if np.ptp(grid.spacing(axis)[1]) > 1e-9 * np.ptp(x):
            raise MethodMismatch(
                f"Sweeping needs a uniform grid; axis {axis} is stretched."
            )


def _nested(grid: Grid) -> list[Grid]:
    """Up to three uniform grids, each the coarsening of the next."""
    grids = [grid]
    while len(grids) < 3:
        old = grids[0]
        if not old.halves or min(old.shape) < 17:
            break
        grids.insert(0, old.coarsened())
    return grids


def _next_that_halves(grid: Grid) -> Grid:
    """Up to three more nodes on every axis, so that its cells halve twice."""
    odd = [0 if around else 1 for around in grid.periodic]
    return Grid(
        grid.domain, [n + (k - n) % 4 for n, k in zip(grid.shape, odd, strict=True)]
    )


def _judged(V: Array, grid: Grid, other: Array, bar: Array, judge: Grid) -> Array:
    """The bar of V on `grid`, from another value's on `judge` and their distance.

    Infinite where the other one, or a node around, is.
    """
    x, seen = grid.nodes(), np.isfinite(other) & np.isfinite(bar)
    filled = (np.where(seen, each, 0.0) for each in (other, bar))
    near, own = Interpolant(judge, next(filled)), Interpolant(judge, next(filled))
    # Both are as good where V is smooth; the linear one does not overshoot at kinks.
    apart = np.minimum(*(np.abs(V - each) for each in (near.cubic(x), near.linear(x))))
    unknown = Interpolant(judge, np.where(seen, 0.0, 1.0)).linear(x) > 0
    known = np.isfinite(V) & ~unknown
    apart = neighbour_maximum(np.where(known, apart, 0.0), grid)
    return np.where(known, SAFETY * apart + own.linear(x), np.inf)


def _on(
    problem: ControlProblem,
    grid: Grid,
    method: Sweeping,
    ball: Isotropy | None,
    target: Target,
) -> Swept:
    if ball is not None:
        return _eikonal(problem, grid, method, target, ball)
    if not target.inside.any():
        raise ProblemError(
            "'exit': no node of the grid lies in the exit region; drift that is not "
            "the same in all directions needs a region of some cells."
        )
    tables = arc_tables(problem, grid, method, target)
    free = np.isfinite(tables.cost).all(axis=0) & ~target.inside
    if not free.any():
        raise ProblemError("'exit': every node is in the region or an obstacle.")
    speed = np.median(np.abs(tables.drift[:, :, free]).max(axis=(0, 1)))
    size = float(np.median(tables.cost[:, free])) * float(np.max(grid.domain.width))
    rate = float(speed) / size if speed > 0 and size > 0 else 1.0
    return sweep_arcs(tables, spacing_of(grid), grid.periodic, method, rate)


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
        f, cost = flow(problem, x.reshape(-1, x.shape[-1]), ball.controls[0])
        speed = np.linalg.norm(f, axis=1)
        with np.errstate(divide="ignore"):
            return np.where(speed > 0, cost / speed, np.inf).reshape(x.shape[:-1])

    s = slowness(nodes)
    known = np.where(target.inside, target.g, target.on_faces)
    x = nodes[target.band]
    if len(x):
        middle = slowness(0.5 * (x + target.nearest))
        mean = (s[target.band] + 4.0 * middle + slowness(target.nearest)) / 6.0
        way = np.linalg.norm(x - target.nearest, axis=-1)
        known[target.band] = target.value_nearest + way * mean
    factor = None
    if target.point is not None and not any(grid.periodic):
        factor = source_factor(grid, target.point, s, slowness)
    return sweep_eikonal(known, s, spacing_of(grid), grid.periodic, method, factor)


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


def _sampling(
    problem: ControlProblem,
    grids: list[Grid],
    method: Sweeping,
    swept: list[Swept],
    ball: Isotropy | None,
) -> Array:
    """What a lattice of controls costs (*shape): half of it on the coarsest grid.

    A maximum sampled at distance e misses e^2: a third of what halving the lattice
    adds is left, times a safety factor.
    """
    grid, coarse = grids[-1], grids[0]
    fewer = replace(method, candidates=max(method.candidates // 2, 2))
    used = 0 if ball is not None else len(candidates(problem, grid, method))
    if used == 0 or len(candidates(problem, grid, fewer)) == used:
        return np.zeros(grid.shape)
    half = _on(problem, coarse, fewer, None, target_of(problem, coarse)).value
    both = np.isfinite(half) & np.isfinite(swept[0].value)
    miss = np.zeros(coarse.shape)
    miss[both] = np.abs(half[both] - swept[0].value[both])
    miss = neighbour_maximum(miss, coarse) * NESTED_SAFETY / 3.0
    for finer in grids[1:]:
        miss = prolonged(miss, finer)
    return miss


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
        return candidates(problem, grid, method)[np.maximum(fine.best, 0)]
    assert ball is not None
    filled = np.where(np.isfinite(fine.value), fine.value, np.nan)
    rise: Any = np.gradient(filled, *spacing_of(grid))
    slope = np.stack(rise if grid.dimension > 1 else [rise], axis=-1)
    slope = np.nan_to_num(slope).reshape(-1, grid.dimension)
    if ball.fixed:
        nearest = nearest_direction(ball.directions, -slope)
        return ball.controls[nearest].reshape(*grid.shape, m)
    x = grid.nodes().reshape(-1, grid.dimension)
    p = -problem.sign * slope
    return greedy_control(problem, x, p, strict=False).reshape(*grid.shape, m)


def _name(method: Sweeping, ball: Isotropy | None, target: Target) -> str:
    if ball is None:
        return f"fast sweeping, arcs of up to {method.reach} cells"
    source = "" if target.point is None else ", factored at the source"
    return f"fast sweeping, eikonal, order {method.order}{source}"


def _checks(
    problem: ControlProblem, grid: Grid, value: Array, target: Target
) -> list[str]:
    checks = [f"{int(target.inside.sum())} nodes in the exit region"]
    lost = int(np.count_nonzero(~np.isfinite(value)))
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
    return checks
