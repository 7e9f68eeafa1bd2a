"""Policy improvement: the control that maximises a Hamiltonian at every node.

Two Hamiltonians share the search. `MonotoneStencil` is the discrete one, maximised
through the scheme's own weights, so that policy iteration is monotone;
`SmoothSlopes` takes given gradients and curvatures, for high order and for
evaluation between nodes.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .coefficients import Coefficients, describe_point
from .errors import ProblemError
from .faces import Faces
from .game_improvement import greedy_game, improve_game
from .game_tables import GameTables
from .grid import Grid
from .kernels.coupled import improve_coupled, smooth_coupled
from .kernels.upwind import HYBRID, improve_separable
from .multigrid import spacings
from .newton import newton_moves
from .sets import Finite
from .table_checks import no_control
from .tabulate import BLOCK, GeneralTables, QuadraticTables, Tables

Array = NDArray[np.float64]
Nodes = slice
SCAN = {1: 41, 2: 15, 3: 7, 4: 5}
"""Candidates an axis of the control box before refinement."""


class Hamiltonian(Protocol):
    """What improvement maximises: payoff plus drift and noise through slopes."""

    def value(self, under: Coefficients, nodes: Nodes) -> Array:
        """The Hamiltonian at `nodes` for given coefficients; -inf: inadmissible."""
        ...

    def suggestions(self, nodes: Nodes) -> list[tuple[Array, Array]]:
        """Gradients and curvatures (d, n) worth trying in a closed form."""
        ...


@dataclass(eq=False)
class MonotoneStencil:
    """The discrete Hamiltonian of a monotone scheme around one value."""

    grid: Grid
    faces: Faces
    scheme: int
    spacing: tuple[Array, Array]
    limits: tuple[Array, Array]
    padded: Array
    noiseless: bool = False

    @classmethod
    def of(cls, faces: Faces, scheme: int, V: Array) -> MonotoneStencil:
        """The stencil around V (*shape)."""
        grid = faces.grid
        return cls(grid, faces, scheme, spacings(grid), faces.limits(), faces.pad(V))

    @cached_property
    def _neighbours(self) -> tuple[Array, Array, Array, Array]:
        """dm, dp, hm, hp as (d, N) arrays."""
        d, shape = self.grid.dimension, self.grid.shape
        core = (slice(1, -1),) * d
        out = [np.empty((d, self.grid.size)) for _ in range(4)]
        for k in range(d):
            low, high = list(core), list(core)
            low[k], high[k] = slice(0, -2), slice(2, None)
            here = self.padded[core]
            out[0][k] = (self.padded[tuple(low)] - here).ravel()
            out[1][k] = (self.padded[tuple(high)] - here).ravel()
            for side in (0, 1):
                line = self.spacing[side][k, : shape[k]]
                view = [1] * d
                view[k] = shape[k]
                out[2 + side][k] = np.broadcast_to(line.reshape(view), shape).ravel()
        return out[0], out[1], out[2], out[3]

    @cached_property
    def _slopes(self) -> tuple[Array, Array]:
        """One-sided slopes behind and ahead, (d, N)."""
        dm, dp, hm, hp = self._neighbours
        return -dm / hm, dp / hp

    @cached_property
    def _limited(self) -> list[tuple[int, NDArray[np.intp], float, float, float]]:
        """Of every face with limits: axis, nodes, range of drift and most noise."""
        number = np.arange(self.grid.size).reshape(self.grid.shape)
        out = []
        for face in self.faces.faces:
            if not (face.inward_only or face.noiseless):
                continue
            low = 0.0 if face.inward_only and face.side == "low" else -np.inf
            high = 0.0 if face.inward_only and face.side == "high" else np.inf
            nodes = number[self.faces.slab(face, 0)].ravel()
            out.append((face.axis, nodes, low, high, 0.0 if face.noiseless else np.inf))
        return out

    def value(self, under: Coefficients, nodes: Nodes) -> Array:
        """r + sum of lower dm + upper dp at `nodes`."""
        f, D = under.f, under.D
        back, fore = (part[:, nodes] for part in self._slopes)
        gain = np.where(f > 0, f * fore, f * back)
        if D.any():
            hm, hp = (part[:, nodes] for part in self._neighbours[2:])
            bend = 2 * D * (fore - back) / (hm + hp)
            if self.scheme == HYBRID:
                central = f * (hm * fore + hp * back) / (hm + hp) + bend
                one_sided = (f * hp > 2 * D) | (-f * hm > 2 * D)
                gain = np.where(one_sided, gain, central)
            else:
                gain = gain + bend
        total = under.r + gain.sum(0)
        self._refuse(total, under, nodes)
        return total

    def _refuse(self, total: Array, under: Coefficients, nodes: Nodes) -> None:
        """Write -inf where a face does not admit the drift or the noise."""
        slack = 1e-12
        for k, limited, low, high, noise in self._limited:
            first, last, _ = nodes.indices(self.grid.size)
            at = limited[(limited >= first) & (limited < last)] - first
            f, D = under.f[k, at], np.broadcast_to(under.D, under.f.shape)[k, at]
            good = (f >= low - slack) & (f <= high + slack) & (D <= noise + slack)
            total[at[~good]] = -np.inf

    def suggestions(self, nodes: Nodes) -> list[tuple[Array, Array]]:
        """Central and both one-sided slopes with the second difference."""
        back, fore = (part[:, nodes] for part in self._slopes)
        hm, hp = (part[:, nodes] for part in self._neighbours[2:])
        bend = 2 * (fore - back) / (hm + hp)
        # Where the scheme is one-sided its noise is |f| h / 2: no curvature is felt.
        sides = [(fore, bend), (back, bend)]
        if self.noiseless:
            return sides
        return [((hm * fore + hp * back) / (hm + hp), bend), *sides]


@dataclass(eq=False)
class SmoothSlopes:
    """r + f . p + D . q with given slopes p and curvatures q, both (d, n)."""

    p: Array
    q: Array

    def value(self, under: Coefficients, nodes: Nodes) -> Array:
        """The Hamiltonian at `nodes`."""
        drift = (under.f * self.p[:, nodes]).sum(0)
        return under.r + drift + (under.D * self.q[:, nodes]).sum(0)

    def suggestions(self, nodes: Nodes) -> list[tuple[Array, Array]]:
        """The slopes themselves."""
        return [(self.p[:, nodes], self.q[:, nodes])]


def initial_policy(tables: Tables | GameTables, n: int) -> Array:
    """A control (m, n) to start from: inside the set, near 0 where 0 is in it."""
    if isinstance(tables, GameTables):
        tables = tables.joint
    if isinstance(tables, GeneralTables) and isinstance(
        tables.problem.controls, Finite
    ):
        return np.repeat(tables.problem.controls.points[:1].T, n, axis=1)
    low, high = (
        np.nan_to_num(tables.low, neginf=-1e3),
        np.nan_to_num(tables.high, posinf=1e3),
    )
    start = np.where((low <= 0) & (high >= 0), 0.0, 0.5 * (low + high))
    return np.array(np.broadcast_to(start, (tables.n_controls, n)), order="C")


def improve(
    tables: Tables | GameTables,
    stencil: MonotoneStencil,
    a: Array,
    scan: bool = True,
    polish: bool = True,
) -> Coefficients:
    """The greedy policy of the discrete Hamiltonian, written into a (m, N).

    Without `polish` a problem's own best_control is taken at its word.

    Raises
    ------
    ProblemError
        A node whose face admits no control, named.
    """
    if isinstance(tables, GeneralTables):
        noise = tables.constant_noise
        stencil.noiseless = noise is not None and not noise.any()
        return _search(tables, stencil, a, scan, polish)
    shape: NDArray[np.int64] = np.array(stencil.grid.shape, np.int64)
    common = (stencil.scheme, stencil.padded.ravel(), shape, *stencil.spacing)
    if isinstance(tables, GameTables):
        return improve_game(tables, stencil, common, a)
    axis_of = tables.axis_of()
    d, n = tables.f0.shape
    f, r = np.empty((d, n)), np.empty(n)
    boxes = (tables.low, tables.high)
    if axis_of is not None:
        b = _gains(tables, axis_of)
        diagonal = np.ascontiguousarray(np.einsum("iin->in", tables.R))
        parts = (tables.f0, b, tables.D, tables.r0, tables.r1, diagonal)
        bad = improve_separable(
            *common, *stencil.limits, parts, boxes, axis_of, a, f, r
        )
    else:
        parts = (tables.f0, tables.B, tables.D, tables.r0, tables.r1, tables.R)
        bad = improve_coupled(*common, *stencil.limits, parts, boxes, a, f, r)
    if bad >= 0:
        raise no_control(stencil.grid, int(bad))
    return Coefficients(f, tables.D, r)


def _gains(tables: QuadraticTables, axis_of: NDArray[np.int64]) -> Array:
    columns = [tables.B[max(k, 0), i] for i, k in enumerate(axis_of)]
    if not columns:
        return np.zeros((0, 1))
    return np.ascontiguousarray(np.stack(columns))


def greedy(
    tables: Tables | GameTables, slopes: SmoothSlopes, a: Array, scan: bool = False
) -> Coefficients:
    """The maximiser of r + f . p + D . q, written into a (m, n)."""
    if isinstance(tables, GameTables):
        greedy_game(tables, slopes, slopes.p, a)
        return tables.under(a)
    if isinstance(tables, GeneralTables):
        return _search(tables, slopes, a, scan)
    if _is_diagonal(tables.R):
        _separate_maximisers(tables, slopes.p, a)
    elif tables.n_controls:
        smooth_coupled(
            slopes.p, (tables.B, tables.r1, tables.R), (tables.low, tables.high), a
        )
    return tables.under(a)


def _is_diagonal(R: Array) -> bool:
    m = len(R)
    return all(not R[i, j].any() for i in range(m) for j in range(m) if i != j)


def _separate_maximisers(tables: QuadraticTables, p: Array, a: Array) -> None:
    """argmax of (r1 + B'p)_i a_i - R_ii a_i^2/2 on the box, each control alone."""
    for i in range(len(a)):
        gain = np.broadcast_to(tables.r1[i], a[i].shape)
        for k in range(len(p)):
            if tables.B[k, i].any():
                gain = gain + tables.B[k, i] * p[k]
        low, high, square = tables.low[i], tables.high[i], tables.R[i, i]
        if (square > 0).all():
            np.clip(gain / square, low, high, out=a[i])
            continue
        free = np.where(square > 0, gain / np.where(square > 0, square, 1.0), a[i])
        ends = np.where(gain > 0, high, np.where(gain < 0, low, a[i]))
        a[i] = np.clip(np.where(square > 0, free, ends), low, high)


def _search(
    tables: GeneralTables,
    hamiltonian: Hamiltonian,
    a: Array,
    scan: bool,
    polish: bool = True,
) -> Coefficients:
    n = a.shape[1]
    for start in range(0, n, BLOCK):
        nodes = slice(start, min(start + BLOCK, n))
        search = _NodeSearch(tables, hamiltonian, nodes, a[:, nodes])
        if isinstance(tables.problem.controls, Finite):
            for point in tables.problem.controls.points:
                search.offer(np.repeat(point[:, None], search.size, axis=1))
        elif tables.n_controls:
            search.offer_closed_forms()
            search.offer_resting()
            if scan:
                search.scan_box()
            if polish or tables.problem.best_control is None:
                search.refine()
        if not np.isfinite(search.best).all():
            bad = int(np.flatnonzero(~np.isfinite(search.best))[0])
            x = tables.x[nodes][bad]
            raise ProblemError(
                f"no admissible control at {describe_point(x, search.a[:, bad])}: "
                "the face admits only inward drift without noise across it. Change "
                "the rule, the control set, or the face."
            )
        a[:, nodes] = search.a
    return tables.under(a)


class _NodeSearch:
    """The best control found so far at every node of a block."""

    def __init__(
        self, tables: GeneralTables, hamiltonian: Hamiltonian, nodes: Nodes, a: Array
    ) -> None:
        self.tables, self.hamiltonian, self.nodes = tables, hamiltonian, nodes
        self.a, self.size = a.copy(), a.shape[1]
        finite_set = isinstance(tables.problem.controls, Finite)
        if not finite_set:
            m = tables.n_controls
            part = slice(None) if tables.low.shape[1] == 1 else nodes
            self.low = np.broadcast_to(tables.low[:, part], (m, self.size))
            part = slice(None) if tables.high.shape[1] == 1 else nodes
            self.high = np.broadcast_to(tables.high[:, part], (m, self.size))
            self.a = np.clip(self.a, self.low, self.high)
        self.best = self.value(self.a)

    def value(self, a: Array) -> Array:
        """The Hamiltonian under a (m, n)."""
        return self.hamiltonian.value(self.tables.under(a, self.nodes), self.nodes)

    def offer(self, a: Array) -> Array:
        """Take a where it is better; returns its value."""
        value = self.value(a)
        better = value > self.best
        self.a[:, better], self.best[better] = a[:, better], value[better]
        return value

    def offer_closed_forms(self) -> None:
        """The user's own maximiser at every suggested slope."""
        problem = self.tables.problem
        if problem.best_control is None:
            return
        x = self.tables.x[self.nodes]
        for p, q in self.hamiltonian.suggestions(self.nodes):
            hess = np.zeros((self.size, len(p), len(p)))
            hess[:, np.arange(len(p)), np.arange(len(p))] = problem.sign * q.T
            with np.errstate(all="ignore"):
                out = problem.best_control(x, problem.sign * p.T, hess)
            a = np.broadcast_to(np.asarray(out, float), (self.size, len(self.a))).T
            good = np.isfinite(a).all(0)
            a = np.where(good, np.clip(a, self.low, self.high), self.a)
            self.offer(a)

    def offer_resting(self) -> None:
        """Controls that stop the drift along an axis, where there are such."""
        for rest in self.tables.resting:
            part = rest[:, self.nodes]
            self.offer(np.where(np.isfinite(part), part, self.a))

    def scan_box(self) -> None:
        """Every point of a coarse grid on the box (finite sides only)."""
        if not (np.isfinite(self.low).all() and np.isfinite(self.high).all()):
            return
        per_axis = SCAN.get(len(self.a), 3)
        shares = np.linspace(0.0, 1.0, per_axis)
        for share in itertools.product(shares, repeat=len(self.a)):
            step = np.array(share)[:, None]
            self.offer(self.low + step * (self.high - self.low))

    def refine(self, rounds: int = 8) -> None:
        """Projected Newton steps by differences, taken only where they improve."""
        width = np.where(np.isfinite(self.high - self.low), self.high - self.low, 1.0)
        step = 1e-4 * np.maximum(width, 1e-3 * np.abs(self.a))
        for _ in range(rounds):
            before = self.a.copy()
            centre = np.clip(self.a, self.low + step, self.high - step)
            centre = np.where(self.high - self.low > 2 * step, centre, self.a)
            # Inadmissible neighbours are -inf; their differences count as flat.
            with np.errstate(invalid="ignore"):
                g, H = self._differences(centre, step)
            for move in newton_moves(g, H, centre, self.low, self.high):
                self.offer(np.clip(centre + move, self.low, self.high))
            if np.max(np.abs(self.a - before) / np.maximum(width, 1e-300)) < 1e-9:
                return

    def _differences(self, a: Array, step: Array) -> tuple[Array, Array]:
        m = len(a)
        g, H = np.zeros((m, a.shape[1])), np.zeros((m, m, a.shape[1]))
        here = self.value(a)

        def moved(*axes: int, sign: float = 1.0) -> Array:
            b = a.copy()
            for i in axes:
                b[i] += sign * step[i]
            return self.value(np.clip(b, self.low, self.high))

        up = [moved(i) for i in range(m)]
        down = [moved(i, sign=-1.0) for i in range(m)]
        for i in range(m):
            g[i] = (up[i] - down[i]) / (2 * step[i])
            H[i, i] = ((up[i] - here) + (down[i] - here)) / step[i] ** 2
            for j in range(i):
                cross = (moved(i, j) - up[i]) - (up[j] - here)
                H[i, j] = H[j, i] = cross / (step[i] * step[j])
        return np.nan_to_num(g), np.nan_to_num(H, posinf=0.0, neginf=0.0)
