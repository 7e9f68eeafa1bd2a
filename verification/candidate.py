"""What is judged: a value, a policy, or both, asked through one small object."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hjbpde import Box, ControlProblem, ProblemError, Report
from hjbpde.greedy import greedy_control
from hjbpde.held import held
from hjbpde.state_constraint import hold_policy

from .differences import first_derivatives, second_derivatives

Array = NDArray[np.float64]
Function = Callable[[Array], Any]

VALUE_STEP = 1e-4
"""Difference step for gradients, as a share of the region's width."""
CURVE_STEP = 2e-3
"""Step for second differences, wider because they divide round-off by its square."""


@dataclass(frozen=True)
class Candidate:
    """An answer given as plain functions; with a horizon they name t as well.

    Parameters
    ----------
    value : callable, x (..., d) -> (...), optional
        In the problem's own sense: with ``cost=`` it is a cost. Without a value the
        policy alone is judged.
    control : callable, x (..., d) -> (..., m), optional
        The policy. Without one the greedy control of the value is judged.
    gradient : callable, x (..., d) -> (..., d), optional
        grad V; without one, fourth-order differences of the value.
    stop : callable, x (..., d) -> bool (...), optional
        Where the controller uses the right to stop. Without one, where the value is
        within half the tolerance of what stopping pays.

    Raises
    ------
    ProblemError
        Neither value nor control, or something that is not a function.
    """

    value: Function | None = None
    control: Function | None = None
    gradient: Function | None = None
    stop: Function | None = None

    def __post_init__(self) -> None:
        if self.value is None and self.control is None:
            raise ProblemError(
                "Candidate: neither value= nor control= is given, so there is nothing "
                "to judge. Give the value, the policy, or both."
            )
        for name in ("value", "control", "gradient", "stop"):
            function = getattr(self, name)
            if function is not None and not callable(function):
                raise ProblemError(
                    f"Candidate: {name}= must be a function of points (..., d), got "
                    f"{type(function).__name__}. Wrap arrays in an interpolation."
                )
        if self.gradient is not None and self.value is None:
            raise ProblemError("Candidate: gradient= without value= judges nothing.")

    def at(self, t: float) -> Candidate:
        """The functions at calendar time t; those that do not name t stay."""
        names = ("value", "control", "gradient", "stop")
        return Candidate(**{name: held(getattr(self, name), t=t) for name in names})


@dataclass(frozen=True, eq=False)
class Subject:
    """A candidate made ready: every question takes points (n, d) and is checked.

    Parameters
    ----------
    problem : ControlProblem
    box : Box
        Where the functions may be asked; difference stencils stay inside.
    functions : Candidate
    region : Box or None
        Where the candidate itself claims to hold.
    report : Report or None
        Of a candidate that is a Solution.
    slack : float
        How far above what stopping pays a value still means to stop.
    """

    problem: ControlProblem
    box: Box
    functions: Candidate
    region: Box | None = None
    report: Report | None = None
    slack: float = 0.0

    def at(self, t: float) -> Subject:
        """The candidate at calendar time t, for the problem with its data there."""
        now = self.problem.at_time(t)
        return replace(self, problem=now, functions=self.functions.at(t))

    @property
    def has_value(self) -> bool:
        """Whether a value is judged, not the policy alone."""
        return self.functions.value is not None

    def value(self, x: Array) -> Array:
        """V at x (n, d), shape (n,); may hold NaN, which the verdict judges."""
        assert self.functions.value is not None
        return checked(self.functions.value(x), (len(x),), "value")

    def gradient(self, x: Array) -> Array:
        """grad V at x (n, d), shape (n, d)."""
        if self.functions.gradient is not None:
            return checked(self.functions.gradient(x), x.shape, "gradient")
        return first_derivatives(self.value, x, self.box, VALUE_STEP)

    def curvature(self, x: Array) -> Array:
        """Second derivatives along the axes, shape (n, d)."""
        if self.functions.gradient is None:
            return second_derivatives(self.value, x, self.box, CURVE_STEP)
        columns = [
            first_derivatives(
                lambda y, k=k: self.gradient(y)[:, k], x, self.box, CURVE_STEP, (k,)
            )[:, 0]
            for k in range(x.shape[1])
        ]
        return np.stack(columns, axis=1)

    def raw_control(self, x: Array) -> Array:
        """The policy at x (n, d), shape (n, m), before projection on its set."""
        if self.functions.control is not None:
            shape = (len(x), self.problem.n_controls)
            return checked(self.functions.control(x), shape, "control")
        return self.greedy(x)

    def greedy(self, x: Array) -> Array:
        """The maximiser of the Hamiltonian with this value's derivatives."""
        p = self.gradient(x)
        hess = None
        if callable(self.problem.diffusion):
            hess = np.einsum("ni,ij->nij", self.curvature(x), np.eye(x.shape[1]))
        bad = ~np.isfinite(p).all(axis=1)
        if hess is not None:
            bad |= ~np.isfinite(hess).all(axis=(1, 2))
        a = np.full((len(x), self.problem.n_controls), np.nan)
        good = ~bad
        a[good] = greedy_control(
            self.problem,
            x[good],
            p[good],
            None if hess is None else hess[good],
            strict=False,
        )
        return a

    def stops(self, x: Array) -> NDArray[np.bool_]:
        """Whether the controller stops at x (n, d), shape (n,)."""
        own = [s for s in self.problem.stops if s.by == "controller"]
        if not own:
            return np.zeros(len(x), bool)
        if self.functions.stop is not None:
            return checked(self.functions.stop(x), (len(x),), "stop") > 0
        psi = np.asarray(own[0].payoff(x), float)
        return self.problem.sign * (self.value(x) - psi) <= self.slack

    def control(self, x: Array) -> tuple[Array, Array]:
        """The policy projected on its set, and how far each entry moved, (n, m).

        On a face with StateConstraint the set is that of the controls which lead
        across none.
        """
        raw = self.raw_control(x)
        controls = self.problem.controls
        if controls is None:
            return raw, np.zeros_like(raw)
        if isinstance(controls, Box):
            low, high = controls.bounds_at(x)
            projected = np.clip(raw, np.asarray(low), np.asarray(high))
        else:
            projected = np.where(np.isfinite(raw), controls.clip(raw), raw)
        known = np.isfinite(projected).all(axis=1)
        projected[known] = hold_policy(
            self.problem, x[known], projected[known], strict=False
        )
        return projected, np.abs(projected - raw)


def checked(answer: Any, shape: tuple[int, ...], what: str) -> Array:
    """`answer` as a float64 array of exactly `shape`.

    Raises
    ------
    ProblemError
        Naming the function and both shapes.
    """
    array = np.asarray(answer, dtype=float)
    if array.shape == shape:
        return array
    hint = ""
    if array.shape == (*shape, 1):
        hint = " A scalar function must drop its last axis of length 1."
    raise ProblemError(
        f"candidate: {what} returned shape {array.shape} for {shape[0]} points; "
        f"expected {shape}.{hint}"
    )


def subject_of(candidate: Any, problem: ControlProblem) -> Subject:
    """A Solution, a Candidate or a torch module, made ready to be judged.

    Raises
    ------
    ProblemError
        Anything else, saying what would do.
    """
    assert problem.domain is not None
    if isinstance(candidate, Candidate):
        _check_stop(candidate, problem)
        return Subject(problem, problem.domain, candidate)
    if _is_torch_module(candidate) and not hasattr(candidate, "value_at"):
        if problem.horizon is not None:
            raise ProblemError(
                "cross_check: a bare module knows no time; with a horizon give "
                "verification.Candidate(value=) of a function of x and t."
            )
        import neural  # only a torch module brings torch in

        candidate = neural.as_candidate(candidate, problem)
    if hasattr(candidate, "value_at") and hasattr(candidate, "control_at"):
        functions = Candidate(
            candidate.value_at,
            candidate.control_at,
            candidate.gradient_at,
            getattr(candidate, "stopping_at", None) if problem.stops else None,
        )
        region = getattr(candidate, "region", None)
        report = getattr(candidate, "report", None)
        return Subject(problem, region or problem.domain, functions, region, report)
    raise ProblemError(
        f"cross_check: the candidate is a {type(candidate).__name__}; give a Solution, "
        "verification.Candidate(value=, control=) of functions on (..., d), or a torch "
        "module mapping (n, d) to the value."
    )


def _check_stop(candidate: Candidate, problem: ControlProblem) -> None:
    may = any(s.by == "controller" for s in problem.stops)
    if candidate.stop is not None and not may:
        raise ProblemError(
            "Candidate: stop= is given, but the controller of this problem has no "
            "right to stop; leave it out."
        )
    if may and candidate.stop is None and candidate.value is None:
        raise ProblemError(
            "Candidate: a policy of a problem with a right to stop says where it "
            "stops; give stop=, or value=."
        )


def _is_torch_module(candidate: Any) -> bool:
    # By name, so that asking does not import torch.
    return any(
        kind.__module__.startswith("torch.nn") and kind.__name__ == "Module"
        for kind in type(candidate).__mro__
    )
