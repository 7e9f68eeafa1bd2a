"""One whole solve: nested grids, corrections, error bar, solution."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoint import Checkpoint
from ..defect import Correction, correct
from ..error_bar import (
    NESTED_SAFETY,
    SAFETY,
    ErrorBar,
    NestedEstimate,
    neighbour_maximum,
    nested_estimate,
    truncation_bar,
)
from ..faces import FaceNodes, Faces
from ..grid import Grid
from ..interpolation import Interpolant
from ..problem import ControlProblem
from ..progress import bar_over
from ..report import Report
from ..schemes import HYBRID
from ..solution import GridSolution
from ..tabulate import GeneralTables, Tables, fixed_policy_tables, tabulate
from .admissible import admissible_start, may_lose_inverse, watch_inverse
from .inward import inward_start
from .policy_iteration import (
    EPS,
    PolicyIteration,
    cubically_prolonged,
    iterate,
    iterate_fused,
    kept_nodes,
    nested_grids,
    prolonged,
    prolonged_policy,
    round_off_floor,
)
from .state import GridState, make_state

Array = NDArray[np.float64]
LEVELS_FOR_BAR = 3
CLOSABLE = 9
"""Fewest nodes along an axis from which slopes are continued through its faces."""


@dataclass(frozen=True)
class RunOptions:
    """What the caller of `solve` asked for beyond the method."""

    guess: Array | None = None
    tolerance: float = 1e-9
    deadline: float = np.inf
    checkpoint: Checkpoint | None = None
    progress: bool = False

    @classmethod
    def of(
        cls,
        guess: Array | None = None,
        tolerance: float | None = None,
        budget: float | None = None,
        checkpoint: str | Path | None = None,
        progress: bool = False,
    ) -> RunOptions:
        """Options with their defaults filled in."""
        return cls(
            guess,
            1e-9 if tolerance is None else float(tolerance),
            np.inf if budget is None else time.monotonic() + budget,
            None if checkpoint is None else Checkpoint(Path(checkpoint)),
            progress,
        )


@dataclass(eq=False)
class Clock:
    """Seconds by phase."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time inside to a phase."""
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            self.seconds[name] = self.seconds.get(name, 0.0) + spent


def run(
    problem: ControlProblem, grid: Grid, method: PolicyIteration, options: RunOptions
) -> GridSolution:
    """Solve on nested grids and bound the error."""
    clock = Clock()
    with clock.phase("tabulate"):
        tables = tabulate(problem, grid, Faces.of(problem, grid))
    return _finish(problem, grid, tables, method, options, clock, None)


def run_fixed(
    problem: ControlProblem, grid: Grid, a: Array, method: PolicyIteration
) -> GridSolution:
    """The value of the policy a (N, m) on the grid's nodes."""
    clock = Clock()
    with clock.phase("tabulate"):
        faces = Faces.of(problem, grid)
        tables = fixed_policy_tables(problem, grid, faces, a)
    return _finish(problem, grid, tables, method, RunOptions.of(), clock, a)


def _finish(
    problem: ControlProblem,
    grid: Grid,
    tables: Tables,
    method: PolicyIteration,
    options: RunOptions,
    clock: Clock,
    fixed: Array | None,
) -> GridSolution:
    with clock.phase("solve"):
        states = solve_nested(problem, grid, tables, method, options)
    fine = states[-1]
    value, a, corrections = fine.V, fine.a, Corrections()
    if fine.status != "not converged":
        if method.order > 1:
            with clock.phase("defect correction"):
                corrections = Corrections.on(states, clock)
                value, a = corrections.pick(fine, method.order)
        elif method.richardson:
            value = corrections.extrapolate(states)
        with clock.phase("error bar"):
            bar = bound(states, corrections, value, method)
    else:
        unknown = np.full(grid.shape, np.inf)
        bar = ErrorBar(unknown, {}, None, ("no bar: the iteration did not converge",))
    m = problem.n_controls
    control = (a.T if fixed is None else fixed).reshape(*grid.shape, m)
    return GridSolution(
        problem=problem,
        grid=grid,
        value=problem.sign * value,
        control=np.ascontiguousarray(control),
        error_bar=bar.total,
        report=_report(problem, states, method, clock, corrections, bar),
        scheme=method.scheme,
        second_opinion=_opinion(problem, corrections),
        artificial_axes=problem.artificial_axes,
    )


def _opinion(problem: ControlProblem, corrections: Corrections) -> Array | None:
    if not corrections.fourth or not corrections.fourth[-1].settled:
        return None
    return problem.sign * corrections.fourth[-1].V


def solve_nested(
    problem: ControlProblem,
    grid: Grid,
    tables: Tables,
    method: PolicyIteration,
    options: RunOptions,
) -> list[GridState]:
    """The monotone solution on every nested grid, coarse to fine."""
    least = CLOSABLE if any(rule is None for rule in problem.faces.values()) else 5
    grids, nested = nested_grids(grid, least), [tables]
    for finer in reversed(grids[1:]):
        nested.insert(0, nested[0].taken(kept_nodes(finer)))
    states: list[GridState] = []
    saved = options.checkpoint.load(grids) if options.checkpoint else {}
    shapes = [g.shape for g in grids]
    for i, level in bar_over(range(len(grids)), shapes, options.progress, "solve"):
        faces = Faces.of(problem, grids[i])
        V, a = None, None
        if states:
            V = cubically_prolonged(states[-1].V, grids[i])
            a = prolonged_policy(states[-1].a, states[-1].grid, grids[i])
            for face, coarse in zip(faces.faces, states[-1].faces.faces, strict=True):
                _carry_slope(face, coarse, grids[i])
        if options.guess is not None and i == len(grids) - 1:
            V = options.guess.copy()
        if i in saved:
            V = saved[i]
        del level
        state = make_state(faces, nested[i], method.scheme.code, V, a)
        if V is None and may_lose_inverse(state):
            admissible_start(state)
        if V is None and faces.artificial:
            inward_start(state)
        settle(state, method, options, first=not states)
        watch_inverse(state)
        states.append(state)
        if state.status == "not converged" and time.monotonic() > options.deadline:
            break
        if options.checkpoint:
            options.checkpoint.keep(grids, i, state.V)
    return _reaching(states, grids, nested, problem, method)


def _reaching(
    states: list[GridState],
    grids: list[Grid],
    nested: list[Tables],
    problem: ControlProblem,
    method: PolicyIteration,
) -> list[GridState]:
    """The states, with the last one carried to the finest grid when time ran out."""
    while len(states) < len(grids):
        i = len(states)
        V = prolonged(states[-1].V, grids[i])
        a = prolonged_policy(states[-1].a, states[-1].grid, grids[i])
        faces = Faces.of(problem, grids[i])
        state = make_state(faces, nested[i], method.scheme.code, V, a)
        state.status, state.bounds = "not converged", [np.inf]
        states.append(state)
    return states


def _carry_slope(face: FaceNodes, coarse: FaceNodes, grid: Grid) -> None:
    """Start an artificial face from what was found on the coarser grid."""
    if not face.artificial:
        return
    face.geometric = coarse.geometric
    face.damping = _spread(coarse.damping, face, grid)
    face.slope = _spread(coarse.slope, face, grid)
    face.C = 2.0 * face.step * face.slope


def _spread(values: Any, face: FaceNodes, grid: Grid) -> Any:
    """Values on a coarser face's nodes at the nearest of a finer face's nodes."""
    out = np.asarray(values)
    if out.ndim == 0:
        return values
    for position, k in enumerate(k for k in range(grid.dimension) if k != face.axis):
        kept = grid.kept(k)
        at = np.clip(np.searchsorted(kept, np.arange(grid.shape[k])), 0, kept.size - 1)
        out = np.take(out, at, axis=position)
    return out


def settle(
    state: GridState, method: PolicyIteration, options: RunOptions, first: bool
) -> None:
    """Solve one grid: the fused kernel where it fits, then watched iteration."""
    updates = 30 if first else 4
    if iterate_fused(state, 1e-13, method.max_policies, updates):
        updates = 0
    iterate(state, options.tolerance, method.max_policies, options.deadline, updates)


@dataclass(eq=False)
class Corrections:
    """Order-2 and order-4 values on the finest grids, and where they hold."""

    second: Correction | None = None
    fourth: list[Correction] = field(default_factory=list)
    accepted: NDArray[np.bool_] | None = None
    notes: list[str] = field(default_factory=list)

    @classmethod
    def on(cls, states: list[GridState], clock: Clock | None = None) -> Corrections:
        """Correct the last grids; the finest to both orders."""
        out = cls()
        fine = states[-1]
        out.second = correct(fine, 2, fine.V, fine.a)
        out.fourth = fourth_orders(states[:-1])
        out.fourth.append(correct(fine, 4, out.second.V, out.second.a))
        out.accepted = out._accept(states)
        return out

    def _accept(self, states: list[GridState]) -> NDArray[np.bool_]:
        """Nodes where both orders stay near the monotone value and each other."""
        fine, second, fourth = states[-1], self.second, self.fourth[-1]
        assert second is not None
        if not (second.settled and fourth.settled):
            self.notes.append(
                "defect correction did not settle (order "
                f"{2 if not second.settled else 4}): the monotone value is returned"
            )
            return np.zeros(fine.grid.shape, bool)
        step = neighbour_maximum(np.abs(second.V - fine.V), fine.grid)
        apart = neighbour_maximum(np.abs(fourth.V - second.V), fine.grid)
        room = monotone_room(states)
        small = 1e-9 * fine.scale
        good = (step <= 3 * room + small) & (apart <= np.maximum(step, room) + small)
        refused = 1.0 - float(np.mean(good))
        if refused > 0:
            self.notes.append(
                f"defect correction refused on {100 * refused:.2g} % of the nodes"
            )
        return good

    def pick(self, fine: GridState, order: int) -> tuple[Array, Array]:
        """The value and control to return, monotone where refused."""
        chosen = self.second if order == 2 else self.fourth[-1]
        assert chosen is not None and self.accepted is not None
        value = np.where(self.accepted, chosen.V, fine.V)
        flat = self.accepted.ravel()
        return value, np.where(flat, chosen.a, fine.a)

    def extrapolate(self, states: list[GridState]) -> Array:
        """Richardson: V_h + (V_h - V_2h) / (2^p - 1), on every node of the grid.

        p is 1 for the upwind scheme and 2 for the hybrid one, which must be central
        at every node of both grids; refused (with a note) otherwise.
        """
        fine = states[-1]
        if len(states) < 2:
            self.notes.append("Richardson needs a grid that can be coarsened")
            return fine.V
        hybrid = fine.scheme == HYBRID
        if hybrid and not (all_central(states[-1]) and all_central(states[-2])):
            self.notes.append(
                "Richardson refused: the hybrid scheme is not central at every node "
                "of both grids, so its error has no single order"
            )
            return fine.V
        grid = fine.grid
        index = np.ix_(*[grid.kept(k) for k in range(grid.dimension)])
        gap = fine.V[index] - states[-2].V
        smooth = Interpolant(states[-2].grid, gap).cubic(grid.nodes())
        return fine.V + smooth / (3.0 if hybrid else 1.0)


def all_central(state: GridState) -> bool:
    """Whether |f| h <= 2 D at every node and axis under the policy."""
    assert state.under is not None
    for k in range(state.grid.dimension):
        reach = np.maximum(*state.grid.spacing(k))
        view = [1] * state.grid.dimension
        view[k] = -1
        drift = np.abs(state.under.f[k].reshape(state.grid.shape)) * reach.reshape(view)
        noise = np.broadcast_to(state.under.D[k], (state.grid.size,))
        inside = drift <= 2 * noise.reshape(state.grid.shape)
        if state.faces.fixed_mask is not None:
            inside |= state.faces.fixed_mask
        if not inside.all():
            return False
    return True


def fourth_orders(states: list[GridState]) -> list[Correction]:
    """Order-4 values on up to two grids below the finest, coarse to fine."""
    usable = [s for s in states if min(s.grid.shape) >= 7][-(LEVELS_FOR_BAR - 1) :]
    found = [correct(s, 4, s.V, s.a) for s in usable]
    while found and not all(c.settled for c in found):
        found.pop(0)
    return found


def monotone_room(states: list[GridState]) -> Array:
    """How far the monotone value may be off: its change between grids.

    A kink can lie alike on two grids; the change before, halved, counts as well.
    """
    fine = states[-1]
    if len(states) < 2:
        return np.full(fine.grid.shape, np.inf)
    gap = np.abs(fine.V - prolonged(states[-2].V, fine.grid))
    room = neighbour_maximum(gap, fine.grid)
    if len(states) < 3:
        return room
    middle = states[-2]
    before = np.abs(middle.V - prolonged(states[-3].V, middle.grid))
    return np.maximum(
        room, 0.5 * prolonged(neighbour_maximum(before, middle.grid), fine.grid)
    )


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
    if not corrections.fourth:
        corrections.fourth = fourth_orders(states[:-1])
        corrections.fourth.append(correct(fine, 4, fine.V, fine.a))
    better = corrections.fourth[-1]
    grids = [s.grid for s in states][-len(corrections.fourth) :]
    highest = 2.0 if control_switches(states) else 4.0
    fourths = [c.V for c in corrections.fourth]
    limit = nested_estimate(fourths, grids, highest, unseen=2.0)
    if len(corrections.fourth) == 1:
        limit = sequence_estimate(fine, corrections)
    gap = neighbour_maximum(np.abs(value - better.V), fine.grid)
    smooth = SAFETY * gap + limit.bar + SAFETY * better.remaining
    rough = monotone_bar(states, value, better.V)
    usable = better.settled
    trusted = corrections.accepted
    if trusted is None:
        apart = neighbour_maximum(np.abs(better.V - fine.V), fine.grid)
        trusted = apart <= 3 * monotone_room(states) + 1e-9 * fine.scale
    part = np.where(trusted & usable, smooth, rough)
    if fine.faces.fixed_mask is not None:
        part[fine.faces.fixed_mask] = 0.0
    cut = truncation_bar(fine, better.V if usable else fine.V)
    algebraic = algebraic_part(fine, corrections, method)
    rounding = 8 * EPS * fine.scale
    if method.order > 1:
        rounding += corrected_rounding(fine)
    inner = region_mask(fine)
    parts = {
        "discretisation": float(np.max(part[inner])),
        "truncation": float(np.max(cut[inner])),
        "algebraic": algebraic,
        "round-off": rounding,
    }
    order = limit.order if method.order == 4 else _monotone_order(states)
    notes = () if order is not None else ("order not observed: too few grids",)
    return ErrorBar(part + cut + algebraic + rounding, parts, order, notes)


def region_mask(state: GridState) -> NDArray[np.bool_]:
    """Nodes of the region the answer is for, see `GridSolution.region`."""
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


def algebraic_part(
    fine: GridState, corrections: Corrections, method: PolicyIteration
) -> float:
    """What the iterations left: the residual bound, or the last corrections' rest."""
    left = fine.algebraic()
    if method.order > 1 and corrections.accepted is not None:
        chosen = corrections.second if method.order == 2 else corrections.fourth[-1]
        assert chosen is not None
        left = SAFETY * chosen.remaining if corrections.accepted.all() else left
    return left


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


def _report(
    problem: ControlProblem,
    states: list[GridState],
    method: PolicyIteration,
    clock: Clock,
    corrections: Corrections,
    bar: ErrorBar,
) -> Report:
    fine = states[-1]
    checks = [f"linear solves by {fine.ladder.name}, every residual measured"]
    for (axis, side), rule in problem.faces.items():
        if rule is None:
            checks.append(
                f"face ({axis}, {side}) is artificial: closed by continuing the slope "
                "of V from inside; the truncation part answers for it"
            )
    note = fine.tables.note
    if isinstance(fine.tables, GeneralTables) and note:
        checks.append(f"controls searched at every node ({note})")
    fallbacks = [text for s in states for text in s.ladder.fallbacks]
    return Report(
        status=fine.status,
        method=method.name,
        iterations=len(fine.bounds),
        residuals=tuple(fine.bounds),
        seconds=dict(clock.seconds),
        checks=(*checks, *bar.notes),
        fallbacks=(*dict.fromkeys(fallbacks), *corrections.notes),
        error_parts=bar.parts,
        observed_order=bar.observed_order,
        details={"grids": [list(s.grid.shape) for s in states]},
    )


__all__ = ["RunOptions", "run", "run_fixed"]
