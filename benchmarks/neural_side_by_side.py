"""The default against Monte Carlo at equal wall time, in 2-D; the article's LQR beside.

The default runs first; Monte Carlo then gets at least as many seconds, its policies
doubled until it has used them (one policy with its warm-up already takes more).
Errors are sup|V - V*| over sup|V*| at random points of the inner 75 % of the box.
"""

import time

import numpy as np

import hjbpde as hjb
import neural

from .measuring import Measured

ANY = 1e9
"""For numbers that are shown and not judged."""


def measure() -> list[Measured]:
    """Errors and seconds of both, their ratio, and the same on the article's LQR."""
    plane = hjb.catalogue.get("manufactured", dimension=2)
    line = hjb.catalogue.get("lqr")
    out = side_by_side("manufactured 2-D", plane, None, 100.0)
    return out + side_by_side("article's LQR from a = 0", line, idle, 1.0)


def idle(x: np.ndarray) -> np.ndarray:
    """The policy a = 0, where the article starts."""
    return np.zeros((len(x), 1))


def side_by_side(
    name: str, problem: hjb.ControlProblem, start, ratio: float
) -> list[Measured]:
    """Least squares, the Riccati baseline and Monte Carlo on one problem."""
    default = neural.PolicyIteration(start=start)
    neural.solve(problem, default, seed=1)  # warm
    learned, spent = timed(problem, default)
    policies, sampled, took = 1, None, 0.0
    while took < spent or sampled is None:
        evaluation = neural.MonteCarlo(max_policies=policies)
        method = neural.PolicyIteration(evaluation, start)
        sampled, took = timed(problem, method)
        policies *= 2
    best, other = relative_error(learned), relative_error(sampled)
    untrained = relative_error(neural.linear_quadratic(problem))
    return [
        Measured(f"{name}: error, default", best, 1e-7),
        Measured(f"{name}: error, Monte Carlo", other, ANY),
        Measured(f"{name}: error, Riccati baseline", untrained, ANY),
        Measured(f"{name}: time, default", spent, 2.0, unit="s"),
        Measured(f"{name}: time, Monte Carlo", took, ANY, unit="s"),
        Measured(f"{name}: error ratio", other / best, ratio, at_most=False),
    ]


def timed(
    problem: hjb.ControlProblem, method: neural.PolicyIteration
) -> tuple[neural.LearnedSolution, float]:
    """A solution and the seconds it took."""
    began = time.perf_counter()
    solution = neural.solve(problem, method, seed=0)
    return solution, time.perf_counter() - began


def relative_error(solution: neural.LearnedSolution) -> float:
    """sup|V - V*| / sup|V*| on the inner 75 % of the box."""
    assert solution.problem is not None
    assert solution.problem.exact is not None
    inner = solution.domain.inner(0.75)
    x = inner.sample(np.random.default_rng(1), 20_000)
    wanted = np.asarray(solution.problem.exact.value(x))
    return float(np.abs(solution.value_at(x) - wanted).max() / np.abs(wanted).max())
