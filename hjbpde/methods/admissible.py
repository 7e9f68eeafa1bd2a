"""Policies whose value is finite: the M-matrix test, and a start that passes it.

A Robin rule that feeds value back (``alpha / beta < 0`` with outward growth) takes
discount away from its face rows. Under a bad policy the rows then stop being an
M-matrix: their solution exists but is the value of nothing, and Howard's iteration
started there can settle on a wrong branch with residual zero. The rows A of a policy
are those of a finite value exactly when ``A w = 1`` has w > 0 (Berman and Plemmons,
Nonnegative Matrices, theorem 6.2.3, condition I27), and then
``|V - V_h| <= max|R| max w``.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from ..errors import NotConverged
from ..face_response import solve_roughly
from ..game_tables import GameTables
from ..grid import Grid
from ..linear import Rows, SparseLU
from ..sets import Finite
from ..tabulate import GeneralTables
from .state import GridState

Array = NDArray[np.float64]
MOST_CANDIDATES = 125


def may_lose_inverse(state: GridState) -> bool:
    """Whether some face feeds value back, so that rows need the test."""
    return any(not f.fixed and f.excess > 0 for f in state.faces.faces)


def constant_controls(state: GridState) -> list[Array]:
    """A few constant controls (m,) spread over the control set."""
    tables = state.tables
    if isinstance(tables, GameTables):
        tables = tables.joint
    if isinstance(tables, GeneralTables):
        controls = tables.problem.controls
        if isinstance(controls, Finite):
            step = max(1, len(controls.points) // MOST_CANDIDATES)
            return list(controls.points[::step])
    low = np.max(np.nan_to_num(tables.low, neginf=-1.0), axis=-1)
    high = np.min(np.nan_to_num(tables.high, posinf=1.0), axis=-1)
    m = low.size
    shares = np.linspace(0.0, 1.0, 11 if m == 1 else 5 if m <= 3 else 2)
    grid = itertools.product(shares, repeat=m)
    spread = [low + np.array(s) * (high - low) for s in grid]
    return spread[:MOST_CANDIDATES]


def touching_time(rows: Rows) -> Array | None:
    """w with A w = 1 if it is positive everywhere, else None."""
    engine = SparseLU()
    engine.prepare(rows)
    w, ratio = engine.correct(np.ones(rows.c.size), 1e-8)
    return w if ratio < 1e-6 and (w > 0).all() else None


def admissible_start(state: GridState) -> None:
    """Start from the value of the best constant control that has a finite one.

    Raises
    ------
    NotConverged
        No candidate has a finite value.
    """
    best, found = -np.inf, None
    for a in constant_controls(state):
        policy = np.repeat(a[:, None], state.grid.size, axis=1)
        under = state.tables.under(policy)
        rows, rhs = state.folded(under)
        if touching_time(rows) is None:
            continue
        engine = SparseLU()
        engine.prepare(rows)
        V, _ = engine.correct(rhs, 1e-10)
        if float(np.mean(V)) > best:
            best, found = float(np.mean(V)), (V, policy)
    if found is None:
        raise NotConverged(
            "no constant control of the control set has a finite value under the "
            "problem's Robin faces: their rule feeds back more value than the "
            "discount takes away. Likely a wrong sign of alpha or beta (the rule is "
            "alpha V + beta dV/dn = g with the outward normal), or a discount that "
            "is too small."
        )
    state.V, state.a = found[0].reshape(state.grid.shape), found[1]


def stopped_start(state: GridState) -> None:
    """Start from stopping everywhere: policies only get better than that.

    Without discount, to go on everywhere has no value.
    """
    psi = state.most if state.least is None else state.least
    assert psi is not None
    state.V = psi.copy()
    if state.faces.fixed_mask is not None:
        state.faces.set_fixed(state.V)


def never_ends(grid: Grid) -> NotConverged:
    """The error for a policy whose rows have no positive inverse."""
    return NotConverged(
        f"policy iteration on the grid {grid.shape} ended at a policy whose value is "
        "infinite (A w = 1 has no positive solution): a Robin rule feeds back more "
        "value than the discount takes away, or without discount the process never "
        "ends. Check the rule's sign, or give guess= near the answer."
    )


def watch_inverse(state: GridState) -> None:
    """Check the final policy's rows; sets ``state.amplification`` to max w.

    Raises
    ------
    NotConverged
        The policy found has no finite value: a wrong branch.
    """
    undiscounted = float(np.min(state.tables.rho)) == 0.0
    if state.under is None or not (may_lose_inverse(state) or undiscounted):
        return
    rows, _ = state.folded(state.under)
    if state.held is not None:
        rows.c[state.held] = 1.0
        rows.lower[:, state.held], rows.upper[:, state.held] = 0.0, 0.0
        rows.stay_on_axes(state.held)
    if state.grid.dimension == 1:
        w = touching_time(rows)
    else:
        ones = np.ones(state.grid.size)
        w = solve_roughly(rows, ones, state.grid).ravel()
        wrong = float(np.max(np.abs(rows.residual(w, ones))))
        w = w if wrong < 1e-2 and (w >= 0).all() else None
    if w is None:
        raise never_ends(state.grid)
    state.amplification = float(np.max(w))
