"""Learn a problem: check it, run the method, label the result."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from hjbpde.errors import MethodMismatch, ProblemError
from hjbpde.problem import ControlProblem
from hjbpde.report import Report
from hjbpde.sets import Box

from .options import check_count
from .outcome import Outcome
from .policy_iteration import PolicyIteration
from .probe import check_ends, probe
from .q_learning import QLearning
from .solution import LearnedSolution
from .time_state import slice_of
from .timed_solution import TimedLearnedSolution


def solve(
    problem: ControlProblem,
    method: PolicyIteration | QLearning | None = None,
    *,
    region: Box | None = None,
    seed: int = 0,
    progress: bool = False,
) -> LearnedSolution:
    """Learn V and the policy of ``rho V - V_t = max_a { r + L^a V }``.

    Parameters
    ----------
    problem : ControlProblem
        Discounted and stationary (V_t = 0); `PolicyIteration` also takes a horizon,
        V(x, T) = g(x), an exit region, V = g on its surface, and rights to stop,
        min(rho V - V_t - max_a {...}, V - psi) = 0. A method's `takes` says it.
    method : PolicyIteration or QLearning, optional
        Default ``PolicyIteration(LeastSquares())``.
    region : Box, optional
        Where the answer is meant to hold; default the inner 75 % along axes with an
        artificial face. Training always uses the whole domain.
    seed : int
        The same seed gives the same bits (at equal thread count and build).
    progress : bool
        Show a bar.

    Returns
    -------
    LearnedSolution, whose report says why it stopped; with a horizon its questions
    take a time, ``value_at(x, t=)``. A run that does not converge is returned with
    that status: its best state is not lost.

    Raises
    ------
    ProblemError
        Unusable functions, region or starting policy.
    MethodMismatch
        A field that the method does not take.
    """
    if not isinstance(problem, ControlProblem):
        raise ProblemError(
            f"neural.solve takes a ControlProblem, got {type(problem).__name__}; a "
            "model written in torch becomes one by neural.from_torch."
        )
    method = PolicyIteration() if method is None else method
    if isinstance(method, type) or not callable(getattr(method, "learn", None)):
        raise ProblemError(
            f"neural.solve: method is {method!r}; give neural.PolicyIteration(...) or "
            "neural.QLearning(...). A score is learned by ScoreControl(...).solve."
        )
    check_count("neural.solve", "seed", seed, 0)
    _require_fields(problem, method)
    region = _region(problem, region)
    began = time.perf_counter()
    checks = _probed(problem, seed)
    checked = time.perf_counter()
    outcome = method.learn(problem, seed, progress)
    report = _report(method, outcome, checks, checked - began)
    assert problem.domain is not None
    found = (problem, problem.domain, region, report, outcome.model, outcome.actor)
    ends: dict[str, Any] = {
        "has_exit": problem.exit is not None,
        "stopping": outcome.stopping,
    }
    if problem.horizon is None:
        return LearnedSolution(*found, **ends)
    return TimedLearnedSolution(*found, **ends, horizon=float(problem.horizon))


def _require_fields(problem: ControlProblem, method: Any) -> None:
    """Refuse special fields that the method does not take, by name."""
    name = type(getattr(method, "evaluation", method)).__name__
    takes = getattr(method, "takes", ())
    if problem.stop is not None and "stop" not in takes:
        raise MethodMismatch(
            f"neural.solve with {name} does not know the field 'stop' of this problem; "
            "neural.PolicyIteration(...) does, and so does a grid (hjbpde.solve)."
        )
    problem.require_only(f"neural.solve with {name}", *takes)


def _probed(problem: ControlProblem, seed: int) -> tuple[str, ...]:
    """Checks of the functions, with a horizon today, half-way and at the end."""
    check_ends(problem if problem.horizon is None else problem.at_time(0.0), seed)
    if problem.horizon is None:
        return probe(problem, seed)
    times = (0.0, 0.5 * problem.horizon, float(problem.horizon))
    return [probe(slice_of(problem, t), seed) for t in times][-1]


def _region(problem: ControlProblem, region: Box | None) -> Box:
    assert problem.domain is not None
    if region is None:
        return problem.domain.inner(0.75, problem.artificial_axes)
    if not isinstance(region, Box):
        raise ProblemError(f"neural.solve: region = {region!r}; give an hjb.Box.")
    corners = np.stack([np.asarray(region.low), np.asarray(region.high)])
    if corners.shape[1] != problem.dimension:
        raise ProblemError(
            f"neural.solve: region has {corners.shape[1]} axes, the problem "
            f"{problem.dimension}."
        )
    if not problem.domain.contains(corners, 1e-12).all():
        raise ProblemError(
            f"neural.solve: region {region} reaches outside {problem.domain}."
        )
    return region


def _report(
    method: PolicyIteration | QLearning,
    outcome: Outcome,
    checks: tuple[str, ...],
    probing: float,
) -> Report:
    return Report(
        status=outcome.status,
        method=method.label,
        iterations=len(outcome.residuals),
        residuals=outcome.residuals,
        seconds={"probe": probing, **outcome.seconds},
        checks=(*outcome.checks, *checks),
        fallbacks=outcome.fallbacks,
        details={**outcome.details, "history": outcome.history},
    )
