"""The value of a fixed policy of controls and moves at once.

One sparse system (`methods.impulse.follow`) with the rows that the best policy has:
the discrete problem takes the better of waiting and moving node by node, so that no
policy is worth more than the best one on the same grid.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .closure import target_slopes
from .errors import ProblemError
from .faces import Faces
from .grid import Grid
from .methods.impulse import Moves, follow
from .methods.state import GridState, make_state
from .problem import ControlProblem
from .schemes import Upwind
from .table_checks import hold_inside
from .tabulate import fixed_policy_tables

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class MovingValue:
    """What a policy is worth (*shape), and what it would with its moves made sooner.

    `value` is None where some state is moved for ever. `wider` is the value if one node
    more on every side were moved: where between nodes moves begin, a grid cannot tell.
    """

    value: Array | None
    wider: Array | None


def follow_moves(
    problem: ControlProblem, grid: Grid, control: Array, target: Array, best: Array
) -> MovingValue:
    """The value of controls (*shape, m) and moves to `target` (*shape, d).

    A target of NaN leaves the state alone; others are the nearest that the problem's
    impulse lists. First order upwind, with the slopes at artificial faces that belong
    to the best value (*shape).

    Raises
    ------
    ProblemError
        A move that an infinite cost forbids, naming both states.
    """
    state = _state(problem, grid, control, best)
    moves = Moves.of(problem, grid)
    acts, choice = _chosen(moves, target.reshape(grid.size, -1))
    followed = follow(state, moves, acts, choice)
    if followed is None:
        return MovingValue(None, None)
    more, further = _one_node_more(state, moves, acts, choice)
    beyond = follow(state, moves, more, further)
    wider = None if beyond is None else problem.sign * beyond[0].reshape(grid.shape)
    return MovingValue(problem.sign * followed[0].reshape(grid.shape), wider)


def _state(
    problem: ControlProblem, grid: Grid, control: Array, best: Array
) -> GridState:
    """The rows under the controls, everything but the moves."""
    faces = Faces.of(problem, grid)
    a = control.reshape(grid.size, problem.n_controls)
    tables = fixed_policy_tables(problem, grid, faces, a)
    hold_inside(grid, faces, tables.f0, a)
    state = make_state(faces, tables, Upwind().code, problem.sign * best)
    faces.set_slopes(target_slopes(faces, state.V, choose=True))
    state.under = state.tables.under(state.a)
    return state


def _chosen(moves: Moves, target: Array) -> tuple[Mask, NDArray[np.intp]]:
    """Where the state is moved (N,), and the number of the target nearest to that."""
    acts = np.asarray(np.isfinite(target).all(axis=1))
    choice = np.zeros(len(target), np.intp)
    for n in np.flatnonzero(acts):
        listed = moves.targets[n if len(moves.targets) > 1 else 0]
        choice[n] = int(((listed - target[n]) ** 2).sum(axis=1).argmin())
    cost = moves.cost[np.arange(len(choice)), choice]
    bad = np.flatnonzero(acts & ~np.isfinite(cost))
    if bad.size:
        x = moves.grid.nodes_of(bad[:1])[0]
        raise ProblemError(
            f"the policy moves the state from x = {x} to "
            f"{moves.targets_of(choice)[bad[0]]}, at a cost of infinity: the problem "
            "does not allow that move."
        )
    return acts, choice


def _one_node_more(
    state: GridState, moves: Moves, acts: Mask, choice: NDArray[np.intp]
) -> tuple[Mask, NDArray[np.intp]]:
    """The same moves from nodes beside those that are moved too, where they may be."""
    shape, grid = state.grid.shape, state.grid
    here, number = acts.reshape(shape), choice.reshape(shape)
    more, further = here.copy(), number.copy()
    for axis in range(grid.dimension):
        for step in (1, -1):
            beside, theirs = np.roll(here, step, axis), np.roll(number, step, axis)
            if not grid.periodic[axis]:
                edge = [slice(None)] * grid.dimension
                edge[axis] = slice(0, 1) if step == 1 else slice(-1, None)
                beside[tuple(edge)] = False
            new = beside & ~more
            further[new] = theirs[new]
            more |= new
    more, further = more.ravel(), further.ravel()
    allowed = np.isfinite(moves.cost[np.arange(len(further)), further])
    if state.faces.fixed_mask is not None:
        allowed &= ~state.faces.fixed_mask.ravel()
    return acts | (more & allowed), further
