"""Where a candidate moves the state at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hjbpde import ControlProblem

from .reference import Instant
from .residual import crossing_rate, equation_gap
from .subject import Subject, checked
from .targets import best_move, nearest_target
from .when import When

Array = NDArray[np.float64]

AHEAD = 0.1
"""Share of the domain's width by which waiting looks ahead."""


def moves_of(subject: Subject, x: Array) -> Array:
    """The states moved to from x (n, d), NaN where the state is left alone.

    Those given, at the nearest targets that there are, or the greedy ones of the value.
    One of ``rho V - sup_a H = 0`` and ``V - M V = 0`` holds, and where the state is
    moved the second does, to what V is known; so it is moved where that is the smaller
    fault, the first one's being what is lost by waiting for as long as the state takes
    for a tenth of the domain. A much shorter wait would follow every error of V, a much
    longer one every error of its curvature.
    """
    if subject.functions.move is not None:
        return nearest_target(
            subject, x, checked(subject.functions.move(x), x.shape, "move")
        )
    worth, target = best_move(subject, x)
    sign, now = subject.problem.sign, Instant(When(), subject.problem, subject, None)
    moving = sign * (subject.value(x) - worth)
    waiting = sign * equation_gap(subject, now, x, short_wait)
    target[~(moving <= np.where(np.isnan(waiting), np.inf, waiting))] = np.nan
    return target


def short_wait(problem: ControlProblem, x: Array, a: Array) -> Array:
    """The rate of a wait that the state needs for a tenth of the domain, (n,)."""
    rho = np.asarray(problem.discount_at(x), dtype=float)
    return rho + crossing_rate(problem, x, a, AHEAD)
