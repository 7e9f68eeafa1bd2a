"""How wrong a semi-Lagrangian value can be: nested grids, faces, what is left over.

Steps grow with the cells (delta ~ h, or ~ h^2 where noise rules), so that at a node
which all grids share a foot falls into the same place of its cell on every grid: the
error is a smooth multiple of a power of h, and differences between grids tell it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..closure import bend_beyond
from ..error_bar import ErrorBar, closure_bar, nested_estimate, slopes_missed
from ..face_response import slopes_returned
from ..faces import Faces
from ..methods.bounds import region_mask
from .level import Level
from .lookahead import Lookahead
from .step_length import order_of_steps, share_of_noise
from .system import System, solve_rows

Array = NDArray[np.float64]
ROUGH_SAFETY = 2.0
"""Factor for linear readings where a surface cuts long branches anywhere, or where
modes and jumps are read elsewhere than branches end: errors of both may cancel on one
grid, and are no smooth multiple of a power of h."""
BRANCH_SAFETY = 1.5
"""Factor for linear readings with noise: branches grow as sqrt(delta), slower than the
cells, and end in other places of their cells on every grid."""


@dataclass(frozen=True)
class Caution:
    """How careful a bar is.

    lowest : least order that is believed where a lower one is seen.
    factor : on differences between grids.
    felt : how often wrong closures of artificial faces count.
    """

    lowest: float = 1.0
    factor: float = 1.0
    felt: float = 1.0


class StepResponse:
    """The policies' own rows with the slopes at artificial faces as input.

    Slopes are those of all modes, one mode's after the other's; V is (K, *shape).
    """

    def __init__(self, system: System) -> None:
        self.system = system
        self.rows = system.felt()
        self.kept = [[f.slope for f in v.faces.artificial] for v in system.levels]
        self.own = [level.look.step(level.a).gain for level in system.levels]

    def to(self, slopes: list[Any]) -> Array:
        """The shift of V for these errors of the outward slopes."""
        parts, given = [], iter(slopes)
        for level, kept, own in zip(
            self.system.levels, self.kept, self.own, strict=True
        ):
            level.faces.set_slopes([slope + next(given) for slope in kept])
            pushed = level.look.step(level.a).gain - own
            level.faces.set_slopes(kept)
            if level.settled is not None:
                pushed[np.isfinite(level.settled)] = 0.0
            rhs = np.zeros(level.grid.size)
            rhs[level.look.free] = pushed
            parts.append(rhs)
        rhs = np.concatenate(parts)
        shift, _ = solve_rows(self.rows, rhs, np.zeros_like(rhs))
        return np.abs(shift).reshape(-1, *self.system.grid.shape)

    def bent(self) -> Array:
        """The shift of V if it bends beyond the faces as much as it may."""
        looks, levels = self.system.looks, self.system.levels
        if looks[0].problem.jumps is None:
            return np.zeros_like(self.system.V)
        for look, level in zip(looks, levels, strict=True):
            look.bends = bends_beyond(look.faces, level.V)
        shift = self.to([0.0 for kept in self.kept for _ in kept])
        for look in looks:
            look.bends = None
        return shift

    def returned(self, V: Array, z: Array) -> list[Array]:
        """The change of the continued slopes when V moves by z, absolute."""
        levels = self.system.levels
        parts = [
            slopes_returned(level.faces, *pair)
            for level, *pair in zip(levels, V, z, strict=True)
        ]
        return [slope for part in parts for slope in part]


def truncation(system: System) -> Array:
    """How far wrong closures of artificial faces can move V, (K, *shape)."""
    V = system.V
    if not any(level.faces.artificial for level in system.levels):
        return np.zeros(V.shape)
    missed = [slopes_missed(level.faces, level.V) for level in system.levels]
    flat = [miss for part in missed for miss in part]
    response = StepResponse(system)
    return closure_bar(response, flat, V, response.bent())


def bends_beyond(faces: Faces, V: Array) -> list[Array]:
    """Second derivatives that V (*shape) may have beyond every artificial face."""
    return [bend_beyond(faces.grid, face, V) for face in faces.artificial]


def rough_factor(look: Lookahead) -> float:
    """What differences between grids are multiplied by."""
    if look.lattice.width > 2:
        return 1.0
    away = look.switching is not None or look.problem.jumps is not None
    if away or look.surface is not None:
        return ROUGH_SAFETY
    return BRANCH_SAFETY if look.columns else 1.0


def order_believed(systems: list[System], order: int) -> float:
    """The order in h to believe at most: that of the readings, or what steps leave."""
    looks = [system.looks[0] for system in systems]
    shrunk = [a.delta / b.delta for a, b in pairwise(looks)]
    return order_of_steps(shrunk, bool(looks[-1].columns), order)


def noise_share(level: Level) -> float:
    """How much of the error is that of the noise within a step, at most.

    Where noise rules the steps, its error and that of the readings are of one size;
    the shorter the drift makes them, the less of it is left.
    """
    go = level.look.motion_under(level.a)
    return share_of_noise(level.grid, go.f, go.sigma, level.look.delta)


def bound(
    systems: list[System], order: int, caution: Caution | None = None
) -> ErrorBar:
    """The bar of the finest level's values, (K, *shape)."""
    caution = caution or Caution()
    fine = systems[-1]
    if any(system.status == "not converged" for system in systems):
        unknown = np.full(fine.V.shape, np.inf)
        return ErrorBar(unknown, {}, None, ("no bar: the iteration did not converge",))
    found = [
        _discretisation(systems, k, order, caution) for k in range(len(fine.levels))
    ]
    part = np.stack([one for one, _ in found])
    orders = [seen for _, seen in found if seen is not None]
    inner, cut = region_mask(fine.levels[0]), caution.felt * truncation(fine)
    rounding = float(64 * np.finfo(float).eps * fine.scale / fine.least_loss)
    parts = {
        "discretisation": float(np.max(part[:, inner])),
        "truncation": float(np.max(cut[:, inner])),
        "algebraic": fine.algebraic,
        "round-off": rounding,
    }
    notes = () if orders else ("order not observed: too few grids",)
    total = part + cut + fine.algebraic + rounding
    return ErrorBar(total, parts, min(orders, default=None), notes, cut)


def _discretisation(
    systems: list[System], mode: int, order: int, caution: Caution
) -> tuple[Array, float | None]:
    """What steps and readings miss in one mode, (*shape), and the order seen."""
    levels = [system.levels[mode] for system in systems]
    fine = levels[-1]
    if len(levels) < 2:
        part, seen = np.full(fine.grid.shape, fine.scale), None
    else:
        grids, values = [one.grid for one in levels], [one.V for one in levels]
        least, left = caution.lowest, order_believed(systems, order)
        found = nested_estimate(values, grids, order, least, least)
        slow = found if left == order else nested_estimate(values, grids, left, least)
        part = found.bar + noise_share(fine) * (slow.bar - found.bar)
        part, seen = part * rough_factor(fine.look) * caution.factor, found.order
    if fine.faces.fixed_mask is not None:
        part = np.where(fine.faces.fixed_mask, 0.0, part)
    return part, seen
