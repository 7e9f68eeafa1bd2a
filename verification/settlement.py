"""A stopping rule held fast: the problem that ends where the candidate stops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hjbpde import ControlProblem, Exit, Grid, GridSolution
from hjbpde.given_data import given_at

from .reference import running
from .subject import Subject

Array = NDArray[np.float64]


def stopped_problem(
    subject: Subject, grid: Grid, inside: NDArray[np.bool_], best: GridSolution
) -> ControlProblem | str:
    """The problem that ends where the candidate stops, or why there is none.

    Outside the region it stops where the best does.
    """
    problem = subject.problem
    sides = {stop.by for stop in problem.stops}
    if problem.adversary is not None and sides == {"adversary"}:
        return problem
    if "adversary" in sides:
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
        return np.where(running(problem, x), out, given_at(problem.exit.value, x))

    return region, value
