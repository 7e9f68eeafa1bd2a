"""Policy iteration: the library's multigrid against sparse LU, in one run.

All solvers get the same tables, the same compiled policy improvement, the same
hybrid rows and the same stopping rule (residual bound 1e-9 of sup|V|); they differ
in how a policy is evaluated. Sparse LU is given a fixed sparsity pattern (only the
numbers change between policies) and, in the headline row, the same nested start.
Repeats are interleaved; ratios within one repeat are what counts.

Run: python benchmarks/sparse_lu.py [--shape 401] [--repeats 3]
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import splu

import hjbpde as hjb
from hjbpde.faces import Faces
from hjbpde.linear import Ladder, Rows
from hjbpde.methods.nested import RunOptions, solve_nested
from hjbpde.methods.policy_iteration import iterate
from hjbpde.methods.state import make_state
from hjbpde.tabulate import tabulate

TOLERANCE = 1e-9


@dataclass(eq=False)
class FullLU:
    """Exact evaluation by SuperLU, the sparsity pattern built once a grid."""

    ordering: str
    name: str = "sparse LU"
    pattern: tuple = field(default_factory=tuple)
    lu: object = None
    rows: Rows | None = None

    def prepare(self, rows: Rows) -> None:
        self.rows = rows
        values = self._values(rows)
        if not self.pattern or self.pattern[0] != rows.grid.shape:
            self._build(rows)
        _, order, indices, indptr = self.pattern
        n = rows.c.size
        matrix = sp.csc_matrix((values[order], indices, indptr), shape=(n, n))
        symmetric = self.ordering == "MMD_AT_PLUS_A"
        self.lu = splu(
            matrix,
            permc_spec=self.ordering,
            diag_pivot_thresh=0.0 if symmetric else None,
            options={"SymmetricMode": symmetric},
        )

    def correct(self, residual: np.ndarray, target: float) -> tuple[np.ndarray, float]:
        x = self.lu.solve(residual)
        left = np.max(np.abs(self.rows.residual(x, residual)))
        return x, float(left / np.max(np.abs(residual)))

    @staticmethod
    def _values(rows: Rows) -> np.ndarray:
        diagonal = rows.c + rows.lower.sum(0) + rows.upper.sum(0)
        return np.concatenate([diagonal, -rows.lower.ravel(), -rows.upper.ravel()])

    def _build(self, rows: Rows) -> None:
        """Order of `_values` in a CSC matrix with all neighbours, zeros kept."""
        shape, n = rows.grid.shape, rows.c.size
        number = np.arange(n).reshape(shape)
        row, column = [number.ravel()], [number.ravel()]
        for shift in (1, -1):
            for k in range(len(shape)):
                row.append(number.ravel())
                column.append(np.roll(number, shift, axis=k).ravel())
        row, column = np.concatenate(row), np.concatenate(column)
        order = np.lexsort((row, column))
        counts = np.bincount(column, minlength=n)
        indptr = np.concatenate([[0], np.cumsum(counts)])
        self.pattern = (shape, order, row[order], indptr)


def cold(problem: hjb.ControlProblem, grid: hjb.Grid, ordering: str) -> dict:
    start = time.perf_counter()
    faces = Faces.of(problem, grid)
    state = make_state(faces, tabulate(problem, grid, faces), hjb.Hybrid().code)
    state.ladder = Ladder([FullLU(ordering)])
    iterate(state, TOLERANCE, 200)
    return outcome(state, start)


def nested(problem: hjb.ControlProblem, grid: hjb.Grid, ordering: str | None) -> dict:
    """The library's own nested iteration; `ordering` swaps its engine for LU."""
    import hjbpde.methods.state as states

    kept = states.default_ladder
    if ordering is not None:
        states.default_ladder = lambda grid: Ladder([FullLU(ordering)])
    try:
        start = time.perf_counter()
        tables = tabulate(problem, grid, Faces.of(problem, grid))
        method = hjb.PolicyIteration(order=1)
        options = RunOptions.of(tolerance=TOLERANCE)
        state = solve_nested(problem, grid, tables, method, options)[-1]
        return outcome(state, start)
    finally:
        states.default_ladder = kept


def outcome(state: object, start: float) -> dict:
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "policies": len(state.bounds), "V": state.V}


def measure(shape: int, repeats: int) -> dict[str, list[dict]]:
    problem = hjb.catalogue.get("manufactured", dimension=2)
    grid = hjb.Grid(problem.domain, (shape, shape))
    runs = {
        "hjbpde (multigrid, nested)": lambda: nested(problem, grid, None),
        "LU, same nested start, best ordering": lambda: nested(
            problem, grid, "MMD_AT_PLUS_A"
        ),
        "LU, cold start, best ordering": lambda: cold(problem, grid, "MMD_AT_PLUS_A"),
        "LU, cold start, default ordering": lambda: cold(problem, grid, "COLAMD"),
    }
    for name in list(runs)[:2]:
        runs[name]()  # warm: compiled, and memory mapped
    found: dict[str, list[dict]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            found[name].append(run())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, default=401)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    found = measure(options.shape, options.repeats)
    ours = found["hjbpde (multigrid, nested)"]
    print(f"2-D manufactured problem, {options.shape}^2 nodes")
    for name, results in found.items():
        ratios = [
            r["seconds"] / o["seconds"] for r, o in zip(results, ours, strict=True)
        ]
        seconds = min(r["seconds"] for r in results)
        apart = max(np.max(np.abs(r["V"] - ours[0]["V"])) for r in results)
        scale = np.max(np.abs(ours[0]["V"]))
        print(
            f"{name:40s} {seconds:8.2f} s  ratio {np.median(ratios):6.1f} "
            f"({min(ratios):.1f} .. {max(ratios):.1f})  policies "
            f"{results[0]['policies']:3d}  |V - V_hjbpde| {apart / scale:.1e}"
        )


if __name__ == "__main__":
    main()
