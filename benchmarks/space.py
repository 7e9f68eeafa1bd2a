"""3-D manufactured problem on 97^3 nodes with defect correction."""

import time

import hjbpde as hjb

from .measuring import Measured, relative_error


def measure() -> list[Measured]:
    """Warm seconds of one solve with its bar, and the error on the inner 75 %."""
    problem = hjb.catalogue.get("manufactured", dimension=3)
    hjb.solve(problem, (17, 17, 17))
    start = time.perf_counter()
    solution = hjb.solve(problem, (97, 97, 97))
    spent = time.perf_counter() - start
    return [
        Measured("whole solve", spent, 20, unit="s"),
        Measured("error, inner box", relative_error(solution, 0.75), 1e-4),
    ]
