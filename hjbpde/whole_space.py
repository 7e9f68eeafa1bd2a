"""Problems of the whole space, solved on a larger box where their own would rule.

An artificial face cuts a problem that goes on beyond it, and no closure of the face
knows V there. Where that, by the solution's own bar, is most of what may be wrong, the
same method solves the same problem on a larger box, whose steps grow with the distance
from the domain; the domain's nodes are among its own, and V there is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .checkpoint import Checkpoint
from .grid import Grid
from .methods.ergodic import centred
from .methods.farther_faces import FAR, NEAR, farther
from .problem import ControlProblem
from .report import Report
from .solution import ON_NODES, GridSolution

RULES = 0.5
"""Truncation, of the whole bar, from which on a larger box is solved."""
BETTER = 0.5
"""Share of the bar, in the mean, that a larger box must leave at most."""
ABSURD = 1e3
"""Size of V on a larger box, of that on the domain's own, that is not believed."""
FARTHEST = 7.5
"""Share of the box added beyond every artificial face where `FAR` is not enough."""
KEPT = (
    "artificial faces ruled the bar: solved on a box from {low} to {high}, of which "
    "the domain is a part"
)


@dataclass(frozen=True)
class Effort:
    """What larger boxes may cost.

    worth: truncation, of the range of V, up to which none is solved; growth: of steps
    from one to the next beyond the faces; shares: of the box added beyond every
    artificial face, in turn.
    """

    worth: float
    growth: float
    shares: tuple[float, ...]


ON_A_LINE = Effort(1e-5, 1.1, (FAR, FARTHEST))
IN_THE_PLANE = Effort(1e-3, 1.2, (NEAR, FAR, FARTHEST))
SLOW = Effort(1e-2, 1.4, (FAR,))
"""In the plane, where one solve takes seconds: in time, by other methods, of games."""
IN_SPACE = Effort(1e-2, 1.4, (NEAR,))


def effort(problem: ControlProblem, quick: bool) -> Effort | None:
    """For a problem in so many states; with four none is afforded.

    `quick`: stationary, by policy iteration.
    """
    if problem.dimension > 3:
        return None
    slow = not quick or problem.adversary is not None
    return {1: ON_A_LINE, 2: SLOW if slow else IN_THE_PLANE, 3: IN_SPACE}[
        problem.dimension
    ]


@dataclass(frozen=True, eq=False)
class Trial:
    """One solve of a problem on a larger box, and its own part of the file."""

    problem: ControlProblem
    grid: Grid
    name: str

    def file(self, checkpoint: Checkpoint) -> Checkpoint:
        """Where it is kept."""
        return checkpoint.branch(self.name)


def on_larger_boxes(
    found: GridSolution, again: Callable[[Trial], GridSolution], quick: bool
) -> GridSolution:
    """`found`, or what `again` finds on a larger box where that has a smaller bar.

    Where faces rule no more, the next larger box is asked to confirm it. `again` may
    fail in any way: the user's functions need not be defined there.
    """
    best, problem = found, found.problem
    most = None if problem is None else effort(problem, quick)
    if problem is None or most is None or not found.report.converged:
        return best
    for within_sign in _kinds(found.grid):
        before, boxes = best, list[GridSolution]()
        for share in most.shares:
            confirmed = not boxes or best is not boxes[-1]
            if confirmed and not faces_rule(best, most.worth):
                return best
            try:
                moved = farther(problem, found.grid, share, within_sign, most.growth)
                wider, wide, own = moved
                name = f"on {wider.domain}, growing steps, "
                with np.errstate(all="ignore"):
                    there = again(Trial(wider, wide, name))
            # The user's own functions are called where they need not be defined.
            except Exception:
                continue
            if there.report.converged:
                last = restricted(there, found, own)
                boxes = [*(_known_by(last, box) for box in boxes), last]
                best = _best(boxes, before)
    return best


def _best(boxes: list[GridSolution], before: GridSolution) -> GridSolution:
    """The one with the smallest bar of those that better what was `before`."""
    better = [box for box in boxes if _is_better(box, before)]
    return min(better, key=_mean_bar, default=before)


def faces_rule(solution: GridSolution, worth: float) -> bool:
    """Whether artificial faces are most of what may be wrong with V, and matter.

    `worth`: of the range of V.
    """
    cut = solution.report.error_parts.get("truncation", 0.0)
    if not any(solution.artificial_axes):
        return False
    bar, values = (_inside(solution, v) for v in (solution.error_bar, solution.value))
    return bool(cut > worth * np.ptp(values) and cut >= RULES * np.max(bar))


def restricted(
    there: GridSolution, found: GridSolution, own: tuple[slice, ...]
) -> GridSolution:
    """What a solution on a larger box says of the domain of `found`, on its nodes.

    Both bars hold: where V differs by more than the one `found` had, the rest counts.
    """
    fields: dict[str, Any] = {}
    lead = (slice(None),) * (there.value.ndim - there.grid.dimension)
    for name in (*ON_NODES, "second_opinion"):
        values, nodes = getattr(there, name, None), there.value.shape
        if values is not None and values.shape[: len(nodes)] == nodes:
            fields[name] = np.ascontiguousarray(values[(*lead, *own)])
    if there.average is not None:
        fields["value"] = centred(found.grid, fields["value"])
    fields["error_bar"] = _covering(fields["value"], fields["error_bar"], found)
    fields |= {"problem": found.problem, "grid": found.grid}
    fields["artificial_axes"] = found.artificial_axes
    cut = replace(there, **fields)
    return replace(cut, report=_told(there, cut, found.report))


def _covering(value: Any, bar: Any, other: GridSolution) -> Any:
    """A bar that allows for another value as far as the other's own does not."""
    with np.errstate(invalid="ignore"):
        return np.fmax(bar, np.abs(value - other.value) - other.error_bar)


def _known_by(larger: GridSolution, box: GridSolution) -> GridSolution:
    """What is known of a box from a larger one: faces of it that its bar misses."""
    bar = _covering(box.value, box.error_bar, larger)
    more = float(np.max(_inside(box, np.where(bar > box.error_bar, bar, 0.0))))
    parts = box.report.error_parts
    parts = {**parts, "truncation": max(parts.get("truncation", 0.0), more)}
    return replace(box, error_bar=bar, report=replace(box.report, error_parts=parts))


def _kinds(grid: Grid) -> tuple[bool, ...]:
    """Whether states keep their signs beyond the faces: prices and wealth do."""
    return (True, False) if any(x[0] * x[-1] >= 0.0 for x in grid.axes) else (False,)


def _mean_bar(solution: GridSolution) -> float:
    return float(np.mean(_inside(solution, solution.error_bar)))


def _inside(solution: GridSolution, values: Any) -> Any:
    """Values (..., n) at the n nodes of the region that the answer is for."""
    nodes = solution.grid.nodes()
    return values[..., solution.region.contains(nodes, 1e-12)]


def _is_better(tried: GridSolution, best: GridSolution) -> bool:
    """Whether a bar is smaller by a good part, and is one: V may grow without end."""
    values = [_inside(one, one.value) for one in (tried, best)]
    large = np.max(np.abs(values[0])) > ABSURD * np.max(np.abs(values[1]))
    most = min(_mean_bar(best), float(np.ptp(values[0])))
    return bool(not large and _mean_bar(tried) <= BETTER * most)


def _told(there: GridSolution, cut: GridSolution, before: Report) -> Report:
    """The report of a larger box, of the domain alone."""
    report, domain = there.report, there.grid.domain
    most = float(np.max(_inside(cut, cut.error_bar)))
    low, high = (np.round(side, 6).tolist() for side in (domain.low, domain.high))
    seconds = {
        name: before.seconds.get(name, 0.0) + report.seconds.get(name, 0.0)
        for name in (*before.seconds, *report.seconds)
    }
    return replace(
        report,
        seconds=seconds,
        checks=(*report.checks, KEPT.format(low=low, high=high)),
        error_parts={n: min(part, most) for n, part in report.error_parts.items()},
        details={**report.details, "larger box": [low, high]},
    )
