"""3-D manufactured problem on 97^3 nodes with defect correction."""

import time

import hjbpde as hjb

from .measuring import Measured, relative_error, twins


def measure() -> list[Measured]:
    """Warm seconds of one solve with its bar, and the error on the inner 75 %."""
    out = []
    for faces, _, problem in twins("manufactured", dimension=3):
        hjb.solve(problem, (17, 17, 17))
        start = time.perf_counter()
        solution = hjb.solve(problem, (97, 97, 97))
        spent = time.perf_counter() - start
        error = relative_error(solution, 0.75)
        out.append(Measured(f"whole solve, {faces}", spent, 20, unit="s"))
        out.append(Measured(f"error, inner box, {faces}", error, 1e-4))
    return out
