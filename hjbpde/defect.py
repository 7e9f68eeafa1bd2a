"""Defect correction: second and fourth order where the value is smooth.

With M the monotone rows and R_k the residual of the HJB equation under central
differences of order k,

    V <- V + M^-1 R_k(V)

moves the monotone solution to the order-k one (Stetter, Numer. Math. 29 (1978) 425).
Central differences are not monotone, so the result is only ever offered: the caller
keeps the monotone value at nodes where the offer is not believed. Anderson mixing of
the last steps (Walker and Ni, SIAM J. Numer. Anal. 49 (2011) 1715, algorithm AA)
covers grids on which the plain iteration would diverge.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .closure import target_slopes
from .faces import FaceNodes, Faces
from .grid import Grid
from .improvement import SmoothSlopes, greedy
from .kernels.differentiate import differentiate
from .kernels.selling import add_rates
from .methods.state import GridState
from .mixing import Anderson
from .multigrid import _around
from .offsets import pairs_of
from .weights import finite_difference_weights

Array = NDArray[np.float64]
NOTHING_LEFT = 1e-10
"""Relative residual below which the start already has the order asked for."""
DEPTH = 5
"""Steps that Anderson mixing remembers."""
ROUGH_STEP = 0.3
"""Share of the residual corrected at rough nodes, see `correlated_part`: of the noise
that central differences feel on the shortest waves, M has about that share."""


@dataclass(frozen=True)
class AxisStencil:
    """Sources (n, width) and weights of both derivatives at every index."""

    source: NDArray[np.int64]
    first: Array
    second: Array

    @classmethod
    def of(cls, grid: Grid, axis: int, order: int) -> AxisStencil:
        """Central stencils of even order, one-sided of the same order near faces."""
        x, n, periodic = grid.axes[axis], grid.shape[axis], grid.periodic[axis]
        half, width = order // 2, order + 2
        if n < width + 1:
            half, width = 1, 3 if n < 4 else 4
        source = np.zeros((n, width), np.int64)
        first, second = np.zeros((n, width)), np.zeros((n, width))
        # Around a circle the step across the seam counts as well.
        step = np.diff(np.r_[x, x[0] + grid.domain.width[axis]] if periodic else x)
        uniform = np.ptp(step) < 1e-12 * step[0]
        done: dict[tuple[int, int], tuple[Array, Array]] = {}
        for i in range(n):
            central = periodic or half <= i < n - half
            count = 2 * half + 1 if central else width
            start = i - half if central else min(max(i - half, 0), n - count)
            window = np.arange(start, start + count)
            key = (i - start, count)
            if not (uniform and key in done):
                places = _coordinates(x, grid.domain.width[axis], window)
                centre = float(x[i])
                done[key] = tuple(  # type: ignore[assignment]
                    finite_difference_weights(places, centre, k) for k in (1, 2)
                )
            source[i, :count] = window % n
            first[i, :count], second[i, :count] = done[key]
        return cls(source, first, second)


def _coordinates(x: Array, period: float, window: NDArray[np.int64]) -> Array:
    turns, index = np.divmod(window, x.size)
    return x[index] + period * turns


def along(grid: Grid, axis: int, stencil: AxisStencil, V: Array) -> tuple[Array, Array]:
    """First and second derivative of V along an axis, shaped like V."""
    outer, inner = _around(grid.shape, axis)
    flat = np.ascontiguousarray(V).ravel()
    p, q = np.empty_like(flat), np.empty_like(flat)
    differentiate(
        flat, outer, grid.shape[axis], inner, stencil.source, stencil.first,
        stencil.second, p, q,
    )  # fmt: skip
    return p.reshape(V.shape), q.reshape(V.shape)


@dataclass(eq=False)
class HighOrder:
    """Derivatives of order 2 or 4 with the faces' rules built in."""

    faces: Faces
    order: int
    stencils: list[AxisStencil] = field(default_factory=list)

    def __post_init__(self) -> None:
        grid = self.faces.grid
        self.stencils = [
            AxisStencil.of(grid, k, self.order) for k in range(grid.dimension)
        ]

    def slopes(self, V: Array) -> SmoothSlopes:
        """Gradient and pure second derivatives at the nodes, both (d, N)."""
        grid = self.faces.grid
        p, q = (
            np.empty((grid.dimension, grid.size)),
            np.empty((grid.dimension, grid.size)),
        )
        flat = np.ascontiguousarray(V).ravel()
        for k, stencil in enumerate(self.stencils):
            p[k], q[k] = along(grid, k, stencil, flat)
        for face in self.faces.faces:
            if not face.fixed and not face.inward_only:
                self._impose(face, V, p, q)
        return SmoothSlopes(p, q)

    def _impose(self, face: FaceNodes, V: Array, p: Array, q: Array) -> None:
        """The slope the rule prescribes, and the curvature that goes with it."""
        grid, k = self.faces.grid, face.axis
        shape, n = grid.shape, grid.shape[face.axis]
        slab = self.faces.slab(face, 0)
        outward = np.asarray(face.C) / (2 * face.step) - face.kappa * V[slab]
        slope = outward if face.side == "high" else -outward
        count = min(3 if self.order == 2 else 4, n)
        x = grid.axes[k]
        layers = [face.at(i, n) for i in range(count)]
        weights, on_slope = hermite_curvature(x[layers] - x[layers[0]])
        bend = on_slope * slope
        for w, layer in zip(weights, layers, strict=True):
            bend = bend + w * V.take(layer, axis=k)
        p[k].reshape(shape)[slab] = slope
        q[k].reshape(shape)[slab] = bend


def hermite_curvature(x: Array) -> tuple[Array, float]:
    """Second derivative at x[0] = 0 from values at x and the slope at 0."""
    scale = float(np.max(np.abs(x)))
    powers = np.arange(x.size + 1)
    matrix = np.zeros((x.size + 1, x.size + 1))
    matrix[:, :-1] = (x[None, :] / scale) ** powers[:, None]
    matrix[1, -1] = 1.0
    rhs = np.zeros(x.size + 1)
    rhs[2] = 2.0
    weights = np.asarray(np.linalg.solve(matrix, rhs), dtype=np.float64)
    return weights[:-1] / scale**2, float(weights[-1]) / scale


def smooth_residual(
    state: GridState, high: HighOrder, V: Array, a: Array
) -> tuple[Array, SmoothSlopes]:
    """R_k(V) with the greedy control of the order-k slopes, written into a.

    Zero on fixed nodes and on faces that only admit inward drift, where the
    monotone equation is kept; scaled where arms of correlated noise are short of room.
    """
    slopes = high.slopes(V)
    under = greedy(state.tables, slopes, a)
    out = under.r - np.broadcast_to(state.tables.rho, under.r.shape) * V.ravel()
    for k in range(len(under.f)):
        out += under.f[k] * slopes.p[k] + under.D[k] * slopes.q[k]
    if state.noise is not None:
        out += correlated_part(state, high, V, slopes)
    if state.jumps is not None:
        out += state.jumps.smooth(np.ascontiguousarray(V).ravel())
    shaped = out.reshape(V.shape)
    for face in state.faces.faces:
        if face.fixed or face.inward_only:
            shaped[state.faces.slab(face, 0)] = 0.0
    if state.noise is not None:
        out[state.noise.rough] *= ROUGH_STEP
    return out, slopes


def correlated_part(
    state: GridState, high: HighOrder, V: Array, slopes: SmoothSlopes
) -> Array:
    """What correlated noise adds to R_k, (N,): differences along its own offsets.

    Not the tensor product of central differences: that vanishes on the shortest waves,
    where M does not, and the iteration would diverge for correlations above 1/2. It is
    taken for what was left out of M to keep offsets short, and near faces that cut long
    arms, where differences along the offsets are of low order.
    """
    noise = state.noise
    assert noise is not None
    flat, out = np.ascontiguousarray(V).ravel(), np.zeros(V.size)
    noise.add_to(out, flat, state.faces)
    if high.order == 4:
        add_rates(
            noise.fourth.indptr, noise.fourth.indices, noise.fourth.data, flat, out
        )
    tensor = np.where(noise.rough, noise.pairs, noise.missing)
    if noise.rough.any():
        out[noise.rough] = (noise.own * slopes.q).sum(0)[noise.rough]
    for (i, j), D in zip(pairs_of(V.ndim), tensor, strict=True):
        if D.any():
            out += 2.0 * D * mixed(state.faces, high, slopes.p, (i, j))
    return out


def mixed(faces: Faces, high: HighOrder, p: Array, axes: tuple[int, int]) -> Array:
    """V_ij on the nodes (N,), from the gradient p (d, N) that knows the faces."""
    grid, (i, j) = faces.grid, axes
    out = along(grid, j, high.stencils[j], p[i].reshape(grid.shape))[0]
    other = along(grid, i, high.stencils[i], p[j].reshape(grid.shape))[0]
    for face in faces.faces:
        if face.axis == j and not face.fixed:
            out[faces.slab(face, 0)] = other[faces.slab(face, 0)]
    return out.ravel()


def smallest_step(state: GridState) -> float:
    """The smallest share of its residual that a node corrects."""
    rough = state.noise is not None and bool(state.noise.rough.any())
    return ROUGH_STEP if rough else 1.0


def close_faces(state: GridState, V: Array) -> None:
    """Continue V through artificial faces, so that the limit closes itself."""
    if state.faces.artificial:
        state.faces.set_slopes(target_slopes(state.faces, V, choose=False))


@dataclass(frozen=True)
class Correction:
    """A corrected value (*shape) and its control (m, N).

    ``remaining`` estimates how far the iteration still is from its limit, ``rest``
    (*shape) the same at every node: the last change times r / (1 - r), r its ratio;
    ``settled`` says whether it got close enough to be offered.
    """

    V: Array
    a: Array
    order: int
    steps: int
    remaining: float
    settled: bool
    rest: Array


def correct(
    state: GridState,
    order: int,
    start: Array,
    a: Array,
    max_steps: int = 40,
    accuracy: float = 1e-3,
) -> Correction:
    """Defect correction from `start` towards order 2 or 4.

    Stops when the remaining change is below `accuracy` of the total change, at the
    round-off floor, or when it does not get smaller.
    """
    high, V, a = HighOrder(state.faces, order), start.copy(), a.copy()
    assert state.under is not None
    rows, _ = state.folded(state.under)
    state.ladder.prepare(rows)
    close_faces(state, V)
    residual, _ = smooth_residual(state, high, V, a)
    mixing, best, size = Anderson(DEPTH), np.inf, np.inf
    kept, remaining, rate = (V, a.copy(), np.zeros_like(V)), np.inf, 1.0
    scale, steps, slow = float(np.max(np.abs(start))) or 1.0, 0, smallest_step(state)
    left = float(np.max(np.abs(residual))) / state.rho_min
    if left <= NOTHING_LEFT * scale:
        return Correction(V, a, order, 0, left, True, np.full(V.shape, left))
    for steps in range(1, max_steps + 1):
        step, ratio = state.ladder.correct(residual, 0.1)
        before, size = size, float(np.max(np.abs(step)))
        if not np.isfinite(size) or ratio >= 1.0 or size > 1e3 * max(best, 1e-300):
            break
        rate = min(size / before, 0.9) if np.isfinite(before) and before > 0 else 0.9
        if size < best:
            tail = rate / (1 - rate) / slow
            best, remaining = size, size * tail
            kept = (V, a.copy(), tail * np.abs(step).reshape(V.shape))
        total = float(np.max(np.abs(V - start)))
        done = steps > 3 and remaining <= slow * accuracy * total
        if done or remaining <= 1e-13 * scale:
            break
        V = mixing.next(V.ravel(), step).reshape(V.shape)
        close_faces(state, V)
        residual, _ = smooth_residual(state, high, V, a)
        if not np.isfinite(residual).all():
            break
    V, a, rest = kept
    total = float(np.max(np.abs(V - start)))
    settled = remaining <= max(0.05 * total, 1e-12 * scale)
    return Correction(V, a, order, steps, remaining, settled, rest)
