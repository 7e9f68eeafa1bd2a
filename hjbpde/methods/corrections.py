"""Corrected values on the nested grids, and where they are believed."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..defect import Correction, correct
from ..error_bar import neighbour_maximum
from ..interpolation import Interpolant
from ..prolongation import prolonged
from ..schemes import HYBRID
from .state import GridState

Array = NDArray[np.float64]
LEVELS_FOR_BAR = 3
ACCURACY = {2: 1e-3, 4: 1e-6}
"""Where corrections stop, by the order returned. A fourth-order value is as good as its
own iteration: beside faces with slopes the last steps tell less than they should."""


@dataclass(eq=False)
class Corrections:
    """Order-2 and order-4 values on the finest grids, and where they hold."""

    second: Correction | None = None
    fourth: list[Correction] = field(default_factory=list)
    accepted: NDArray[np.bool_] | None = None
    notes: list[str] = field(default_factory=list)

    @classmethod
    def on(cls, states: list[GridState], order: int) -> Corrections:
        """Correct the last grids; the finest to both orders, `order` is returned."""
        out, accuracy = cls(), ACCURACY[order]
        fine = states[-1]
        out.second = correct(fine, 2, fine.V, fine.a)
        out.fourth = fourth_orders(states[:-1], accuracy)
        fourth = correct(fine, 4, out.second.V, out.second.a, accuracy=accuracy)
        out.fourth.append(fourth)
        out.accepted = out._accept(states)
        return out

    def _accept(self, states: list[GridState]) -> NDArray[np.bool_]:
        """Nodes where both orders stay near the monotone value and each other."""
        fine, second, fourth = states[-1], self.second, self.fourth[-1]
        assert second is not None
        if not (second.settled and fourth.settled):
            self.notes.append(
                "defect correction did not settle (order "
                f"{2 if not second.settled else 4}): the monotone value is returned"
            )
            return np.zeros(fine.grid.shape, bool)
        step = neighbour_maximum(np.abs(second.V - fine.V), fine.grid)
        apart = neighbour_maximum(np.abs(fourth.V - second.V), fine.grid)
        room = monotone_room(states)
        small = 1e-9 * fine.scale
        good = (step <= 3 * room + small) & (apart <= np.maximum(step, room) + small)
        refused = 1.0 - float(np.mean(good))
        if refused > 0:
            self.notes.append(
                f"defect correction refused on {100 * refused:.2g} % of the nodes"
            )
        return good

    def pick(self, fine: GridState, order: int) -> tuple[Array, Array]:
        """The value and control to return, monotone where refused."""
        chosen = self.second if order == 2 else self.fourth[-1]
        assert chosen is not None and self.accepted is not None
        value, smooth = np.where(self.accepted, chosen.V, fine.V), self.accepted.copy()
        # There the monotone equation is kept, and with it the control that stays in.
        for face in fine.faces.faces:
            if face.inward_only:
                smooth[fine.faces.slab(face, 0)] = False
        return value, np.where(smooth.ravel(), chosen.a, fine.a)

    def extrapolate(self, states: list[GridState]) -> Array:
        """Richardson: V_h + (V_h - V_2h) / (2^p - 1), on every node of the grid.

        p is 1 for the upwind scheme, which the hybrid one is without noise, and 2 for
        the hybrid one, which must else be central at every node of both grids;
        refused (with a note) otherwise.
        """
        fine = states[-1]
        if len(states) < 2:
            self.notes.append("Richardson needs a grid that can be coarsened")
            return fine.V
        hybrid = fine.scheme == HYBRID and not noiseless(fine)
        if hybrid and not (all_central(states[-1]) and all_central(states[-2])):
            self.notes.append(
                "Richardson refused: the hybrid scheme is not central at every node "
                "of both grids, so its error has no single order"
            )
            return fine.V
        grid = fine.grid
        index = np.ix_(*[grid.kept(k) for k in range(grid.dimension)])
        gap = fine.V[index] - states[-2].V
        smooth = Interpolant(states[-2].grid, gap).cubic(grid.nodes())
        return fine.V + smooth / (3.0 if hybrid else 1.0)


def noiseless(state: GridState) -> bool:
    """Whether there is no noise at any node."""
    return state.under is not None and not np.any(state.under.D)


def all_central(state: GridState) -> bool:
    """Whether |f| h <= 2 D at every node and axis under the policy."""
    return one_sided(state) == 0.0


def one_sided(state: GridState) -> float:
    """Share of nodes where |f| h > 2 D along some axis under the policy."""
    assert state.under is not None
    beyond = np.zeros(state.grid.shape, bool)
    for k in range(state.grid.dimension):
        reach = np.maximum(*state.grid.spacing(k))
        view = [1] * state.grid.dimension
        view[k] = -1
        drift = np.abs(state.under.f[k].reshape(state.grid.shape)) * reach.reshape(view)
        noise = np.broadcast_to(state.under.D[k], (state.grid.size,))
        beyond |= drift > 2 * noise.reshape(state.grid.shape)
    if state.faces.fixed_mask is not None:
        beyond &= ~state.faces.fixed_mask
    return float(np.mean(beyond))


def fourth_orders(
    states: list[GridState], accuracy: float = ACCURACY[2]
) -> list[Correction]:
    """Order-4 values on up to two grids below the finest, coarse to fine."""
    usable = [s for s in states if min(s.grid.shape) >= 7][-(LEVELS_FOR_BAR - 1) :]
    found = [correct(s, 4, s.V, s.a, accuracy=accuracy) for s in usable]
    while found and not all(c.settled for c in found):
        found.pop(0)
    return found


def monotone_room(states: list[GridState]) -> Array:
    """How far the monotone value may be off: its change between grids.

    A kink can lie alike on two grids; the change before, halved, counts as well.
    """
    fine = states[-1]
    if len(states) < 2:
        return np.full(fine.grid.shape, np.inf)
    gap = np.abs(fine.V - prolonged(states[-2].V, fine.grid))
    room = neighbour_maximum(gap, fine.grid)
    if len(states) < 3:
        return room
    middle = states[-2]
    before = np.abs(middle.V - prolonged(states[-3].V, middle.grid))
    return np.maximum(
        room, 0.5 * prolonged(neighbour_maximum(before, middle.grid), fine.grid)
    )
