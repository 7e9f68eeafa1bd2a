"""What a policy of controls and moves at once costs, on one monotone operator."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

import hjbpde as hjb
from hjbpde import Box, Grid, GridSolution, HJBError
from hjbpde.fixed_moves import MovingValue, follow_moves

from .moves import moves_of
from .nearest import nearest
from .reference import running
from .regret import Losses, Regret, change_by_halving, within
from .stationary_regret import Contest
from .strategy import OPERATOR
from .subject import Subject
from .ties import controls_toward

Array = NDArray[np.float64]


def impulse_losses(subject: Subject, grid: Grid, region: Box) -> Losses:
    """The regret of controls and moves, inside `region`; outside the best ones.

    A policy that moves the state for ever, from one target to the next, costs
    infinitely much.
    """
    problem = subject.problem
    inside = within(grid, region) & running(problem, grid.nodes())
    try:
        best = hjb.solve(problem, grid, OPERATOR)
    except HJBError as cause:
        nothing = np.zeros((*grid.shape, problem.n_controls))
        lost = Regret(grid, inside, nothing, None, nothing, None, None, str(cause))
        return Losses((lost,), None)
    policy, moved = best.control.copy(), np.zeros_like(best.control)
    target = np.array(best.target)  # type: ignore[attr-defined]
    x = grid.nodes()[inside]
    target[inside] = moves_of(subject, x)
    policy[inside], moved[inside] = controls_toward(subject, x, policy[inside])
    contest = MovingContest(problem, grid, inside, best)
    return Losses((contest.moved(policy, target, moved),), None)


@dataclass(frozen=True, eq=False)
class MovingContest(Contest):
    """The best value on a grid, with which policies that move are compared."""

    def moved(self, policy: Array, target: Array, moved: Array) -> Regret:
        """What controls (*shape, m) and moves to `target` (*shape, d) lose.

        The bar: the change from the grid twice as coarse, and what moves cost that are
        made a node sooner.
        """
        fixed = self.grid, self.inside, policy, self.best.control, moved
        if not np.isfinite(policy).all():
            return Regret(*fixed, None, None, "not finite")
        own = self._worth(policy, target, self.grid, self.best)
        if own.value is None:
            endless = np.full(self.grid.shape, np.inf)
            return Regret(*fixed, endless, np.zeros(self.grid.shape), ENDLESS)
        fine = self._loss(own.value, self.best)
        bar = np.full(self.grid.shape, np.inf)
        if own.wider is not None:
            bar = np.abs(own.wider - own.value)
        return Regret(*fixed, fine, bar + self._change(policy, target, fine))

    def _worth(
        self, policy: Array, target: Array, grid: Grid, best: GridSolution
    ) -> MovingValue:
        return follow_moves(self.problem, grid, policy, target, best.value)

    def _loss(self, own: Array, best: GridSolution) -> Array:
        return np.maximum(self.problem.sign * (best.value - own), 0.0)

    def _change(self, policy: Array, target: Array, fine: Array) -> Array:
        unknown = np.full(self.grid.shape, np.inf)
        if self._coarse is None:
            return unknown
        grid, best = self._coarse
        at = nearest(self.grid, grid.nodes())
        own = self._worth(policy[at], target[at], grid, best)
        if own.value is None:
            return unknown
        return change_by_halving(self.grid, fine, self._loss(own.value, best))


ENDLESS = "the policy moves the state for ever, from one target to the next."
