"""Hybrid scheme alone on the 1-D manufactured problem, every node central."""

import numpy as np

import hjbpde as hjb

from .measuring import Measured, relative_error, twins

METHOD = hjb.PolicyIteration(order=1)
COUNTS = (1601, 3201, 6401)


def measure() -> list[Measured]:
    """Order between 3201 and 6401 nodes, and the error at 6401."""
    out = []
    for faces, share, problem in twins("manufactured"):
        found = [relative_error(hjb.solve(problem, n, METHOD), share) for n in COUNTS]
        order = float(np.log2(found[-2] / found[-1]))
        out += [
            Measured(f"|order - 2|, order {order:.3f}, {faces}", abs(order - 2), 0.1),
            Measured(f"error at 6401 nodes, {faces}", found[-1], 1e-8),
        ]
    return out
