"""Moves at a fixed cost: iterated optimal stopping around the semi-Lagrangian chain.

    V(x) = max( M V(x), max_a { phi r + exp(-rho delta) mean_b V(x_b) } )
    M V(x) = max_y { V(y) - c(x, y) }

From the value without moves, the problem of stopping once for M of the last value is
solved by policy iteration; then the policy found is followed for ever, one sparse
system, as in `hjbpde.methods.impulse`. V is read at the targets as where branches end,
so that with cubic readings a target between nodes costs no order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from ..error_bar import SAFETY, ErrorBar
from ..interpolation import Interpolant
from ..methods.bounds import missed_between_nodes, region_mask
from ..methods.impulse import CLOSING_STOPS, Moves, ends
from ..problem import ControlProblem
from .bar import ROUGH_SAFETY, Caution, bound, truncation
from .level import Level
from .nested import Nested
from .obstacles import Obstacles
from .system import PATIENCE, System, settle, solve_rows

Array = NDArray[np.float64]
MOST_STOPS = 100
"""Stopping problems on one grid before giving up."""


@dataclass(eq=False)
class ImpulseSystem(System):
    """One grid: who is moved (N,), to which target (N,), and how often after that.

    count (N,) is the expected discounted number of moves, infinite where unknown; gap
    the last change of V from one stopping problem to the next.
    """

    acts: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))
    choice: NDArray[np.intp] = field(default_factory=lambda: np.zeros(0, np.intp))
    count: Array = field(default_factory=lambda: np.zeros(0))
    gap: float = np.inf

    @property
    def level(self) -> Level:
        """The one mode."""
        return self.levels[0]

    @property
    def algebraic(self) -> float:
        """What further policies and stopping problems may still change."""
        reach = max(1.0, float(np.max(self.count, initial=0.0)))
        return super().algebraic + 2.0 * self.gap * reach

    def stop(self, moves: Moves, effort: tuple[float, int, int]) -> None:
        """Solve the problem of stopping once for M V; effort as `settle` takes it."""
        level = self.level
        before = level.V
        worth, self.choice = moves.best(before)
        if level.faces.fixed_mask is not None:
            # There the process has ended: nobody moves any more.
            worth[level.faces.fixed_mask.ravel()] = -np.inf
        least = worth.reshape(before.shape)
        level.obstacles = Obstacles(level.grid, before, least=least)
        level.V = np.maximum(before, least)
        settle(self, *effort)
        self.gap = float(np.max(np.abs(level.V - before)))
        self.acts = np.zeros(worth.size, bool)
        if level.settled is not None:
            self.acts[level.look.free] = np.isfinite(level.settled)
        self.count = np.full(worth.size, np.inf)

    def follow(self, moves: Moves) -> Array | None:
        """V (N,) of the policy for ever, counting its moves; None where they never end.

        Moves change no more than the rows of the nodes that act.
        """
        moved = sp.csr_matrix(moves.weights[moves.rows_of(self.choice)])
        somewhere = np.asarray(abs(moved).sum(axis=1)).ravel() > 0
        if not ends(abs(moved), self.acts & somewhere):
            return None
        rows, rhs = self.rows()
        rows = sp.csr_matrix(rows - sp.diags_array(self.acts.astype(float)) @ moved)
        paid = moves.cost[np.arange(self.acts.size), self.choice]
        rhs = np.where(self.acts, -paid, rhs)
        count, _ = solve_rows(rows, self.acts.astype(float), np.zeros(rhs.size))
        self.count = np.maximum(count, 0.0)
        value, self.solver = solve_rows(rows, rhs, self.level.V.ravel())
        return value

    def memory(self) -> dict[str, NDArray[Any]]:
        """As of every system, with the moves."""
        own = {"acts": self.acts, "choice": self.choice, "count": self.count}
        return {**super().memory(), **own, "gap": np.array(self.gap)}

    def recall(self, memory: Mapping[str, NDArray[Any]]) -> None:
        """The inverse of `memory`."""
        super().recall(memory)
        self.acts, self.choice = memory["acts"], memory["choice"]
        self.count, self.gap = memory["count"], float(memory["gap"])


def moves_on(problem: ControlProblem, level: Level) -> Moves:
    """Every move from the nodes, V read at the targets as the steps read it.

    What is known there already, of an exit and beyond its surface, is taken off the
    cost.
    """
    found = Moves.of(problem, level.grid)
    look, n = level.look, level.grid.size
    y = look.inside(found.targets.reshape(-1, level.grid.dimension))
    index, weight = look.lattice.stencils(np.ascontiguousarray(y))
    at = np.repeat(np.arange(len(y)), look.lattice.corners)
    shape, known = (len(y), n), np.zeros(len(y))
    surface = look.surface
    if surface is not None:
        ended = surface.phi(y) <= 0
        weight[ended] = 0.0
        known[ended] = surface.value(look.problem, y[ended])
    weights = sp.csr_matrix((weight.ravel(), (at, index.ravel())), shape=shape)
    if surface is not None:
        known += weights[:, surface.ghosts] @ surface.beyond(look.problem)
        weights = surface.folded(weights)
    weights.eliminate_zeros()
    return replace(
        found,
        weights=weights,
        cost=found.cost - known.reshape(-1, found.cost.shape[1]),
    )


@dataclass(eq=False)
class Impulses(Nested):
    """The solve of a problem with moves, begun without them."""

    def joined(self, levels: list[Level], before: System) -> System:
        """A system whose moves are not known yet."""
        del before
        return ImpulseSystem(levels)

    def settle(self, system: System, updates: int) -> None:
        """Stop once, follow the policy, and again until V does not change."""
        assert isinstance(system, ImpulseSystem)
        level, method = system.level, self.method
        moves, best, stalled = moves_on(self.problem, level), np.inf, 0
        for n in range(MOST_STOPS):
            closing = updates if n < CLOSING_STOPS else 0
            most = method.max_policies + sum(level.grid.shape)
            system.stop(moves, (method.tolerance, most, closing))
            followed = system.follow(moves)
            if system.status == "not converged":
                return
            reach = max(1.0, float(system.count.max()))
            if reach * system.gap <= method.tolerance * system.scale:
                return
            stalled = stalled + 1 if system.gap > 0.5 * best else 0
            best = min(best, system.gap)
            if stalled > PATIENCE and n >= CLOSING_STOPS:
                break
            if followed is not None:
                level.V = followed.reshape(level.V.shape)
        small = system.gap <= 1e-3 * system.scale and np.isfinite(system.count).all()
        system.status = "stagnated" if small else "not converged"

    def bound(self, systems: list[System]) -> ErrorBar:
        """The bar of one stopping problem, and what is wrong at every later move.

        Counted N(x) times, as in `hjbpde.methods.impulse`: stopping at nodes instead of
        between them, V read at the targets, and the truncation there. Errors of order 1
        and those of the moves may cancel on one grid.
        """
        rough = ROUGH_SAFETY if self.method.order == 1 else 1.0
        bar = bound(systems, self.method.order, Caution(factor=rough))
        fine = systems[-1]
        assert isinstance(fine, ImpulseSystem)
        if not fine.acts.any() or not np.isfinite(bar.total).all():
            return bar
        level, inner = fine.level, region_mask(fine.level)
        count = fine.count.reshape(level.V.shape)
        missed, cut = self._at_targets(fine)
        border = missed_between_nodes(level.V, fine.acts.reshape(level.V.shape))
        local = border + count * (border + missed)
        if level.faces.fixed_mask is not None:
            local = np.where(level.faces.fixed_mask, 0.0, local)
            count = np.where(level.faces.fixed_mask, 0.0, count)
        parts = dict(bar.parts)
        parts["discretisation"] += float(np.max(local[inner]))
        parts["truncation"] += float(np.max(count[inner])) * cut
        felt = np.asarray(bar.truncation) + count * cut
        total = bar.total + local + count * cut
        return replace(bar, total=total, parts=parts, truncation=felt)

    def _at_targets(self, fine: ImpulseSystem) -> tuple[float, float]:
        """What readings at the targets in use miss, and the truncation there."""
        level = fine.level
        moves = moves_on(self.problem, level)
        used = np.unique(moves.rows_of(fine.choice)[fine.acts])
        y = level.look.inside(moves.targets.reshape(-1, level.grid.dimension)[used])
        rows, V = moves.weights[used], Interpolant(level.grid, level.V)
        missed = np.abs(V.cubic(y) - V.linear(y)) if self.method.order == 1 else 0.0
        missed = SAFETY * (missed + V.uncertainty(y))
        # V is not read between nodes where a target is one, or where the process ends.
        alone = np.asarray(abs(rows).max(axis=1).todense()).ravel() >= 1 - 1e-12
        alone |= np.diff(rows.indptr) == 0
        cut = abs(rows) @ truncation(fine)[0].ravel()
        return float(np.max(np.where(alone, 0.0, missed))), float(np.max(cut))

    def answers(self, systems: list[System]) -> dict[str, Any]:
        """Where the state is moved, and to where."""
        fine = systems[-1]
        assert isinstance(fine, ImpulseSystem)
        shape = fine.level.V.shape
        moves = moves_on(self.problem, fine.level)
        choice = fine.choice if fine.choice.size else np.zeros(fine.V.size, np.intp)
        target = moves.targets_of(choice).reshape(*shape, -1)
        acts = fine.acts.reshape(shape)
        return {"stopping": acts, "target": np.where(acts[..., None], target, np.nan)}
