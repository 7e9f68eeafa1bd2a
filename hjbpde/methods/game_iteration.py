"""Nested policy iteration for stationary games: replies inside, choices outside.

For a policy a_k of the controller the adversary's problem is one of control, solved by
policy iteration; a_{k+1} is then the best choice, every a answered, through the weights
of the scheme itself (Hoffman and Karp, Management Science 12 (1966) 359; Rao,
Chandrasekaran and Nair, JOTA 11 (1973) 627; Bokanowski, Maroso and Zidani, SIAM J.
Numer. Anal. 47 (2009) 3001). The values of a_k climb to that of the game. Improving
both policies at once is faster and usually converges, but can cycle: it is tried first
and given up as soon as the residual stops falling. Either way the iteration ends by the
residual of the game itself, ``R = sup_a inf_b H_h(V) - rho V``, which bounds the error:
``|V - V_h| <= max|R| / rho``.
"""

from __future__ import annotations

import time

from ..game_tables import GameTables
from .nested import RunOptions
from .policy_iteration import (
    Closing,
    PolicyIteration,
    iterate,
    round_off_floor,
)
from .state import GridState

PATIENCE = 6
"""Policies of both players that may fail to halve the residual."""
SHARE = 0.05
"""What the adversary's problem may leave of the game's residual."""


def settle_game(
    state: GridState,
    method: PolicyIteration,
    options: RunOptions,
    first: bool,
) -> None:
    """Solve the game on one grid, in place; called like `nested.settle`."""
    updates = 30 if first else 4
    play(state, options.tolerance, method.max_policies, options.deadline, updates)


def play(
    state: GridState, tolerance: float, most: int, deadline: float, updates: int
) -> None:
    """Both policies at once while that pays, then replies inside choices, in place."""
    start = state.V.copy(), state.a.copy()
    iterate(state, tolerance, most, deadline, updates, patience=PATIENCE)
    if state.status == "not converged" and time.monotonic() <= deadline:
        if not state.faces.artificial:
            state.V, state.a = start
        climb(state, tolerance, most, deadline, updates)


def climb(
    state: GridState, tolerance: float, most: int, deadline: float, updates: int
) -> None:
    """Choices of the controller, each answered to the end, until R is small enough."""
    tables, history, stalled = state.tables, list(state.bounds), 0
    assert isinstance(tables, GameTables)
    closing, best = Closing(state, updates), float("inf")
    state.status = "not converged"
    for n in range(most):
        _, rows, bound = closing.residual(scan=n == 0)
        history.append(bound)
        stalled, best = (0, bound) if bound < 0.9 * best else (stalled + 1, best)
        if closing.done and bound <= tolerance * state.scale:
            state.status = "converged"
        elif stalled >= 3 and bound <= 20 * round_off_floor(state, rows):
            state.status = "stagnated"
        if state.status != "not converged" or time.monotonic() > deadline:
            break
        state.tables = tables.holding()
        accuracy = max(SHARE * bound / state.scale, 0.1 * tolerance)
        iterate(state, accuracy, most, deadline, 0)
        state.tables = tables
        answered, state.status = state.status, "not converged"
        if answered == "not converged":
            break
    state.bounds = history
