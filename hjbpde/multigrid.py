"""Geometric multigrid on nested node sets, for the rows of a monotone scheme.

Every coarse grid keeps a subset of the nodes, whatever the shape. Coarse operators
are the same monotone scheme on drift and noise averaged from the finer grid, the
finer grid's numerical noise included: otherwise the coarse grid would see a less
viscous problem and the cycle diverge where drift dominates. Axes are coarsened only
where they are coupled strongly, so anisotropy does not stop the smoother.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .faces import Faces
from .grid import MIN_NODES, Grid
from .kernels.multigrid import (
    dense_factor,
    dense_solve,
    effective_noise,
    first_sweep,
    line_factors,
    line_sweep,
    prolong_axis,
    restrict_axis,
)
from .kernels.upwind import HYBRID, assemble
from .linear import Preconditioner, Rows, largest, measured

Array = NDArray[np.float64]
COARSEST = 90
"""Nodes solved directly; 3^4 = 81 is the smallest four-dimensional grid."""
STRONG = 0.2
"""An axis is coarsened when its mean weight is this share of the strongest."""


@lru_cache(maxsize=64)
def spacings(grid: Grid) -> tuple[Array, Array]:
    """Distances to lower and upper neighbours by axis and index, (d, max n).

    Kept for the last grids asked for, since marching asks many times a step; shared,
    so not to be written to.
    """
    width = max(grid.shape)
    hm, hp = np.ones((grid.dimension, width)), np.ones((grid.dimension, width))
    for k, n in enumerate(grid.shape):
        hm[k, :n], hp[k, :n] = grid.spacing(k)
    return hm, hp


@dataclass(frozen=True)
class Transfer:
    """Linear interpolation along one axis and its normalised transpose."""

    axis: int
    source: NDArray[np.int64]
    weight: Array
    gather: NDArray[np.int64]
    gather_weight: Array

    @classmethod
    def of(cls, fine: Grid, axis: int, fixed: tuple[bool, bool]) -> Transfer:
        """The transfer that belongs to ``fine.kept(axis)``."""
        n, kept, periodic = fine.shape[axis], fine.kept(axis), fine.periodic[axis]
        x = fine.axes[axis]
        left = np.searchsorted(kept, np.arange(n), side="right") - 1
        right = np.minimum(left + 1, kept.size - 1)
        position = np.r_[x[kept], x[kept[-1]]]
        end = position[right]
        if periodic:
            right = np.where(left == kept.size - 1, 0, left + 1)
            wrapped = x[0] + fine.domain.width[axis]
            end = np.where(left == kept.size - 1, wrapped, x[kept][right])
        gap = end - x[kept][left]
        weight = np.where(gap > 0, (x - x[kept][left]) / np.where(gap > 0, gap, 1), 0)
        source = np.stack([left, right], 1).astype(np.int64)
        gather = np.stack([kept - 1, kept, kept + 1], 1)
        share = np.zeros((kept.size, 3))
        share[:, 1] = 1.0
        number = np.arange(kept.size)
        for q in (0, 2):
            beside = gather[:, q] % n if periodic else np.clip(gather[:, q], 0, n - 1)
            w = (source[beside, 0] == number) * (1 - weight[beside])
            w = w + (source[beside, 1] == number) * weight[beside]
            outside = (gather[:, q] < 0) | (gather[:, q] >= n)
            away = (beside != kept) if periodic else (beside != kept) & ~outside
            share[:, q] = np.where(away, w, 0.0)
        for end_node, is_fixed in ((0, fixed[0]), (-1, fixed[1])):
            if not periodic:
                inner = 2 if end_node == 0 else 0
                share[end_node, inner] *= 0.0 if is_fixed else 2.0
        share /= share.sum(1, keepdims=True)
        gather = gather % n if periodic else np.clip(gather, 0, n - 1)
        return cls(axis, source, weight, gather.astype(np.int64), share)

    def restrict(self, fine: Array, shape: tuple[int, ...], fields: int = 1) -> Array:
        """Averages on the coarse axis of flat fields, one after the other."""
        outer, inner = _around(shape, self.axis)
        outer *= fields
        out = np.empty(outer * len(self.gather) * inner)
        restrict_axis(
            fine, outer, shape[self.axis], inner, self.gather, self.gather_weight, out
        )
        return out

    def prolong(self, coarse: Array, shape: tuple[int, ...], add: Array | None = None):
        """Interpolate along the axis; `shape` is the coarse shape."""
        outer, inner = _around(shape, self.axis)
        out = np.empty(outer * self.weight.size * inner) if add is None else add
        prolong_axis(
            coarse, outer, shape[self.axis], inner, self.source, self.weight,
            add is not None, out,
        )  # fmt: skip
        return out


def _around(shape: tuple[int, ...], axis: int) -> tuple[int, int]:
    return prod(shape[:axis]), prod(shape[axis + 1 :])


def coarsened_along(grid: Grid, axes: list[int]) -> Grid:
    """The grid with every second node dropped on `axes`."""
    return grid._like(
        [x[grid.kept(k)] if k in axes else x for k, x in enumerate(grid.axes)]
    )


@dataclass(eq=False)
class Level:
    """One grid of the hierarchy with its rows, factors and scratch."""

    grid: Grid
    faces: Faces
    transfers: list[Transfer] = field(default_factory=list)
    arrays: dict[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.shape = np.array(self.grid.shape, np.int64)
        self.periodic = np.array(self.grid.periodic, bool)
        self.spacing = spacings(self.grid)
        n, d = self.grid.size, self.grid.dimension
        for name in ("c", "inverse", "ratio", "b", "x", "res"):
            self.arrays[name] = np.zeros(n)
        self.acc = np.empty(self.grid.shape[-1])
        self.lower, self.upper = np.empty((d, n)), np.empty((d, n))

    def restrict(self, values: Array) -> Array:
        """To the next coarser grid; fields (m, N) or one (N,)."""
        shape, flat = self.grid.shape, values.ravel()
        fields = values.size // self.grid.size
        for transfer in self.transfers:
            flat = transfer.restrict(flat, shape, fields)
            shape = _with(shape, transfer.axis, len(transfer.gather))
        return flat.reshape(*values.shape[:-1], -1)

    def prolong_into(self, coarse: Array, x: Array) -> None:
        """x += interpolation of the next coarser grid's values."""
        shapes = [self.grid.shape]
        for t in self.transfers:
            shapes.append(_with(shapes[-1], t.axis, len(t.gather)))
        for i in range(len(self.transfers) - 1, 0, -1):
            coarse = self.transfers[i].prolong(coarse, shapes[i + 1])
        self.transfers[0].prolong(coarse, shapes[1], add=x)

    def sweep(self, flips: int) -> None:
        """One pass of the smoother on this level's own equation."""
        a = self.arrays
        line_sweep(
            self.shape, self.periodic, self.lower, self.upper, a["inverse"],
            a["ratio"], a["b"], a["x"], flips, self.acc,
        )  # fmt: skip


def _with(shape: tuple[int, ...], axis: int, n: int) -> tuple[int, ...]:
    return (*shape[:axis], n, *shape[axis + 1 :])


@dataclass(eq=False)
class Multigrid:
    """V-cycles; watched by the ladder.

    plan: the axes halved from each grid to the next, chosen at the first rows.
    """

    max_cycles: int = 12
    name: str = "multigrid"
    plan: list[list[int]] | None = None
    rows: Rows | None = None
    levels: list[Level] = field(default_factory=list)
    direct: Array | None = None

    def prepare(self, rows: Rows) -> None:
        """Coarsen the rows; grids are chosen once and kept."""
        self.rows = rows
        if not self.levels:
            self._build(rows, self.plan or planned(rows))
        elif self.levels[0].grid is not rows.grid:
            self._build(rows, planned(rows))
        top = self.levels[0]
        top.lower, top.upper, top.arrays["c"] = rows.lower, rows.upper, rows.c
        _factor(top)
        f, c = rows.f, rows.c
        noise = np.empty_like(rows.f)
        effective_noise(rows.scheme, top.shape, *top.spacing, f, rows.D, noise)
        for fine, coarse in zip(self.levels, self.levels[1:], strict=False):
            f, noise = fine.restrict(f), fine.restrict(noise)
            c = _injected(fine, c)
            assemble(
                HYBRID, coarse.shape, *coarse.spacing, f, noise,
                coarse.lower, coarse.upper,
            )  # fmt: skip
            coarse.arrays["c"][:] = c
            coarse.faces.fold(coarse.lower, coarse.upper, coarse.arrays["c"], None)
            raw = noise
            noise = np.empty_like(f)
            effective_noise(HYBRID, coarse.shape, *coarse.spacing, f, raw, noise)
            _factor(coarse)
        self._factor_coarsest()

    def _build(self, rows: Rows, plan: list[list[int]]) -> None:
        self.levels, self.plan = [Level(rows.grid, rows.faces)], plan
        for axes in plan:
            level = self.levels[-1]
            level.transfers = [
                Transfer.of(level.grid, k, _fixed_ends(level.faces, k)) for k in axes
            ]
            coarse = coarsened_along(level.grid, axes)
            self.levels.append(Level(coarse, level.faces.coarsened(coarse)))

    def _factor_coarsest(self) -> None:
        level = self.levels[-1]
        if level.grid.size > 4 * COARSEST:
            self.direct = None
            return
        rows = Rows(
            level.grid, level.faces, level.lower, level.upper, level.arrays["c"],
            level.lower, level.lower, HYBRID,
        )  # fmt: skip
        self.direct = rows.dense()
        dense_factor(self.direct)

    def cycle(self, at: int = 0) -> None:
        """One V-cycle from level `at`: its array x from its array b."""
        level = self.levels[at]
        a = level.arrays
        orders = 1 << (level.grid.dimension - 1)
        if at == len(self.levels) - 1:
            if self.direct is not None:
                dense_solve(self.direct, a["b"], a["x"])
                return
            a["x"][:] = 0.0
            for sweep in range(40):
                level.sweep(sweep % orders)
            return
        first_sweep(
            level.shape, level.periodic, level.lower, level.upper, a["inverse"],
            a["ratio"], a["b"], a["x"], a["res"], level.acc,
        )  # fmt: skip
        below = self.levels[at + 1]
        below.arrays["b"][:] = level.restrict(a["res"])
        below.faces.set_fixed(below.arrays["b"].reshape(below.grid.shape), 0.0)
        self.cycle(at + 1)
        level.prolong_into(below.arrays["x"], a["x"])
        level.sweep(orders - 1)

    def once(self, b: Array) -> Array:
        """One cycle; rates off the axes are not seen."""
        top = self.levels[0].arrays
        top["b"] = b
        self.cycle()
        return top["x"].copy()

    def correct(self, residual: Array, target: float) -> tuple[Array, float]:
        """Cycles until the target ratio, stopped early when they do not pay."""
        rows = self.rows
        assert rows is not None
        top, size = self.levels[0].arrays, float(np.max(np.abs(residual)))
        x, left = np.zeros_like(residual), np.empty_like(residual)
        top["b"], ratio = residual, 1.0 if size > 0 else 0.0
        for n in range(self.max_cycles if size > 0 else 0):
            before = ratio
            self.cycle()
            x += top["x"]
            top["b"] = rows.residual(x, residual, left)
            ratio = largest(left) / size
            if ratio <= target or not np.isfinite(ratio):
                break
            if n >= 2 and ratio > 0.7 * before:
                break
        return x, ratio if np.isfinite(ratio) else np.inf


def planned(rows: Rows) -> list[list[int]]:
    """The axes halved from each grid to the next: those coupled strongly."""
    grid, plan = rows.grid, []
    strength = np.array([float(np.mean(w)) for w in rows.lower + rows.upper])
    while True:
        can = [k for k in range(grid.dimension) if grid.kept(k).size >= MIN_NODES]
        can = [k for k in can if grid.kept(k).size < grid.shape[k]]
        if grid.size <= COARSEST or not can:
            return plan
        top = max(strength[k] for k in can)
        axes = [k for k in can if strength[k] >= STRONG * top]
        plan.append(axes)
        grid = coarsened_along(grid, axes)
        strength = np.array([s / 4 if k in axes else s for k, s in enumerate(strength)])


def lumped(rows: Rows) -> Rows:
    """Rows that feel correlated noise along the axes alone and no jumps, to
    precondition with.

    With correlations up to r in two dimensions the noise of one lies between 1 - r and
    1 + r times that of the other, in every direction.
    """
    if rows.cross is None or rows.cross_D is None:
        return rows
    lower, upper = np.empty_like(rows.lower), np.empty_like(rows.upper)
    D = rows.D + rows.cross_D
    assemble(rows.scheme, rows.shape, *spacings(rows.grid), rows.f, D, lower, upper)
    rows.faces.fold(lower, upper, rows.c.copy(), None)
    moves = (rows.lower + rows.upper).any(axis=0) | (rows.cross_weight > 0)
    lower[:, ~moves], upper[:, ~moves] = 0.0, 0.0
    return Rows(rows.grid, rows.faces, lower, upper, rows.c, rows.f, D, rows.scheme)


@dataclass(eq=False)
class Krylov:
    """BiCGStab preconditioned by one V-cycle, of the lumped rows where there are rates
    off the axes.

    van der Vorst, SIAM J. Sci. Stat. Comput. 13 (1992) 631. Inner products are
    pairwise sums, so that the answer does not depend on the number of threads.
    """

    max_steps: int = 60
    name: str = "multigrid-preconditioned Krylov"
    inner: Preconditioner = field(default_factory=Multigrid)
    rows: Rows | None = None

    @property
    def plan(self) -> list[list[int]] | None:
        """The axes halved, see `Multigrid`; None where it is not what preconditions."""
        return self.inner.plan if isinstance(self.inner, Multigrid) else None

    @plan.setter
    def plan(self, plan: list[list[int]]) -> None:
        assert isinstance(self.inner, Multigrid)
        self.inner.plan = plan

    def prepare(self, rows: Rows) -> None:
        """Coarsen the rows."""
        self.rows = rows
        self.inner.prepare(lumped(rows))

    def _apply(self, x: Array) -> Array:
        assert self.rows is not None
        return -self.rows.residual(x, np.zeros_like(x))

    def correct(self, residual: Array, target: float) -> tuple[Array, float]:
        """Solve to the target or the step limit; a breakdown is ratio infinity."""
        rows = self.rows
        assert rows is not None
        x, r = np.zeros_like(residual), residual.copy()
        shadow, size = residual.copy(), float(np.max(np.abs(residual)))
        p, v, rho, alpha, omega = np.zeros_like(r), np.zeros_like(r), 1.0, 1.0, 1.0
        # Sums stay NumPy scalars: a breakdown divides by zero, which Python raises.
        with np.errstate(all="ignore"):
            for _ in range(self.max_steps):
                before, rho = rho, np.sum(shadow * r)
                p = r + (rho / before) * (alpha / omega) * (p - omega * v)
                y = self.inner.once(p)
                v = self._apply(y)
                alpha = rho / np.sum(shadow * v)
                s = r - alpha * v
                z = self.inner.once(s)
                t = self._apply(z)
                omega = np.sum(t * s) / np.sum(t * t)
                x, r = x + alpha * y + omega * z, s - omega * t
                left = float(np.max(np.abs(r)))
                if not np.isfinite(left) or left <= 0.5 * target * size:
                    break
        return x, measured(rows, x, residual)


def _factor(level: Level) -> None:
    a = level.arrays
    line_factors(
        level.shape, level.lower, level.upper, a["c"], a["inverse"], a["ratio"]
    )


def _injected(level: Level, values: Array) -> Array:
    kept: list[Any] = [np.arange(n) for n in level.grid.shape]
    for t in level.transfers:
        kept[t.axis] = level.grid.kept(t.axis)
    return values.reshape(level.grid.shape)[np.ix_(*kept)].ravel()


def _fixed_ends(faces: Faces, axis: int) -> tuple[bool, bool]:
    ends = {f.side: f.fixed for f in faces.faces if f.axis == axis}
    return ends.get("low", False), ends.get("high", False)
