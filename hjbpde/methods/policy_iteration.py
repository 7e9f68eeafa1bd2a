"""Howard's policy iteration on nested grids, evaluation inexact but watched.

On each grid: improve the policy through the scheme's own weights, take the HJB
residual under it, reduce it by the ladder of linear engines, repeat. With a monotone
scheme the residual bounds the algebraic error: ``|V - V_h| <= max|R_h(V)| / min rho``
(comparison principle of the discrete equation). Each finer grid starts from the
coarser one, whose solution also feeds the error bar.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..closure import target_slopes
from ..errors import NotConverged
from ..improvement import MonotoneStencil, improve
from ..kernels.tridiagonal import howard_sweep
from ..kernels.upwind import monotone_residual
from ..linear import Rows, largest
from ..mixing import Anderson
from ..schemes import Hybrid, Scheme
from ..sets import Box
from ..table_checks import no_control
from ..tabulate import GeneralTables, QuadraticTables
from .state import GridState

Array = NDArray[np.float64]
EPS = float(np.finfo(float).eps)
RARE = 0.4
"""Largest share of jumps in the rate of a row that is left to a fixed point."""
CREEPING = 0.95
"""Ratio of bounds, half a patience apart, up to which an iteration still moves."""
HEAVY = 1e3
"""Weight of a stopped node's row against the heaviest other row."""


@dataclass(frozen=True)
class PolicyIteration:
    """Policy iteration for discounted stationary problems, 1 to 4 dimensions.

    Parameters
    ----------
    scheme : Upwind or Hybrid
        The monotone scheme. First order, or second where the noise allows.
    order : {1, 2, 4}
        1 returns the monotone scheme's own solution; 2 and 4 correct it towards
        central differences of that order wherever the value is smooth enough.
    richardson : bool
        Extrapolate from the grid and its coarsening (order 1 only).
    max_policies : int
        Policies on one grid before giving up.
    """

    scheme: Scheme = field(default_factory=Hybrid)
    order: int = 2
    richardson: bool = False
    max_policies: int = 200

    @property
    def name(self) -> str:
        """The method in words."""
        label = type(self.scheme).__name__.lower()
        text = f"policy iteration, {label} scheme"
        if self.richardson:
            return text + " + Richardson extrapolation"
        if self.order > 1:
            text += f" + defect correction to order {self.order}"
        return text


def residual_of(
    state: GridState, scan: bool, polish: bool = True
) -> tuple[Array, Rows]:
    """Improve the policy, and the HJB residual of V under it with its rows."""
    stencil = MonotoneStencil.of(state.faces, state.scheme, state.V)
    under = improve(state.tables, stencil, state.a, scan, polish)
    state.under = under
    rows, lower, upper = state.rows(under)
    out = np.empty(state.grid.size)
    monotone_residual(
        stencil.padded.ravel(), rows.shape, lower, upper, state.tables.rho, under.r,
        out,
    )  # fmt: skip
    if state.off_axes is not None:
        state.off_axes.add_to(out, state.V.ravel())
    if state.may_stop:
        stopped = state.settle_stops(out, rows)
        stencil = MonotoneStencil.of(state.faces, state.scheme, state.V)
        monotone_residual(
            stencil.padded.ravel(), rows.shape, lower, upper, state.tables.rho,
            under.r, out,
        )  # fmt: skip
        if state.off_axes is not None:
            state.off_axes.add_to(out, state.V.ravel())
        # Rows of their own, heavy so that coarse grids do not move them either.
        rows.c[stopped] = HEAVY * float(np.max(rows.c + lower.sum(0) + upper.sum(0)))
        lower[:, stopped], upper[:, stopped], out[stopped] = 0.0, 0.0, 0.0
        rows.stay_on_axes(stopped)
    if state.faces.fixed_mask is not None:
        out[state.faces.fixed_mask.ravel()] = 0.0
    state.faces.fold(lower, upper, rows.c, None)
    return out, rows


def round_off_floor(state: GridState, rows: Rows) -> float:
    """What rounding leaves of the residual bound: eps |V| max weight / rho."""
    weights = rows.lower.sum(0) + rows.upper.sum(0) + rows.c + rows.cross_weight
    weight = float(np.max(weights))
    return 4 * EPS * state.scale * weight / state.rho_min


def iterate(
    state: GridState,
    tolerance: float,
    max_policies: int,
    deadline: float = np.inf,
    slope_updates: int = 4,
    after: Callable[[GridState], None] | None = None,
    patience: int = 25,
    scan: bool = True,
) -> None:
    """Policies until the residual bound is below tolerance * scale, in place.

    Gives up after `patience` policies that do not halve the bound, unless it creeps
    down as the places where controls switch move node by node. Ends with status
    "converged", "stagnated" (round-off floor) or "not converged". A searched policy is
    believed once a scan of the whole control set finds none better: one that is best
    only among its neighbours leaves no residual. `scan`: one to begin with, too.
    """
    exact = state.grid.dimension == 1 and not state.grid.periodic[0]
    exact &= state.off_axes is None
    closing = Closing(state, slope_updates)
    stalled, sharper = 0, 0.004
    scans = Scans(is_searched(state), scan)
    for n in range(max_policies):
        residual, rows, bound = closing.residual(scans.due)
        if not np.isfinite(bound):
            _fail_non_finite(state, residual)
        best = min(state.bounds[-6:], default=np.inf) if n else np.inf
        state.bounds.append(bound)
        if closing.done and bound <= tolerance * state.scale:
            if scans.agree():
                state.status = "converged"
                return
            stalled = 0
            continue
        scans.pass_on()
        stalled = stalled + 1 if bound > 0.5 * best else 0
        if stalled >= 3 and bound <= 20 * round_off_floor(state, rows):
            state.status = "stagnated"
            return
        given_up = stalled >= patience and not creeping(state.bounds, patience)
        if given_up or time.monotonic() > deadline:
            break
        # Far from the answer a policy is not worth an accurate evaluation; where
        # controls tie, the slopes of what evaluation leaves decide between them.
        sharper = max(0.1 * sharper, 1e-9) if stalled else sharper
        accuracy = 1e-12 if exact else 0.05 if bound > 0.1 * state.scale else sharper
        state.ladder.prepare(rows)
        correction, ratio = state.ladder.correct(
            residual, accuracy, 0.01 if stalled > 2 else None
        )
        if ratio >= 1.0 and bound > 20 * round_off_floor(state, rows):
            break
        state.V = state.V + correction.reshape(state.grid.shape)
        if after is not None:
            after(state)
    floor = round_off_floor(state, rows)
    state.status = "stagnated" if state.bounds[-1] <= 100 * floor else "not converged"


def creeping(bounds: list[float], patience: int) -> bool:
    """Whether bounds fell by a twentieth in the last half of `patience` policies.

    Without noise a switch of controls moves by one node a policy, and the residual
    there is that of a kink until it arrives.
    """
    before = bounds[: -(patience // 2)]
    return bool(before) and bounds[-1] < CREEPING * before[-1]


def is_searched(state: GridState) -> bool:
    """Whether controls are found by search in a box, which may miss the best."""
    tables = state.tables
    return (
        isinstance(tables, GeneralTables)
        and tables.n_controls > 0
        and isinstance(tables.problem.controls, Box)
    )


class Scans:
    """When a search asks the whole control set: to begin with, and to be believed.

    A policy that leaves no residual is believed once a scan agrees. From then on every
    policy is scanned: one node that changes hills moves others.
    """

    def __init__(self, searched: bool, first: bool) -> None:
        self.due = first
        self._confirming = not searched

    def agree(self) -> bool:
        """Whether a policy without residual is believed; if not, a scan is due."""
        if self._confirming or self.due:
            return True
        self.due = self._confirming = True
        return False

    def pass_on(self) -> None:
        """To the next policy."""
        self.due = self.due and self._confirming


class Closing:
    """When to continue slopes through artificial faces, and when to stop.

    Only a settled value is continued: on the way there it may belong to policies
    whose value on the whole space is infinite, and the closure would keep them.
    """

    tolerance = 1e-7
    settled = 1e-4

    def __init__(self, state: GridState, updates: int) -> None:
        self.state = state
        self.left = updates if state.faces.artificial else 0
        self.choices = 6
        self.mixing = Anderson(3)

    @property
    def done(self) -> bool:
        """Whether the slopes stay as they are from now on."""
        return self.left <= 0

    def due(self, relative: float) -> bool:
        """Whether a value with this relative residual or change may be continued."""
        return self.left > 0 and relative <= self.settled

    def residual(self, scan: bool) -> tuple[Array, Rows, float]:
        """`residual_of` with its bound, after the slopes were continued where due."""
        state = self.state
        state.faces.set_fixed(state.V)
        residual, rows = residual_of(state, scan)
        bound = largest(residual) / state.rho_min
        if self.due(bound / state.scale):
            self.update()
            residual, rows = residual_of(state, scan=False)
            bound = largest(residual) / state.rho_min
        return residual, rows, bound

    def update(self) -> None:
        """Continue the slopes once; the last time when they hardly change."""
        state = self.state
        self.left -= 1
        self.choices -= 1
        before = [
            np.broadcast_to(face.slope, state.V[state.faces.slab(face, 0)].shape)
            for face in state.faces.artificial
        ]
        after = target_slopes(state.faces, state.V, choose=self.choices > 0)
        if self.choices == 0:
            self.mixing = Anderson(3)
        old = np.concatenate([np.ravel(s) for s in before])
        step = np.concatenate([np.ravel(s) for s in after]) - old
        new = self.mixing.next(old, step) if self.choices < 0 else old + step
        cuts = np.cumsum([s.size for s in before])[:-1]
        parts = np.split(new, cuts)
        state.faces.set_slopes(
            [p.reshape(s.shape) for p, s in zip(parts, before, strict=True)]
        )
        widths = np.asarray(state.grid.domain.width)
        size = float(np.max(np.abs(step))) * float(np.min(widths))
        if self.choices <= 0 and size <= self.tolerance * state.scale:
            self.left = 0


def iterate_fused(
    state: GridState, tolerance: float, max_policies: int, slope_updates: int = 4
) -> bool:
    """The one-dimensional fast path; False where the tables do not fit it.

    Improvement and exact evaluation in two passes over the nodes. Stops when the
    change between values stops halving, which is the round-off floor, or is below
    tolerance * scale. Jumps bring their gain at the value before.
    """
    tables, grid = state.tables, state.grid
    if not fits_fused(state):
        return False
    assert isinstance(tables, QuadraticTables)
    m = tables.n_controls
    zero, wide = np.zeros(1), np.array([np.inf])
    b = np.ascontiguousarray(tables.B[0, 0]) if m else zero
    r1 = tables.r1[0] if m else zero
    R = np.ascontiguousarray(tables.R[0, 0]) if m else np.ones(1)
    fixed = (tables.f0[0], b, tables.D[0])
    jumps, rho, beyond = state.jumps, tables.rho, 0.0
    if jumps is not None:
        rho, beyond = rho + jumps.leaving, jumps.payoff()
    boxes = (tables.low[0], tables.high[0]) if m else (-wide, wide)
    a = state.a[0] if m else np.zeros(grid.size)
    hm, hp = grid.spacing(0)
    spacing = (hm, hp, 1 / hm, 1 / hp, 1 / (hm + hp))
    fmin, fmax = state.faces.limits()
    limits = (fmin[0], fmax[0])
    ratio, V, new = np.empty(grid.size), state.V.copy(), np.empty(grid.size)
    changes: list[float] = []
    closing = Closing(state, slope_updates)
    # A free boundary may still move, node by node, when V hardly changes.
    floor = 1e-13 if state.may_stop else 1e-6
    for _ in range(max_policies):
        r0 = tables.r0 if jumps is None else tables.r0 + (jumps.rates @ V + beyond)
        change, worst, bad = howard_sweep(
            state.scheme, V, spacing, state.faces.ends(), (*fixed, r0, r1, R), boxes,
            limits, rho, a, ratio, new, *state.obstacles(),
        )  # fmt: skip
        if bad >= 0:
            raise no_control(grid, bad)
        if not np.isfinite(change):
            state.V = V
            _fail_non_finite(state, np.array([np.nan]))
        V, new = new, V
        if not m and not state.may_stop and closing.done and jumps is None:
            state.bounds.append(0.0)
            break
        state.bounds.append(worst / state.rho_min)
        scale = float(np.max(np.abs(V))) or 1.0
        changes.append(change)
        if closing.due(change / scale):
            state.V = V
            closing.update()
            beyond = beyond if jumps is None else jumps.payoff()
            changes.clear()
            continue
        small = change <= tolerance * scale
        best = min(changes[:-1], default=np.inf)
        halting = change > 0.5 * best and change < floor * scale
        if small or halting:
            break
    state.V = V
    if m:
        state.a[0] = a
    return True


def fits_fused(state: GridState) -> bool:
    """One axis, not periodic, no exit inside, at most one control, closed form.

    Jumps must be rare against the discount (1/dt in a time step): an iteration leaves
    their share of the error.
    """
    tables, grid, jumps = state.tables, state.grid, state.jumps
    return (
        grid.dimension == 1
        and (jumps is None or jumps.share(tables.rho) <= RARE)
        and not grid.periodic[0]
        and not state.faces.inside
        and isinstance(tables, QuadraticTables)
        and tables.n_controls <= 1
    )


def _fail_non_finite(state: GridState, residual: Array) -> None:
    bad = int(np.flatnonzero(~np.isfinite(residual))[0])
    place = state.grid.nodes_of(np.array([bad % state.grid.size]))[0]
    raise NotConverged(
        f"the iterate on the grid {state.grid.shape} is not finite, first at "
        f"x = {place}. Likely the value itself is infinite (discount too small for "
        "the growth of the payoff or, without discount, a process that nothing ends) "
        "or a Robin rule with the wrong sign."
    )
