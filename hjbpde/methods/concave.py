"""Few calls a policy where the value is concave and nothing is random but the mode.

On a line, without noise, with one control and a closed-form maximiser, a concave value
leaves three candidates at a node and no need to compare them: the maximiser for the
slope ahead where it drives the state up, the one for the slope behind where it drives
the state down, else the control that rests (Achdou et al., Rev. Econ. Stud. 89 (2022)
45, section 4.2). What is found so is a start: the general iteration searches anew on
the finest grid before it is believed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..coefficients import Coefficients
from ..kernels.block_tridiagonal import block_thomas
from ..tabulate import GeneralTables
from .moded_state import ModedState

Array = NDArray[np.float64]
MOST_POLICIES = 40


@dataclass(frozen=True)
class Chosen:
    """Policy of all modes: control, drift and payoff, each (K, N)."""

    a: Array
    f: Array
    r: Array


def settle_concave(moded: ModedState, tolerance: float) -> bool:
    """Howard's iteration by three candidates, in place; False where it does not fit.

    On success the residual bound is at most tolerance * sup|V|.
    """
    tables = [t for t in moded.plain if isinstance(t, GeneralTables)]
    if not _fits(moded, tables):
        return False
    V = moded.values
    x = moded.grid.axes[0]
    rho = np.stack([np.broadcast_to(t.rho, x.shape) for t in tables])
    (hm,), (hp,) = ([h] for h in moded.grid.spacing(0))
    out, ahead = np.empty_like(V), np.empty((x.size, len(V), len(V)))
    before = moded.values
    for _ in range(MOST_POLICIES):
        for state, values in zip(moded.states, V, strict=True):
            state.V = values
        slope = np.diff(V) / hp[:-1]
        fore = np.concatenate([slope, slope[:, -1:]], axis=1)
        back = np.concatenate([slope[:, :1], slope], axis=1)
        chosen = _choose(tables, fore, back)
        rise, fall = np.maximum(chosen.f, 0.0), np.maximum(-chosen.f, 0.0)
        residual = chosen.r + rise * fore - fall * back + moded.coupling() - rho * V
        bound = moded.bound(residual)
        if not np.isfinite(bound):
            break
        if bound <= tolerance * float(np.max(np.abs(V))):
            _keep(moded, chosen, bound)
            return True
        lower, upper = fall / hm, rise / hp
        block_thomas(rho, lower, upper, moded.rates, residual, ahead, out)
        V = V + out
    for state, values in zip(moded.states, before, strict=True):
        state.V = values
    return False


def _fits(moded: ModedState, tables: list[GeneralTables]) -> bool:
    """One axis, held at both faces, one control, closed form, no noise, can rest."""
    grid, states = moded.grid, moded.states
    if grid.dimension > 1 or grid.periodic[0] or len(tables) < len(states):
        return False
    if any(state.may_stop or state.faces.fixed_mask is not None for state in states):
        return False
    held = all(face.noiseless for state in states for face in state.faces.faces)
    able = all(
        len(t.resting) == 1
        and t.problem.best_control is not None
        and t.constant_noise is not None
        and not t.constant_noise.any()
        and np.isfinite(t.resting[0]).all()
        for t in tables
    )
    return held and able


def _choose(tables: list[GeneralTables], fore: Array, back: Array) -> Chosen:
    a, f, r = (np.empty_like(fore) for _ in range(3))
    for k, table in enumerate(tables):
        problem, x = table.problem, table.x
        (up, down), (drift_up, drift_down) = _candidates(table, fore[k], back[k])
        rises, falls = drift_up > 0, drift_down < 0
        # The faces hold the state inside.
        rises[-1], falls[0] = False, False
        falls &= ~rises
        f[k] = np.where(rises, drift_up, np.where(falls, drift_down, 0.0))
        a[k] = np.where(rises, up, np.where(falls, down, table.resting[0][0]))
        r[k] = problem.sign * np.asarray(problem.payoff_at(x, a[k][:, None]), float)
    return Chosen(a, f, r)


def _candidates(table: GeneralTables, *slopes: Array) -> tuple[Array, Array]:
    """The user's maximisers for slopes (n,) each, (len(slopes), n), and their drifts.

    One call for all of them: on grids of a line calls cost more than numbers.
    """
    problem, x = table.problem, np.concatenate([table.x] * len(slopes))
    assert problem.best_control is not None
    slope, shape = problem.sign * np.concatenate(slopes), (len(slopes), -1)
    with np.errstate(all="ignore"):
        a = problem.best_control(x, slope[:, None], np.zeros((slope.size, 1, 1)))
    a = np.clip(np.reshape(a, shape).astype(float), table.low[0], table.high[0])
    drift = np.asarray(problem.drift_at(x, a.reshape(-1, 1)), float)
    return a, drift.reshape(shape)


def _keep(moded: ModedState, chosen: Chosen, bound: float) -> None:
    """Write the policy found into the states."""
    moded.bounds, moded.status = [bound], "converged"
    none = np.zeros((1, 1))
    for k, state in enumerate(moded.states):
        state.a = chosen.a[k : k + 1].copy()
        state.under = Coefficients(chosen.f[k : k + 1], none, chosen.r[k])
        state.bounds, state.status = [bound], "converged"
