"""Where V is given: data on faces, at the horizon and on an exit surface."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hjbpde.boundary import Dirichlet, Face
from hjbpde.errors import ProblemError
from hjbpde.problem import ControlProblem

from .exit_region import exit_states, exit_value, running
from .sampling import FacePoints
from .time_state import TimedProblem
from .value_model import ValueModel

Array = NDArray[np.float64]


def face_data(g: float | Callable[..., Array], x: Array, face: Face) -> Array:
    """The data g of a rule at states x (n, d) on its face, checked, (n,)."""
    values = np.asarray(g(x) if callable(g) else g, dtype=float)
    try:
        values = np.broadcast_to(values, (len(x),))
    except ValueError:
        raise ProblemError(
            f"the data of face {face} have shape {values.shape} for {len(x)} points; "
            "expected one number a point."
        ) from None
    if not np.isfinite(values).all():
        raise ProblemError(f"the data of face {face} are not finite everywhere.")
    return values


@dataclass(frozen=True, eq=False)
class Ends:
    """Held-out states x (n, d) where the process ends, and what it takes there."""

    x: Array
    data: Array

    @classmethod
    def of(
        cls, problem: ControlProblem, held_out: Array, rng: np.random.Generator
    ) -> Ends:
        """The horizon at the held-out states and an exit surface, if there are such."""
        x, data = [held_out[:0]], [np.zeros(0)]
        if problem.exit is not None:
            x.append(exit_states(problem, len(held_out), rng))
            data.append(exit_value(problem, x[-1]))
        if isinstance(problem, TimedProblem):
            assert problem.domain is not None
            last, face = held_out.copy(), (problem.dimension - 1, "high")
            last[:, -1] = np.asarray(problem.domain.high)[-1]
            rule = problem.faces[face]
            assert isinstance(rule, Dirichlet)
            x.append(last)
            data.append(face_data(rule.g, last, face))
        return cls(np.concatenate(x), np.concatenate(data))

    def misfit(self, value: ValueModel) -> float:
        """The largest difference between a value and the data, in the units of V."""
        return float(np.abs(value.value(self.x) - self.data).max(initial=0.0))


def given_on_faces(problem: ControlProblem, n: int = 64) -> Array:
    """The data of faces with a given value at n states of each, one after the other.

    The horizon's are not among them (`Ends`). The states do not depend on a seed.
    """
    assert problem.domain is not None
    rng, out = np.random.default_rng(0), [np.zeros(0)]
    last = problem.dimension - 1 if isinstance(problem, TimedProblem) else None
    for face, rule in problem.faces.items():
        if isinstance(rule, Dirichlet) and face[0] != last:
            x = FacePoints.draw(problem.domain, face, n, rng).x
            out.append(face_data(rule.g, x[running(problem, x)], face))
    return np.concatenate(out)
