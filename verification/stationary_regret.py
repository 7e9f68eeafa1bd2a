"""What strategies that do not depend on time cost, on one monotone operator."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

import hjbpde as hjb
from hjbpde import Box, ControlProblem, Grid, GridSolution, HJBError

from .reference import running
from .regret import Losses, Regret, Tables, change_by_halving, within
from .settlement import stopped_problem
from .strategy import (
    OPERATOR,
    Strategy,
    adversaries,
    controllers,
    has_finite_sets,
)
from .subject import Subject

Array = NDArray[np.float64]

TRUST = 1e-3
"""Largest algebraic residual, relative to sup|V|, of a policy value worth reading."""


def stationary_losses(subject: Subject, grid: Grid, region: Box) -> Losses:
    """The regret on `grid` of strategies that do not depend on time, inside `region`.

    The best value and those of the strategies, each answered best, come from policy
    iteration with one monotone operator, so their difference is >= 0 and holds no
    discretisation noise. A stopping rule is an exit at what stopping pays. A strategy
    that could not be evaluated has no map.
    """
    problem = subject.problem
    inside = within(grid, region) & running(problem, grid.nodes())
    try:
        best = hjb.solve(problem, grid, OPERATOR)
    except HJBError as cause:
        nothing = np.zeros((*grid.shape, problem.n_controls))
        lost = Regret(grid, inside, nothing, None, nothing, None, None, str(cause))
        return Losses((lost,), None)
    left = stopped_problem(subject, grid, inside, best) if problem.stops else problem
    contest = Contest(problem, grid, inside, best)
    own = controllers(subject, left, grid, inside, best.control)
    if problem.adversary is None:
        tables = Tables(grid, np.zeros(1), own.policy[None], best.control[None])
        return Losses((contest.regret(own, best.control),), tables)
    reply, b = adversaries(subject, grid, inside, best), best.adversary_control  # type: ignore[attr-defined]
    both = [np.concatenate(pair, axis=-1)[None] for pair in
            ((own.policy, reply.policy), (best.control, b))]  # fmt: skip
    return Losses(
        (contest.regret(own, best.control),),
        Tables(grid, np.zeros(1), *both, nearest=has_finite_sets(problem)),
        (contest.regret(reply, b),),
    )


@dataclass(frozen=True, eq=False)
class Contest:
    """The best value on a grid, with which strategies are compared."""

    problem: ControlProblem
    grid: Grid
    inside: NDArray[np.bool_]
    best: GridSolution

    def regret(self, own: Strategy, best_policy: Array) -> Regret:
        """What a strategy loses, and its change from the grid twice as coarse."""
        fixed = self.grid, self.inside, own.policy, best_policy, own.moved
        fine, note = None, "not finite"
        if np.isfinite(own.policy).all():
            fine, note = self._lost(own, self.grid, self.best)
        if fine is None:
            return Regret(*fixed, None, None, note)
        return Regret(*fixed, fine, self._bar(own, fine))

    def _lost(
        self, own: Strategy, grid: Grid, best: GridSolution
    ) -> tuple[Array | None, str]:
        if isinstance(own.worth, str):
            return None, own.worth
        try:
            found = own.worth(grid)
        except HJBError as cause:
            return None, str(cause)
        size = float(np.abs(found.value).max())
        residual = found.report.residuals[-1] if found.report.residuals else 0.0
        if not np.isfinite(size) or residual > TRUST * max(size, 1e-300):
            return None, (
                f"the value of the policy was not found (residual bound {residual:.2g})"
                ": the policy may drive the state to where its value is infinite."
            )
        gap = own.sense * self.problem.sign * (best.value - found.value)
        return np.maximum(gap, 0.0), ""

    def _bar(self, own: Strategy, fine: Array) -> Array:
        # The regret's own discretisation error, seen by halving the grid.
        gap = None if self._coarse is None else self._lost(own, *self._coarse)[0]
        if gap is None:
            return np.full(self.grid.shape, np.inf)
        return change_by_halving(self.grid, fine, gap)

    @cached_property
    def _coarse(self) -> tuple[Grid, GridSolution] | None:
        """The grid twice as coarse with the best value there."""
        if min(self.grid.shape) < 5:
            return None
        coarse = self.grid.coarsened()
        try:
            return coarse, hjb.solve(self.problem, coarse, OPERATOR)
        except HJBError:
            return None
