"""Problems of the whole space, solved on a larger box where their own would rule.

An artificial face cuts a problem that goes on beyond it, and no closure of the face
knows V there. Where that, by the solution's own bar, is most of what may be wrong, the
same method solves the same problem on a larger box, whose steps grow with the distance
from the domain; the domain's nodes are among its own, and V there is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .checkpoint import Checkpoint
from .grid import Grid
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
    if problem.dimension > 3 or problem.average:
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

    `again` may fail in any way: the user's functions need not be defined there.
    """
    best, problem = found, found.problem
    most = None if problem is None else effort(problem, quick)
    if problem is None or most is None or not found.report.converged:
        return best
    for share, within_sign in _boxes(found.grid, most):
        if not faces_rule(best, most.worth):
            break
        try:
            moved = farther(problem, found.grid, share, within_sign, most.growth)
            wider, wide, own = moved
            with np.errstate(all="ignore"):
                there = again(Trial(wider, wide, f"on {wider.domain}, growing steps, "))
        # The user's own functions are called where they need not be defined.
        except Exception:
            continue
        if there.report.converged:
            tried = restricted(there, found, own)
            if _is_better(tried, best):
                best = tried
    return best


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
    with np.errstate(invalid="ignore"):
        apart = np.abs(fields["value"] - found.value) - found.error_bar
    fields["error_bar"] = np.fmax(fields["error_bar"], apart)
    fields |= {"problem": found.problem, "grid": found.grid}
    fields["artificial_axes"] = found.artificial_axes
    cut = replace(there, **fields)
    return replace(cut, report=_told(there, cut, found.report))


def _boxes(grid: Grid, most: Effort) -> Iterator[tuple[float, bool]]:
    """Shares in turn, and whether states keep their signs: prices and wealth do."""
    one_sign = any(x[0] * x[-1] >= 0.0 for x in grid.axes)
    for within_sign in (True, False) if one_sign else (False,):
        for share in most.shares:
            yield share, within_sign


def _inside(solution: GridSolution, values: Any) -> Any:
    """Values (..., n) at the n nodes of the region that the answer is for."""
    nodes = solution.grid.nodes()
    return values[..., solution.region.contains(nodes, 1e-12)]


def _is_better(tried: GridSolution, best: GridSolution) -> bool:
    """Whether a bar is smaller by a good part, and is one: V may grow without end."""
    bars = [_inside(one, one.error_bar) for one in (tried, best)]
    values = [_inside(one, one.value) for one in (tried, best)]
    large = np.max(np.abs(values[0])) > ABSURD * np.max(np.abs(values[1]))
    most = min(float(np.mean(bars[1])), float(np.ptp(values[0])))
    return bool(not large and np.mean(bars[0]) <= BETTER * most)


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
