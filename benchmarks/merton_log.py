"""Merton's problem on a log axis, 801 nodes, by boundary data."""

import numpy as np

import hjbpde as hjb

from .measuring import Measured, relative_error


def control_error(solution: hjb.GridSolution) -> float:
    """Largest error of both controls on the inner 75 %, relative to their size."""
    problem = solution.problem
    assert problem is not None
    assert problem.exact is not None
    assert problem.exact.control is not None
    assert problem.domain is not None
    nodes = solution.grid.nodes()
    wanted = np.asarray(problem.exact.control(nodes))
    inside = problem.domain.inner(0.75).contains(nodes)
    return float((np.abs(solution.control - wanted) / np.abs(wanted))[inside].max())


def measure() -> list[Measured]:
    """Value errors with exact, Robin and no data; control error for the first."""
    targets = {"exact": 5e-7, "homogeneous": 2e-6, None: 2e-5}
    out = []
    for boundary, target in targets.items():
        problem = hjb.catalogue.get("merton", boundary=boundary)
        solution = hjb.solve(problem, 801)
        share = 1.0 if boundary else 0.75
        name = boundary or "artificial, inner 75 %"
        out.append(Measured(f"error, {name}", relative_error(solution, share), target))
        out.append(Measured(f"controls, {name}", control_error(solution), 1e-3))
    return out
