"""A learned solution: value, gradient, policy, and what training said."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hjbpde.errors import ProblemError
from hjbpde.problem import ControlProblem
from hjbpde.report import Report
from hjbpde.sets import Box
from hjbpde.simulate import Paths, simulate

from .exit_region import exit_value, running
from .outcome import PolicyModel
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
    """

    problem: ControlProblem | None
    domain: Box
    region: Box
    report: Report
    model: ValueModel
    actor: PolicyModel | None = None
    has_exit: bool = False

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
        return self.model.gradient(flat).reshape(*lead, -1)

    def hessian_at(self, x: Any) -> Array:
        """hess V at x (..., d), shape (..., d, d)."""
        flat, lead = self._flat(x)
        d = flat.shape[1]
        return self.model.hessian(flat).reshape(*lead, d, d)

    def control_at(self, x: Any) -> Array:
        """The policy at x (..., d), shape (..., m)."""
        flat, lead = self._flat(x)
        if self.actor is not None:
            a = self.actor(flat)
        elif self.problem is not None:
            a = greedy_policy(self.problem, self.model, flat)
        else:
            raise ProblemError(
                "control_at: the policy is the greedy one of the value, which needs "
                "the problem: neural.load(path, problem=...)."
            )
        return a.reshape(*lead, a.shape[-1])

    def simulate(
        self, x0: Any, horizon: float, dt: float, paths: int, seed: int
    ) -> Paths:
        """Sample paths under this policy, see `hjbpde.simulate`."""
        if self.problem is None:
            raise ProblemError(
                "simulate needs the problem: neural.load(path, problem=...)."
            )
        return simulate(self.problem, self.control_at, x0, horizon, dt, paths, seed)

    def save(self, path: str | Path) -> Path:
        """Write weights (safetensors) and everything else (JSON) to one file."""
        from .storage import save_solution

        return save_solution(self, path)

    def _ended(self, x: Array, value: Array) -> Array:
        """`value` at x (n, d), and g where the process has left."""
        if self.has_exit and self.problem is None:
            raise ProblemError(
                "value_at: where the process has ended is known to the problem only: "
                "neural.load(path, problem=...)."
            )
        if self.problem is None or self.problem.exit is None:
            return value
        over = ~running(self.problem, x)
        if over.any():
            value = value.copy()
            value[over] = exit_value(self.problem, x[over])
        return value

    def _flat(self, x: Any) -> tuple[Array, tuple[int, ...]]:
        x = np.asarray(x, dtype=float)
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
