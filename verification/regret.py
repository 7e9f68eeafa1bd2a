"""What a policy costs: its value against the best one's, on one operator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

import hjbpde as hjb
from hjbpde import (
    Box,
    ControlProblem,
    Exit,
    Grid,
    GridSolution,
    HJBError,
)

from .candidate import Subject
from .reference import running
from .ruling import ACCUSING

Array = NDArray[np.float64]

# Upwind differences, because there every policy meets one and the same operator, the
# best policy's value is the largest node by node, and regret cannot be negative.
OPERATOR = hjb.PolicyIteration(scheme=hjb.Upwind(), order=1)
TRUST = 1e-3
"""Largest algebraic residual, relative to sup|V|, of a policy value worth reading."""


@dataclass(frozen=True, eq=False)
class Regret:
    """V minus the value of the judged policy (with cost: the reverse), on nodes.

    `map` (*shape) >= 0; `bar` (*shape) is its change from the grid twice as coarse.
    `policy` and `best_policy` (*shape, m) are the controls compared: outside the
    region both are the best one, None if unknown. `moved` (*shape, m) is how far the
    candidate's controls lay outside their set. `note` says why there is no map,
    `time` when.
    """

    grid: Grid
    inside: NDArray[np.bool_]
    policy: Array
    best_policy: Array | None
    moved: Array
    map: Array | None
    bar: Array | None
    note: str = ""
    time: float | None = None

    def worst(self) -> tuple[float, Array]:
        """Largest regret in the region and its place."""
        assert self.map is not None
        inside = np.where(self.inside, self.map, -np.inf)
        place = np.unravel_index(int(inside.argmax()), inside.shape)
        return float(inside[place]), self.grid.nodes()[place]

    def places(self, x: Array) -> Array:
        """Points x (..., d), with the time as a last column where there is one."""
        if self.time is None:
            return x
        return np.concatenate([x, np.full((*x.shape[:-1], 1), self.time)], axis=-1)

    def undecided(self, allowed: float) -> bool:
        """Whether the bar leaves open which side of `allowed` the regret is."""
        if self.map is None:
            return False
        regret, bar = self.worst()[0], self.largest_bar()
        return regret - ACCUSING * bar <= allowed < regret + bar

    def largest_bar(self) -> float:
        """Largest bar in the region."""
        assert self.bar is not None
        return float(self.bar[self.inside].max())


@dataclass(frozen=True, eq=False)
class Tables:
    """Both policies on the nodes, (T, *shape, m), at times (T,); one stationary."""

    grid: Grid
    times: Array
    policy: Array
    best_policy: Array


@dataclass(frozen=True, eq=False)
class Losses:
    """The regret at every time judged, and the policies behind it.

    `tables` is None where the best policy is not known.
    """

    regrets: tuple[Regret, ...]
    tables: Tables | None

    def undecided(self, allowed: float) -> bool:
        """Whether the bar hides somewhere which side of `allowed` the regret is."""
        return any(regret.undecided(allowed) for regret in self.regrets)

    @property
    def missing(self) -> Regret | None:
        """One whose regret could not be computed, if there is one."""
        return next((r for r in self.regrets if r.map is None), None)

    def deciding(self, allowed: float) -> Regret:
        """The time that loses more than `allowed` by most, else the least certain."""

        def surely(regret: Regret) -> float:
            return regret.worst()[0] - ACCUSING * regret.largest_bar()

        def perhaps(regret: Regret) -> float:
            return regret.worst()[0] + regret.largest_bar()

        worst = max(self.regrets, key=surely)
        return worst if surely(worst) > allowed else max(self.regrets, key=perhaps)


def stationary_losses(subject: Subject, grid: Grid, region: Box) -> Losses:
    """The regret of a policy that does not depend on time, as `Losses`."""
    regret = regret_of(subject, grid, region)
    if regret.best_policy is None:
        return Losses((regret,), None)
    tables = Tables(grid, np.zeros(1), regret.policy[None], regret.best_policy[None])
    return Losses((regret,), tables)


def regret_of(subject: Subject, grid: Grid, region: Box) -> Regret:
    """Regret of the subject's policy on `grid`, judged inside `region`.

    ``rho V^a = r(x, a(x)) + L^a V^a`` is solved once; the best value comes from policy
    iteration with the same monotone operator, so their difference is >= 0 and holds
    no discretisation noise. A stopping rule is an exit at what stopping pays. A policy
    that could not be evaluated has no map.
    """
    problem = subject.problem
    inside = within(grid, region) & running(problem, grid.nodes())
    fallback = np.zeros((*grid.shape, problem.n_controls))
    try:
        best = hjb.solve(problem, grid, OPERATOR)
    except HJBError as cause:
        return Regret(grid, inside, fallback, None, fallback, None, None, str(cause))
    policy, moved = fallback.copy(), fallback.copy()
    policy[inside], moved[inside] = subject.control(grid.nodes()[inside])
    policy[~inside] = best.control[~inside]
    known = np.isfinite(policy).all()
    own = subject.problem
    if problem.stops:
        own = stopped_problem(subject, grid, inside, best)
    fine, note = _gap(own, grid, policy, best) if known else (None, "not finite")
    if fine is None:
        return Regret(grid, inside, policy, best.control, moved, None, None, note)
    bar = _bar((problem, own), grid, policy, fine)
    return Regret(grid, inside, policy, best.control, moved, fine, bar)


def stopped_problem(
    subject: Subject, grid: Grid, inside: NDArray[np.bool_], best: GridSolution
) -> ControlProblem | str:
    """The problem that ends where the candidate stops, or why there is none.

    Outside the region it stops where the best does.
    """
    problem = subject.problem
    if any(stop.by == "adversary" for stop in problem.stops):
        return (
            "without a horizon, a policy is not evaluated against an adversary who "
            "may stop."
        )
    stops = np.array(best.stopping, dtype=bool)
    stops[inside] = subject.stops(grid.nodes()[inside])
    if not stops.any():
        return replace(problem, stop=None)
    payoff = problem.stops[0].payoff
    return replace(
        problem, stop=None, exit=Exit(*_ending(problem, grid, stops, payoff))
    )


def _ending(
    problem: ControlProblem,
    grid: Grid,
    stops: NDArray[np.bool_],
    payoff: Callable[[Any], Any],
) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """Region and value of an exit that adds the stopping nodes to the problem's own."""

    def region(x: Array) -> Array:
        nearest = tuple(
            np.abs(axis[:, None] - np.ravel(x[..., k])).argmin(axis=0)
            for k, axis in enumerate(grid.axes)
        )
        goes_on = ~stops[nearest].reshape(x.shape[:-1])
        return np.where(goes_on & running(problem, x), 1.0, -1.0)

    def value(x: Array) -> Array:
        out = np.asarray(payoff(x), dtype=float)
        if problem.exit is None:
            return out
        g: Any = problem.exit.value
        ended = np.asarray(g(x) if callable(g) else g, dtype=float)
        return np.where(running(problem, x), out, ended)

    return region, value


def within(grid: Grid, region: Box) -> NDArray[np.bool_]:
    """Which nodes lie in `region`, (*shape)."""
    slack = 1e-12 * float(np.max(region.width))
    return Box(region.low, region.high).contains(grid.nodes(), slack)


def _gap(
    problem: ControlProblem | str, grid: Grid, policy: Array, best: GridSolution
) -> tuple[Array | None, str]:
    if isinstance(problem, str):
        return None, problem
    try:
        own = hjb.evaluate(problem, grid, policy, OPERATOR, strict=False)
    except HJBError as cause:
        return None, str(cause)
    size = float(np.abs(own.value).max())
    residual = own.report.residuals[-1] if own.report.residuals else 0.0
    if not np.isfinite(size) or residual > TRUST * max(size, 1e-300):
        return None, (
            f"the value of the policy was not found (residual bound {residual:.2g}): "
            "the policy may drive the state to where its value is infinite."
        )
    return np.maximum(problem.sign * (best.value - own.value), 0.0), ""


def _bar(
    problems: tuple[ControlProblem, ControlProblem | str],
    grid: Grid,
    policy: Array,
    fine: Array,
) -> Array:
    # The regret's own discretisation error, seen by halving the grid.
    problem, own = problems
    none = np.full(grid.shape, np.inf)
    if min(grid.shape) < 5:
        return none
    coarse = grid.coarsened()
    kept = np.ix_(*(grid.kept(k) for k in range(grid.dimension)))
    try:
        best = hjb.solve(problem, coarse, OPERATOR)
    except HJBError:
        return none
    gap, _ = _gap(own, coarse, policy[kept], best)
    if gap is None:
        return none
    return np.asarray(grid_map(coarse, np.abs(gap - fine[kept]), grid))


def grid_map(coarse: Grid, values: Array, fine: Grid) -> Array:
    """Values of a coarse grid at the nodes of a finer one, linear in between."""
    return coarse.interpolate(values, fine.nodes())
