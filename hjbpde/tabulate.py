"""Problem x grid -> tables: the only place user functions meet the nodes.

Where drift is affine in a, payoff quadratic in a and the noise free of a,

    f = f0 + B a,   r = r0 + r1 . a - a' R a / 2,

the tables are those coefficients (constants stored once) and the maximiser is
closed-form. The structure is checked at every node against one random control.
Elsewhere `GeneralTables` evaluates the functions at whole arrays of controls.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import ProblemError
from .faces import Faces
from .grid import Grid
from .probe import (
    Coefficients,
    QuadraticFit,
    base_and_step,
    control_range,
    discount_of,
    evaluate,
    fit_quadratic,
    probe,
    random_control,
)
from .problem import ControlProblem
from .resting import resting_controls
from .sets import Box

Array = NDArray[np.float64]
BLOCK = 1 << 16
"""Nodes evaluated at once: a few tens of MB of scratch whatever the grid."""


@dataclass(frozen=True)
class QuadraticTables:
    """Coefficients on the nodes; a trailing axis of length 1 means constant."""

    f0: Array
    B: Array
    D: Array
    r0: Array
    r1: Array
    R: Array
    low: Array
    high: Array
    rho: Array
    note: str = ""

    @property
    def n_controls(self) -> int:
        """Number of controls m."""
        return self.B.shape[1]

    def axis_of(self) -> NDArray[np.int64] | None:
        """The one axis each control acts on (-1: none), None if not separable."""
        acts = (self.B != 0.0).any(axis=2)
        coupled = self.R != 0.0
        coupled[np.arange(self.n_controls), np.arange(self.n_controls)] = False
        if coupled.any() or (acts.sum(0) > 1).any() or (acts.sum(1) > 1).any():
            return None
        return np.where(acts.any(0), acts.argmax(0), -1).astype(np.int64)

    def taken(self, nodes: NDArray[np.intp]) -> QuadraticTables:
        """The tables on a subset of nodes."""

        def part(table: Array) -> Array:
            if table.shape[-1] == 1:
                return table
            return np.ascontiguousarray(table[..., nodes])

        names = ("f0", "B", "D", "r0", "r1", "R", "low", "high", "rho")
        return replace(self, **{name: part(getattr(self, name)) for name in names})

    def under(self, a: Array) -> Coefficients:
        """Coefficients of the policy a (m, N)."""
        # Loops over the few controls and axes: most of B and R is zero.
        f, r = self.f0.copy(), self.r0.copy()
        for i, act in enumerate(a):
            for k in range(len(f)):
                if self.B[k, i].any():
                    f[k] += self.B[k, i] * act
            slope = np.broadcast_to(self.r1[i], act.shape)
            for j, other in enumerate(a):
                if self.R[i, j].any():
                    slope = slope - 0.5 * self.R[i, j] * other
            r += slope * act
        return Coefficients(f, self.D, r)


@dataclass(frozen=True)
class GeneralTables:
    """Functions kept as functions, called on whole arrays of nodes and controls."""

    problem: ControlProblem
    x: Array
    low: Array
    high: Array
    rho: Array
    skip: NDArray[np.bool_] | None
    note: str = ""
    source: Array | None = None
    """Payoff (N,) added at every node, whatever the control."""

    @property
    def n_controls(self) -> int:
        """Number of controls m."""
        return self.problem.n_controls

    @cached_property
    def constant_noise(self) -> Array | None:
        """D (d, 1) where the diffusion is a constant, else None."""
        if callable(self.problem.diffusion):
            return None
        x, a = self.x[:1], np.zeros((1, self.n_controls))
        sigma = np.asarray(self.problem.diffusion_at(x, a), float)
        return 0.5 * np.einsum("nik,nik->in", sigma, sigma)

    @cached_property
    def resting(self) -> list[Array]:
        """For every axis the one control (1, N) that stops it; may be empty."""
        if self.n_controls != 1 or not isinstance(self.problem.controls, Box):
            return []
        return resting_controls(self.problem, self.x, self.low[0], self.high[0])

    def gaining(self, source: Array) -> GeneralTables:
        """The tables with a payoff (N,) added; what was found out is kept."""
        out = replace(self, source=source)
        for name in ("resting", "constant_noise"):
            out.__dict__[name] = getattr(self, name)
        return out

    def taken(self, nodes: NDArray[np.intp]) -> GeneralTables:
        """The tables on a subset of nodes."""

        def part(table: Array) -> Array:
            return table if table.shape[-1] == 1 else table[..., nodes]

        skip = None if self.skip is None else self.skip[nodes]
        low, high, rho = part(self.low), part(self.high), part(self.rho)
        out = replace(
            self, x=self.x[nodes], low=low, high=high, rho=rho, skip=skip, source=None
        )
        out.__dict__["resting"] = [rest[:, nodes] for rest in self.resting]
        return out

    def under(
        self, a: Array, nodes: slice | NDArray[np.intp] | None = None
    ) -> Coefficients:
        """Coefficients of the policy a (m, n) on `nodes` (all by default)."""
        x = self.x if nodes is None else self.x[nodes]
        skip = self.skip if self.skip is None or nodes is None else self.skip[nodes]
        n = len(x)
        f, D, r = np.empty((x.shape[1], n)), np.empty((x.shape[1], n)), np.empty(n)
        for start in range(0, n, BLOCK):
            part = slice(start, min(start + BLOCK, n))
            hidden = None if skip is None else skip[part]
            block = evaluate(
                self.problem, x[part], np.ascontiguousarray(a[:, part].T), hidden,
                self.constant_noise,
            )  # fmt: skip
            f[:, part], D[:, part], r[part] = block.f, block.D, block.r
        if self.source is not None:
            r += self.source if nodes is None else self.source[nodes]
        return Coefficients(f, D, r)


Tables = QuadraticTables | GeneralTables


def tabulate(
    problem: ControlProblem, grid: Grid, faces: Faces, seed: int = 0
) -> Tables:
    """Tables of the problem on every node, closed-form where the structure holds.

    Raises
    ------
    ProblemError
        As `probe.evaluate`; an infinite control box without closed form.
    """
    structure, sample = probe(problem, grid, seed)
    x = grid.nodes().reshape(-1, grid.dimension)
    skip = None if faces.fixed_mask is None else faces.fixed_mask.ravel()
    if structure.closed_form:
        rng = np.random.default_rng([seed, 1])
        tables, note = None, ""
        if sample is not None and isinstance(problem.controls, Box):
            tables = _constant_coefficients(problem, x, skip, sample, rng)
        if tables is None:
            tables, note = _quadratic(problem, x, skip, rng)
        if tables is not None:
            _check_bounded(problem, tables, x)
            _check_noiseless(grid, faces, tables.D)
            return tables
    else:
        note = structure.note
    return _general(problem, x, skip, note)


def _constant_coefficients(
    problem: ControlProblem,
    x: Array,
    skip: NDArray[np.bool_] | None,
    sample: QuadraticFit,
    rng: np.random.Generator,
) -> QuadraticTables | None:
    """Tables with constant B, r1, R and box, or None where that does not hold.

    Two evaluations a node: one for f0 and r0, one at a random control as check.
    """
    controls = problem.controls
    B, r1, R = (_shared(t, None) for t in (sample.B, sample.r1, sample.R))
    if not isinstance(controls, Box) or controls.varies or callable(problem.discount):
        return None
    if any(t.shape[-1] > 1 for t in (B, r1, R)):
        return None
    low, high = (np.array(side)[:, None] for side in (controls.low, controls.high))
    base, _ = base_and_step(low, high)
    n, d = x.shape
    f0, D, r0 = np.empty((d, n)), np.empty((d, n)), np.empty(n)
    fixed = not callable(problem.diffusion)
    for start in range(0, n, BLOCK):
        cut = slice(start, min(start + BLOCK, n))
        size = cut.stop - cut.start
        hidden = None if skip is None else skip[cut]
        a = np.repeat(base, size, axis=1)
        here = evaluate(problem, x[cut], np.ascontiguousarray(a.T), hidden)
        f0[:, cut], r0[cut] = here.f - B[..., 0] @ a, here.r
        r0[cut] -= ((r1 - 0.5 * R[..., 0] @ a) * a).sum(0)
        if fixed:
            D[:, :1] = here.D[:, :1]
        else:
            D[:, cut] = here.D
        lows, highs = np.repeat(low, size, 1), np.repeat(high, size, 1)
        a = random_control(lows, highs, rng)
        truth = evaluate(problem, x[cut], np.ascontiguousarray(a.T), hidden)
        f = f0[:, cut] + B[..., 0] @ a
        r = r0[cut] + ((r1 - 0.5 * R[..., 0] @ a) * a).sum(0)
        keep = slice(None) if hidden is None else ~hidden
        if not (
            _close(f, truth.f, here.f, keep)
            and _close(r, truth.r, here.r, keep)
            and _close(here.D, truth.D, truth.D, keep)
        ):
            return None
    D = D[:, :1].copy() if fixed else _shared(D, None if skip is None else ~skip)
    rho = discount_of(problem, x[:1])
    return QuadraticTables(f0, B, D, r0, r1, R, low, high, rho)


def _close(one: Array, two: Array, other: Array, keep: Any) -> bool:
    scale = 1.0 + np.abs(two) + np.abs(other)
    return bool((np.abs(one - two) <= 1e-9 * scale)[..., keep].all())


def _quadratic(
    problem: ControlProblem,
    x: Array,
    skip: NDArray[np.bool_] | None,
    rng: np.random.Generator,
) -> tuple[QuadraticTables | None, str]:
    n, d, m = len(x), x.shape[1], problem.n_controls
    shapes = ((d,), (d, m), (d,), (), (m,), (m, m), (m,), (m,), ())
    parts = [np.empty((*shape, n)) for shape in shapes]
    for start in range(0, n, BLOCK):
        cut = slice(start, min(start + BLOCK, n))
        hidden = None if skip is None else skip[cut]
        if m:
            low, high = control_range(problem, x[cut])
        else:
            low = high = np.zeros((0, len(x[cut])))
        fit = fit_quadratic(problem, x[cut], low, high, rng, hidden)
        if not fit.structure.closed_form:
            return None, f"{fit.structure.note} near x = {x[cut][0]}"
        rho = discount_of(problem, x[cut])
        found = (fit.f0, fit.B, fit.D, fit.r0, fit.r1, fit.R, low, high, rho)
        for part, values in zip(parts, found, strict=True):
            part[..., cut] = values
    keep = None if skip is None else ~skip
    f0, B, D, r0, r1, R, low, high, rho = parts
    small = [_shared(t, keep) for t in (B, D, r1, R, low, high, rho)]
    B, D, r1, R, low, high, rho = small
    return QuadraticTables(f0, B, D, r0, r1, R, low, high, rho), ""


def _shared(table: Array, keep: NDArray[np.bool_] | None) -> Array:
    """The table with one column where all columns agree to round-off.

    Dirichlet nodes do not count: their rows are never used.
    """
    seen = table if keep is None else table[..., keep]
    if seen.shape[-1] == 0 or table.size == 0:
        return np.ascontiguousarray(table[..., :1])
    first = seen[..., :1]
    with np.errstate(invalid="ignore"):
        gap = np.where(seen == first, 0.0, np.abs(seen - first))
    # Differences in a carry round-off of the payoff's size, hence not exact zero.
    if (gap <= 1e-11 * np.abs(first)).all():
        return np.ascontiguousarray(np.median(seen, axis=-1, keepdims=True))
    return table


def _general(
    problem: ControlProblem, x: Array, skip: NDArray[np.bool_] | None, note: str
) -> GeneralTables:
    n, m = len(x), problem.n_controls
    low = high = np.zeros((m, 1))
    if isinstance(problem.controls, Box):
        low, high = control_range(problem, x)
        if problem.best_control is None and not (
            np.isfinite(low).all() and np.isfinite(high).all()
        ):
            raise ProblemError(
                f"the control box is infinite, but no closed form holds ({note}): "
                "give finite bounds, or best_control(x, p, hess)."
            )
        if np.all(low == low[:, :1]) and np.all(high == high[:, :1]):
            low, high = low[:, :1].copy(), high[:, :1].copy()
    rho = np.empty(n)
    for start in range(0, n, BLOCK):
        rho[start : start + BLOCK] = discount_of(problem, x[start : start + BLOCK])
    return GeneralTables(problem, x, low, high, _shared(rho, None), skip, note)


def _check_bounded(problem: ControlProblem, tables: QuadraticTables, x: Array) -> None:
    """Refuse an infinite control whose cost does not grow."""
    diagonal = np.einsum("iin->in", tables.R)
    open_side = ~(np.isfinite(tables.low) & np.isfinite(tables.high))
    bad = np.argwhere(open_side & (diagonal <= 0))
    if bad.size:
        i, n = bad[0]
        raise ProblemError(
            f"control {i} is unbounded but the payoff is not strictly concave in it "
            f"near x = {x[min(n, len(x) - 1)]}: the maximum is infinite. Give finite "
            "bounds or a quadratic control cost."
        )


def _check_noiseless(grid: Grid, faces: Faces, D: Array) -> None:
    """Refuse noise across a state-constrained face: no control can keep it in."""
    for face in faces.faces:
        if not face.noiseless:
            continue
        noise = np.broadcast_to(D[face.axis], (grid.size,)).reshape(grid.shape)
        slab = faces.slab(face, 0)
        bad = np.argwhere(noise[slab] > 0)
        if len(bad):
            where: list[int] = bad[0].tolist()
            where.insert(face.axis, face.at(0, grid.shape[face.axis]))
            x = np.array([axis[i] for axis, i in zip(grid.axes, where, strict=True)])
            raise ProblemError(
                f"StateConstraint on face {(face.axis, face.side)}: the noise across "
                f"it is {np.sqrt(2 * noise[tuple(where)]):.3g} at x = {x}, so no "
                "control keeps the state inside. Let the diffusion vanish there, or "
                "use Reflecting()."
            )


def fixed_policy_tables(
    problem: ControlProblem, grid: Grid, faces: Faces, a: Array
) -> QuadraticTables:
    """Tables of a fixed policy a (N, m): no control is left to choose."""
    x = grid.nodes().reshape(-1, grid.dimension)
    skip = None if faces.fixed_mask is None else faces.fixed_mask.ravel()
    low = high = np.zeros((0, 1))
    general = GeneralTables(problem, x, low, high, np.zeros(1), skip)
    under = general.under(np.ascontiguousarray(a.T))
    _check_noiseless(grid, faces, under.D)
    d = x.shape[1]
    rho = discount_of(problem, x)
    empty = np.zeros((0, 1))
    return QuadraticTables(
        under.f,
        np.zeros((d, 0, 1)),
        _shared(under.D, None if skip is None else ~skip),
        under.r,
        empty,
        np.zeros((0, 0, 1)),
        low,
        high,
        _shared(rho, None),
    )
