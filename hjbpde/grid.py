"""Rectangular grids: uniform, stretched and periodic axes.

Coarsening keeps nodes (every second one and both ends), so every coarse node is a
fine node whatever the shape: tables and nested solutions need no new evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import ProblemError
from .sets import Box

MIN_NODES = 3


def _axis_of(low: float, high: float, n: int, periodic: bool) -> NDArray[np.float64]:
    return np.linspace(low, high, n, endpoint=not periodic)


@dataclass(frozen=True, eq=False, init=False)
class Grid:
    """The nodes of a box; arrays on it are indexed ``ij``.

    Parameters
    ----------
    domain : Box
        Bounds and periodic axes; a periodic axis does not repeat its end point.
    shape : sequence of int
        Number of nodes on each axis, at least 3.

    Raises
    ------
    ProblemError
        A one-point axis, a wrong number of axes, or an axis that does not increase.
    """

    domain: Box
    axes: tuple[NDArray[np.float64], ...]

    def __init__(self, domain: Box, shape: int | Sequence[int]) -> None:
        counts = (shape,) if isinstance(shape, int | np.integer) else tuple(shape)
        if len(counts) == 1 and domain.dimension > 1:
            counts = counts * domain.dimension
        if len(counts) != domain.dimension:
            raise ProblemError(
                f"Grid: shape {counts} has {len(counts)} entries for a domain with "
                f"{domain.dimension} axes."
            )
        low, high = np.asarray(domain.low), np.asarray(domain.high)
        for axis, n in enumerate(counts):
            if int(n) != n or n < MIN_NODES:
                raise ProblemError(
                    f"Grid: axis {axis} has {n} nodes; give a whole number of at "
                    f"least {MIN_NODES}."
                )
        periodic = domain.periodic_axes or (False,) * domain.dimension
        self._set(
            domain,
            [
                _axis_of(low[k], high[k], int(n), periodic[k])
                for k, n in enumerate(counts)
            ],
        )

    def _set(self, domain: Box, axes: Sequence[NDArray[np.float64]]) -> None:
        for axis in axes:
            axis.setflags(write=False)
        object.__setattr__(self, "domain", domain)
        object.__setattr__(self, "axes", tuple(axes))

    @classmethod
    def from_axes(cls, axes: Sequence[Any], domain: Box | None = None) -> Grid:
        """A grid of given coordinates, one increasing array an axis.

        `domain` defaults to the box between the end points; give it for periodic
        axes, whose last coordinate lies below ``high``.
        """
        arrays = [np.array(axis, dtype=float) for axis in axes]
        for k, axis in enumerate(arrays):
            if axis.ndim != 1 or axis.size < MIN_NODES:
                raise ProblemError(
                    f"Grid.from_axes: axis {k} has shape {axis.shape}; give at least "
                    f"{MIN_NODES} coordinates."
                )
            bad = np.flatnonzero(~(np.diff(axis) > 0))
            if bad.size or not np.isfinite(axis).all():
                place = int(bad[0]) if bad.size else 0
                raise ProblemError(
                    f"Grid.from_axes: axis {k} must increase and be finite; look at "
                    f"entries {place} and {place + 1}: {axis[place : place + 2]}."
                )
        if domain is None:
            domain = Box([a[0] for a in arrays], [a[-1] for a in arrays])
        grid = cls.__new__(cls)
        grid._set(domain, arrays)
        grid._check_fits_domain()
        return grid

    def _check_fits_domain(self) -> None:
        if len(self.axes) != self.domain.dimension:
            raise ProblemError(
                f"Grid.from_axes: {len(self.axes)} axes for a domain of dimension "
                f"{self.domain.dimension}."
            )
        low, high = np.asarray(self.domain.low), np.asarray(self.domain.high)
        for k, axis in enumerate(self.axes):
            gap = 1e-12 * (high[k] - low[k])
            ends_meet = abs(axis[-1] - high[k]) <= gap
            good = axis[-1] < high[k] if self.periodic[k] else ends_meet
            if abs(axis[0] - low[k]) > gap or not good:
                raise ProblemError(
                    f"Grid.from_axes: axis {k} runs from {axis[0]:g} to {axis[-1]:g}, "
                    f"the domain from {low[k]:g} to {high[k]:g}"
                    + (" (periodic: leave the end out)." if self.periodic[k] else ".")
                )

    @property
    def shape(self) -> tuple[int, ...]:
        """Nodes on each axis."""
        return tuple(axis.size for axis in self.axes)

    @property
    def size(self) -> int:
        """Number of nodes."""
        return prod(self.shape)

    @property
    def dimension(self) -> int:
        """Number of axes d."""
        return len(self.axes)

    @property
    def periodic(self) -> tuple[bool, ...]:
        """Which axes close on themselves."""
        return self.domain.periodic_axes or (False,) * len(self.axes)

    def spacing(self, axis: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Distance of every node to its lower and upper neighbour on `axis`.

        At a face the missing distance mirrors the one inside (the ghost node).
        """
        x = self.axes[axis]
        step = np.diff(x)
        if self.periodic[axis]:
            seam = x[0] + self.domain.width[axis] - x[-1]
            return np.r_[seam, step], np.r_[step, seam]
        return np.r_[step[0], step], np.r_[step, step[-1]]

    def nodes(self) -> NDArray[np.float64]:
        """Coordinates of every node, shape ``(*shape, d)``."""
        return np.stack(np.meshgrid(*self.axes, indexing="ij"), axis=-1)

    def nodes_of(self, flat: NDArray[np.intp]) -> NDArray[np.float64]:
        """Coordinates of the nodes with C-order numbers `flat` (n,), shape (n, d)."""
        index = np.unravel_index(flat, self.shape)
        columns = [axis[i] for axis, i in zip(self.axes, index, strict=True)]
        return np.stack(columns, axis=-1)

    def volumes(self) -> NDArray[np.float64]:
        """Trapezoidal volume of every node, (*shape); sums to the domain's volume."""
        out = np.ones(self.shape)
        for k, periodic in enumerate(self.periodic):
            hm, hp = self.spacing(k)
            width = 0.5 * (hm + hp)
            if not periodic:
                width[0], width[-1] = 0.5 * hp[0], 0.5 * hm[-1]
            view = [1] * self.dimension
            view[k] = -1
            out = out * width.reshape(view)
        return out

    def refined(self) -> Grid:
        """Every interval halved."""
        axes = []
        for k, x in enumerate(self.axes):
            lower, upper = x, x + self.spacing(k)[1]
            if not self.periodic[k]:
                lower, upper = x[:-1], x[1:]
            middle = 0.5 * (lower + upper)
            axes.append(np.sort(np.r_[x, middle]))
        return self._like(axes)

    def kept(self, axis: int) -> NDArray[np.intp]:
        """Numbers of the nodes of `axis` that `coarsened` keeps."""
        n = self.shape[axis]
        kept = np.arange(0, n, 2)
        if not self.periodic[axis] and kept[-1] != n - 1:
            kept = np.r_[kept, n - 1]
        return kept

    @property
    def halves(self) -> bool:
        """Whether every cell of `coarsened` is two of this grid's, in all axes."""
        pairs = zip(self.shape, self.periodic, strict=True)
        return all(n % 2 == (0 if around else 1) for n, around in pairs)

    def coarsened(self) -> Grid:
        """Every second node of each axis, both ends kept.

        Raises
        ------
        ProblemError
            An axis that would keep fewer than 3 nodes.
        """
        axes = []
        for k, x in enumerate(self.axes):
            kept = self.kept(k)
            if kept.size < MIN_NODES:
                raise ProblemError(
                    f"Grid.coarsened: axis {k} has {x.size} nodes; at least 4 are "
                    "needed to coarsen."
                )
            axes.append(x[kept].copy())
        return self._like(axes)

    def _like(self, axes: Sequence[NDArray[np.float64]]) -> Grid:
        grid = Grid.__new__(Grid)
        grid._set(self.domain, axes)
        return grid

    def interpolate(
        self, values: NDArray[np.float64], x: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Multilinear interpolation of node values (*shape) at points x (..., d).

        Reproduces linear functions; raises ProblemError outside the domain.
        """
        from .interpolation import Interpolant  # the noun behind every evaluator

        return Interpolant(self, values).linear(x)

    def matches(self, other: Grid) -> bool:
        """Whether both grids have the same coordinates."""
        return self.shape == other.shape and all(
            np.array_equal(a, b) for a, b in zip(self.axes, other.axes, strict=True)
        )

    def __repr__(self) -> str:
        return f"Grid(shape={self.shape}, domain={self.domain!r})"
