"""Orders of convergence, measured: upwind 1, corrected 2 and 4.

The manufactured problem has a known value, so errors are exact. Its Dirichlet data are
exact too, which gives the answer away on the faces: this compares schemes, it does not
judge them on a real problem.
"""

import numpy as np

import hjbpde as hjb

problem = hjb.catalogue.get("manufactured")
METHODS = {
    "upwind": hjb.PolicyIteration(hjb.Upwind(), order=1),
    "order 2": hjb.PolicyIteration(order=2),
    "order 4": hjb.PolicyIteration(order=4),
}
COUNTS = (101, 201, 401)


def error(n: int, method: hjb.PolicyIteration) -> float:
    solution = hjb.solve(problem, n, method)
    assert problem.exact is not None
    gap = np.abs(solution.value - problem.exact.value(solution.grid.nodes()))
    return float(gap.max() / np.abs(solution.value).max())


errors = {name: [error(n, m) for n in COUNTS] for name, m in METHODS.items()}
orders = {name: float(np.log2(e[-2] / e[-1])) for name, e in errors.items()}

if __name__ == "__main__":
    for name, found in errors.items():
        print(f"{name:8}", *(f"{e:.1e}" for e in found), f"order {orders[name]:.2f}")
