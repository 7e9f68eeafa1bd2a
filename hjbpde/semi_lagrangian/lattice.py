"""Node values between the nodes, for many points at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..grid import Grid
from ..kernels.lattice import guarded_readings, readings, stencils

Array = NDArray[np.float64]
FLAT = 1e-4
"""Share of sup|V| below which differences from node to node are smooth for WENO."""


class Lattice:
    """Multilinear (width 2) or tensor-product cubic (width 4) readings on a grid.

    Parameters
    ----------
    axes : sequence of (n_k,)
    periods : sequence of float
        0 where an axis is not periodic.
    width : {2, 4}
        Nodes an axis; axes with fewer than four nodes are refused for 4.
    weno, limited : bool
        Cubic readings by weighted parabolas, axis by axis, or cut to the range of the
        cell's corners: both depend on the values read and have no `stencils`.
    """

    def __init__(
        self,
        axes: list[Array],
        periods: list[float],
        width: int,
        weno: bool = False,
        limited: bool = False,
    ) -> None:
        self.sizes = np.array([axis.size for axis in axes], np.int64)
        self.packed = np.zeros((len(axes), int(self.sizes.max(initial=1))))
        for row, axis in zip(self.packed, axes, strict=True):
            row[: axis.size] = axis
        self.periods = np.asarray(periods, float)
        self.width, self.weno, self.limited = width, weno, limited

    @classmethod
    def of(
        cls, grid: Grid, width: int, weno: bool = False, limited: bool = False
    ) -> Lattice:
        """The lattice of a grid's nodes."""
        widths = np.asarray(grid.domain.width)
        periods = [
            float(w) if p else 0.0 for w, p in zip(widths, grid.periodic, strict=True)
        ]
        return cls(list(grid.axes), periods, width, weno, limited)

    def without(self, axis: int) -> Lattice:
        """The lattice of a face across `axis`."""
        keep = [k for k in range(len(self.sizes)) if k != axis]
        axes = [self.packed[k, : self.sizes[k]] for k in keep]
        return Lattice(axes, [float(self.periods[k]) for k in keep], self.width)

    @property
    def corners(self) -> int:
        """Nodes that one reading takes."""
        return self.width ** len(self.sizes)

    def read(self, values: Array, points: Array) -> Array:
        """The interpolant of `values` (any shape, C order) at points (n, d), (n,)."""
        if not len(self.sizes):
            return np.full(len(points), float(np.asarray(values).ravel()[0]))
        out = np.empty(len(points))
        flat = np.ascontiguousarray(values, dtype=float).ravel()
        points = np.ascontiguousarray(points)
        given = (flat, self.packed, self.sizes, self.periods, points)
        if self.weno or self.limited:
            eps = max((FLAT * float(np.max(np.abs(flat)))) ** 2, 1e-100)
            guarded_readings(*given, self.weno, self.limited, eps, out)
        else:
            readings(*given, self.width, out)
        return out

    def stencils(self, points: Array) -> tuple[NDArray[np.int64], Array]:
        """Node numbers and weights (n, corners) of readings at points (n, d)."""
        index = np.zeros((len(points), self.corners), np.int64)
        weight = np.ones((len(points), self.corners))
        if len(self.sizes):
            points = np.ascontiguousarray(points)
            stencils(
                self.packed, self.sizes, self.periods, points, self.width, index,
                weight,
            )  # fmt: skip
        return index, weight
