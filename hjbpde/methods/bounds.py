"""The parts of the error bar of one solve, put together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..defect import correct
from ..error_bar import (
    NESTED_SAFETY,
    SAFETY,
    ErrorBar,
    NestedEstimate,
    neighbour_maximum,
    nested_estimate,
    sawtooth,
    truncation_bar,
)
from ..errors import HJBError
from ..face_response import FaceResponse
from ..game_tables import GameTables
from ..grid import Grid
from ..schemes import HYBRID, UPWIND
from .corrections import Corrections, fourth_orders, monotone_room, noiseless
from .policy_iteration import EPS, PolicyIteration, round_off_floor
from .state import GridState

Array = NDArray[np.float64]
UNRESOLVED = 0.375
"""Of second differences a halving leaves 1/4 where data are smooth, 1/2 at kinks."""


def control_switches(states: list[GridState]) -> bool:
    """Whether a control jumps: its largest step does not shrink with the grid.

    There the value has a kink in its second derivative, and no scheme that differs
    across it is better than second order.
    """
    if len(states) < 2 or not len(states[-1].a):
        return False
    fine, coarse = (largest_steps(s) for s in states[-1:-3:-1])
    span = np.ptp(states[-1].a, axis=1)
    return bool(((fine > 0.7 * coarse) & (fine > 0.05 * span)).any())


def largest_steps(state: GridState) -> Array:
    """Largest difference between neighbours of every control, (m,)."""
    grid, steps = state.grid, np.zeros(len(state.a))
    inside = tuple(slice(1, -1) for _ in grid.shape)
    for i, row in enumerate(state.a):
        field = row.reshape(grid.shape)[inside]
        for axis in range(grid.dimension):
            if field.shape[axis] > 1:
                step = float(np.max(np.abs(np.diff(field, axis=axis))))
                steps[i] = max(steps[i], step)
    return steps


def bound(
    states: list[GridState],
    corrections: Corrections,
    value: Array,
    method: PolicyIteration,
) -> ErrorBar:
    """The error bar of `value`, from the best value at hand."""
    fine = states[-1]
    if fine.may_stop or fine.faces.inside:
        return kinked_bound(states)
    if not corrections.fourth:
        corrections.fourth = fourth_orders(states[:-1])
        corrections.fourth.append(correct(fine, 4, fine.V, fine.a))
    better = corrections.fourth[-1]
    grids = [s.grid for s in states][-len(corrections.fourth) :]
    # Where jumps end the process at a face, V'' has kinks a jump away from it.
    kinked = fine.off_axes is not None and fine.off_axes.kinked
    highest = 2.0 if kinked or control_switches(states) else 4.0
    if method.order == 4 and not all(face.fixed for face in fine.faces.faces):
        # Slopes given on a face leave errors of order 3 and of either sign there.
        highest = min(highest, 3.0)
    fourths = [c.V for c in corrections.fourth]
    limit = nested_estimate(fourths, grids, highest, unseen=2.0)
    if len(corrections.fourth) == 1:
        limit = sequence_estimate(fine, corrections)
    gap = neighbour_maximum(np.abs(value - better.V), fine.grid)
    smooth = SAFETY * gap + limit.bar + SAFETY * sawtooth(better.V, fine.grid)
    rough = monotone_bar(states, value, better.V)
    usable = better.settled
    trusted = corrections.accepted
    if trusted is None:
        apart = neighbour_maximum(np.abs(better.V - fine.V), fine.grid)
        trusted = apart <= 3 * monotone_room(states) + 1e-9 * fine.scale
    if usable and trusted.any():
        smooth = smooth + unresolved(fine, better.V, trusted)
    part = np.where(trusted & usable, smooth, rough)
    if fine.faces.fixed_mask is not None:
        part[fine.faces.fixed_mask] = 0.0
    cut = truncation_bar(fine, better.V if usable else fine.V)
    # The iterate is returned, so only the better value's own rest counts.
    rest = SAFETY * neighbour_maximum(better.rest, fine.grid)
    algebraic = np.where(trusted & usable, rest, fine.algebraic())
    rounding = 8 * EPS * fine.scale
    if method.order > 1:
        rounding += corrected_rounding(fine)
    inner = region_mask(fine)
    parts = {
        "discretisation": float(np.max(part[inner])),
        "truncation": float(np.max(cut[inner])),
        "algebraic": float(np.max(algebraic[inner])),
        "round-off": rounding,
    }
    order = limit.order if method.order == 4 else _monotone_order(states)
    notes = () if order is not None else ("order not observed: too few grids",)
    total = part + cut + algebraic + rounding
    return ErrorBar(total, parts, order, notes, cut)


def unresolved(fine: GridState, better: Array, trusted: NDArray[np.bool_]) -> Array:
    """How far the corrected value W is moved by what grids do not resolve, (*shape).

    With M the monotone rows, ``tau = |M (W - V)|`` is what W has added at a node; where
    it is refused all of it may be wrong. A kink of the payoff is read at nodes alone,
    see `payoff_kinks`. Both reach a node as z, ``M z`` = their sum.
    """
    source = payoff_kinks(fine)
    if trusted.all() and not source.any():
        return source
    change = np.ascontiguousarray(better - fine.V).ravel()
    response = FaceResponse(fine)
    tau = np.abs(response.rows.residual(change, np.zeros_like(change)))
    source += np.where(trusted, 0.0, tau.reshape(fine.grid.shape))
    none = [np.zeros_like(push) for push in response.pushes]
    return response.to(none, source)


def payoff_kinks(state: GridState) -> Array:
    """What nodes miss of the mean payoff in their cells at its kinks, (*shape).

    An eighth of the second difference: nested grids may cut a kink alike and agree.
    Kinks are where second differences, summed over three nodes, fall too slowly with
    the spacing. The control is held: the payoff also bends with the control, where the
    Hamiltonian does not. With two players 0: their bounds bend payoffs at held controls
    in ways that their saddle undoes.
    """
    grid = state.grid
    if isinstance(state.tables, GameTables):
        return np.zeros(grid.shape)
    a = np.repeat(np.median(state.a, axis=1, keepdims=True), grid.size, axis=1)
    found = np.zeros(grid.shape)
    try:
        under = state.tables.under(a)
    # Where one control is not admissible at all states nothing is known.
    except HJBError:
        return found
    r = np.broadcast_to(under.r, (grid.size,)).reshape(grid.shape)
    least = 1e-9 * float(np.abs(r).max())
    for k in range(grid.dimension):
        bent, wide = (_bending(r, grid, k, reach) for reach in (1, 2))
        near, far = (
            each + np.roll(each, reach, k) + np.roll(each, -reach, k)
            for each, reach in ((bent, 1), (wide, 2))
        )
        kinked = near > np.maximum(UNRESOLVED * far, least)
        if not grid.periodic[k]:
            # The wider sums do not reach beyond faces.
            ends = np.moveaxis(kinked, k, 0)
            ends[:4], ends[-4:] = False, False
        found += np.where(kinked, bent / 8.0, 0.0)
    return found


def _bending(r: Array, grid: Grid, axis: int, reach: int) -> Array:
    """Second differences of r (*shape), ``reach`` nodes either way; 0 beside faces.

    The change of the slope times the shorter step, as ``|r_- - 2 r + r_+|`` where
    steps are equal.
    """
    x = grid.axes[axis]
    right = np.roll(x, -reach) - x
    # Across the seam; beside a face any step will do, nothing is kept there.
    right[-reach:] += grid.domain.width[axis] if grid.periodic[axis] else 2 * np.ptp(x)
    left = np.roll(right, reach)
    view = [1] * r.ndim
    view[axis] = -1
    h, g = right.reshape(view), left.reshape(view)
    slopes = (np.roll(r, -reach, axis) - r) / h - (r - np.roll(r, reach, axis)) / g
    bent = np.abs(slopes) * np.minimum(h, g)
    if not grid.periodic[axis]:
        ends = np.moveaxis(bent, axis, 0)
        ends[:reach], ends[-reach:] = 0.0, 0.0
    return bent


def kinked_bound(states: list[GridState]) -> ErrorBar:
    """The bar where the process may end inside the domain: no higher order helps.

    Nested grids of the monotone value: at most second order where it is stopped, and
    first order where an exit region cuts cells, and without noise.
    """
    fine = states[-1]
    part = monotone_bar(states, fine.V, fine.V)
    last = states[-3:]
    if len(last) == 3:
        highest = 1.0 if fine.faces.inside or noiseless(fine) else 2.0
        values, grids = [s.V for s in last], [s.grid for s in last]
        part = nested_estimate(values, grids, highest).bar + free_boundary_part(fine)
    part = part + noise_left_out(fine)
    if fine.faces.fixed_mask is not None:
        part[fine.faces.fixed_mask] = 0.0
    cut, algebraic = truncation_bar(fine, fine.V), fine.algebraic()
    rounding = 8 * EPS * fine.scale
    inner = region_mask(fine)
    parts = {
        "discretisation": float(np.max(part[inner])),
        "truncation": float(np.max(cut[inner])),
        "algebraic": algebraic,
        "round-off": rounding,
    }
    order = _monotone_order(states)
    notes = () if order is not None else ("order not observed: too few grids",)
    total = part + cut + algebraic + rounding
    return ErrorBar(total, parts, order, notes, cut)


def noise_left_out(state: GridState) -> Array:
    """What noise towards given values would do, where the scheme leaves it out.

    Where drift outweighs noise the hybrid scheme is one-sided without it, so that all
    grids agree that nobody is carried against the drift to an exit; central weights
    leave out much of it before. What they lack of its rate ``D / h^2``, where that is
    more than half, times the step of V there is carried on by rows that have it all.
    """
    given, grid = state.faces.fixed_mask, state.grid
    source = np.zeros(grid.shape)
    if given is None or state.scheme != HYBRID or state.under is None:
        return source
    left, noise = FaceResponse(state).rows, state.under.D
    for k in range(grid.dimension):
        view = [1] * grid.dimension
        view[k] = -1
        steps = grid.spacing(k)
        D = np.broadcast_to(noise[k], (grid.size,)).reshape(grid.shape)
        for weights, shift, step in zip(
            (left.lower, left.upper), (1, -1), steps, strict=True
        ):
            beside = np.roll(given, shift, k) & ~given
            if not grid.periodic[k]:
                np.moveaxis(beside, k, 0)[0 if shift == 1 else -1] = False
            rate = 2.0 * D / (step * (steps[0] + steps[1])).reshape(view)
            missed = rate - weights[k].reshape(grid.shape)
            apart = np.abs(np.roll(state.V, shift, k) - state.V)
            source += np.where(beside & (missed > 0.5 * rate), missed * apart, 0.0)
    if not source.any():
        return source
    response = FaceResponse(replace(state, scheme=UPWIND))
    return response.to([np.zeros_like(push) for push in response.pushes], source)


def free_boundary_part(state: GridState) -> float:
    """What stopping at a node, not between nodes, can cost: h^2 [V''] / 8.

    Nested grids may share the node next to the free boundary and then agree without
    being right. Across it V'' jumps; the boundary is off by h / 2 at most.
    """
    return (
        missed_between_nodes(state.V, state.stopped_nodes()) if state.may_stop else 0.0
    )


def missed_between_nodes(V: Array, stopped: NDArray[np.bool_]) -> float:
    """The same for a value and the nodes that are stopped at, both (*shape)."""
    worst = 0.0
    for k in range(V.ndim):
        bend = np.diff(V, 2, axis=k)
        inside = np.take(stopped, np.arange(1, stopped.shape[k] - 1), axis=k)
        n = bend.shape[k]
        if n < 4:
            continue
        # The stencil next to the border sees half of the jump: look past it.
        border = np.diff(inside.take(range(1, n - 1), k).astype(np.int8), axis=k) != 0
        jumps = np.abs(bend.take(range(3, n), k) - bend.take(range(n - 3), k))
        worst = max(worst, float(np.max(jumps[border], initial=0.0)))
    return worst / 8.0


def region_mask(state: Any) -> NDArray[np.bool_]:
    """Nodes of the region the answer is for, see `GridSolution.region`.

    `state` is anything with a grid and its faces.
    """
    grid = state.grid
    artificial = tuple(
        any(face.axis == k for face in state.faces.artificial)
        for k in range(grid.dimension)
    )
    return grid.domain.inner(0.75, artificial).contains(grid.nodes(), 1e-12)


def sequence_estimate(fine: GridState, corrections: Corrections) -> NestedEstimate:
    """The order-4 value's own error, from orders 1, 2 and 4 on one grid.

    The corrections shrink by a ratio c, at least 1/10; were they to go on shrinking
    so, the rest would be c / (1 - c) of the last. For grids whose coarsening does not
    bear fourth order.
    """
    second, fourth = corrections.second, corrections.fourth[-1]
    start = fine.V if second is None else second.V
    last = neighbour_maximum(np.abs(fourth.V - start), fine.grid)
    first = last if second is None else np.abs(second.V - fine.V)
    first = neighbour_maximum(first, fine.grid)
    share = np.clip(last / np.maximum(first, 1e-300), 0.1, 0.8)
    return NestedEstimate(NESTED_SAFETY * share / (1 - share) * last, None)


def corrected_rounding(fine: GridState) -> float:
    """Round-off of a corrected value: differences of V, then the rows' inverse.

    Rounding each difference leaves eps |V| max weight / rho in the worst case; it is
    as good as independent between nodes, and averages over the longest axis.
    """
    assert fine.under is not None
    rows, _ = fine.folded(fine.under)
    return round_off_floor(fine, rows) / float(np.sqrt(max(fine.grid.shape)))


def monotone_bar(states: list[GridState], value: Array, better: Array) -> Array:
    """Bar where the corrected values are not believed.

    The full change between grids (order 1 or better) times a safety factor, and at
    least the distance to the corrected value: as far as that is plausible for a
    first-order scheme, which can be off by a cell's variation of the payoff for ever
    although nested grids agree (a state resting on the node nearest to a kink).
    """
    fine = states[-1]
    room = monotone_room(states)
    factor = 1.25 if fine.grid.dimension < 3 else 2.0
    room = np.where(np.isfinite(room), factor * room, fine.scale)
    apart = np.where(np.isfinite(better), np.abs(value - better), 0.0)
    plausible = np.maximum(3 * room, payoff_steps(fine) / fine.rho_min)
    apart = SAFETY * neighbour_maximum(apart, fine.grid)
    return np.maximum(room, np.minimum(apart, SAFETY * plausible))


def payoff_steps(state: GridState) -> float:
    """Largest difference of the payoff between neighbours under the policy."""
    assert state.under is not None
    r = state.under.r.reshape(state.grid.shape)
    inside = r[tuple(slice(1, -1) for _ in r.shape)]
    steps = [
        float(np.max(np.abs(np.diff(inside, axis=k)))) if inside.shape[k] > 1 else 0.0
        for k in range(r.ndim)
    ]
    return max(steps)


def _monotone_order(states: list[GridState]) -> float | None:
    if len(states) < 3:
        return None
    values, grids = [s.V for s in states[-3:]], [s.grid for s in states[-3:]]
    return nested_estimate(values, grids, 4.0).order
