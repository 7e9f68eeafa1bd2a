"""What a policy costs: one linear solve, against the best one on that operator."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

import hjbpde as hjb
from hjbpde import Box, ControlProblem, Grid, GridSolution, HJBError

from .candidate import Subject

Array = NDArray[np.float64]

# Upwind differences, because there every policy meets one and the same operator, the
# best policy's value is the largest node by node, and regret cannot be negative.
OPERATOR = hjb.PolicyIteration(scheme=hjb.Upwind(), order=1)
REFINEMENTS = 2
MOST_NODES = 2**20
TRUST = 1e-3
"""Largest algebraic residual, relative to sup|V|, of a policy value worth reading."""


@dataclass(frozen=True, eq=False)
class Regret:
    """V minus the value of the judged policy (with cost: the reverse), on nodes.

    `map` (*shape) >= 0; `bar` (*shape) is its change from the grid twice as coarse.
    `policy` and `best_policy` (*shape, m) are the controls compared: outside the
    region both are the best one. `moved` (*shape, m) is how far the candidate's
    controls lay outside their set. `note` says why there is no map.
    """

    grid: Grid
    inside: NDArray[np.bool_]
    policy: Array
    best_policy: Array
    moved: Array
    map: Array | None
    bar: Array | None
    note: str = ""

    def worst(self) -> tuple[float, Array]:
        """Largest regret in the region and its place."""
        assert self.map is not None
        inside = np.where(self.inside, self.map, -np.inf)
        place = np.unravel_index(int(inside.argmax()), inside.shape)
        return float(inside[place]), self.grid.nodes()[place]

    def undecided(self, allowed: float) -> bool:
        """Whether `allowed` lies between regret - bar and regret + bar."""
        if self.map is None:
            return False
        return abs(self.worst()[0] - allowed) < self.largest_bar()

    def largest_bar(self) -> float:
        """Largest bar in the region."""
        assert self.bar is not None
        return float(self.bar[self.inside].max())


def decided_regret(
    subject: Subject,
    problem: ControlProblem,
    grid: Grid,
    region: Box,
    allowed: float,
) -> Regret:
    """`regret_of` on `grid`, refined while its bar hides which side of `allowed` it is.

    At most `REFINEMENTS` times and up to `MOST_NODES`: the monotone operator is first
    order, so its grid may have to be finer than the reference's.
    """
    regret = regret_of(subject, problem, grid, region)
    for _ in range(REFINEMENTS):
        if not regret.undecided(allowed) or grid.size * 2**grid.dimension > MOST_NODES:
            break
        grid = grid.refined()
        finer = regret_of(subject, problem, grid, region)
        if finer.map is None:
            break
        regret = finer
    return regret


def regret_of(
    subject: Subject, problem: ControlProblem, grid: Grid, region: Box
) -> Regret:
    """Regret of the subject's policy on `grid`, judged inside `region`.

    ``rho V^a = r(x, a(x)) + L^a V^a`` is solved once; the best value comes from policy
    iteration with the same monotone operator, so their difference is >= 0 and holds
    no discretisation noise. A policy that could not be evaluated has no map.
    """
    inside = within(grid, region)
    fallback = np.zeros((*grid.shape, problem.n_controls))
    try:
        best = hjb.solve(problem, grid, OPERATOR)
    except HJBError as cause:
        return Regret(
            grid, inside, fallback, fallback, fallback, None, None, str(cause)
        )
    policy, moved = fallback.copy(), fallback.copy()
    policy[inside], moved[inside] = subject.control(grid.nodes()[inside])
    policy[~inside] = best.control[~inside]
    known = np.isfinite(policy).all()
    fine, note = _gap(problem, grid, policy, best) if known else (None, "not finite")
    if fine is None:
        return Regret(grid, inside, policy, best.control, moved, None, None, note)
    bar = _bar(problem, grid, policy, fine)
    return Regret(grid, inside, policy, best.control, moved, fine, bar)


def within(grid: Grid, region: Box) -> NDArray[np.bool_]:
    """Which nodes lie in `region`, (*shape)."""
    slack = 1e-12 * float(np.max(region.width))
    return Box(region.low, region.high).contains(grid.nodes(), slack)


def _gap(
    problem: ControlProblem, grid: Grid, policy: Array, best: GridSolution
) -> tuple[Array | None, str]:
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


def _bar(problem: ControlProblem, grid: Grid, policy: Array, fine: Array) -> Array:
    # The regret's own discretisation error, seen by halving the grid.
    none = np.full(grid.shape, np.inf)
    if min(grid.shape) < 5:
        return none
    coarse = grid.coarsened()
    kept = np.ix_(*(grid.kept(k) for k in range(grid.dimension)))
    try:
        best = hjb.solve(problem, coarse, OPERATOR)
    except HJBError:
        return none
    gap, _ = _gap(problem, coarse, policy[kept], best)
    if gap is None:
        return none
    return np.asarray(grid_map(coarse, np.abs(gap - fine[kept]), grid))


def grid_map(coarse: Grid, values: Array, fine: Grid) -> Array:
    """Values of a coarse grid at the nodes of a finer one, linear in between."""
    return coarse.interpolate(values, fine.nodes())
