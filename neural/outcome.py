"""What an evaluation hands back, and the policy a value implies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hjbpde.point_tables import KeptTables
from hjbpde.problem import ControlProblem

from .constrained_face import held_controls, released
from .stopping_set import StoppingSet
from .value_model import ValueModel, greedy_policy

Array = NDArray[np.float64]


class PolicyModel(Protocol):
    """A policy with weights, x (n, d) -> (n, m)."""

    def __call__(self, x: Array) -> Array:
        """Controls at x."""
        ...

    def arrays(self) -> dict[str, Array]:
        """Everything needed to rebuild it."""
        ...


@dataclass(frozen=True, eq=False)
class GreedyPolicy:
    """The maximiser of r + L^a V.

    With `depth` > 0, a share of the width, states on a face with a state constraint
    leave it where the slopes that far inside say so, see `released`. With `kept`,
    what the problem is at a run's own points is not found out anew.
    """

    problem: ControlProblem
    model: ValueModel
    depth: float = 0.0
    kept: KeptTables | None = None

    def __call__(self, x: Array) -> Array:
        """Controls at x (n, d), shape (n, m)."""
        a = greedy_policy(self.problem, self.model, x, kept=self.kept)
        if self.depth > 0:
            a = released(self.problem, self.model, x, a, self.depth)
        return a


@dataclass(frozen=True, eq=False)
class HeldActor:
    """A learned policy; where it leads across a constrained face, the best for V."""

    problem: ControlProblem
    actor: PolicyModel
    model: ValueModel

    def __call__(self, x: Array) -> Array:
        """Controls at x (n, d), shape (n, m)."""
        return held_controls(self.problem, self.model, x, self.actor(x))


@dataclass(frozen=True, eq=False)
class Outcome:
    """A learned value and how it came about.

    Parameters
    ----------
    model : ValueModel
    actor : PolicyModel or None
        The learned policy; None means the greedy one.
    status : str
        "converged", "stagnated", "not converged" or "diverged".
    history : list of dict
        One entry a policy: what a training plot shows.
    stopping : StoppingSet, optional
        Where somebody stops; the model is then the value of going on.
    """

    model: ValueModel
    actor: PolicyModel | None
    status: str
    history: list[dict[str, Any]]
    residuals: tuple[float, ...]
    checks: tuple[str, ...] = ()
    fallbacks: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    stopping: StoppingSet | None = None
