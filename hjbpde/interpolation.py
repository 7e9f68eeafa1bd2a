"""Values between nodes: linear, cubic, gradient, and how far they can be off."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from .errors import ProblemError
from .grid import Grid
from .kernels.interpolate import axis_weights, tensor
from .kernels.spline import spline_weights

Array = NDArray[np.float64]
SLACK = 1e-12
"""How far outside, relative to the width, a point may be by round-off."""


class Interpolant:
    """Node values (*shape) as a function on the domain.

    Parameters
    ----------
    grid : Grid
    values : (*shape)

    Raises
    ------
    ProblemError
        From every method: a point that is not finite or outside the domain.
    """

    def __init__(self, grid: Grid, values: Array) -> None:
        if values.shape != grid.shape:
            raise ProblemError(
                f"interpolation: values of shape {values.shape} on a grid of shape "
                f"{grid.shape}."
            )
        self.grid = grid
        self.values = np.ascontiguousarray(values, dtype=float).ravel()
        strides = np.cumprod([1, *grid.shape[::-1]])[-2::-1]
        self.stride = strides.astype(np.int64)

    def linear(self, x: Array) -> Array:
        """Multilinear: never beyond the values of the cell's corners."""
        flat, parts = self._weights(x)
        return self._sum(parts, [p[1] for p in parts]).reshape(flat)

    def linear_weights(self, x: Array) -> sp.csr_matrix:
        """The weights of `linear` at x (..., d): CSR (points, N), rows sum to 1."""
        _, parts = self._weights(x)
        return self._matrix(parts, [p[1] for p in parts])

    def cubic_weights(self, x: Array) -> sp.csr_matrix:
        """The weights of `cubic` at x (..., d), as `linear_weights`; some negative."""
        _, parts = self._weights(x)
        return self._matrix(parts, [p[2] for p in parts])

    def spline_weights(self, x: Array) -> sp.csr_matrix:
        """Cubic B-spline weights at x (..., d), >= 0, as `linear_weights`.

        Off by ``h^2 V'' / 6`` an axis wherever in its cell x lies, see
        `hjbpde.kernels.spline`.
        """
        points = self._inside(x)
        parts, weights = [], []
        for k, axis in enumerate(self.grid.axes):
            source = np.zeros((len(points), 4), np.int64)
            weight = np.zeros((len(points), 4))
            y = np.ascontiguousarray(points[:, k])
            spline_weights(axis, self._period(k), y, source, weight)
            parts.append((source,))
            weights.append(weight)
        return self._matrix(parts, weights)

    def _matrix(self, parts: list[Any], weights: list[Array]) -> sp.csr_matrix:
        """Tensor products of the axes' weights (n, 4): CSR (n, N)."""
        n = len(weights[0])
        number, weight = np.zeros((n, 1), np.int64), np.ones((n, 1))
        for part, own, stride in zip(parts, weights, self.stride, strict=True):
            number = (number[:, :, None] + stride * part[0][:, None]).reshape(n, -1)
            weight = (weight[:, :, None] * own[:, None]).reshape(n, -1)
        used = weight != 0.0
        entries = (weight[used], (np.nonzero(used)[0], number[used]))
        return sp.csr_matrix(entries, shape=(n, self.values.size))

    def cubic(self, x: Array) -> Array:
        """Tensor-product Lagrange cubic: exact on cubics, error O(h^4)."""
        flat, parts = self._weights(x)
        return self._sum(parts, [p[2] for p in parts]).reshape(flat)

    def gradient(self, x: Array) -> Array:
        """Gradient of the cubic, (..., d): error O(h^3)."""
        flat, parts = self._weights(x)
        columns = []
        for k in range(len(parts)):
            chosen = [p[3] if j == k else p[2] for j, p in enumerate(parts)]
            columns.append(self._sum(parts, chosen).reshape(flat))
        return np.stack(columns, axis=-1)

    def uncertainty(self, x: Array) -> Array:
        """Sum over the axes of |QL - QR|, the two quadratics the cubic blends.

        O(h^3) where the values are smooth, so it bounds the cubic's own error
        there; at a kink of size j in the slope it is about j h.
        """
        flat, parts = self._weights(x)
        total = np.zeros(flat)
        for k in range(len(parts)):
            chosen = [p[4] if j == k else p[2] for j, p in enumerate(parts)]
            total += np.abs(self._sum(parts, chosen)).reshape(flat)
        return total

    def _sum(self, parts: list[Any], weights: list[Array]) -> Array:
        source = np.stack([p[0] for p in parts])
        out = np.empty(source.shape[1])
        tensor(self.values, self.stride, source, np.stack(weights), out)
        return out

    def _weights(self, x: Array) -> tuple[tuple[int, ...], list[Any]]:
        points, parts = self._inside(x), []
        for k, axis in enumerate(self.grid.axes):
            n = len(points)
            source = np.zeros((n, 4), np.int64)
            tables = [np.zeros((n, 4)) for _ in range(4)]
            y = np.ascontiguousarray(points[:, k])
            axis_weights(axis, self._period(k), y, source, *tables)
            parts.append((source, *tables))
        return np.shape(x)[:-1], parts

    def _period(self, axis: int) -> float:
        """The width of a periodic axis, 0 of any other."""
        periodic = self.grid.periodic[axis]
        return float(self.grid.domain.width[axis]) if periodic else 0.0

    def _inside(self, x: Array) -> Array:
        """The points x (..., d) as (n, d), wrapped and checked."""
        x = np.asarray(x, dtype=float)
        grid = self.grid
        if x.ndim == 0 or x.shape[-1] != grid.dimension:
            raise ProblemError(
                f"points have shape {x.shape}; expected (..., {grid.dimension})."
            )
        points = grid.domain.wrap(x.reshape(-1, grid.dimension))
        self._check_inside(points)
        return points

    def _check_inside(self, points: Array) -> None:
        domain = self.grid.domain
        slack = SLACK * domain.width
        low, high = np.asarray(domain.low) - slack, np.asarray(domain.high) + slack
        bad = ~((points >= low) & (points <= high))
        if bad.any():
            i, k = np.argwhere(bad)[0]
            raise ProblemError(
                f"the point {points[i]} is outside the domain on axis {k}: "
                f"{points[i, k]:g} is not in [{np.asarray(domain.low)[k]:g}, "
                f"{np.asarray(domain.high)[k]:g}]. The solution says nothing there."
            )


def beyond(grid: Grid, x: Array, values: Array) -> NDArray[np.bool_]:
    """Whether a corner of the cell of x (..., d) has an infinite value."""
    lost = ~np.isfinite(values)
    if not lost.any():
        return np.zeros(x.shape[:-1], bool)
    return np.asarray(Interpolant(grid, lost.astype(float)).linear(x) > 0.0)


def filled(values: Array) -> Array:
    """Infinite entries replaced by the finite one of largest size."""
    finite = np.isfinite(values)
    if finite.all():
        return values
    known = values[finite]
    most = known[np.argmax(np.abs(known))] if known.size else 0.0
    return np.where(finite, values, most)
