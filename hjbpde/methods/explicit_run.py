"""One whole explicit solve: the problem's own grid, two coarser ones, and the bar."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..boundary import Dirichlet, Extrapolate, Reflecting
from ..checkpoint import Checkpoint
from ..data_in_time import Breaks, DataInTime
from ..errors import MethodMismatch
from ..game_solution import GameSolution
from ..grid import Grid
from ..one_sided import End, FirstOrder, OneSided
from ..problem import ControlProblem
from ..report import Report
from ..schemes import Upwind
from ..sets import Finite
from ..timed_solution import TimedSolution
from .constraint import Tube, constraint_of
from .explicit import ExplicitMarching, Marched, march_explicit
from .filtering import Filtered
from .game import Game, game_of, isaacs_gap
from .monotone_opinion import OPINION, distance, has_kinks, needs_opinion
from .timed_bars import (
    Far,
    KinksOf,
    Nested,
    around,
    carried,
    discretisation,
    truncation,
)
from .unseen_kinks import unseen

Array = NDArray[np.float64]
LEAST_NODES = 7
"""Nodes an axis of the coarsest grid has at least."""


def marches_explicitly(problem: ControlProblem, grid: Grid) -> bool:
    """Whether explicit marching fits: a horizon, no noise, no exit, equal steps."""
    takes = {"horizon", "stop", "dates", "adversary"}
    if problem.special - takes or problem.horizon is None:
        return False
    rules = {type(rule) for rule in problem.faces.values() if rule is not None}
    return (
        problem.diffusion is None
        and rules <= {Dirichlet, Reflecting, Extrapolate}
        and min(grid.shape) >= LEAST_NODES
        and _has_equal_steps(grid)
    )


def _has_equal_steps(grid: Grid) -> bool:
    steps = [grid.spacing(k)[1] for k in range(grid.dimension)]
    return all(np.allclose(step, step[0], rtol=1e-9) for step in steps)


def run_explicit(
    problem: ControlProblem,
    grid: Grid,
    method: ExplicitMarching,
    outputs: Array,
    checkpoint: Checkpoint,
    progress: bool = False,
) -> TimedSolution:
    """March on the grid and on up to two coarser ones; bound the error.

    Returns
    -------
    TimedSolution, or GameSolution where the problem has an adversary.
    """
    start = time.perf_counter()
    coarser = _coarser(grid)
    # Every date ends a step, so that the bound there acts on V at the date.
    times, data = np.union1d(outputs, problem.dates), DataInTime.of(problem)
    breaks = data.breaks()
    goals = Goals(times, data.followed(times, breaks), breaks)
    plan = Plan(method, outputs, goals, checkpoint, parts=2 ** len(coarser))
    game, marched = _march(problem, grid, plan, progress)
    spent = time.perf_counter() - start
    plans = plan.coarsened(len(coarser), marched.path)
    others = [
        (one, _march(problem, one, its)[1].values)
        for one, its in zip(coarser, plans, strict=True)
    ]
    kinks = _kinks(problem, grid, marched.values, others)
    bar, order = discretisation(marched.values, others, grid, method, kinks)
    own = _monotone_distance(problem, game, grid, plan, marched.values, others)
    bar = np.maximum(bar, own) + _unseen_kinks(problem, grid, others, plans)
    cut = truncation(problem, grid, others, _farther(plans))
    floor = 8 * np.finfo(float).eps * float(np.abs(marched.values).max())
    a, b, gap = _controls(game, grid, method, marched)
    parts = _largest(problem, grid, {"discretisation": bar, "truncation": cut})
    words = (OPINION,) if own.any() else ()
    fields: dict[str, Any] = {
        "problem": problem,
        "grid": grid,
        "times": outputs,
        "value": problem.sign * marched.values,
        "control": a,
        "error_bar": bar + cut + floor,
        "stopping": _stopping(problem, grid, marched),
        "report": _report(
            method, marched, game, parts, spent, order, problem.dates, words
        ),
        "scheme": Upwind(),
        "artificial_axes": problem.artificial_axes,
    }
    if problem.adversary is None:
        return TimedSolution(**fields)
    return GameSolution(**fields, adversary_control=b, isaacs_gap=gap)


@dataclass(frozen=True, eq=False)
class Goals:
    """Times that end steps on all grids; of these, the `kept` ones and the `breaks`."""

    kept: Array
    times: Array
    breaks: Breaks


@dataclass(frozen=True, eq=False)
class Plan:
    """How a grid is marched, the outputs to keep, and the file.

    From one of the goals to the next it takes at least `parts` steps, and it steps on
    the times `through`.
    """

    method: ExplicitMarching
    outputs: Array
    goals: Goals
    checkpoint: Checkpoint
    parts: int = 1
    through: Array = field(default_factory=lambda: np.empty(0))
    words: str = ""

    def monotone(self) -> Plan:
        """The same by a first-order scheme, in steps of its own."""
        method = replace(self.method, scheme=FirstOrder(), stages=1, step=None)
        return replace(self, method=method, parts=1, words="first order, ")

    def coarsened(self, count: int, path: Array) -> list[Plan]:
        """The plans of the grids halved up to `count` times, the coarsest first.

        They join every two steps of the next finer grid, whose steps led along `path`:
        between grids that step alike no difference would tell the errors of time.
        """
        found = []
        for k in range(count, 0, -1):
            step = self.method.step
            method = replace(self.method, step=None if step is None else step * 2**k)
            through = _thinned(path, self.goals.times, 2**k)
            found.append(replace(self, method=method, parts=1, through=through))
        return found


def _thinned(path: Array, times: Array, every: int) -> Array:
    """The times after each `every` steps of a falling path, counted from `times` on."""
    ends = np.flatnonzero(np.isin(path, times)) + 1
    pieces = [piece[every - 1 :: every] for piece in np.split(path, ends)]
    return np.concatenate(pieces)


def _march(
    problem: ControlProblem,
    grid: Grid,
    plan: Plan,
    progress: bool = False,
    closed: bool = True,
    shift: Array | None = None,
) -> tuple[Game, Marched]:
    """In the maximising sense, whatever the problem's own.

    From the terminal values and `shift` (*shape), in that sense.
    """
    game, method, outputs = game_of(problem, grid), plan.method, plan.outputs
    ends = f"{'own' if closed else 'other'} ends"
    page = plan.checkpoint.page(f"{grid.shape}, {plan.words}{ends}")
    nodes = grid.nodes()
    terminal = problem.sign * np.asarray(problem.terminal_at(nodes), dtype=float)
    terminal = terminal if shift is None else terminal + shift
    flipped = {Tube.LEAST: Tube.GREATEST, Tube.GREATEST: Tube.LEAST}
    tube = method.tube
    if problem.sign < 0:
        tube = flipped.get(tube, tube)
    ends = _ends(problem, grid, method, closed)
    own = replace(method, ends=ends, tube=tube)
    constraint = constraint_of(problem, grid)
    args = (game.hamiltonian, grid, terminal, plan.goals.kept, own)
    more: dict[str, Any] = {"constraint": constraint, "rho": game.rho, "page": page}
    through = np.union1d(plan.goals.times, plan.through)
    more |= {"parts": plan.parts, "through": through, "breaks": plan.goals.breaks}
    if not progress:
        return game, _at_times(march_explicit(*args, **more), outputs)
    from rich.progress import Progress

    with Progress(transient=True) as shown:
        task = shown.add_task("march", total=float(outputs[-1]))

        def tick(t: float) -> None:
            shown.update(task, completed=float(outputs[-1]) - t)

        return game, _at_times(march_explicit(*args, **more, tick=tick), outputs)


def _at_times(marched: Marched, times: Array) -> Marched:
    """What was asked for of all the times marched to."""
    kept = np.searchsorted(marched.times, times)
    return replace(marched, times=times, values=marched.values[kept])


def _ends(
    problem: ControlProblem, grid: Grid, method: ExplicitMarching, closed: bool
) -> list[tuple[End, End]]:
    """How lines continue beyond each face; `closed` False changes artificial ones."""
    given = method.ends
    pairs = [(given, given)] * grid.dimension if isinstance(given, End) else given
    found = []
    for k in range(grid.dimension):
        pair = []
        for end, side in zip(pairs[k], ("low", "high"), strict=True):
            rule = problem.faces.get((k, side))
            if isinstance(rule, Reflecting):
                end = End.MIRROR
            elif isinstance(rule, Extrapolate | Dirichlet):
                end = End.LINEAR
            elif rule is not None:
                raise MethodMismatch(
                    f"explicit marching takes Dirichlet, Reflecting and Extrapolate, "
                    f"not {type(rule).__name__} on face {(k, side)}."
                )
            elif not closed:
                end = End.LINEAR if end is End.MIRROR else End.MIRROR
            pair.append(end)
        found.append((pair[0], pair[1]))
    return found


def _coarser(grid: Grid) -> list[Grid]:
    """Up to two grids of half the nodes, from coarse to fine."""
    grids: list[Grid] = []
    shape, equal = grid.shape, _has_equal_steps(grid)
    for _ in range(2):
        # At least twice the cells' width, so that two joined steps are stable.
        halved = zip(shape, grid.periodic, strict=True)
        shape = tuple(n // 2 if around else (n + 1) // 2 for n, around in halved)
        if min(shape) < LEAST_NODES:
            break
        one = Grid(grid.domain, shape) if equal else (grids or [grid])[0].coarsened()
        grids.insert(0, one)
    return grids


def _kinks(problem: ControlProblem, grid: Grid, fine: Array, others: Nested) -> KinksOf:
    """Whether controls are a few points, or V has kinks."""
    sets = (problem.controls, problem.adversary)
    if any(isinstance(one, Finite) for one in sets) or not others:
        return KinksOf.CONTROLS
    coarse, values = others[-1]
    shown = _with_ends(problem, grid, fine), _with_ends(problem, coarse, values)
    seen = has_kinks((grid, shown[0]), (coarse, shown[1]))
    return KinksOf.VALUES if seen else KinksOf.NOTHING


def _monotone_distance(
    problem: ControlProblem, game: Game, grid: Grid, plan: Plan, fine: Array,
    others: Nested,
) -> Array:  # fmt: skip
    """What a monotone scheme has against `fine` (T, *shape), where it must be asked."""
    none, monotone = np.zeros_like(fine), isinstance(plan.method.scheme, FirstOrder)
    if monotone or problem.adversary is None or not others:
        return none
    times = float(plan.outputs[0]), float(problem.horizon or 0.0)
    hamiltonians = [game.hamiltonian.at(t) for t in times]
    shown = [(grid, _with_ends(problem, grid, fine))]
    shown += [(coarse, _with_ends(problem, coarse, v)) for coarse, v in others[-1:]]
    if not needs_opinion(hamiltonians, *shown):
        return none
    own = plan.monotone()
    grids = [*(coarse for coarse, _ in others), grid]
    marched = [_march(problem, one, own)[1].values for one in grids]
    values = [carried(v, one, grid) for v, one in zip(marched, grids, strict=True)]
    return distance(fine, values, lambda gap: around(gap, grid))


def _with_ends(problem: ControlProblem, grid: Grid, values: Array) -> Array:
    """The terminal values after these: their kinks count where no output shows them."""
    ends = problem.sign * np.asarray(problem.terminal_at(grid.nodes()), dtype=float)
    return np.concatenate([values, ends[None]])


def _unseen_kinks(
    problem: ControlProblem, grid: Grid, others: Nested, plans: list[Plan]
) -> Array:
    """What V (T, *shape) owes to kinks of its terminal values that nodes do not see.

    By how much the next coarser grid's V moves when its nodes know of them.
    """
    if not others:
        return np.zeros(grid.shape)
    coarse, values = others[-1]

    def terminal(x: Array) -> Array:
        return problem.sign * np.asarray(problem.terminal_at(x), dtype=float)

    shift = unseen(terminal, coarse, terminal(coarse.nodes()))
    if shift is None:
        return np.zeros(grid.shape)
    plan = replace(plans[-1], words=f"{plans[-1].words}with kinks, ")
    moved = _march(problem, coarse, plan, shift=shift)[1].values
    return np.abs(carried(around(np.abs(moved - values), coarse), coarse, grid))


def _farther(plans: list[Plan]) -> Far:
    """Values on larger boxes, marched as the halved grids were."""

    def far(problem: ControlProblem, grid: Grid, halved: int, closed: bool) -> Array:
        plan = plans[-halved]
        plan = replace(plan, words=f"{plan.words}farther faces, ")
        return _march(problem, grid, plan, closed=closed)[1].values

    return far


def _controls(
    game: Game, grid: Grid, method: ExplicitMarching, marched: Marched
) -> tuple[Array, Array, float]:
    """Both players' controls (T, *shape, m) at the mean one-sided gradient."""
    d, n = grid.dimension, grid.size
    minus, plus = np.empty((d, n)), np.empty((d, n))
    own, other, gap = [], [], 0.0
    for i, t in enumerate(marched.times):
        V = marched.values[i]
        one_sided = OneSided.on(grid, method.reconstruction, End.LINEAR, V)
        one_sided.fill(np.ascontiguousarray(V).ravel(), minus, plus)
        p = 0.5 * (minus + plus)
        a, b = game.hamiltonian.at(float(t)).extremal(p)
        own.append(a.T.reshape(*grid.shape, len(a)))
        other.append(b.T.reshape(*grid.shape, len(b)))
        if i == 0:
            gap = isaacs_gap(game, p)
    return np.stack(own), np.stack(other), gap


def _largest(
    problem: ControlProblem, grid: Grid, parts: dict[str, Array]
) -> dict[str, float]:
    """The largest entries of the bar's parts in the region of the answer."""
    inner = grid.domain.inner(0.75, problem.artificial_axes).contains(grid.nodes(), 0)
    return {name: float(part[..., inner].max()) for name, part in parts.items()}


def _stopping(
    problem: ControlProblem, grid: Grid, marched: Marched
) -> NDArray[np.bool_] | None:
    if not problem.stops:
        return None
    held_at = constraint_of(problem, grid)
    found = np.zeros(marched.values.shape, bool)
    for i, t in enumerate(marched.times):
        for side in (held_at.lower, held_at.upper):
            if side is not None:
                at = side(float(t)).reshape(grid.shape)
                found[i] |= marched.values[i] == at
    return found


def _report(
    method: ExplicitMarching,
    marched: Marched,
    game: Game,
    parts: dict[str, float],
    spent: float,
    order: float | None,
    dates: tuple[float, ...],
    words: tuple[str, ...],
) -> Report:
    scheme = type(method.reconstruction).__name__
    filtered = isinstance(method.scheme, Filtered)
    scheme = f"filtered {scheme}" if filtered else scheme
    numerical = type(method.hamiltonian).__name__
    return Report(
        status="converged",
        method=f"explicit marching, {scheme}, {numerical}, SSP-RK{method.stages}",
        iterations=marched.steps,
        seconds={"march": spent},
        checks=(game.check, f"CFL number at most {marched.courant:.3g}", *words),
        error_parts=parts,
        observed_order=order,
        details={
            **({"dates": list(dates)} if dates else {}),
            "steps": marched.steps,
            "dt": list(marched.dt),
            "speeds": marched.speeds.tolist(),
            **({"filtered": marched.filtered} if filtered else {}),
        },
    )
