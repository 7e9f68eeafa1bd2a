"""Upwind scheme on 1601 and 3201 nodes, extrapolated; 1-D manufactured problem."""

import hjbpde as hjb

from .measuring import Measured, relative_error


def measure() -> list[Measured]:
    """Error of the extrapolated value, and the same from the hybrid scheme."""
    problem = hjb.catalogue.get("manufactured")
    out = []
    for scheme in (hjb.Upwind(), hjb.Hybrid()):
        method = hjb.PolicyIteration(scheme, order=1, richardson=True)
        name = type(scheme).__name__.lower()
        error = relative_error(hjb.solve(problem, 3201, method))
        out.append(Measured(f"error, {name}", error, 1e-10))
    return out
