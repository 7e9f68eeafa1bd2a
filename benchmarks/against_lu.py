"""2-D, 401 x 401: nested multigrid against policy iteration with sparse LU.

All solve the same discrete equation of the same tables in one run. "Same start": LU
iterates from the nested start, minimum-degree ordering. "Textbook": from V = 0 on the
finest grid, with SciPy's default ordering and with the best one.
"""

import time
from collections.abc import Callable

import numpy as np
import scipy.sparse.linalg as sla

import hjbpde as hjb
from hjbpde.faces import Faces
from hjbpde.linear import Rows
from hjbpde.methods.nested import RunOptions, solve_nested
from hjbpde.methods.policy_iteration import residual_of
from hjbpde.methods.state import GridState, make_state
from hjbpde.tabulate import tabulate

from .measuring import Measured, seconds

N = 401
METHOD = hjb.PolicyIteration(order=1)
TOLERANCE = 1e-9


def best_ordering(rows: Rows) -> Callable[[np.ndarray], np.ndarray]:
    """Minimum degree on the symmetric pattern, no pivoting."""
    return sla.splu(
        rows.matrix().tocsc(),
        permc_spec="MMD_AT_PLUS_A",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    ).solve


def default_ordering(rows: Rows) -> Callable[[np.ndarray], np.ndarray]:
    """What `splu` does when nothing is said."""
    return sla.splu(rows.matrix().tocsc()).solve


def howard(state: GridState, factor: Callable) -> float:
    """Policies with exact evaluation until the residual bound is met; seconds."""
    start = time.perf_counter()
    for n in range(60):
        state.faces.set_fixed(state.V)
        residual, rows = residual_of(state, scan=n == 0)
        if np.max(np.abs(residual)) / state.rho_min <= TOLERANCE * state.scale:
            break
        state.V = state.V + factor(rows)(residual).reshape(state.grid.shape)
    return time.perf_counter() - start


def measure() -> list[Measured]:
    """Ratios of seconds, larger is better."""
    problem = hjb.catalogue.get("manufactured", dimension=2)
    assert problem.domain is not None
    grid = hjb.Grid(problem.domain, N)
    faces = Faces.of(problem, grid)
    tables = tabulate(problem, grid, faces)

    def ours() -> list[GridState]:
        return solve_nested(problem, grid, tables, METHOD, RunOptions.of())

    spent = seconds(ours)
    coarse = solve_nested(
        problem, grid.coarsened(), tabulate_on(problem, grid.coarsened()), METHOD,
        RunOptions.of(),
    )[-1]  # fmt: skip
    from hjbpde.methods.policy_iteration import prolonged, prolonged_policy

    code = METHOD.scheme.code
    nested = make_state(
        Faces.of(problem, grid), tables, code, prolonged(coarse.V, grid),
        prolonged_policy(coarse.a, coarse.grid, grid),
    )  # fmt: skip
    same = howard(nested, best_ordering)
    cold = howard(make_state(Faces.of(problem, grid), tables, code), best_ordering)
    plain = howard(make_state(Faces.of(problem, grid), tables, code), default_ordering)
    return [
        Measured("same start, best ordering", same / spent, 8, False, "times"),
        Measured("cold start, best ordering", cold / spent, 60, False, "times"),
        Measured("cold start, default ordering", plain / spent, 100, False, "times"),
        Measured("ours", spent, 0.4, unit="s"),
    ]


def tabulate_on(problem: hjb.ControlProblem, grid: hjb.Grid):
    """Tables on a grid of their own."""
    return tabulate(problem, grid, Faces.of(problem, grid))
