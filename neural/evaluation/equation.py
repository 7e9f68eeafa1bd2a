"""Where a network is asked to satisfy the equation, and by how much it does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hjbpde.boundary import Dirichlet
from hjbpde.errors import ProblemError
from hjbpde.problem import ControlProblem

from ..ansatz import AnsatzNetwork, NetworkOperator
from ..collocation import (
    HELD_OUT_LEVELS,
    LEVELS,
    FaceTables,
    constrained_states,
    face_points,
    face_rows,
    periodic_points,
)
from ..exit_region import exit_states, running_states
from ..sampling import FacePoints, interior_points, on_levels
from ..start import Policy
from ..time_state import TimedProblem
from ..value_model import row_scale
from .network_rows import NetworkTables, on_lift, on_network

Array = NDArray[np.float64]
EXIT = (-1, "exit")


@dataclass(frozen=True, eq=False)
class Equation:
    """States where the equation and the rules of the rim are asked to hold.

    The rim: faces, and the surface of an exit. Rows are divided by
    `value_model.row_scale`: they are in the units of V. Faces whose value the ansatz
    holds have no rows.
    """

    problem: ControlProblem
    x: Array
    faces: tuple[tuple[FacePoints, Array | None, tuple[int, str]], ...]

    @classmethod
    def draw(
        cls,
        problem: ControlProblem,
        n: int,
        rng: np.random.Generator,
        exit_rows: bool = True,
        given_rows: bool = False,
    ) -> Equation:
        """n states inside, ``n^((d-1)/d)`` on each face that has a row.

        With `given_rows` faces with a given value have rows: nothing else holds them.
        """
        box = problem.domain
        assert box is not None
        few = max(4, round(n ** (1.0 - 1.0 / box.dimension)))
        faces: list[tuple[FacePoints, Array | None, tuple[int, str]]] = [
            (face_points(problem, face, few, rng), None, face)
            for face, rule in problem.faces.items()
            if given_rows or not isinstance(rule, Dirichlet)
        ]
        faces += [
            (low, other, (low.axis, "low"))
            for low, other in periodic_points(box, few, rng)
        ]
        if problem.exit is not None:
            faces = [f for f in faces if len(f[0].x)]
        if exit_rows and problem.exit is not None:
            x = exit_states(problem, few * 2 * box.dimension, rng)
            faces.append((FacePoints(-1, 0.0, x), None, EXIT))
        within = getattr(problem.exit, "within", None) or box
        x = inner_states(problem, n, partial(interior_points, within, rng=rng), LEVELS)
        return cls(problem, x, tuple(faces))

    @property
    def sets(self) -> tuple[Array, ...]:
        """All states that are asked, inside and on the rim."""
        rim = [(points.x, other) for points, other, _ in self.faces]
        return (self.x, *(x for pair in rim for x in pair if x is not None))

    def tables(self, a: Array) -> tuple[Array, ...]:
        """f, sigma, rho, r and the rows' scale at the controls a (n, m).

        Raises
        ------
        ProblemError
            A function that is not finite at a state, named.
        """
        problem, x = self.problem, self.x
        found = {
            "drift": np.asarray(problem.drift_at(x, a)),
            "diffusion": np.asarray(problem.diffusion_at(x, a)),
            "discount": np.asarray(problem.discount_at(x)),
            "payoff": np.asarray(problem.payoff_at(x, a)),
        }
        for name, values in found.items():
            bad = ~np.isfinite(values).reshape(len(values), -1).all(-1)
            if bad.any():
                k = int(np.flatnonzero(bad)[0])
                raise ProblemError(
                    f"Residual: '{name}' is not finite at x = {x[min(k, len(x) - 1)]}, "
                    f"a = {a[min(k, len(a) - 1)]}. Likely a logarithm, root or "
                    "division outside its range; shrink the domain or guard the "
                    "function."
                )
        return (*found.values(), row_scale(problem, x, a))


@dataclass(frozen=True, eq=False)
class Rows:
    """The equation at controls a (n, m) inside; the policy is asked on the rim.

    What does not depend on the network's weights is found once.
    """

    equation: Equation
    model: AnsatzNetwork
    a: Array
    policy: Policy

    def with_jacobian(self) -> tuple[Array, Array]:
        """J (N, P) and r (N,)."""
        columns, values = self._operator.jacobian(self.model.net)
        J, r = [columns / self._tables[-1][:, None]], [self._inside(values)]
        for row, data in self._rim():
            J.append(row[:, :-1])
            r.append(row[:, -1] - data)
        return np.vstack(J), np.concatenate(r)

    def residual(self) -> Array:
        """r alone, without derivatives by the weights inside."""
        values = self._operator.taylor(self.model.net)[0].detach().numpy()
        r = [self._inside(values)]
        r += [row[:, -1] - data for row, data in self._rim()]
        return np.concatenate(r)

    def _inside(self, values: Array) -> Array:
        payoff, scale = self._tables[-2:]
        return (values + self._on_lift - payoff) / scale

    @cached_property
    def _tables(self) -> tuple[Array, ...]:
        return self.equation.tables(self.a)

    @cached_property
    def _terms(self) -> tuple[Any, ...]:
        f, sigma, rho, *_ = self._tables
        return self.model, self.equation.x, rho, -f, sigma, -1.0

    @cached_property
    def _operator(self) -> NetworkOperator:
        return on_network(*self._terms)

    @cached_property
    def _on_lift(self) -> Array:
        return on_lift(*self._terms)

    @cached_property
    def _asked(self) -> Policy:
        """The policy with its answers on the rim, which are the same at every step."""
        answers: dict[bytes, Array] = {}

        def answer(x: Array) -> Array:
            key = x.tobytes()
            if key not in answers:
                answers[key] = self.policy(x)
            return answers[key]

        return answer

    def _rim(self) -> list[tuple[Array, Array]]:
        out, equation, model = [], self.equation, self.model
        for points, other, face in equation.faces:
            partner = None if other is None else NetworkTables(model, other)
            mine = NetworkTables(model, points.x)
            tables = FaceTables(face, points, mine, partner, face == EXIT)
            found = face_rows(equation.problem, tables, self._asked)
            if found.rows is not None:
                # The mean over a face weighs as much as the mean over the inside.
                weight = np.sqrt(len(equation.x) / len(found.rows))
                out.append((weight * found.rows, weight * found.data))
        return out


def held_out_states(problem: ControlProblem, n: int, rng: np.random.Generator) -> Array:
    """n states that no fit sees, (n, d): where the process runs, at other times."""
    assert problem.domain is not None
    draw = partial(problem.domain.sample, rng)
    inside = inner_states(problem, n, draw, HELD_OUT_LEVELS)
    return np.concatenate([inside, constrained_states(problem, n, rng)])


def inner_states(
    problem: ControlProblem, n: int, draw: Callable[[int], Array], levels: int
) -> Array:
    """n states of ``draw(n)`` where the process runs; with a horizon at few times."""
    x = draw(n) if problem.exit is None else running_states(problem, draw, n)
    if isinstance(problem, TimedProblem):
        assert problem.domain is not None
        return on_levels(problem.domain, x, levels)
    return x
