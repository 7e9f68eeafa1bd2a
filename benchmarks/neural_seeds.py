"""Spread over seeds 0 to 4 of the two evaluations; errors on the inner 75 %."""

import time

import numpy as np

import hjbpde as hjb
import neural

from .measuring import Measured

SEEDS = range(5)


def measure() -> list[Measured]:
    """Median and worst error of V, of every control, and the longest CPU time."""
    out = []
    squares = neural.PolicyIteration(neural.LeastSquares())
    for d, goal in ((1, 1e-10), (2, 1e-7), (4, 2e-5)):
        problem = hjb.catalogue.get("manufactured", dimension=d)
        out += spread(f"least squares, manufactured {d}-D", problem, squares, goal, 8)
    merton = hjb.catalogue.get("merton")
    out += spread("least squares, Merton", merton, squares, 1e-8, 8, (1e-6, 1e-6))
    paths = neural.PolicyIteration(neural.MonteCarlo(), start=idle)
    lqr = hjb.catalogue.get("lqr")
    out += spread("Monte Carlo, LQR from a = 0", lqr, paths, 1e-2, 180, (1e-2,))
    paths = neural.PolicyIteration(neural.MonteCarlo())
    goals = (5e-2, 5e-2)
    return out + spread("Monte Carlo, Merton", merton, paths, 2e-2, 180, goals)


def idle(x: np.ndarray) -> np.ndarray:
    """The policy a = 0, where the article starts."""
    return np.zeros((len(x), 1))


def spread(
    name: str,
    problem: hjb.ControlProblem,
    method: neural.PolicyIteration,
    goal: float,
    limit: float,
    controls: tuple[float, ...] = (),
) -> list[Measured]:
    """One method on one problem."""
    found, spent = [], []
    for seed in SEEDS:
        start = time.process_time()
        learned = neural.solve(problem, method, seed=seed)
        spent.append(time.process_time() - start)
        found.append(errors(problem, learned))
    table = np.array(found)
    goals = (goal, *controls)
    kinds = ("V", *(f"control {k}" for k in range(len(controls))))
    out = []
    for kind, column, wanted in zip(kinds, table.T, goals, strict=False):
        out.append(Measured(f"{name}: {kind}, median", np.median(column), wanted))
        out.append(Measured(f"{name}: {kind}, worst of 5", column.max(), wanted))
    return [*out, Measured(f"{name}: longest CPU time", max(spent), limit, unit="s")]


def errors(problem: hjb.ControlProblem, learned: neural.LearnedSolution) -> list[float]:
    """Relative errors of V and of each control at random states."""
    assert problem.exact is not None
    assert problem.domain is not None
    x = problem.domain.inner(0.75).sample(np.random.default_rng(1), 5000)
    wanted = np.asarray(problem.exact.value(x))
    out = [float(np.abs(learned.value_at(x) - wanted).max() / np.abs(wanted).max())]
    if problem.exact.control is not None:
        a = np.asarray(problem.exact.control(x))
        gap = np.abs(learned.control_at(x) - a).max(0)
        out += [float(e) for e in gap / np.abs(a).max(0)]
    return out
