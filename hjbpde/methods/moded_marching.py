"""Implicit marching of problems that switch between modes.

Every step is the stationary problem of all modes at once: mode k gains ``sum_j q_kj
(V_j - V_k)`` at the new time, so that the step stays monotone whatever the rates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..game_tables import GameTables
from ..grid import Grid
from ..problem import ControlProblem
from ..schemes import Scheme
from ..tables import Tables
from .end_slopes import Closing
from .marching import Marches
from .moded_state import ModedState
from .modes import Effort, iterate_modes
from .nested import RunOptions
from .state import GridState
from .stepper import Stepper

Array = NDArray[np.float64]
EFFORT = Effort(slope_updates=0)
OPTIONS = RunOptions.of(tolerance=1e-9)
MAX_POLICIES = 100


@dataclass(eq=False)
class ModedStepper:
    """All modes on one grid, one implicit step at a time."""

    problem: ControlProblem
    grid: Grid
    parts: list[Stepper]
    moded: ModedState

    @classmethod
    def of(
        cls,
        problem: ControlProblem,
        grid: Grid,
        scheme: Scheme,
        closing: Closing,
        kind: type[Stepper] = Stepper,
    ) -> ModedStepper:
        """At the horizon, every mode with its terminal value, a stepper of `kind`."""
        alone = [problem.in_mode(k) for k in range(problem.modes.n)]
        parts = [kind.of(one, grid, scheme, closing) for one in alone]
        states = [part.state for part in parts]
        rates = problem.modes.at(grid.nodes().reshape(grid.size, -1))
        moded = ModedState(states, _plain(states), rates, 1.0)
        return cls(problem, grid, parts, moded)

    @property
    def value(self) -> Array:
        """V (K, *shape), maximised."""
        return np.stack([state.V for state in self.moded.states])

    def step(self, t: float, dt: float) -> None:
        """From V(t + dt) to V(t) in all modes."""
        for part in self.parts:
            part.prepare(t, dt)
        self.moded.plain = _plain(self.moded.states)
        self.moded.rho = min(float(np.min(one.rho)) for one in self.moded.plain)
        self.moded.bounds.clear()
        iterate_modes(self.moded, MAX_POLICIES, OPTIONS, EFFORT)
        for part in self.parts:
            part.check(t, dt)

    def exercise(self, t: float) -> None:
        """Where t is a date: V moved to the right side of the stops that hold then."""
        for part in self.parts:
            part.exercise(t)

    def soften(self, t: float) -> None:
        """After the terminal time or a date: V averaged around its kinks."""
        for part in self.parts:
            part.soften(t)

    def control(self) -> Array:
        """The last step's controls, (K, *shape, m)."""
        return np.stack([part.control() for part in self.parts])

    def stopped(self) -> NDArray[np.bool_]:
        """Where somebody stops, (K, *shape)."""
        return np.stack([part.stopped() for part in self.parts])


def _plain(states: list[GridState]) -> list[Tables]:
    """The tables of all modes; none of them is a game's."""
    found = [state.tables for state in states]
    return [tables for tables in found if not isinstance(tables, GameTables)]


def stepper_of(
    problem: ControlProblem,
    grid: Grid,
    scheme: Scheme,
    closing: Closing = Closing.ANCHORED,
    before: Marches | None = None,
    kind: type[Stepper] = Stepper,
) -> Marches:
    """What marches a problem: one state of `kind`, or all modes together.

    `before` has marched on this grid already: jumps, which no modes have, are kept.
    """
    if problem.modes is not None:
        return ModedStepper.of(problem, grid, scheme, closing)
    known = None if before is None else before.parts[0]
    return kind.of(problem, grid, scheme, closing, known)
