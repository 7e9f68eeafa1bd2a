"""2-D manufactured problem on 201 x 201 nodes: error by order and boundary data."""

import hjbpde as hjb

from .measuring import Measured, relative_error, twins


def measure() -> list[Measured]:
    """Dirichlet V* on the whole box; artificial faces on the inner 75 %."""
    out = []
    for order, target in ((2, 1.5e-5), (4, 3e-7)):
        method = hjb.PolicyIteration(order=order)
        for faces, share, problem in twins("manufactured", dimension=2):
            error = relative_error(hjb.solve(problem, (201, 201), method), share)
            out.append(Measured(f"order {order}, {faces}", error, target))
    return out
