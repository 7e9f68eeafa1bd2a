"""Which methods take a problem, and which of them is picked."""

from __future__ import annotations

from typing import Any

from .errors import MethodMismatch
from .grid import Grid
from .methods.explicit import MAX_DIMENSION as MOST_EXPLICIT
from .methods.explicit import ExplicitMarching
from .methods.explicit_run import marches_explicitly
from .methods.marching import Marching
from .methods.policy_iteration import PolicyIteration
from .methods.sweep_run import check_sweepable, sweepable
from .methods.sweeping import Sweeping
from .problem import ControlProblem
from .schemes import Hybrid, Upwind
from .semi_lagrangian.method import MAX_DIMENSION as MOST_STEPPING
from .semi_lagrangian.method import SemiLagrangian, check_steps

MAX_DIMENSION = 4

Method = PolicyIteration | Marching | Sweeping | ExplicitMarching | SemiLagrangian
TAKES: dict[type, frozenset[str]] = {
    PolicyIteration: frozenset(
        {"exit", "stop", "modes", "average", "impulse", "adversary", "jumps"}
    ),
    Marching: frozenset(
        {"horizon", "exit", "stop", "dates", "modes", "adversary", "jumps"}
    ),
    Sweeping: frozenset({"exit"}),
    ExplicitMarching: frozenset({"horizon", "stop", "dates", "adversary"}),
    SemiLagrangian: frozenset(
        {
            *("horizon", "exit", "stop", "dates", "modes", "adversary"),
            *("jumps", "average", "impulse"),
        }
    ),
}
"""Special fields of a problem that a method takes."""
NEEDS: dict[type, frozenset[str]] = {
    Marching: frozenset({"horizon"}),
    Sweeping: frozenset({"exit"}),
    ExplicitMarching: frozenset({"horizon"}),
}
"""Special fields without which a method makes no sense."""
ALONE = frozenset({"modes", "average", "impulse"})
"""Special fields that no method takes together with an adversary."""


def default_method(problem: ControlProblem, grid: Grid) -> Method:
    """The method `solve` picks.

    Sweeping to an exit without noise and discount on a uniform grid; with a horizon
    explicit marching where there is no noise (`marches_explicitly`), implicit marching
    elsewhere, else policy iteration, both with the hybrid
    scheme; order 2 for policy iteration, order 1 where the process may be ended
    inside the domain (the value is kinked there), with modes, with an adversary and
    for averages; extrapolated with modes and no noise.
    """
    if marches_explicitly(problem, grid):
        return ExplicitMarching()
    if problem.horizon is not None:
        return Marching()
    if sweepable(problem, grid):
        return Sweeping()
    smooth = problem.modes is not None and problem.diffusion is None
    rough = problem.special - {"jumps"}
    return PolicyIteration(order=1 if rough else 2, richardson=smooth)


def check_fit(problem: ControlProblem, grid: Grid, method: Any) -> None:
    """Refuse a method that cannot take the problem, naming what fits."""
    fitting = [kind for kind in TAKES if _fits(kind, problem)]
    names = " or ".join(f"hjb.{kind.__name__}" for kind in fitting) or "no method yet"
    if type(method) not in TAKES:
        raise MethodMismatch(
            f"solve: {method!r} is not a method; {names} fits this problem."
        )
    if type(method) not in fitting:
        fields = ", ".join(sorted(problem.special)) or "none"
        raise MethodMismatch(
            f"solve: hjb.{type(method).__name__} does not fit the special fields of "
            f"this problem ({fields}); {names} does."
        )
    limits = {ExplicitMarching: MOST_EXPLICIT, SemiLagrangian: MOST_STEPPING}
    limit = limits.get(type(method), MAX_DIMENSION)
    if problem.dimension > limit:
        raise MethodMismatch(
            f"{type(method).__name__} on a grid takes 1 to {limit} dimensions, the "
            f"problem has {problem.dimension}; neural.solve takes more."
        )
    if isinstance(method, Sweeping):
        check_sweepable(problem, grid)
        return
    if isinstance(method, SemiLagrangian):
        check_steps(problem, grid, method)
        return
    if isinstance(method, ExplicitMarching):
        return
    if not isinstance(method.scheme, Upwind | Hybrid):
        raise MethodMismatch(
            "PolicyIteration: scheme must be hjb.Upwind or hjb.Hybrid."
        )
    if method.order not in (1, 2, 4):
        raise MethodMismatch(
            f"PolicyIteration: order is {method.order}; use 1, 2 or 4."
        )
    rough = problem.special - {"adversary", "jumps"}
    if isinstance(method, PolicyIteration) and method.order > 1 and rough:
        raise MethodMismatch(
            f"PolicyIteration: order {method.order} needs a smooth value; where the "
            "process may end inside the domain (exit, stop), with modes or impulses "
            "and for averages, use order=1."
        )
    if isinstance(method, PolicyIteration) and method.richardson and method.order != 1:
        raise MethodMismatch(
            "PolicyIteration: richardson=True extrapolates the monotone scheme; "
            "combine it with order=1."
        )
    if problem.impulse is not None and (problem.dimension > 2 or method.richardson):
        raise MethodMismatch(
            "PolicyIteration: impulses are taken in 1 and 2 dimensions, without "
            "richardson=True."
        )


def _fits(kind: type, problem: ControlProblem) -> bool:
    needed, special = NEEDS.get(kind, frozenset()), problem.special
    if "adversary" in special and special & ALONE:
        return False
    return special <= TAKES[kind] and needed <= special
