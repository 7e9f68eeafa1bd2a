"""4-D manufactured problem on 33^4 nodes: time, coverage and tightness of the bar."""

import time

import numpy as np

import hjbpde as hjb

from .measuring import Measured, relative_error


def measure() -> list[Measured]:
    """Coverage and median bar/error on the nodes of the inner 75 %."""
    problem = hjb.catalogue.get("manufactured", dimension=4)
    assert problem.domain is not None
    assert problem.exact is not None
    hjb.solve(problem, (9, 9, 9, 9))
    start = time.perf_counter()
    solution = hjb.solve(problem, (33, 33, 33, 33))
    spent = time.perf_counter() - start
    nodes = solution.grid.nodes()
    inside = problem.domain.inner(0.75).contains(nodes)
    error = np.abs(solution.value - problem.exact.value(nodes))[inside]
    bar = solution.error_bar[inside]
    ratio = float(np.median(bar / np.maximum(error, 1e-300)))
    return [
        Measured("whole solve", spent, 60, unit="s"),
        Measured("coverage", float(np.mean(error <= bar)), 0.99, False),
        Measured("median bar/error", ratio, 6),
        Measured("error, inner box", relative_error(solution, 0.75), 1e-2),
    ]
