"""2-D manufactured problem on 201 x 201 nodes: error by order and boundary data."""

import hjbpde as hjb

from .measuring import Measured, relative_error


def measure() -> list[Measured]:
    """Dirichlet V* on the whole box; artificial faces on the inner 75 %."""
    out = []
    for order, target in ((2, 1.5e-5), (4, 3e-7)):
        method = hjb.PolicyIteration(order=order)
        for boundary, share in (("exact", 1.0), (None, 0.75)):
            problem = hjb.catalogue.get("manufactured", dimension=2, boundary=boundary)
            error = relative_error(hjb.solve(problem, (201, 201), method), share)
            name = "exact faces" if boundary else "artificial faces, inner 75 %"
            goal = target if boundary else 1e-2
            out.append(Measured(f"order {order}, {name}", error, goal))
    return out
