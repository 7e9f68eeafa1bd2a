"""One whole solve with impulses: nested grids, error bar, solution."""

from __future__ import annotations

import numpy as np

from ..error_bar import ErrorBar
from ..faces import Faces
from ..grid import Grid
from ..impulse_solution import ImpulseSolution
from ..problem import ControlProblem
from ..tabulate import tabulate
from .corrections import Corrections
from .impulse import ImpulseIteration, Moves, impulse_bound
from .nested import RunOptions, solve_nested
from .policy_iteration import PolicyIteration
from .run import Clock, opinion, report_of


def run_impulse(
    problem: ControlProblem, grid: Grid, method: PolicyIteration, options: RunOptions
) -> ImpulseSolution:
    """Solve on nested grids and bound the error."""
    clock = Clock()
    with clock.phase("tabulate"):
        tables = tabulate(problem, grid, Faces.of(problem, grid))
    iteration = ImpulseIteration(problem)
    with clock.phase("solve"):
        states = solve_nested(problem, grid, tables, method, options, iteration)
    fine = states[-1]
    with clock.phase("error bar"):
        if fine.status != "not converged" and iteration.found is not None:
            bar = impulse_bound(states, *iteration.found)
        else:
            unknown, note = np.full(grid.shape, np.inf), "no bar: not converged"
            bar = ErrorBar(unknown, {}, None, (note,))
    acts, m = fine.stopped_nodes(), problem.n_controls
    moves = Moves.of(problem, grid)
    target = moves.targets_of(moves.best(fine.V)[1]).reshape(*grid.shape, -1)
    return ImpulseSolution(
        problem=problem,
        grid=grid,
        value=problem.sign * fine.V,
        control=np.ascontiguousarray(fine.a.T.reshape(*grid.shape, m)),
        error_bar=bar.total,
        report=report_of(problem, states, method, clock, Corrections(), bar),
        scheme=method.scheme,
        artificial_axes=problem.artificial_axes,
        second_opinion=opinion(problem, states, Corrections()),
        stopping=acts,
        target=np.where(acts[..., None], target, np.nan),
    )
