"""One whole solve of a stationary game, and of the swapped one where that differs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..boundary import Extrapolate, StateConstraint
from ..closure import target_slopes
from ..defect import HighOrder
from ..errors import MethodMismatch, NotConverged
from ..faces import Faces
from ..game_improvement import order_gap
from ..game_solution import StationaryGameSolution
from ..game_tables import GameTables, tabulate_game
from ..grid import Grid
from ..players import swapped
from ..problem import ControlProblem
from .game_iteration import settle_game
from .nested import RunOptions, Settling, solve_nested
from .policy_iteration import PolicyIteration
from .run import Clock, solved_fields
from .state import on_nodes

Array = NDArray[np.float64]
MATTERS = 1e-6
"""Gap of the order of play, relative to the payoff, above which it is worth telling."""


def run_game(
    problem: ControlProblem, grid: Grid, method: PolicyIteration, options: RunOptions
) -> StationaryGameSolution:
    """Solve the game as written, bound the error, and weigh the order of play.

    Raises
    ------
    MethodMismatch
        Faces that admit inward drift only: whose drift they would limit is open.
    """
    check_game_faces(problem)
    clock = Clock()
    with clock.phase("tabulate"):
        tables = _tabulated(problem, grid)
    fields, u = solved_fields(
        problem, grid, tables, method, options, clock, _tabulated, settle_game
    )
    m = tables.n_own
    report, other = fields["report"], None
    with clock.phase("order of play"):
        gap = gap_of(problem, grid, tables, problem.sign * fields["value"], u)
        if gap > MATTERS * payoff_size(tables, u) and report.converged:
            other = _other_value(problem, grid, method, options)
            apart = float(np.max(np.abs(other - fields["value"])))
            note = f"the order of play moves V by up to {apart:.3g} (swapped_value)"
            report = replace(report, checks=(*report.checks, note))
    fields["report"] = replace(report, seconds=dict(clock.seconds))
    return StationaryGameSolution(
        **fields,
        control=on_nodes(grid, u[:m]),
        adversary_control=on_nodes(grid, u[m:]),
        isaacs_gap=gap,
        swapped_value=other,
    )


def _tabulated(problem: ControlProblem, grid: Grid) -> GameTables:
    return tabulate_game(problem, grid, Faces.of(problem, grid))


def check_game_faces(problem: ControlProblem) -> None:
    """Refuse faces that limit the drift: both players would share the duty."""
    for face, rule in problem.faces.items():
        if isinstance(rule, StateConstraint | Extrapolate):
            raise MethodMismatch(
                f"'boundary': {type(rule).__name__} on face {face} admits inward drift "
                "only, and with an adversary it is open whose controls that limits. "
                "Use Reflecting(), Dirichlet data, or leave the face without a rule."
            )


def gap_of(
    problem: ControlProblem, grid: Grid, tables: GameTables, V: Array, u: Array
) -> float:
    """Largest difference of the order of play in the Hamiltonian at central slopes.

    V (*shape) in the maximising sense. Nodes with data of their own do not count.
    """
    faces = Faces.of(problem, grid)
    faces.set_fixed(V)
    faces.set_slopes(target_slopes(faces, V, choose=True))
    slopes = HighOrder(faces, 2).slopes(V)
    gap = order_gap(tables, slopes, u)
    if faces.fixed_mask is not None:
        gap[faces.fixed_mask.ravel()] = 0.0
    return float(gap.max())


def payoff_size(tables: GameTables, u: Array) -> float:
    """Largest payoff under the policies u (M, N)."""
    return float(np.max(np.abs(tables.under(u).r))) or 1.0


def _other_value(
    problem: ControlProblem, grid: Grid, method: PolicyIteration, options: RunOptions
) -> Array:
    """The value of the monotone scheme with the adversary's choice first, (*shape)."""
    turned = swapped(problem)
    tables = _tabulated(turned, grid)
    options = replace(options, guess=None, part="swapped ")
    solver = Settling(settle_game)
    last = solve_nested(turned, grid, tables, method, options, solver)[-1]
    if last.status == "not converged":
        raise NotConverged(
            "the game as written is solved, but not the one with the order of play "
            "swapped: it tells what the order is worth. Try a coarser grid."
        )
    return turned.sign * last.V
