"""What explicit marching holds V between: rights to stop, tubes, Dirichlet faces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..boundary import Dirichlet
from ..errors import ProblemError
from ..events import Stop
from ..given_data import given_at
from ..grid import Grid
from ..held import held, keywords
from ..problem import ControlProblem

Array = NDArray[np.float64]


class Tube(Enum):
    """Whether the terminal payoff may be taken at any time before the end.

    NONE: at the end only (a backward reachable set). LEAST: the least terminal value
    met on the way counts, V = min(V, g) (a backward reachable tube). GREATEST: the
    largest, V = max(V, g).
    """

    NONE = 0
    LEAST = 1
    GREATEST = 2


@dataclass(frozen=True)
class Constraint:
    """What V is held between, each a function of calendar time giving (N,) or None.

    lower: the controller of a maximising problem may stop there; upper: its adversary
    may. Moving obstacles and tubes are of this kind.
    """

    lower: Callable[[float], Array] | None = None
    upper: Callable[[float], Array] | None = None
    fixed: Callable[[Array, float], None] | None = None
    """Overwrites nodes in place, e.g. Dirichlet faces: ``fixed(V, t)``."""

    def apply(self, V: Array, t: float) -> None:
        """Hold V (N,) at time t, in place."""
        if self.upper is not None:
            np.minimum(V, self.upper(t), out=V)
        if self.lower is not None:
            np.maximum(V, self.lower(t), out=V)
        if self.fixed is not None:
            self.fixed(V, t)


def with_tube(constraint: Constraint, tube: Tube, terminal: Array) -> Constraint:
    """The constraint with the terminal value (N,) as the bound of a tube."""
    if tube is Tube.NONE:
        return constraint
    lower, upper = constraint.lower, constraint.upper
    if tube is Tube.LEAST:

        def least(t: float) -> Array:
            return terminal if upper is None else np.minimum(upper(t), terminal)

        return Constraint(lower, least, constraint.fixed)

    def greatest(t: float) -> Array:
        return terminal if lower is None else np.maximum(lower(t), terminal)

    return Constraint(greatest, upper, constraint.fixed)


def constraint_of(problem: ControlProblem, grid: Grid) -> Constraint:
    """Rights to stop and Dirichlet faces, in the maximising sense."""
    nodes = grid.nodes()
    sides = {}
    for stop in problem.stops:
        sides[stop.by] = _obstacle(problem, stop, nodes)
    lower, upper = sides.get("controller"), sides.get("adversary")
    if lower is not None and upper is not None:
        lower = _below(lower, upper)
    return Constraint(lower, upper, _dirichlet(problem, grid))


def _obstacle(
    problem: ControlProblem, stop: Stop, nodes: Array
) -> Callable[[float], Array]:
    """psi on the nodes as a function of calendar time, evaluated once if it rests.

    Away from its dates a right is no bound at all.
    """
    sign, slack = problem.sign, 1e-12 * float(problem.horizon or 0.0)
    nothing = np.array(-np.inf if stop.by == "controller" else np.inf)

    def psi(t: float) -> Array:
        return sign * _on_nodes(held(stop.payoff, t=t), nodes, "'stop'")

    resting = None if "t" in keywords(stop.payoff) else psi(0.0)

    def at(t: float) -> Array:
        if not stop.acts_at(t, slack):
            return np.broadcast_to(nothing, nodes.shape[:-1]).ravel()
        return psi(t) if resting is None else resting

    return at


def _below(
    lower: Callable[[float], Array], upper: Callable[[float], Array]
) -> Callable[[float], Array]:
    """`lower`, checked against `upper` at every time it is asked."""

    def at(t: float) -> Array:
        found = lower(t)
        if (found > upper(t)).any():
            raise ProblemError(
                "'stop': the controller's payoff is better than the adversary's "
                f"somewhere at t = {t:.6g}."
            )
        return found

    return at


def _dirichlet(problem: ControlProblem, grid: Grid) -> Any:
    rules = [(f, r) for f, r in problem.faces.items() if isinstance(r, Dirichlet)]
    if not rules:
        return None
    numbers = np.arange(grid.size).reshape(grid.shape)
    places = []
    for (k, side), rule in rules:
        flat = numbers.take(0 if side == "low" else -1, axis=k).ravel()
        places.append((flat, grid.nodes_of(flat), rule.g))

    def fixed(V: Array, t: float) -> None:
        for flat, x, g in places:
            V[flat] = problem.sign * _on_nodes(held(g, t=t), x, "'boundary'")

    return fixed


def _on_nodes(function: Any, nodes: Array, field: str) -> Array:
    return np.ascontiguousarray(given_at(function, nodes, field).ravel())
