"""What a policy of time costs, on one monotone operator marched to today."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hjbpde import Box, Grid, HJBError
from hjbpde.fixed_policy import Beside, march_beside

from .candidate import Subject
from .reference import running
from .regret import Losses, Regret, Tables, grid_map, within

Array = NDArray[np.float64]

TABLES = 17
"""Times at which both policies are kept for simulation."""


class _NotFinite(HJBError):
    """Raised inside a march to end it at the first control that is no number."""


@dataclass(eq=False)
class _Rule:
    """The candidate inside the region, the best policy elsewhere."""

    subject: Subject
    grid: Grid
    inside: NDArray[np.bool_]
    moved: Array = field(init=False)
    bad: tuple[float, Array] | None = None

    def __post_init__(self) -> None:
        self.moved = np.zeros((*self.grid.shape, self.subject.problem.n_controls))

    def __call__(
        self, t: float, control: Array, stops: NDArray[np.bool_]
    ) -> tuple[Array, NDArray[np.bool_]]:
        """Controls and stops on the nodes at time t."""
        now, x = self.subject.at(t), self.grid.nodes()[self.inside]
        control, stops = control.copy(), stops.copy()
        control[self.inside], moved = now.control(x)
        if not np.isfinite(control).all():
            self.bad = (t, control)
            raise _NotFinite("not finite")
        self.moved[self.inside] = np.maximum(self.moved[self.inside], moved)
        stops[self.inside] = now.stops(x)
        return control, stops


def timed_losses(
    subject: Subject, grid: Grid, region: Box, times: Array, steps: int
) -> Losses:
    """The regret at `times` of a policy a(x, t), by implicit upwind steps.

    Both values are marched together (`march_beside`), so that their difference is
    >= 0 and holds no discretisation noise; the bar is its change from the grid and
    the steps twice as coarse.
    """
    assert subject.problem.horizon is not None
    inside = within(grid, region) & running(subject.at(0.0).problem, grid.nodes())
    keep = np.union1d(times, np.linspace(0, float(subject.problem.horizon), TABLES))
    rule = _Rule(subject, grid, inside)
    try:
        found = march_beside(subject.problem, grid, rule, keep, steps)
    except HJBError as cause:
        return _none(rule, times, str(cause))
    bars = _bars(rule, found, times, steps)
    regrets = [
        Regret(
            grid, inside, found.policy[i], found.best_policy[i], rule.moved,
            _loss(subject, found, i), bars[j], time=float(times[j]),
        )
        for j, i in enumerate(np.searchsorted(found.times, times))
    ]  # fmt: skip
    tables = Tables(grid, found.times, found.policy, found.best_policy)
    return Losses(tuple(regrets), tables)


def _loss(subject: Subject, found: Beside, i: int) -> Array:
    gap = subject.problem.sign * (found.best[i] - found.own[i])
    return np.maximum(gap, 0.0)


def _bars(rule: _Rule, found: Beside, times: Array, steps: int) -> list[Array]:
    """|change| of the loss from a grid and steps twice as coarse, (T, *shape)."""
    grid, subject = rule.grid, rule.subject
    none = [np.full(grid.shape, np.inf) for _ in times]
    if min(grid.shape) < 5:
        return none
    coarse = grid.coarsened()
    kept = np.ix_(*(grid.kept(k) for k in range(grid.dimension)))
    halved = _Rule(subject, coarse, rule.inside[kept])
    try:
        other = march_beside(subject.problem, coarse, halved, times, steps // 2)
    except HJBError:
        return none
    bars = []
    for t in times:
        here, there = np.searchsorted(found.times, t), np.searchsorted(other.times, t)
        fine = _loss(subject, found, int(here))
        change = np.abs(_loss(subject, other, int(there)) - fine[kept])
        bars.append(np.asarray(grid_map(coarse, change, grid)))
    return bars


def _none(rule: _Rule, times: Array, note: str) -> Losses:
    """No regret: the policy is not finite, or could not be followed."""
    grid = rule.grid
    zero = np.zeros((*grid.shape, rule.subject.problem.n_controls))
    t, policy = (float(times[0]), zero) if rule.bad is None else rule.bad
    nothing = None, rule.moved, None, None, note, t
    return Losses((Regret(grid, rule.inside, policy, *nothing),), None)
