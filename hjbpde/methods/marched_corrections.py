"""Steps of Euler that are corrected to high order, beside the monotone ones.

With M the monotone rows of one step and R the residual of its equation under one-sided
differences of order 5, a step ends with

    V <- V + M^-1 R(V),    `ROUNDS` times

(deferred correction: Stetter, Numer. Math. 29 (1978) 425). From a V within O(dt) of
the corrected one that leaves errors in powers of dt, which Romberg's table takes out
with the others: the limit is that of the differences in R. Waves do not grow, however
long the step: with damping a and speed b of M and speed c of R, times dt, one
correction multiplies them by ``(1 + 2 a + i (c - 2 b)) / (1 + a + i b)^2``, at most 1
in size where ``|2 - c / b| <= 2^(1/2)``; one-sided differences have c / b from 1 to 2.2
and damp besides.

They are not monotone, and nothing is believed of them but what their own nested grids
and the bar of the monotone march allow.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..problem import ControlProblem
from ..upwind_residual import FEWEST, UpwindResidual
from .kinked_data import Kinks
from .marching import Marching
from .marching_bar import InSpace
from .state import on_nodes
from .stepper import Stepper

Array = NDArray[np.float64]
ROUNDS = 2
"""Corrections a step. One leaves layers of the steps' errors beside faces with data."""
ACCURACY = 1e-3
"""Of one correction; what is left of it is corrected by the next."""


def can_be_corrected(
    problem: ControlProblem, method: Marching, nested: InSpace
) -> bool:
    """Whether steps can be corrected, and whether there is anything to correct.

    Where the process ends inside the domain V is not smooth there and no higher order
    helps; modes are stepped together, and the saddle of two players asks for more than
    the better of two controls. Kinks of the terminal value are carried along: nested
    grids that cut them alike agree without being right.
    """
    levels = nested.levels
    return (
        method.order == 4
        and len(levels) > 1
        and not nested.is_central
        and levels[-1].kinks is Kinks.NONE
        and min(min(level.grid.shape) for level in levels) >= FEWEST
        and not problem.stops
        and problem.exit is None
        and problem.modes is None
        and problem.adversary is None
    )


@dataclass(eq=False)
class CorrectedStepper(Stepper):
    """One problem on one grid, one corrected step at a time."""

    residual: UpwindResidual | None = None
    corrected: Array | None = None
    """The control (m, N) of the last step, greedy for the corrected value."""

    def step(self, t: float, dt: float) -> None:
        """From V(t + dt) to V(t)."""
        super().step(t, dt)
        state = self.state
        self.residual = self.residual or UpwindResidual.of(state)
        # The fused kernel keeps no coefficients.
        state.under = state.tables.under(state.a)
        rows, _ = state.folded(state.under)
        state.ladder.prepare(rows)
        V, a = state.V, state.a.copy()
        for _ in range(ROUNDS):
            change, left = state.ladder.correct(self.residual.at(V, a), ACCURACY)
            if not (np.isfinite(change).all() and left < 1.0):
                return
            V = V + change.reshape(V.shape)
        state.V, self.corrected = V, a

    def control(self) -> Array:
        """The last step's control, (*shape, m); before any, that of the terminal V."""
        plain = super().control()
        if self.corrected is None:
            return plain
        found, faces = on_nodes(self.grid, self.corrected), self.state.faces
        # There the monotone equation is kept, and with it the control that stays in.
        for face in faces.faces:
            if face.inward_only or face.fixed:
                found[faces.slab(face, 0)] = plain[faces.slab(face, 0)]
        return found
