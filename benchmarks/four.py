"""4-D manufactured problem on 33^4 nodes: time, coverage and tightness of the bar."""

import time

import numpy as np

import hjbpde as hjb

from .measuring import Measured, relative_error, twins


def judged(solution: hjb.GridSolution) -> tuple[float, float]:
    """Coverage and median bar/error on the nodes of the inner 75 %."""
    problem = solution.problem
    assert problem is not None
    assert problem.domain is not None
    assert problem.exact is not None
    nodes = solution.grid.nodes()
    inside = problem.domain.inner(0.75).contains(nodes)
    error = np.abs(solution.value - problem.exact.value(nodes))[inside]
    bar = solution.error_bar[inside]
    ratio = float(np.median(bar / np.maximum(error, 1e-300)))
    return float(np.mean(error <= bar)), ratio


def measure() -> list[Measured]:
    """Time, coverage, tightness and error, for both kinds of faces."""
    out = []
    for faces, _, problem in twins("manufactured", dimension=4):
        hjb.solve(problem, (9, 9, 9, 9))
        start = time.perf_counter()
        solution = hjb.solve(problem, (33, 33, 33, 33))
        spent = time.perf_counter() - start
        coverage, ratio = judged(solution)
        error = relative_error(solution, 0.75)
        out += [
            Measured(f"whole solve, {faces}", spent, 60, unit="s"),
            Measured(f"coverage, {faces}", coverage, 0.99, False),
            Measured(f"median bar/error, {faces}", ratio, 6),
            Measured(f"error, inner box, {faces}", error, 1e-2),
        ]
    return out
