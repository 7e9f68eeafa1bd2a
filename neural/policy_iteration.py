"""Policy iteration with a learned value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from hjbpde.errors import ProblemError
from hjbpde.problem import ControlProblem

from .evaluation.least_squares import LeastSquares
from .outcome import Outcome


class Evaluation(Protocol):
    """How V of a policy is found.

    Implementer's contract
    ----------------------
    1. `learn` alternates evaluation and greedy improvement until its stop rule.
    2. It keeps the last good state: a run that breaks is stopped, not raised.
    3. It never reads ``problem.exact`` and calls user functions inside the domain
       only, unless its documentation says otherwise.
    4. The same seed gives the same bits.
    5. It takes discounted stationary problems and those with the special fields that
       its class attribute `takes` names, if it has one.
    """

    def learn(
        self, problem: ControlProblem, start: Any, seed: int, progress: bool
    ) -> Outcome:
        """Learn value and policy."""
        ...


@dataclass(frozen=True)
class PolicyIteration:
    """Alternate ``rho V_k = r + L^(a_k) V_k`` and ``a_(k+1) = argmax r + L^a V_k``.

    Converges (quadratically where V is smooth) from an *admissible* start, one whose
    value is finite. From another the same equations lead, with residual zero, to a
    solution that is not the value.

    Parameters
    ----------
    evaluation : LeastSquares, MonteCarlo or Residual
    start : callable, x (n, d) -> (n, m), optional
        The first policy; with a horizon it may name the keyword t. None: the Riccati
        feedback of the linearisation at the box centre, or an admissible constant
        control where there is none.

    Source: Fleming and Soner, Controlled Markov Processes and Viscosity Solutions,
    2nd ed., section IV.5, equation 5.8; Howard's policy improvement.
    """

    evaluation: Evaluation = field(default_factory=LeastSquares)
    start: Callable[[Any], Any] | None = None

    def __post_init__(self) -> None:
        ready = callable(getattr(self.evaluation, "learn", None))
        if isinstance(self.evaluation, type) or not ready:
            raise ProblemError(
                f"PolicyIteration: evaluation is {self.evaluation!r}; give "
                "neural.LeastSquares(...), neural.MonteCarlo(...) or "
                "neural.Residual(...)."
            )
        if self.start is not None and not callable(self.start):
            raise ProblemError("PolicyIteration: start must be a function of x.")

    @property
    def takes(self) -> tuple[str, ...]:
        """Special fields of problems that the evaluation takes."""
        return getattr(self.evaluation, "takes", ())

    @property
    def label(self) -> str:
        """What runs, in words."""
        return f"policy iteration, {self.evaluation}"

    def learn(self, problem: ControlProblem, seed: int, progress: bool) -> Outcome:
        """Run it."""
        return self.evaluation.learn(problem, self.start, seed, progress)
