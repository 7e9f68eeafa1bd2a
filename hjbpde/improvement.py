"""Policy improvement: the control that maximises a Hamiltonian at every node.

Two Hamiltonians share the search. `MonotoneStencil` is the discrete one, maximised
through the scheme's own weights, so that policy iteration is monotone;
`SmoothSlopes` takes given gradients and curvatures, for high order and for
evaluation between nodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .coefficients import Coefficients, describe_point
from .control_search import ControlSearch, Hamiltonian, Nodes
from .errors import ProblemError
from .faces import Faces
from .game_improvement import greedy_game, improve_game
from .game_tables import GameTables
from .grid import Grid
from .kernels.coupled import improve_coupled, smooth_coupled
from .kernels.upwind import HYBRID, improve_separable
from .line_search import climb
from .multigrid import spacings
from .sets import Finite
from .table_checks import no_control
from .tabulate import BLOCK, GeneralTables, QuadraticTables, Tables

Array = NDArray[np.float64]


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
    def _limited(self) -> list[tuple[int, NDArray[np.bool_], float, float, float]]:
        """Of every face with limits: axis, nodes, range of drift and most noise."""
        out = []
        for face in self.faces.faces:
            if not (face.inward_only or face.noiseless):
                continue
            low = 0.0 if face.inward_only and face.side == "low" else -np.inf
            high = 0.0 if face.inward_only and face.side == "high" else np.inf
            nodes = np.zeros(self.grid.shape, bool)
            nodes[self.faces.slab(face, 0)] = True
            noise = 0.0 if face.noiseless else np.inf
            out.append((face.axis, nodes.ravel(), low, high, noise))
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
            at = np.flatnonzero(limited[nodes])
            f, D = under.f[k, at], np.broadcast_to(under.D, under.f.shape)[k, at]
            good = (f >= low - slack) & (f <= high + slack) & (D <= noise + slack)
            total[at[~good]] = -np.inf

    def bends(self, D: Array, nodes: Nodes) -> Array:
        """Drift at which the scheme changes sides, or may no more leave the box."""
        if self.scheme != HYBRID:
            return np.zeros((1, *D.shape))
        hm, hp = (part[:, nodes] for part in self._neighbours[2:])
        return np.stack([2 * D / hp, -2 * D / hm])

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

    def bends(self, D: Array, nodes: Nodes) -> Array:
        """None: it is linear in the drift."""
        return np.empty((0, *D.shape))

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
    n, controls = a.shape[1], tables.problem.controls
    for start in range(0, n, BLOCK):
        nodes = np.arange(start, min(start + BLOCK, n))
        search = ControlSearch.begun(tables, hamiltonian, nodes, a[:, nodes])
        if isinstance(controls, Finite):
            search.offer_points(controls.points)
        elif tables.n_controls:
            search.offer_closed_forms()
            search.offer_resting()
            if polish or tables.problem.best_control is None:
                climb(search, scan)
            elif scan:
                search.scan_box()
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
