"""Values of a fixed policy in time, beside the best one on the same operator.

Both take the same implicit steps with the same monotone weights and the same data on
faces, so that the best value is the larger one node by node and step by step: what a
policy loses holds no discretisation noise and cannot be negative.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import MethodMismatch, NotConverged
from .grid import Grid
from .methods.marching import output_times
from .methods.policy_iteration import iterate, iterate_fused
from .methods.state import GridState, make_state
from .methods.stepper import STEP_TOLERANCE, Stepper
from .methods.time_grids import data_grid
from .problem import ControlProblem
from .schemes import Upwind
from .table_checks import hold_inside
from .tabulate import fixed_policy_tables

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Rule = Callable[[float, Array, Mask], tuple[Array, Mask]]


@dataclass(frozen=True, eq=False)
class Beside:
    """A fixed policy and the best one, at times (T,), both in the problem's sense.

    `own`, `best` (T, *shape) are values; `policy`, `best_policy` (T, *shape, m) the
    controls and `stops`, `best_stops` (T, *shape) where the controller stops.
    """

    times: Array
    own: Array
    best: Array
    policy: Array
    best_policy: Array
    stops: Mask
    best_stops: Mask


def march_beside(
    problem: ControlProblem, grid: Grid, rule: Rule, times: Array, steps: int
) -> Beside:
    """March the best policy and a fixed one together from the horizon to today.

    Parameters
    ----------
    rule : callable, (t, control (*shape, m), stops (*shape)) -> (control, stops)
        The fixed policy on the nodes at time t; it is given the best one's controls
        and stops there, to keep them where it has none of its own.
    times : (T,)
        Calendar times to keep; 0 and the horizon are added.
    steps : int
        Implicit Euler steps, graded towards the horizon, first order upwind in space.

    Raises
    ------
    MethodMismatch
        A problem without a horizon, or with fields that implicit marching lacks.
    NotConverged
        A step whose value cannot be found.
    """
    problem.require_only("march_beside", "horizon", "exit", "stop", "jumps")
    if problem.horizon is None:
        raise MethodMismatch("march_beside needs a horizon; hjb.evaluate does not.")
    outputs = output_times(problem, times)
    best = Stepper.of(problem, grid, Upwind())
    # One Faces object: both values see the same data and slopes at every step.
    own = make_state(
        best.state.faces, best.state.tables, best.scheme, best.state.V.copy()
    )
    own.a = np.zeros((0, grid.size))
    values, controls, stopping = [(own.V, best.state.V)], [], []
    for t, dt, kept_there in steps_back(problem, outputs, steps):
        best.step(t, dt)
        theirs, stopped = best.control(), controllers_stops(best.state)
        mine, stops = rule(t, theirs, stopped)
        _follow(problem, best, own, (mine, stops), (t, dt))
        if kept_there:
            values.append((own.V, best.state.V))
            controls.append((mine, theirs))
            stopping.append((stops, stopped))
    # At the horizon nothing is decided: the last decisions stand there.
    controls.insert(0, controls[0])
    stopping.insert(0, stopping[0])
    V, a, ended = (in_time(kept) for kept in (values, controls, stopping))
    V = problem.sign * V
    return Beside(outputs, V[0], V[1], a[0], a[1], ended[0], ended[1])


def steps_back(
    problem: ControlProblem, outputs: Array, steps: int
) -> Iterator[tuple[float, float, bool]]:
    """Every step from the horizon: to which time, how long, whether it is an output."""
    horizon = float(problem.horizon or 0.0)
    wanted = {float(round(t, 12)) for t in horizon - outputs}
    for before, now in pairwise(data_grid(problem, outputs, steps)):
        yield horizon - now, now - before, float(round(now, 12)) in wanted


def in_time(kept: list[tuple[Any, Any]]) -> Any:
    """Pairs kept from the horizon back, as one array (2, T, ...) forward in time."""
    return np.stack([np.stack(pair) for pair in kept[::-1]], axis=1)


def controllers_stops(state: GridState) -> Mask:
    """Nodes where the best controller stops."""
    if state.least is None:
        return np.zeros(state.grid.shape, bool)
    return np.abs(state.V - state.least) <= 1e-12 * state.scale


def _follow(
    problem: ControlProblem,
    best: Stepper,
    own: GridState,
    decided: tuple[Array, Mask],
    step: tuple[float, float],
) -> None:
    """One step of the fixed policy (controls, stops) after the best one's (t, dt)."""
    (a, stops), (t, dt) = decided, step
    m, rate = problem.n_controls, 1.0 / dt
    now = problem.slice_at(t, 1.0)
    flat = a.reshape(own.grid.size, m)
    tables = fixed_policy_tables(now, own.grid, own.faces, flat)
    hold_inside(own.grid, own.faces, tables.f0, flat)
    tables = tables.on(own.faces, best.known_jumps())
    source = rate * own.V.ravel()
    own.tables = replace(tables, rho=tables.rho - 1.0 + rate, r0=tables.r0 + source)
    own.least, own.most = _held(best.state, stops)
    own.bounds.clear()
    own.V = own.V.copy()
    if not iterate_fused(own, STEP_TOLERANCE, 100, 0):
        iterate(own, 1e-10, 100, slope_updates=0)
    if not np.isfinite(own.V).all() or own.status == "not converged":
        raise NotConverged(
            f"the fixed policy's step at t = {t:.6g} (dt = {dt:.3g}) did not converge: "
            "its value may grow without bound."
        )


def _held(best: GridState, stops: Mask) -> tuple[Array | None, Array | None]:
    """Obstacles that hold V at psi where the policy stops and let it go elsewhere.

    An adversary's right to stop stays: it answers every policy in its own best way.
    """
    if best.least is None or not stops.any():
        return None, best.most
    most = np.inf if best.most is None else best.most
    return np.where(stops, best.least, -np.inf), np.where(stops, best.least, most)
