"""One whole solve with impulses: nested grids, error bar, solution."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..error_bar import ErrorBar, truncation_bar
from ..faces import Faces
from ..grid import Grid
from ..impulse_solution import ImpulseSolution
from ..problem import ControlProblem
from ..tabulate import tabulate
from .bounds import region_mask
from .corrections import Corrections
from .impulse import ImpulseIteration, Moves, impulse_bound
from .larger_box import LargerBox, require_settled
from .nested import RunOptions, solve_nested
from .policy_iteration import PolicyIteration
from .run import Clock, opinion, report_of
from .state import GridState

Array = NDArray[np.float64]


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
            box = _larger(problem, states, method, options)
            (bar,) = box.widened([bar], region_mask(fine))
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


def _larger(
    problem: ControlProblem,
    states: list[GridState],
    method: PolicyIteration,
    options: RunOptions,
) -> LargerBox:
    """The same problem with the artificial faces farther off."""

    def solved(wider: ControlProblem, wide: Grid, _: int) -> tuple[Array, Array]:
        tables = tabulate(wider, wide, Faces.of(wider, wide))
        there, iteration = options.on(wider), ImpulseIteration(wider)
        last = solve_nested(wider, wide, tables, method, there, iteration)[-1]
        require_settled(last.status)
        return last.V, truncation_bar(last, last.V)

    return LargerBox(problem, [s.grid for s in states], [s.V for s in states], solved)
