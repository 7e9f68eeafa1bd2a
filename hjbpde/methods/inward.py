"""A start for problems with artificial faces: a policy that stays away from them.

On the whole space Howard's iteration climbs from any policy of finite value to the
optimum. On a truncated box an improvement that believes a wrong closure can leave
for a spurious branch (Merton with reflecting faces: consume everything, wealth is
reflected for free). So the coarsest grid starts from the candidate policy that feels
the faces least, and closes the faces anew for the value of every policy.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..closure import target_slopes
from ..coefficients import Coefficients
from ..face_response import MOST_FEEDBACK, damp, most_feedback
from ..improvement import SmoothSlopes, greedy
from ..linear import Ladder, Rows, ladder_for
from ..mixing import Anderson
from .admissible import constant_controls
from .policy_iteration import residual_of
from .state import GridState

Array = NDArray[np.float64]
BOWLS = (0.0, 0.1, 1.0, 10.0, 100.0)
CLOSURES = 12
POLICIES = 25
RUN_AWAY = 1e30
"""A value of this size belongs to a policy without a finite one."""


def inward_start(state: GridState) -> None:
    """Set V, policy and slopes of the coarsest grid from a policy of finite value.

    Undamped first; where the faces of the policy found feed on themselves, once more
    with damped slopes (see face_response.py); where that fails too, the faces start
    as reflecting ones.
    """
    if not len(state.a):
        _evaluate_closed(state, damped=False)
        if most_feedback(state) > MOST_FEEDBACK:
            _evaluate_closed(state, damped=True)
        return
    start, zero = _least_touching(state), state.V.copy()
    for damped in (False, True):
        _reset(state, zero, start)
        with np.errstate(all="ignore"):
            climbed = _climbed(state, damped)
            if climbed and (damped or most_feedback(state) <= MOST_FEEDBACK):
                return
    if not np.isfinite(state.V).all():
        _reset(state, zero, start)


def _reset(state: GridState, V: Array, a: Array) -> None:
    state.V, state.a = V.copy(), a.copy()
    state.faces.set_slopes([0.0 for _ in state.faces.artificial])
    for face in state.faces.artificial:
        face.geometric, face.damping = False, 1.0


def _climbed(state: GridState, damped: bool) -> bool:
    """Howard's iteration with faces closed anew for every policy; did it settle?"""
    for _ in range(POLICIES):
        before = state.V.copy()
        _evaluate_closed(state, damped)
        change = float(np.max(np.abs(state.V - before)))
        if not np.isfinite(change):
            return False
        if change <= 1e-4 * state.scale:
            return True
        residual_of(state, scan=True)
        if not (np.isfinite(state.a).all() and state.scale < RUN_AWAY):
            state.V = np.full_like(state.V, np.nan)
            return False
    return False


def _candidates(state: GridState) -> list[Array]:
    """Constant controls, and feedbacks that climb bowls around the centre."""
    n = state.grid.size
    found = [np.repeat(a[:, None], n, axis=1) for a in constant_controls(state)]
    x = state.grid.nodes().reshape(n, -1).T
    width = np.asarray(state.grid.domain.width)[:, None]
    away = (x - np.mean(x, axis=1, keepdims=True)) / width
    base = state.tables.under(state.a)
    height = max(float(np.ptp(base.r)), 1e-12) / state.rho_min
    for share in BOWLS:
        p, q = -2 * share * height * away / width, -2 * share * height / width**2
        a = state.a.copy()
        greedy(state.tables, SmoothSlopes(p, q + 0 * p), a, scan=True)
        found.append(a)
    return found


def _least_touching(state: GridState) -> Array:
    """The candidate with the smallest mean of E[exp(-rho t)], t the time to a face."""
    scores = []
    candidates = _candidates(state)
    for a in candidates:
        scores.append(_touching(state, state.tables.under(a)))
    return candidates[int(np.argmin(scores))].copy()


def _touching(state: GridState, under: Coefficients) -> float:
    rows, lower, upper = state.rows(under)
    ones = np.zeros(state.grid.shape)
    state.faces.fold(lower, upper, rows.c, None)
    c = rows.c.reshape(state.grid.shape)
    for face in state.faces.artificial:
        slab = state.faces.slab(face, 0)
        for k in range(state.grid.dimension):
            lower[k].reshape(state.grid.shape)[slab] = 0.0
            upper[k].reshape(state.grid.shape)[slab] = 0.0
        c[slab], ones[slab] = 1.0, 1.0
    rows.stay_on_axes(ones.ravel() > 0)
    return float(np.mean(_solve(rows, ones.ravel(), 1e-3)))


def _solve(rows: Rows, b: Array, accuracy: float) -> Array:
    ladder = ladder_for(rows)
    ladder.prepare(rows)
    return _refined(ladder, rows, b, accuracy)


def _refined(ladder: Ladder, rows: Rows, b: Array, accuracy: float) -> Array:
    x, left = np.zeros_like(b), b.copy()
    size = float(np.max(np.abs(b))) or 1.0
    for _ in range(10):
        step, _ = ladder.correct(left, accuracy)
        x = x + step
        left = rows.residual(x, b)
        if float(np.max(np.abs(left))) <= accuracy * size:
            break
    return x


def _evaluate_closed(state: GridState, damped: bool) -> None:
    """The value of state.a with slopes continued through the artificial faces."""
    under = state.tables.under(state.a)
    state.under = under
    state.faces.set_fixed(state.V)
    mixing = Anderson(3)
    shapes = [state.V[state.faces.slab(f, 0)].shape for f in state.faces.artificial]
    cuts = np.cumsum([int(np.prod(s)) for s in shapes])[:-1]
    for n in range(CLOSURES):
        rows, rhs = state.folded(under)
        state.V = _solve(rows, rhs, 1e-8).reshape(state.grid.shape)
        state.faces.set_fixed(state.V)
        if damped and n in (0, 4):
            damp(state)
        old = np.concatenate(
            [
                np.ravel(np.broadcast_to(f.slope, s))
                for f, s in zip(state.faces.artificial, shapes, strict=True)
            ]
        )
        target = target_slopes(state.faces, state.V, choose=n < 4)
        step = np.concatenate([np.ravel(s) for s in target]) - old
        new = mixing.next(old, step)
        parts = np.split(new, cuts)
        state.faces.set_slopes(
            [p.reshape(s) for p, s in zip(parts, shapes, strict=True)]
        )
        width = float(np.min(state.grid.domain.width))
        if np.max(np.abs(step)) * width <= 1e-4 * state.scale:
            return
