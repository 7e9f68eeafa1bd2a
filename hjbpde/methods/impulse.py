"""Impulse control: iterated optimal stopping, sped up by following the policy.

``V_0`` is the value without impulses and ``V_{n+1}`` that of stopping once for
``M V_n = max_y { V_n(y) - c(., y) }``, by the obstacle of policy iteration. From below
V_n increases to V_h, geometrically in n because every move costs at least k > 0
(Hanouzet and Joly, C. R. Acad. Sci. Paris 286 (1978) 735; Oksendal and Sulem, Applied
Stochastic Control of Jump Diffusions, 2nd ed., theorem 7.2).

After each of these problems the policy found (controls, where to move, to where) is
followed for ever: one sparse linear system, whose solution lies between V_{n+1} and
V_h, so that a handful of problems is enough. This is Howard's iteration for impulses
(Azimzadeh and Forsyth, SIAM J. Numer. Anal. 54 (2016) 1341). The system is regular
where every chain of moves ends at a node that waits (it is then weakly chained and
diagonally dominant, their section 2), which is checked: a start carried over from a
coarser grid may suggest moves in a circle. Then only the stopping problem counts.

The number of moves. Under a policy, ``N(x) = E sum_i exp(-rho tau_i)`` over the moves
from x solves the same system with 1 at the nodes that move and 0 elsewhere. Whatever is
wrong by e at every move - M, or the value after it - makes V wrong by N(x) e.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from ..error_bar import SAFETY, ErrorBar, truncation_bar
from ..errors import ProblemError
from ..grid import Grid
from ..interpolation import Interpolant
from ..problem import ControlProblem
from .bounds import free_boundary_part, kinked_bound, region_mask
from .nested import RunOptions, settle
from .policy_iteration import EPS, PolicyIteration
from .state import GridState

Array = NDArray[np.float64]
MOST_STOPS = 200
"""Stopping problems on one grid before giving up."""
CLOSING_STOPS = 6
"""Stopping problems in which the slopes at artificial faces are still continued."""
PAIRS = 2**22
"""Pairs of state and target compared at once."""


@dataclass(eq=False)
class Moves:
    """Every move from the nodes of one grid.

    targets (N or 1, n, d); cost (N, n), in the units of V; weights: CSR, one row a
    target (those of each node one after the other where they differ).
    """

    grid: Grid
    targets: Array
    cost: Array
    weights: sp.csr_matrix

    @classmethod
    def of(cls, problem: ControlProblem, grid: Grid) -> Moves:
        """The targets and costs of the problem's impulse, checked at every node.

        Raises
        ------
        ProblemError
            A cost that is not positive, a target outside the domain, a wrong shape.
        """
        x = grid.nodes().reshape(grid.size, -1)
        y = problem.impulse.targets_from(x)
        flat = y.reshape(-1, grid.dimension)
        outside = ~grid.domain.contains(grid.domain.wrap(flat), 1e-12)
        if outside.any():
            raise ProblemError(
                f"'impulse': the target {flat[outside][0]} lies outside the domain "
                f"{grid.domain}."
            )
        weights = Interpolant(grid, np.zeros(grid.shape)).linear_weights(flat)
        return cls(grid, y, np.array(problem.impulse.costs(x, y)), weights)

    def best(self, V: Array) -> tuple[Array, NDArray[np.intp]]:
        """M V on the nodes (N,), and the number of the target chosen (N,)."""
        n = self.cost.shape[1]
        reached = (self.weights @ V.ravel()).reshape(-1, n)
        reached = np.broadcast_to(reached, self.cost.shape)
        worth = np.empty(len(self.cost))
        choice = np.empty(len(self.cost), np.intp)
        step = max(1, PAIRS // n)
        for start in range(0, len(worth), step):
            block = slice(start, start + step)
            gain = reached[block] - self.cost[block]
            choice[block] = gain.argmax(1)
            worth[block] = gain.max(1)
        return worth, choice

    def rows_of(self, choice: NDArray[np.intp]) -> NDArray[np.intp]:
        """The rows of `weights` that belong to a choice (N,)."""
        if len(self.targets) == 1:
            return choice
        return np.arange(len(choice)) * self.cost.shape[1] + choice

    def targets_of(self, choice: NDArray[np.intp]) -> Array:
        """The states chosen, (N, d)."""
        flat = self.targets.reshape(-1, self.grid.dimension)
        return flat[self.rows_of(choice)]


@dataclass(eq=False)
class Policy:
    """Where the state is moved (N,), which target is chosen (N,), and what follows.

    count (N,): the expected discounted number of moves, infinite where the policy
    moves for ever. gap: the last change of V from one stopping problem to the next.
    """

    acts: NDArray[np.bool_]
    choice: NDArray[np.intp]
    count: Array
    gap: float


def ends(moved: sp.csr_matrix, acts: NDArray[np.bool_]) -> bool:
    """Whether every chain of moves, rows of `moved`, reaches a node that waits."""
    reached, before = ~acts, -1
    while before < np.count_nonzero(reached):
        before = np.count_nonzero(reached)
        reached = reached | (moved @ reached.astype(float) > 0)
    return bool(reached.all())


def follow(
    state: GridState, moves: Moves, acts: NDArray[np.bool_], choice: NDArray[np.intp]
) -> tuple[Array, Array] | None:
    """Value and number of moves (N,) of the policy; None where it moves for ever."""
    assert state.under is not None
    moved = sp.csr_matrix(moves.weights[moves.rows_of(choice)])
    if not ends(moved, acts):
        return None
    rows, rhs = state.folded(state.under)
    number = np.arange(len(acts))
    stays, goes = sp.diags((~acts).astype(float)), sp.diags(acts.astype(float))
    away = sp.identity(len(acts)) - moved
    system = sp.csc_matrix(stays @ rows.matrix() + goes @ away)
    rhs = np.where(acts, -moves.cost[number, choice], rhs)
    both = np.stack([rhs, acts.astype(float)], axis=1)
    value, count = sp.linalg.splu(system).solve(both).T
    return value, np.maximum(count, 0.0)


@dataclass(eq=False)
class ImpulseIteration:
    """Iterated optimal stopping on every grid of one solve.

    found: moves and policy of the grid solved last.
    """

    problem: ControlProblem
    found: tuple[Moves, Policy] | None = field(default=None)

    def settle(
        self,
        state: GridState,
        method: PolicyIteration,
        options: RunOptions,
        first: bool,
    ) -> None:
        """Solve one grid, in place, as a `GridSolver`."""
        if float(np.min(state.tables.rho)) <= 0:
            raise ProblemError("'impulse' needs a discount > 0 at every node.")
        moves = Moves.of(self.problem, state.grid)
        if first:
            settle(state, method, options, first)
        history, status = list(state.bounds), "not converged"
        for n in range(MOST_STOPS):
            closing = n < CLOSING_STOPS
            policy = self._stop(state, moves, method, options, (first, closing))
            history += state.bounds
            if state.status == "not converged":
                break
            followed = follow(state, moves, policy.acts, policy.choice)
            if followed is not None:
                value, policy.count = followed
            self.found = (moves, policy)
            reach = max(1.0, float(policy.count.max()))
            if reach * policy.gap <= max(options.tolerance, 1e-13) * state.scale:
                status = state.status
                break
            if time.monotonic() > options.deadline:
                break
            if followed is not None:
                state.V = value.reshape(state.grid.shape)
        state.status, state.bounds = status, history

    def memory(self) -> dict[str, Any]:
        """The policy of the grid solved last."""
        if self.found is None:
            return {}
        policy = vars(self.found[1])
        return {f"policy.{name}": np.array(part) for name, part in policy.items()}

    def recall(self, state: GridState, memory: Mapping[str, Any]) -> None:
        """The inverse of `memory`."""
        if "policy.acts" not in memory:
            return
        kept = {n: memory[f"policy.{n}"] for n in ("acts", "choice", "count")}
        policy = Policy(**kept, gap=float(memory["policy.gap"]))
        self.found = (Moves.of(self.problem, state.grid), policy)

    def _stop(
        self,
        state: GridState,
        moves: Moves,
        method: PolicyIteration,
        options: RunOptions,
        effort: tuple[bool, bool],
    ) -> Policy:
        """Solve the problem of stopping once for M V."""
        first, closing = effort
        before = state.V
        worth, choice = moves.best(before)
        if state.faces.fixed_mask is not None:
            # There the process has ended: nobody moves any more.
            worth[state.faces.fixed_mask.ravel()] = -np.inf
        state.least = worth.reshape(state.grid.shape)
        state.V, state.bounds = np.maximum(before, state.least), []
        settle(state, method, options, first, closing)
        gap = float(np.max(np.abs(state.V - before)))
        acts = state.stopped_nodes().ravel()
        return Policy(acts, choice, np.full(len(acts), np.inf), gap)


def impulse_bound(states: list[GridState], moves: Moves, policy: Policy) -> ErrorBar:
    """The bar of one stopping problem, and what is wrong at every later move.

    Nested grids compare values of the whole problem, so their part stands. Counted
    N(x) times over, besides: stopping at nodes instead of between them; reading V
    between nodes at the targets, ``|linear - cubic|`` and the cubic's own error; the
    truncation part at the targets used. The gap g of the iteration perturbs every cost
    by at most g, so it moves V by N g: twice that, since the discrete optimum may
    move a little more often than the policy found.
    """
    fine, bar = states[-1], kinked_bound(states)
    inner = region_mask(fine)
    if not policy.acts.any():
        return bar
    count = policy.count.reshape(fine.grid.shape)
    used = np.unique(moves.rows_of(policy.choice)[policy.acts])
    y = moves.targets.reshape(-1, fine.grid.dimension)[used]
    V = Interpolant(fine.grid, fine.V)
    missed = np.abs(V.cubic(y) - V.linear(y)) + V.uncertainty(y)
    nodal = np.diff(moves.weights[used].indptr) == 1
    missed = SAFETY * float(np.max(np.where(nodal, 0.0, missed)))
    cut = float(np.max(moves.weights[used] @ truncation_bar(fine, fine.V).ravel()))
    local = count * (free_boundary_part(fine) + missed)
    algebraic = (2 * policy.gap + 8 * EPS * fine.scale) * float(count.max())
    parts = dict(bar.parts)
    parts["discretisation"] += float(np.max(local[inner]))
    parts["truncation"] += float(np.max(count[inner])) * cut
    parts["algebraic"] += algebraic
    total = bar.total + local + count * cut + algebraic
    if fine.faces.fixed_mask is not None:
        total[fine.faces.fixed_mask] = bar.total[fine.faces.fixed_mask]
    assert bar.truncation is not None
    felt = bar.truncation + count * cut
    return ErrorBar(total, parts, bar.observed_order, bar.notes, felt)
