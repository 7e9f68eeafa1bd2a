"""Whether a starting policy has a finite value, and which one to start from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hjbpde.errors import ProblemError
from hjbpde.held import held, keywords
from hjbpde.problem import ControlProblem

from .closing import payoff_slopes
from .collocation import Collocation, FaceTables, PolicyFit
from .exit_region import running
from .features import FeatureBasis
from .start import (
    ConstantPolicy,
    Policy,
    checked_start,
    constant_starts,
    held_inside,
    linear_start,
)
from .time_state import TimedProblem, by_time

Array = NDArray[np.float64]


def admissible_start(
    problem: ControlProblem, start: Callable[[Array], Any] | None, rng: Any
) -> tuple[Policy, str]:
    """The policy to start from and how it was found.

    A given start is checked; else the Riccati feedback of the linearisation; else
    the best admissible constant control.

    Raises
    ------
    ProblemError
        A start whose value is infinite, or no admissible constant control.
    """
    judge = _Judge(problem, rng)
    if start is not None:
        policy = held_inside(problem, checked_start(problem, start))
        reason = judge.refusal(policy)
        if reason:
            raise ProblemError(
                f"PolicyIteration: the start is not admissible: {reason} Its value is "
                "infinite, and the equation then has a smooth solution that is not a "
                "value. Start from a policy that stabilises the state or consumes "
                "less, or leave start=None."
            )
        return policy, "given, admissible"
    linear = linear_start(problem)
    linear = None if linear is None else held_inside(problem, linear)
    if linear is not None and not judge.refusal(linear):
        return linear, "Riccati feedback of the linearisation at the box centre"
    best, best_policy, best_value = None, None, -np.inf
    for constant in constant_starts(problem):
        policy = held_inside(problem, constant)
        if judge.refusal(policy):
            continue
        value = judge.mean_value(policy)
        if value > best_value:
            best, best_policy, best_value = constant, policy, value
    if best is None or best_policy is None:
        hint = ""
        if problem.exit is not None:
            hint = (
                " With an exit the time until it must be finite, and smooth enough for "
                "global features: holes and corners of the region may hide it. Then "
                "solve on a grid (hjbpde.solve)."
            )
        raise ProblemError(
            "PolicyIteration: neither the Riccati feedback of the linearisation nor "
            "any constant control tried has a finite value. Give start=, an "
            f"admissible policy x (n, d) -> (n, m).{hint}"
        )
    control = np.array2string(best.control, precision=4, separator=", ")
    return best_policy, f"the best admissible constant control tried, a = {control}"


def timed_start(
    given: ControlProblem,
    problem: TimedProblem,
    start: Callable[..., Any] | None,
    rng: np.random.Generator,
) -> tuple[Policy, str]:
    """The policy of y = (x, t) to start from, for a problem `given` with a horizon.

    Every policy has a finite value there, so a start is checked for its shape and set
    only. It is a function of x, or of x and the keyword t. Default: the Riccati
    feedback of the linearisation half-way, discounted by 1/T more; else the best
    constant control tried.

    Raises
    ------
    ProblemError
        A start of wrong shape or outside the control set.
    """
    assert given.horizon is not None
    if start is not None:
        of_state = by_time(lambda t: held(start, t=t), "t" in keywords(start))
        return held_inside(problem, checked_start(problem, of_state)), "given"
    half_way = given.slice_at(0.5 * given.horizon, 1.0 / given.horizon)
    linear = linear_start(half_way)
    if linear is not None:
        words = "Riccati feedback of the linearisation at the box centre, half-way"
        return held_inside(problem, by_time(lambda t: linear, False)), words
    judge = _Judge(problem, rng)

    def value(constant: ConstantPolicy) -> float:
        return judge.mean_value(held_inside(problem, constant))

    best = max(constant_starts(problem), key=value)
    control = np.array2string(best.control, precision=4, separator=", ")
    return held_inside(problem, best), f"the best constant control tried, a = {control}"


class _Judge:
    """Evaluates policies on a small basis and looks for signs of an infinite value."""

    def __init__(self, problem: ControlProblem, rng: np.random.Generator) -> None:
        self.problem = problem
        assert problem.domain is not None
        n = {1: 40, 2: 60}.get(problem.dimension, 80)
        basis = FeatureBasis.draw(problem.domain, n, 1.5, rng)
        self.system = Collocation.build(problem, basis, 3.0, rng)
        self.inner = problem.domain.inner(0.5).sample(rng, 256)
        self.inner = self.inner[running(problem, self.inner)]
        if not len(self.inner):
            self.inner = self.system.x
        self.last: tuple[Policy, PolicyFit] | None = None

    def fit(self, policy: Policy) -> PolicyFit:
        """The policy's value on the small basis."""
        if self.last is None or self.last[0] is not policy:
            a = policy(self.system.x)
            self.last = policy, self.system.solve(policy, a, 1e-9)
        return self.last[1]

    def mean_value(self, policy: Policy) -> float:
        """Mean of V over the middle of the box, in the maximising sense."""
        return self.problem.sign * float(
            self.fit(policy).value.value(self.inner).mean()
        )

    def refusal(self, policy: Policy) -> str:
        """Why the policy's value is infinite, empty where no sign of it is seen.

        Under rules on every face the discounted time ``w``, (rho - L)w = 1 with
        homogeneous rules, is positive exactly when the value is finite. Across an
        artificial face that matters, payoff and value must change the same way:
        the smooth solution of an infinite value has the opposite sign.
        """
        fit = self.fit(policy)
        survival = fit.survival.value(self.system.x)
        if not np.isfinite(survival).all() or survival.min() <= 0:
            return (
                f"the discounted time (rho - L)^-1 1 is {survival.min():.3g} "
                "somewhere, but must be positive."
            )
        for face in fit.open_faces:
            if self._opposed(face, fit, policy):
                return (
                    f"at the artificial face {face.face} its value grows against its "
                    "payoff."
                )
        return ""

    def _opposed(self, face: FaceTables, fit: PolicyFit, policy: Policy) -> bool:
        points = face.points
        slope, _ = payoff_slopes(self.problem, points, policy)
        value = fit.value.gradient(points.x)[:, points.axis] * points.sign
        size = np.abs(slope) * np.abs(value)
        if not size.max() > 0:
            return False
        return bool((slope * value).sum() < -0.5 * size.sum())
