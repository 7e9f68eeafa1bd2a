"""Two players seen as one, and the same game with the order of play turned round."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays import namespace
from .held import keywords
from .problem import ControlProblem
from .sets import Box, ControlSet, Finite

_OF_CONTROLS = ("drift", "diffusion", "reward", "cost")
"""Functions of both players' controls."""
MOST_PROBED = 50
"""Points of a finite set that are paired with the other player's."""
CORNERS = 3
"""Points an axis of a box beside a finite set, for probing only."""


def one_player(problem: ControlProblem) -> ControlProblem:
    """The problem with a and b side by side as the control of one player."""
    if problem.adversary is None:
        return problem
    m = problem.n_controls

    def beside(function: Any) -> Any:
        if not callable(function):
            return function
        knows = "b" in keywords(function)

        def both(x: Any, u: Any) -> Any:
            a, b = u[..., :m], u[..., m:]
            return function(x, a, b=b) if knows else function(x, a)

        return both

    changed = {name: beside(getattr(problem, name)) for name in _OF_CONTROLS}
    joint = joined(problem.controls, problem.adversary)
    return replace(
        problem, **changed, controls=joint, adversary=None, best_control=None
    )


def swapped(problem: ControlProblem) -> ControlProblem:
    """The game in which b is chosen first and a replies, its value in the same units.

    ``inf_b sup_a`` of a reward is the game of a controller b who pays it as a cost.
    """

    def turned(function: Any) -> Any:
        if not callable(function):
            return function
        knows = "b" in keywords(function)

        def exchanged(x: Any, a: Any, b: Any) -> Any:
            return function(x, b, b=a) if knows else function(x, b)

        return exchanged

    changed = {name: turned(getattr(problem, name)) for name in _OF_CONTROLS}
    changed["reward"], changed["cost"] = changed["cost"], changed["reward"]
    other = {"controller": "adversary", "adversary": "controller"}
    stops = tuple(replace(stop, by=other[stop.by]) for stop in problem.stops)
    return replace(
        problem,
        **changed,
        controls=problem.adversary,
        adversary=problem.controls,
        stop=stops or None,
        best_control=None,
        exact=None,
    )


def joined(one: ControlSet | None, two: ControlSet) -> ControlSet:
    """The product of two boxes, else some pairs of both sets: enough to probe with."""
    if one is None:
        return two
    if isinstance(one, Box) and isinstance(two, Box):
        return _product(one, two)
    pairs = itertools.product(_points(one), _points(two))
    return Finite([np.r_[a, b] for a, b in pairs])


def _points(controls: ControlSet) -> NDArray[np.float64]:
    if isinstance(controls, Finite):
        points = np.asarray(controls.points)
        return points[:: len(points) // MOST_PROBED + 1]
    assert not controls.varies
    low, high = np.asarray(controls.low), np.asarray(controls.high)
    low, high = np.maximum(low, -1e3), np.minimum(high, 1e3)
    axes = np.linspace(low, high, CORNERS).T
    return np.array(list(itertools.product(*axes)))


def _product(one: Box, two: Box) -> Box:
    if not one.varies and not two.varies:
        low = np.r_[np.asarray(one.low), np.asarray(two.low)]
        return Box(low, np.r_[np.asarray(one.high), np.asarray(two.high)])

    def side(which: int) -> Callable[[Any], Any]:
        def bound(x: Any) -> Any:
            xp, parts = namespace(x), []
            for box in (one, two):
                wide = (*tuple(x.shape[:-1]), box.dimension)
                parts.append(xp.broadcast_to(box.bounds_at(x)[which], wide))
            return xp.concat(parts, axis=-1)

        return bound

    return _Sized(side(0), side(1), size=one.dimension + two.dimension)


@dataclass(frozen=True, eq=False)
class _Sized(Box):
    """A box whose bounds are functions and whose number of axes is known."""

    size: int = 0

    @property
    def dimension(self) -> int:
        """Number of axes."""
        return self.size
