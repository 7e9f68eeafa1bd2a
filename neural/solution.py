"""A learned solution: value, gradient, policy, and what training said."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hjbpde.errors import ProblemError
from hjbpde.problem import ControlProblem
from hjbpde.real_numbers import real_array
from hjbpde.report import Report
from hjbpde.sets import Box
from hjbpde.simulate import Paths, simulate

from .constrained_face import held_controls
from .exit_region import exit_value, running
from .outcome import PolicyModel
from .stopping_payoff import Payoffs
from .stopping_set import StoppingSet
from .value_model import ValueModel, greedy_policy

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LearnedSolution:
    """V and a policy anywhere in the domain, after `hjbpde.protocol.Solution`.

    Parameters
    ----------
    problem : ControlProblem or None
        None after loading without it; then only a learned policy can be asked.
    domain, region : Box
        Where it was trained, and where it is meant to hold.
    report : Report
    model : ValueModel
    actor : PolicyModel or None
        None: the policy is the greedy one of the value.
    has_exit : bool
        Whether the process ends in a region. There the value is what it takes;
        derivatives and policy mean nothing and are continued smoothly.
    stopping : StoppingSet, optional
        Where somebody stops. There value and derivatives are those of the payoff psi;
        the policy means nothing. The model is the value of going on.
    """

    problem: ControlProblem | None
    domain: Box
    region: Box
    report: Report
    model: ValueModel
    actor: PolicyModel | None = None
    has_exit: bool = False
    stopping: StoppingSet | None = None

    def value_at(self, x: Any) -> Array:
        """V at x (..., d), shape (...), in the problem's sense.

        Raises
        ------
        ProblemError
            A point outside the domain, not finite, or of another dimension.
        """
        flat, lead = self._flat(x)
        return self._ended(flat, self.model.value(flat)).reshape(lead)

    def gradient_at(self, x: Any) -> Array:
        """grad V at x (..., d), shape (..., d)."""
        flat, lead = self._flat(x)
        slope = self._stopped(flat, self.model.gradient(flat), 0)
        return slope.reshape(*lead, -1)

    def hessian_at(self, x: Any) -> Array:
        """hess V at x (..., d), shape (..., d, d)."""
        flat, lead = self._flat(x)
        d = flat.shape[1]
        hess = self._stopped(flat, self.model.hessian(flat), 1)
        return hess.reshape(*lead, d, d)

    def control_at(self, x: Any) -> Array:
        """The policy at x (..., d), shape (..., m)."""
        flat, lead = self._flat(x)
        if self.actor is not None:
            a = self.actor(flat)
            if self.problem is not None:
                a = held_controls(self.problem, self.model, flat, a)
        elif self.problem is not None:
            a = greedy_policy(self.problem, self.model, flat)
        else:
            raise ProblemError(
                "control_at: the policy is the greedy one of the value, which needs "
                "the problem: neural.load(path, problem=...)."
            )
        return a.reshape(*lead, a.shape[-1])

    def stopping_at(self, x: Any) -> NDArray[np.bool_]:
        """Whether somebody stops at x (..., d), shape (...)."""
        flat, lead = self._flat(x)
        return self._stops(flat).reshape(lead)

    def simulate(
        self, x0: Any, horizon: float, dt: float, paths: int, seed: int
    ) -> Paths:
        """Sample paths under this policy, see `hjbpde.simulate`.

        A path that is stopped takes psi, as on entering an exit region.
        """
        problem = self.problem
        if problem is None:
            raise ProblemError(
                "simulate needs the problem: neural.load(path, problem=...)."
            )
        if self.stopping is not None:
            problem = Payoffs(problem).running_until(self.stopping)
        return simulate(problem, self.control_at, x0, horizon, dt, paths, seed)

    def save(self, path: str | Path) -> Path:
        """Write weights (safetensors) and everything else (JSON) to one file."""
        from .storage import save_solution

        return save_solution(self, path)

    def _ended(self, y: Array, value: Array) -> Array:
        """`value` at y (n, d or d + 1), and what is taken where the process ended."""
        if self.problem is None and (self.has_exit or self.stopping is not None):
            raise ProblemError(
                "value_at: what is taken where the process has ended is known to the "
                "problem only: neural.load(path, problem=...)."
            )
        if self.problem is None:
            return value
        x = np.ascontiguousarray(y[:, : self.domain.dimension])
        if self.stopping is not None:
            payoffs, stops = Payoffs(self.problem), self._stops(y)
            value = payoffs.kept(x, value)
            value[stops] = payoffs.at(x[stops], self.stopping.owner_at(y[stops]))
        if self.problem.exit is None:
            return value
        over = ~running(self.problem, x)
        if over.any():
            value = value.copy()
            value[over] = exit_value(self.problem, x[over])
        return value

    def _stops(self, y: Array) -> NDArray[np.bool_]:
        if self.stopping is None:
            return np.zeros(len(y), bool)
        return self.stopping.stops(y)

    def _stopped(self, y: Array, found: Array, order: int) -> Array:
        """Derivatives `found` at y, those of psi where somebody stops."""
        stops = self._stops(y)
        if self.stopping is None or not stops.any():
            return found
        if self.problem is None:
            raise ProblemError(
                "derivatives where somebody stops are the payoff's, which needs the "
                "problem: neural.load(path, problem=...)."
            )
        x = np.ascontiguousarray(y[stops, : self.domain.dimension])
        owners = self.stopping.owner_at(y[stops])
        found = found.copy()
        found[stops] = Payoffs(self.problem).derivatives(x, owners)[order]
        return found

    def _flat(self, x: Any) -> tuple[Array, tuple[int, ...]]:
        x = real_array(x, "x, at which a learned solution was asked,")
        d = self.domain.dimension
        if x.ndim == 0 or x.shape[-1] != d:
            raise ProblemError(
                f"a learned solution in {d} states was asked at points of shape "
                f"{x.shape}; give (..., {d})."
            )
        flat = np.ascontiguousarray(self.domain.wrap(x.reshape(-1, d)))
        slack = 1e-9 * float(self.domain.width.max())
        bad = ~np.isfinite(flat).all(-1) | ~self.domain.contains(flat, slack)
        if bad.any():
            where = flat[int(np.flatnonzero(bad)[0])]
            raise ProblemError(
                f"x = {where} is outside the domain {self.domain} on which the value "
                "was learned; no network is trusted beyond its data."
            )
        return flat, x.shape[:-1]

    def __repr__(self) -> str:
        name = self.problem.name if self.problem is not None else "loaded"
        return f"LearnedSolution({name!r})\n{self.report}"
