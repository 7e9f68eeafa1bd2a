"""How wrong a semi-Lagrangian value can be: nested grids, faces, what is left over.

Steps grow with the cells (delta ~ h, or ~ h^2 where noise rules), so that at a node
which all grids share a foot falls into the same place of its cell on every grid: the
error is a smooth multiple of a power of h, and differences between grids tell it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..error_bar import ErrorBar, closure_bar, nested_estimate
from ..face_response import slopes_returned
from ..methods.bounds import region_mask
from .level import Level, solve_rows
from .lookahead import Lookahead

Array = NDArray[np.float64]
SURFACE_SAFETY = 2.0
"""Factor for linear readings where a surface cuts long branches anywhere: errors are
then no smooth multiple of a power of h."""


class StepResponse:
    """The policy's own rows with the slopes at artificial faces as input."""

    def __init__(self, level: Level) -> None:
        self.level = level
        self.rows, _ = level.rows()
        self.kept = [face.slope for face in level.faces.artificial]
        self.own = level.look.step(level.a).gain

    def to(self, slopes: list[Any]) -> Array:
        """The shift of V for these errors of the outward slopes."""
        level = self.level
        moved = [kept + slope for kept, slope in zip(self.kept, slopes, strict=True)]
        level.faces.set_slopes(moved)
        rhs = np.zeros(level.grid.size)
        pushed = level.look.step(level.a).gain - self.own
        if level.settled is not None:
            pushed[np.isfinite(level.settled)] = 0.0
        rhs[level.look.free] = pushed
        level.faces.set_slopes(self.kept)
        shift, _ = solve_rows(self.rows, rhs, np.zeros_like(rhs))
        return np.abs(shift).reshape(level.grid.shape)

    def returned(self, V: Array, z: Array) -> list[Array]:
        """The change of the continued slopes when V moves by z, absolute."""
        return slopes_returned(self.level.faces, V, z)


def truncation(level: Level) -> Array:
    """How far wrong closures of artificial faces can move V, (*shape)."""
    if not level.faces.artificial:
        return np.zeros(level.grid.shape)
    return closure_bar(StepResponse(level), level.faces, level.V)


def surface_factor(look: Lookahead) -> float:
    """What differences between grids are multiplied by."""
    rough = look.surface is not None and look.lattice.width == 2
    return SURFACE_SAFETY if rough else 1.0


def bound(levels: list[Level], order: int) -> ErrorBar:
    """The bar of the finest level's value, (*shape)."""
    fine = levels[-1]
    if any(level.status == "not converged" for level in levels):
        unknown = np.full(fine.grid.shape, np.inf)
        return ErrorBar(unknown, {}, None, ("no bar: the iteration did not converge",))
    grids, values = [one.grid for one in levels], [one.V for one in levels]
    found = nested_estimate(values, grids, float(order), unseen=1.0)
    part = found.bar * surface_factor(fine.look)
    if len(levels) < 2:
        part = np.full(fine.grid.shape, fine.scale)
    if fine.faces.fixed_mask is not None:
        part = np.where(fine.faces.fixed_mask, 0.0, part)
    cut, inner = truncation(fine), region_mask(fine)
    rounding = float(64 * np.finfo(float).eps * fine.scale / fine.least_loss)
    parts = {
        "discretisation": float(np.max(part[inner])),
        "truncation": float(np.max(cut[inner])),
        "algebraic": fine.algebraic,
        "round-off": rounding,
    }
    notes = () if found.order is not None else ("order not observed: too few grids",)
    total = part + cut + fine.algebraic + rounding
    return ErrorBar(total, parts, found.order, notes)
