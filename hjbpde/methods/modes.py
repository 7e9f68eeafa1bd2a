"""Policy iteration for problems that switch between modes.

In every mode k the monotone scheme gives rows for V_k; the rate q_kj adds ``q_kj (V_j
- V_k)``, so all modes together are one larger monotone scheme, and Howard's iteration
converges for it as for one mode (Bokanowski, Maroso and Zidani, SIAM J. Numer. Anal.
47 (2009) 3001, theorem 2.1). Policies are improved mode by mode and evaluated for all
modes at once.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..coefficients import discount_of
from ..faces import Faces
from ..grid import Grid
from ..kernels.block_tridiagonal import block_thomas
from ..linear import Ladder, Rows
from ..mixing import Anderson
from ..problem import ControlProblem
from ..progress import bar_over
from ..prolongation import (
    cubically_prolonged,
    kept_nodes,
    nested_grids,
    prolonged,
    prolonged_policy,
)
from ..tabulate import GeneralTables, Tables, tabulate
from .admissible import never_ends, stopped_start
from .concave import settle_concave
from .corrections import noiseless
from .inward import inward_start
from .moded_state import ModedState
from .nested import CLOSABLE, RunOptions, carry_slope
from .policy_iteration import Closing, PolicyIteration, creeping, is_searched
from .state import GridState, make_state, set_obstacles

Array = NDArray[np.float64]
FEW_NODES = 100
"""Smaller grids are not worth their overhead, beyond the four a bar needs."""
PATIENCE = 25
"""Policies that do not halve the bound before one grid gives up, see `creeping`."""
SWEEPS = 400
"""Block Gauss-Seidel sweeps over the modes before one evaluation gives up."""


def evaluate_jointly(
    moded: ModedState, residuals: Array, rows: list[Rows], accuracy: float
) -> tuple[Array, float]:
    """Corrections (K, N) of all modes under their rows, and the residual left."""
    rates = moded.free_rates()
    if moded.grid.dimension == 1 and not moded.grid.periodic[0]:
        lower, upper = (
            np.stack([getattr(r, name)[0] for r in rows]) for name in ("lower", "upper")
        )
        c = np.stack([r.c for r in rows])
        out = np.empty_like(residuals)
        K, n = residuals.shape
        block_thomas(c, lower, upper, rates, residuals, np.empty((n, K, K)), out)
        return out, 0.0 if np.isfinite(out).all() else np.inf
    return _gauss_seidel(moded, rates, residuals, rows, accuracy)


def _gauss_seidel(
    moded: ModedState,
    rates: Array,
    residuals: Array,
    rows: list[Rows],
    accuracy: float,
) -> tuple[Array, float]:
    """One mode after the other, the whole sweep mixed with its predecessors."""
    ladders: list[Ladder] = [state.ladder for state in moded.states]
    K = len(rows)
    for k, ladder in enumerate(ladders):
        rows[k].c += rates[:, k].sum(-1)
        ladder.prepare(rows[k])
    x, mixing = np.zeros_like(residuals), Anderson(4)
    size, left = float(np.max(np.abs(residuals))), 1.0
    for _ in range(SWEEPS if size > 0 else 0):
        new, worst = x.copy(), 0.0
        for k, ladder in enumerate(ladders):
            fed = sum(rates[:, k, j] * new[j] for j in range(K) if j != k)
            rest = rows[k].residual(new[k], residuals[k] + fed)
            # Before its own turn a mode's residual tells how far the sweep is.
            worst = max(worst, float(np.max(np.abs(rest))))
            new[k] += ladder.correct(rest, 0.1 * accuracy)[0]
        left = worst / size
        if left <= accuracy:
            return new, left
        x = mixing.next(x.ravel(), (new - x).ravel()).reshape(x.shape)
    return x, left


@dataclass(frozen=True)
class Effort:
    """How much one grid is worth: closures of faces, and searches for controls."""

    slope_updates: int = 4
    scan: bool = False
    polish: bool = True
    settled: bool = False


def iterate_modes(
    moded: ModedState, max_policies: int, options: RunOptions, effort: Effort
) -> None:
    """Policies of all modes until the residual bound is small, in place."""
    closings = [Closing(state, effort.slope_updates) for state in moded.states]
    exact = moded.grid.dimension == 1 and not moded.grid.periodic[0]
    stalled = 0
    for n in range(max_policies):
        first = n == 0
        residuals, rows = moded.residuals(
            effort.scan and first, effort.settled and first
        )
        polish = effort.polish and not (effort.settled and first)
        small = options.tolerance * moded.scale
        closed = _close_slopes(closings, moded.bound(residuals) / moded.scale)
        # A policy is believed once no search finds a better one.
        if closed or (polish and moded.bound(residuals) <= small):
            scan = any(is_searched(one) for one in moded.states)
            residuals, rows = moded.residuals(scan)
        bound = moded.bound(residuals)
        stalled = stalled + 1 if bound > 0.5 * min(moded.bounds[-6:] or [np.inf]) else 0
        moded.bounds.append(bound)
        floor = moded.floor(rows)
        moded.status = "stagnated" if bound <= 20 * floor else "not converged"
        if all(c.done for c in closings) and bound <= small:
            moded.status = "converged"
            break
        bad = not np.isfinite(bound)
        bad |= stalled >= PATIENCE and not creeping(moded.bounds, PATIENCE)
        rough = stalled >= 3 and bound <= 20 * floor
        if bad or rough or time.monotonic() > options.deadline:
            break
        accuracy = 1e-12 if exact else 0.01 if stalled == 0 else 1e-6
        corrections, ratio = evaluate_jointly(moded, residuals, rows, accuracy)
        if ratio >= 1.0:
            break
        moded.move(corrections)
    for state in moded.states:
        state.bounds, state.status = list(moded.bounds), moded.status
    _watch_inverse(moded)


def _watch_inverse(moded: ModedState) -> None:
    """Without discount: how far residuals move V, by A w = 1 of all modes together.

    Raises
    ------
    NotConverged
        Under the policies found the process never ends.
    """
    if moded.rho > 0:
        return
    _, rows = moded.residuals()
    ones = np.ones((len(rows), moded.grid.size))
    w, left = evaluate_jointly(moded, ones, rows, 1e-2)
    if not (left < 1.0 and (w >= 0).all()):
        raise never_ends(moded.grid)
    for state in moded.states:
        # In the units of the bounds, which are residuals over `ending`.
        state.amplification = float(np.max(w)) * moded.ending / state.rho_min


def _close_slopes(closings: list[Closing], relative: float) -> bool:
    """Continue the slopes of artificial faces in every mode that is due."""
    due = [closing for closing in closings if closing.due(relative)]
    for closing in due:
        closing.update()
    return bool(due)


def solve_moded(
    problem: ControlProblem, grid: Grid, method: PolicyIteration, options: RunOptions
) -> list[ModedState]:
    """All modes on every nested grid, coarse to fine."""
    least = CLOSABLE if any(rule is None for rule in problem.faces.values()) else 5
    alone = [problem.in_mode(k) for k in range(problem.modes.n)]
    tables = [[tabulate(one, grid, Faces.of(one, grid))] for one in alone]
    even = {axis for nested in tables for axis in nested[0].correlated_axes}
    grids = nested_grids(grid, least, tuple(even))
    few = sum(g.size < FEW_NODES for g in grids[:-4])
    grids = grids[few:]
    for finer in reversed(grids[1:]):
        for nested in tables:
            nested.insert(0, nested[0].taken(kept_nodes(finer)))
    found: list[ModedState] = []
    shapes = [g.shape for g in grids]
    for i, _ in bar_over(range(len(grids)), shapes, options.progress, "solve"):
        on_grid = [nested[i] for nested in tables]
        before = found[-1] if found else None
        moded = _start(alone, on_grid, grids[i], method.scheme.code, before)
        if len(found) > 1:
            _foresee(moded, found[-2:])
        moded.rates = problem.modes.at(moded.grid.nodes().reshape(grids[i].size, -1))
        page = options.page(grids[i])
        kept = page.found()
        if kept is not None:
            moded.recall(kept)
            found.append(moded)
            continue
        if options.guess is not None and i == len(grids) - 1:
            for k, state in enumerate(moded.states):
                first = options.guess
                state.V = (first if first.shape == grid.shape else first[k]).copy()
        last = i == len(grids) - 1
        scan = not found or problem.best_control is None
        quick = settle_concave(moded, options.tolerance)
        effort = Effort(4 if found else 30, scan and not quick, last, quick)
        if last or not quick:
            iterate_modes(moded, method.max_policies, options, effort)
        found.append(moded)
        if options.kept(moded.status):
            page.keep(moded.memory, finished=True)
    return found


def _foresee(moded: ModedState, found: list[ModedState]) -> None:
    """Add half of the last change between grids: first order, as without noise."""
    for state, wide, near in zip(
        moded.states, found[0].states, found[1].states, strict=True
    ):
        if noiseless(near):
            kept = np.ix_(*[near.grid.kept(k) for k in range(near.grid.dimension)])
            change = prolonged(near.V[kept] - wide.V, near.grid)
            state.V = state.V + 0.5 * prolonged(change, state.grid)


def _rest(state: GridState) -> None:
    """Start where nobody moves, if every node has a control that keeps it there."""
    tables = state.tables
    if not isinstance(tables, GeneralTables) or len(tables.resting) != 1:
        return
    if float(np.min(tables.rho)) == 0.0:
        return
    if np.isfinite(tables.resting[0]).all():
        state.a = tables.resting[0].copy()
        worth = tables.under(state.a).r / state.spread_rho()
        state.V = worth.reshape(state.grid.shape)


def _start(
    alone: list[ControlProblem],
    tables: list[Tables],
    grid: Grid,
    scheme: int,
    before: ModedState | None,
) -> ModedState:
    """The modes on one grid at what the coarser grid found."""
    x = grid.nodes().reshape(-1, grid.dimension)
    states, least = [], np.inf
    for k, one in enumerate(alone):
        faces, V, a = Faces.of(one, grid), None, None
        if before is not None:
            coarse = before.states[k]
            V = cubically_prolonged(coarse.V, grid)
            a = prolonged_policy(coarse.a, coarse.grid, grid)
            for face, other in zip(faces.faces, coarse.faces.faces, strict=True):
                carry_slope(face, other, grid)
        state = make_state(faces, tables[k], scheme, V, a)
        set_obstacles(one, state)
        if V is None and state.ends_by_stops_alone:
            stopped_start(state)
        elif V is None and faces.artificial:
            inward_start(state)
        elif V is None:
            _rest(state)
        states.append(state)
        least = min(least, float(np.min(discount_of(one, x))))
    plain = [state.tables for state in states]
    return ModedState(states, plain, np.zeros((1, len(alone), len(alone))), least)
