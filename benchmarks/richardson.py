"""Values on 1601 and 3201 nodes, extrapolated; 1-D manufactured problem.

The hybrid scheme, central at every node, has an expansion in even powers; upwind, whose
branches change, keeps kinks in its error and gains about one order.
"""

import hjbpde as hjb

from .measuring import Measured, relative_error, twins


def measure() -> list[Measured]:
    """Errors of both extrapolated values; only the hybrid one has a target."""
    out = []
    for faces, share, problem in twins("manufactured"):
        for scheme, target in ((hjb.Hybrid(), 1e-10), (hjb.Upwind(), 1e-3)):
            method = hjb.PolicyIteration(scheme, order=1, richardson=True)
            name = type(scheme).__name__.lower()
            error = relative_error(hjb.solve(problem, 3201, method), share)
            out.append(Measured(f"error, {name}, {faces}", error, target))
    return out
