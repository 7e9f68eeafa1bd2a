"""Two players seen as one, the order of play turned round, and strategies held fast."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from inspect import Parameter, Signature
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrays import namespace
from .events import Stop
from .held import keywords
from .problem import ControlProblem
from .sets import Box, ControlSet, Finite

Strategy = Callable[..., Any]
_OF_CONTROLS = ("drift", "diffusion", "reward", "cost")
"""Functions of both players' controls."""
PAIRS = 64
"""Pairs of controls, and states for each, at which `is_coupled` looks."""
COUPLED = 1e-9
"""Mixed differences above this share of a function's size are no rounding."""
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
        if "b" not in keywords(function):
            return lambda x, u, more: function(x, u[..., :m], **more[1])
        return lambda x, u, more: function(x, u[..., :m], b=u[..., m:], **more[1])

    changed = {n: _naming(getattr(problem, n), None, beside) for n in _OF_CONTROLS}
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
    return replace(
        problem,
        **changed,
        controls=problem.adversary,
        adversary=problem.controls,
        stop=_of_the_other(problem) or None,
        best_control=None,
        exact=None,
    )


def answered(problem: ControlProblem, strategy: Strategy) -> ControlProblem:
    """The adversary's problem once the controller plays a(x).

    ``inf_b`` of a reward is a cost to the adversary, who is now alone; V stays in the
    units and the sense of the game. a may name t or mode.
    """

    def turned(function: Any) -> Any:
        knows = keywords(function)
        if "b" in knows:
            return lambda x, u, more: function(
                x, strategy(x, **more[0]), b=u, **more[1]
            )
        return lambda x, u, more: function(x, strategy(x, **more[0]), **more[1])

    changed = {n: _naming(getattr(problem, n), strategy, turned) for n in _OF_CONTROLS}
    changed["reward"], changed["cost"] = changed["cost"], changed["reward"]
    return replace(
        problem,
        **changed,
        controls=problem.adversary,
        adversary=None,
        stop=_of_the_other(problem) or None,
        best_control=None,
        exact=None,
    )


def followed(problem: ControlProblem, reply: Strategy) -> ControlProblem:
    """The controller's problem once the adversary answers a by b(x, a).

    b may name t.
    """

    def answering(function: Any) -> Any:
        if "b" not in keywords(function):
            return lambda x, a, more: function(x, a, **more[1])
        return lambda x, a, more: function(x, a, b=reply(x, a, **more[0]), **more[1])

    changed = {n: _naming(getattr(problem, n), reply, answering) for n in _OF_CONTROLS}
    return replace(problem, **changed, adversary=None, best_control=None, exact=None)


def settled(problem: ControlProblem, strategy: Strategy) -> ControlProblem:
    """The problem left once a(x) is played: nothing to choose. a may name mode, t."""

    def played(function: Any) -> Any:
        return lambda x, _, more: function(x, strategy(x, **more[0]), **more[1])

    changed = {n: _naming(getattr(problem, n), strategy, played) for n in _OF_CONTROLS}
    return replace(problem, **changed, controls=None, best_control=None, exact=None)


def _naming(
    function: Any,
    strategy: Strategy | None,
    substituted: Callable[[Any], Callable[..., Any]],
) -> Any:
    """`function` with a strategy in it, naming the keywords that either of them names.

    ``substituted(function)(x, u, (keywords of the strategy, of the function))``.
    """
    if not callable(function):
        return function
    inner, names = substituted(function), ("t", "mode")
    of = [[n for n in names if n in keywords(f)] for f in (strategy, function)]

    def both(x: Any, u: Any, **given: Any) -> Any:
        return inner(x, u, [{n: given[n] for n in mine} for mine in of])

    named = [n for n in names if n in of[0] + of[1]]
    positional = [Parameter(n, Parameter.POSITIONAL_OR_KEYWORD) for n in ("x", "u")]
    extra = [Parameter(n, Parameter.KEYWORD_ONLY) for n in named]
    both.__dict__["__signature__"] = Signature([*positional, *extra])
    return both


def _of_the_other(problem: ControlProblem) -> tuple[Stop, ...]:
    """The rights to stop with their holders exchanged."""
    other: Any = {"controller": "adversary", "adversary": "controller"}
    return tuple(replace(stop, by=other[stop.by]) for stop in problem.stops)


def is_coupled(problem: ControlProblem) -> bool:
    """Whether the best reply to a depends on a, as seen at states of the domain.

    It does not where drift, noise and payoff are sums of a part in a and one in b:
    ``g(a, b) - g(a', b) - g(a, b') + g(a', b')`` is then 0 for all of them, and
    Isaacs' condition holds.
    """
    if problem.controls is None or problem.adversary is None:
        return False
    assert problem.domain is not None
    rng, one = np.random.default_rng(0), one_player(problem)
    x = problem.domain.sample(rng, PAIRS)
    a, b = (_drawn(s, x, rng) for s in (problem.controls, problem.adversary))
    pairs = [np.concatenate([a[i], b[j]], axis=1) for i in (0, 1) for j in (0, 1)]
    for values in (
        [np.asarray(one.drift_at(x, u)) for u in pairs],
        [np.asarray(one.payoff_at(x, u)) for u in pairs],
        [_spread(one, x, u) for u in pairs],
    ):
        mixed = values[0] - values[1] - values[2] + values[3]
        size = max(float(np.abs(v).max()) for v in values)
        if np.abs(mixed).max() > COUPLED * size:
            return True
    return False


def _spread(problem: ControlProblem, x: Any, u: Any) -> Any:
    sigma = np.asarray(problem.diffusion_at(x, u))
    return np.einsum("nik,njk->nij", sigma, sigma)


def _drawn(controls: ControlSet, x: Any, rng: Any) -> Any:
    """Two controls of a set at every x (n, d), (2, n, m)."""
    if isinstance(controls, Finite):
        points = np.asarray(controls.points)
        return points[rng.integers(len(points), size=(2, len(x)))]
    low, high = (np.asarray(side, float) for side in controls.bounds_at(x))
    low, high = np.maximum(low, -1e3), np.minimum(high, 1e3)
    return low + rng.random((2, len(x), controls.dimension)) * (high - low)


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
