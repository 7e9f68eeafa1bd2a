"""What a policy loses a unit of time in the long run."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

import hjbpde as hjb
from hjbpde import Box, Grid, GridSolution, HJBError

from .long_run import Averages, averages_of
from .regret import Losses, Regret, Tables, grid_map, within
from .stationary_regret import Contest
from .strategy import OPERATOR, Strategy, controllers
from .subject import Subject

Array = NDArray[np.float64]

HYBRID = hjb.PolicyIteration(order=1)


def average_losses(subject: Subject, grid: Grid, region: Box) -> Losses:
    """The regret of a policy as its loss in the long-run average, per unit of time.

    Both averages are those of one monotone operator on `grid`, so no policy has a
    better one than the best. The map (*shape) is the loss by where the state starts:
    the same everywhere, unless the policy lets it fall into parts that never meet.
    """
    problem, inside = subject.problem, within(grid, region)
    try:
        best = hjb.solve(problem, grid, OPERATOR)
    except HJBError as cause:
        nothing = np.zeros((*grid.shape, problem.n_controls))
        lost = Regret(grid, inside, nothing, None, nothing, None, None, str(cause))
        return Losses((lost,), None)
    own = controllers(subject, problem, grid, inside, best.control)
    tables = Tables(grid, np.zeros(1), own.policy[None], best.control[None])
    found = LongRunContest(problem, grid, inside, best).regret(own, best.control)
    return Losses((found,), tables)


@dataclass(frozen=True, eq=False)
class LongRunContest(Contest):
    """The best long-run average on a grid, with which policies are compared."""

    def regret(self, own: Strategy, best_policy: Array) -> Regret:
        """What a policy loses, and its bar."""
        fixed = self.grid, self.inside, own.policy, best_policy, own.moved
        if not np.isfinite(own.policy).all():
            return Regret(*fixed, None, None, "not finite")
        try:
            averages = self._averages(own, self.grid)
        except HJBError as cause:
            return Regret(*fixed, None, None, str(cause))
        fine = self._loss(averages, self.best)
        averages = replace(averages, best=self.best.average)
        return Regret(*fixed, fine, self._change(own, fine, averages), "", averages)

    def _averages(self, own: Strategy, grid: Grid) -> Averages:
        assert not isinstance(own.worth, str)
        return averages_of(own.worth(grid))

    def _loss(self, averages: Averages, best: GridSolution) -> Array:
        assert best.average is not None
        gap = self.problem.sign * (best.average - averages.by_start)
        return np.maximum(gap, 0.0)

    def _change(self, own: Strategy, fine: Array, averages: Averages) -> Array:
        """The error of the loss where it is ``a h + b h^2``, at least its last change.

        Of two averages of first order the terms in h may nearly cancel, and one change
        would then say too little; unlike a map of losses an average has no neighbours
        that would. At least also the distance to the loss on the hybrid scheme, which
        is of second order where the noise allows.
        """
        losses = self._coarser(own)
        if not losses:
            return np.full(self.grid.shape, np.inf)
        near, bar = fine - losses[0], np.abs(fine - losses[0])
        if len(losses) > 1:
            far = losses[0] - losses[1]
            bar = np.maximum(bar, np.abs(5.0 * near - far) / 3.0)
        bar = np.maximum(bar, np.abs(self._second_opinion(own, averages) - fine))
        return bar + averages.error

    def _second_opinion(self, own: Strategy, averages: Averages) -> Array | float:
        """The loss on the hybrid scheme; that at hand where there is none."""
        here = self._loss(averages, self.best)
        if averages.parts > 1:
            return here
        try:
            best = hjb.solve(self.problem, self.grid, HYBRID)
            found = hjb.evaluate(self.problem, self.grid, own.policy, HYBRID)
        except HJBError:
            return here
        assert best.average is not None and found.average is not None
        return self.problem.sign * (best.average - found.average)

    def _coarser(self, own: Strategy) -> list[Array]:
        """The loss on grids twice and four times as coarse, at the nodes of `grid`."""
        grid, out = self.grid, []
        while min(grid.shape) >= 5 and len(out) < 2:
            grid = grid.coarsened()
            try:
                best = hjb.solve(self.problem, grid, OPERATOR)
                loss = self._loss(self._averages(own, grid), best)
            except HJBError:
                break
            out.append(grid_map(grid, loss, self.grid))
        return out
