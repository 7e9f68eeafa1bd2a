"""Nested grids, coarse to fine: each starts from the one below."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..checkpoint import Checkpoint, Page
from ..errors import ProblemError
from ..faces import FaceNodes, Faces
from ..game_tables import GameTables
from ..grid import Grid
from ..problem import ControlProblem
from ..progress import bar_over
from ..prolongation import (
    cubically_prolonged,
    kept_nodes,
    nested_grids,
    prolonged,
    prolonged_policy,
)
from ..tabulate import Tables
from .admissible import (
    admissible_start,
    may_lose_inverse,
    stopped_start,
    watch_inverse,
)
from .inward import inward_start
from .memory import recall_result, result_of
from .policy_iteration import PolicyIteration, iterate, iterate_fused
from .state import GridState, make_state, set_obstacles

Array = NDArray[np.float64]
CLOSABLE = 9
"""Fewest nodes along an axis from which slopes are continued through its faces."""


@dataclass(frozen=True)
class RunOptions:
    """What the caller of `solve` asked for beyond the method."""

    guess: Array | None = None
    tolerance: float = 1e-9
    deadline: float = np.inf
    checkpoint: Checkpoint = field(default_factory=Checkpoint)
    progress: bool = False
    part: str = ""
    """What is solved beside the problem itself: the first word of its pages."""

    def page(self, grid: Grid) -> Page:
        """Where a grid that is solved is kept."""
        return self.checkpoint.page(f"{self.part}{grid.shape}")

    def on(self, wider: ControlProblem) -> RunOptions:
        """The same for the problem on a larger box, beside its own solve."""
        part = f"{self.part}{wider.name} on {wider.domain} "
        return replace(self, guess=None, part=part, progress=False)

    def kept(self, status: str) -> bool:
        """Whether a grid that ended so is worth keeping: time did not end it."""
        return status != "not converged" or time.monotonic() <= self.deadline

    @classmethod
    def of(
        cls,
        guess: Array | None = None,
        tolerance: float | None = None,
        budget: float | None = None,
        progress: bool = False,
    ) -> RunOptions:
        """Options with their defaults filled in.

        Raises
        ------
        ProblemError
            A negative or non-finite tolerance, or a negative budget.
        """
        if tolerance is not None and not 0 <= tolerance < np.inf:
            raise ProblemError(
                f"solve: tolerance = {tolerance}; give a number >= 0 (0 goes to the "
                "round-off floor)."
            )
        if budget is not None and not budget >= 0:
            raise ProblemError(f"solve: budget = {budget}; give seconds >= 0.")
        return cls(
            guess,
            1e-9 if tolerance is None else float(tolerance),
            np.inf if budget is None else time.monotonic() + budget,
            progress=progress,
        )


def solve_nested(
    problem: ControlProblem,
    grid: Grid,
    tables: Tables | GameTables,
    method: PolicyIteration,
    options: RunOptions,
    solver: GridSolver | None = None,
) -> list[GridState]:
    """The monotone solution on every nested grid, coarse to fine."""
    solver = solver or Settling()
    least = CLOSABLE if any(rule is None for rule in problem.faces.values()) else 5
    grids = nested_grids(grid, least, tables.correlated_axes)
    nested: list[Tables | GameTables] = [tables]
    for finer in reversed(grids[1:]):
        nested.insert(0, nested[0].taken(kept_nodes(finer)))
    states: list[GridState] = []
    shapes = [g.shape for g in grids]
    for i, level in bar_over(range(len(grids)), shapes, options.progress, "solve"):
        faces = Faces.of(problem, grids[i])
        V, a = _prolonged_start(faces, states[-1]) if states else (None, None)
        if options.guess is not None and i == len(grids) - 1:
            V = options.guess.copy()
        del level
        state = make_state(faces, nested[i], method.scheme.code, V, a)
        set_obstacles(problem, state)
        states.append(state)
        page = options.page(grids[i])
        kept = page.found()
        if kept is not None:
            recall_result(state, kept)
            solver.recall(state, kept)
            continue
        if V is None and may_lose_inverse(state):
            admissible_start(state)
        if V is None and state.ends_by_stops_alone:
            stopped_start(state)
        elif V is None and faces.artificial:
            inward_start(state)
        solver.settle(state, method, options, first=i == 0)
        watch_inverse(state)
        if not options.kept(state.status):
            break
        page.keep(partial(_result, state, solver), finished=True)
    return _reaching(states, grids, nested, problem, method)


def _result(state: GridState, solver: GridSolver) -> dict[str, Any]:
    """A grid that is solved, for the checkpoint."""
    return {**result_of(state), **solver.memory()}


def _prolonged_start(faces: Faces, coarse: GridState) -> tuple[Array, Array]:
    """V and the policy of the coarser grid, whose slopes `faces` take as well."""
    grid = faces.grid
    for face, other in zip(faces.faces, coarse.faces.faces, strict=True):
        carry_slope(face, other, grid)
    a = prolonged_policy(coarse.a, coarse.grid, grid)
    return cubically_prolonged(coarse.V, grid), a


class GridSolver(Protocol):
    """Solves one grid, and knows what else has to be kept of it."""

    def settle(
        self,
        state: GridState,
        method: PolicyIteration,
        options: RunOptions,
        first: bool,
    ) -> None:
        """Solve one grid, in place."""
        ...

    def memory(self) -> dict[str, Any]:
        """What error bars read beside the state of the grid solved last, as arrays."""
        ...

    def recall(self, state: GridState, memory: Mapping[str, Any]) -> None:
        """The inverse of `memory`."""
        ...


@dataclass(frozen=True)
class Settling:
    """A grid solver by one function, called like `settle`, the default."""

    by: Callable[..., None] | None = None

    def settle(
        self,
        state: GridState,
        method: PolicyIteration,
        options: RunOptions,
        first: bool,
    ) -> None:
        """Solve one grid, in place."""
        (self.by or settle)(state, method, options, first=first)

    def memory(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def recall(self, state: GridState, memory: Mapping[str, Any]) -> None:
        """Nothing to bring back."""


def _reaching(
    states: list[GridState],
    grids: list[Grid],
    nested: list[Tables | GameTables],
    problem: ControlProblem,
    method: PolicyIteration,
) -> list[GridState]:
    """The states, with the last one carried to the finest grid when time ran out."""
    while len(states) < len(grids):
        i = len(states)
        V = prolonged(states[-1].V, grids[i])
        a = prolonged_policy(states[-1].a, states[-1].grid, grids[i])
        faces = Faces.of(problem, grids[i])
        state = make_state(faces, nested[i], method.scheme.code, V, a)
        state.status, state.bounds = "not converged", [np.inf]
        states.append(state)
    return states


def carry_slope(face: FaceNodes, coarse: FaceNodes, grid: Grid) -> None:
    """Start an artificial face from what was found on the coarser grid."""
    if not face.artificial:
        return
    face.geometric = coarse.geometric
    face.damping = _spread(coarse.damping, face, grid)
    face.slope = _spread(coarse.slope, face, grid)
    face.C = 2.0 * face.step * face.slope


def _spread(values: Any, face: FaceNodes, grid: Grid) -> Any:
    """Values on a coarser face's nodes at the nearest of a finer face's nodes."""
    out = np.asarray(values)
    if out.ndim == 0:
        return values
    for position, k in enumerate(k for k in range(grid.dimension) if k != face.axis):
        kept = grid.kept(k)
        at = np.clip(np.searchsorted(kept, np.arange(grid.shape[k])), 0, kept.size - 1)
        out = np.take(out, at, axis=position)
    return out


def settle(
    state: GridState,
    method: PolicyIteration,
    options: RunOptions,
    first: bool,
    closing: bool = True,
) -> None:
    """Solve one grid: the fused kernel where it fits, then watched iteration.

    Slopes at artificial faces are continued only where `closing`.
    """
    updates = (30 if first else 4) if closing else 0
    if iterate_fused(state, 1e-13, method.max_policies, updates):
        updates = 0
    iterate(state, options.tolerance, method.max_policies, options.deadline, updates)
