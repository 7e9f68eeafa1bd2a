"""Kruzkov's transform: least costs to an exit as discounted rewards of arriving.

With a running cost l(x, a) > 0, neither noise nor discount, the least cost V until the
exit is infinite where no path leads there. Then ``u = exp(-lam (V - c))``, which is
``1 - w`` of Kruzkov's ``w = 1 - exp(-lam (V - c))``, solves

    lam u = max_a { f(x, a) / l(x, a) . grad u },    u = exp(-lam (g - c)) at the exit:

a problem with constant discount, nothing paid on the way, and time measured by what has
been spent, so that costs may depend on the control. u is 0 where the exit is out of
reach, and an infinite cost (an obstacle) is a velocity of 0. (Bardi and Capuzzo-
Dolcetta, Optimal Control and Viscosity Solutions, 1997, section IV.1; Falcone and
Ferretti, Semi-Lagrangian Approximation Schemes, SIAM 2013, section 8.4.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..boundary import Dirichlet, Robin
from ..coefficients import describe_point
from ..errors import MethodMismatch, ProblemError
from ..events import Exit
from ..given_data import given_at
from ..grid import Grid
from ..problem import ControlProblem
from ..sets import Box

Array = NDArray[np.float64]
TAKEN = frozenset({"exit", "stop"})
"""Special fields that the transform keeps a problem of discounted rewards."""


def is_undiscounted(problem: ControlProblem, grid: Grid) -> bool:
    """Whether a policy that never meets the exit has no value at all.

    An exit, but neither horizon nor noise nor, somewhere, a discount.
    """
    if problem.exit is None or problem.horizon is not None:
        return False
    noise = problem.diffusion
    if callable(noise) or (noise is not None and np.any(np.asarray(noise) != 0)):
        return False
    parts = [problem]
    if problem.modes is not None:
        parts = [problem.in_mode(k) for k in range(problem.modes.n)]
    nodes = grid.nodes()
    return any(np.min(np.asarray(p.discount_at(nodes), float)) <= 0 for p in parts)


def check_undiscounted(problem: ControlProblem, grid: Grid) -> None:
    """Refuse what the transform makes no discounted problem of.

    Raises
    ------
    MethodMismatch
        A discount that is 0 in places only; modes, jumps or an adversary; a control box
        without end; Robin data that do not become a multiple of u.
    """
    other = sorted(problem.special - TAKEN)
    if other:
        raise MethodMismatch(
            f"SemiLagrangian: {' and '.join(map(repr, other))} until an exit without "
            "noise and discount: a policy that never gets there has no value, and the "
            "transform exp(-lam V) takes exit and stop only; give a discount > 0 or a "
            "horizon."
        )
    if np.max(np.asarray(problem.discount_at(grid.nodes()), float)) > 0:
        raise MethodMismatch(
            "SemiLagrangian: until an exit without noise the discount is 0 in some "
            "states and positive in others; give one > 0 everywhere, or 0 everywhere."
        )
    if isinstance(problem.controls, Box):
        low, high = problem.controls.bounds_at(grid.nodes().reshape(grid.size, -1)[:1])
        if not np.isfinite(np.r_[np.ravel(low), np.ravel(high)]).all():
            raise MethodMismatch(
                "SemiLagrangian: until an exit without noise and discount, controls "
                "are searched, and the control box is infinite; give finite bounds."
            )
    for face, rule in problem.faces.items():
        if not isinstance(rule, Robin):
            continue
        if rule.alpha != 0 or callable(rule.g) or _slope(problem, rule) < 0:
            raise MethodMismatch(
                f"SemiLagrangian: Robin on face {face}: until an exit without noise "
                "and discount, only beta dV/dn = g is taken, alpha = 0, g a number "
                "under which costs do not fall outwards; use Dirichlet, Reflecting "
                "or StateConstraint."
            )


def _slope(problem: ControlProblem, rule: Robin) -> float:
    """The outward slope of the cost on a face with alpha = 0."""
    return -problem.sign * float(rule.g) / rule.beta  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class Kruzkov:
    """The transform of one problem: ``u = exp(-rate (V - shift))``, V as a cost."""

    problem: ControlProblem
    rate: float
    shift: float

    def of_cost(self, V: Any) -> Any:
        """u of a cost."""
        return np.exp(-self.rate * (V - self.shift))

    def cost_of(self, u: Array) -> Array:
        """The cost of u, infinite where u <= 0."""
        out = np.full(u.shape, np.inf)
        reached = u > 0
        out[reached] = self.shift - np.log(u[reached]) / self.rate
        return out

    def bar_of(self, u: Array, bar: Array) -> Array:
        """How far V may be from that of u, which is within `bar`: infinite at u <= bar.

        The image of [u - bar, u + bar], whose farther end is that of larger costs.
        """
        out = np.full(u.shape, np.inf)
        sure = u > bar
        out[sure] = -np.log1p(-bar[sure] / u[sure]) / self.rate
        return out

    @cached_property
    def discounted(self) -> ControlProblem:
        """The problem that u solves."""
        problem = self.problem
        end = Exit(
            problem.exit.region, self._data(problem.exit.value, "'exit': value(x)")
        )
        stops = tuple(
            replace(s, payoff=self._data(s.payoff, "'stop': payoff(x)"))
            for s in problem.stops
        )
        return replace(
            problem,
            drift=spent(problem),
            diffusion=None,
            reward=lambda x, a: 0.0 * x[..., 0],
            cost=None,
            discount=self.rate,
            exit=end,
            stop=stops or None,
            boundary={face: self._rule(rule) for face, rule in problem.faces.items()},
            best_control=None,
            exact=None,
            scale=None,
        )

    def _data(self, g: Any, field: str) -> Callable[[Any], Any]:
        """Values given at exits, faces or by stopping, as u."""
        sign = self.problem.sign

        def data(x: Any) -> Any:
            return self.of_cost(-sign * given_at(g, x, field))

        return data

    def _rule(self, rule: Any) -> Any:
        """A face's rule as u obeys it: ``beta dV/dn = g`` becomes a multiple of u."""
        if isinstance(rule, Dirichlet):
            return Dirichlet(self._data(rule.g, "Dirichlet: g(x)"))
        if isinstance(rule, Robin):
            return Robin(self.rate * _slope(self.problem, rule), 1.0, 0.0)
        return rule


def spent(problem: ControlProblem) -> Callable[..., Any]:
    """f / l: the velocity while time is what has been spent.

    Raises
    ------
    ProblemError
        When called: a cost that is not positive, naming the state and the control.
    """
    field = "cost" if problem.reward is None else "reward"

    def velocity(x: Any, a: Any) -> Any:
        cost = -problem.sign * np.asarray(problem.payoff_at(x, a), float)
        bad = ~(cost > 0)
        if bad.any():
            every = np.broadcast_to(a, (*bad.shape, a.shape[-1]))
            where = describe_point(x[bad][0], every[bad][0])
            sense = "costs > 0" if field == "cost" else "rewards < 0"
            raise ProblemError(
                f"'{field}' is {-problem.sign * cost[bad][0]:g} at {where}: until an "
                f"exit without noise and discount, SemiLagrangian needs {sense} (what "
                "costs nothing may go on for ever). Add a small cost of time, give a "
                "discount > 0 or a horizon, or use hjb.Sweeping(), which takes 0."
            )
        return np.asarray(problem.drift_at(x, a), float) / cost[..., None]

    return velocity
