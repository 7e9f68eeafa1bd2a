"""Order of the upwind scheme on the 1-D manufactured problem, Dirichlet data V*."""

import numpy as np

import hjbpde as hjb

from .measuring import Measured, relative_error

METHOD = hjb.PolicyIteration(hjb.Upwind(), order=1)


def measure() -> list[Measured]:
    """|observed order - 1| between 1601 and 3201 nodes."""
    problem = hjb.catalogue.get("manufactured")
    coarse, fine = (relative_error(hjb.solve(problem, n, METHOD)) for n in (1601, 3201))
    order = float(np.log2(coarse / fine))
    return [Measured(f"|order - 1|, order {order:.3f}", abs(order - 1), 0.05)]
