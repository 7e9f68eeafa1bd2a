"""Time of one policy (improvement and exact evaluation) per node in 1-D."""

import numpy as np

import hjbpde as hjb
from hjbpde.faces import Faces
from hjbpde.methods.policy_iteration import iterate_fused
from hjbpde.methods.state import make_state
from hjbpde.tabulate import tabulate

from .measuring import Measured, seconds

NODES = 100_001


def measure() -> list[Measured]:
    """Nanoseconds per node and policy, from a cold start on one grid."""
    problem = hjb.catalogue.get("manufactured")
    assert problem.domain is not None
    grid = hjb.Grid(problem.domain, NODES)
    faces = Faces.of(problem, grid)
    tables = tabulate(problem, grid, faces)
    counts: list[int] = []

    def run() -> None:
        state = make_state(faces, tables, hjb.Upwind().code)
        iterate_fused(state, 1e-13, 100)
        counts.append(len(state.bounds))

    spent = seconds(run) / int(np.median(counts)) / NODES
    return [Measured("per node and policy", 1e9 * spent, 22, unit="ns")]
