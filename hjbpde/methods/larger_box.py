"""What artificial faces cost a stationary value, seen on boxes with faces farther off.

Slopes inside tell how well the closure of a face continues V, not whether V comes from
beyond the face at all. The same scheme on larger boxes does: where V there differs from
V here by more than the closure answers for, the difference is believed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..error_bar import (
    NESTED_SAFETY,
    TRUNCATION_SAFETY,
    ErrorBar,
    neighbour_maximum,
)
from ..errors import NotConverged
from ..grid import Grid
from ..problem import ControlProblem
from ..prolongation import prolonged
from .continued import continued
from .farther_faces import FAR, NEAR, farther, left_beyond

Array = NDArray[np.float64]
Solved = Callable[[ControlProblem, Grid, int], tuple[Array, Array]]
"""The scheme's values (..., *shape) of a problem on a grid, with the cells of a level
of the nested grids, and what closures of its artificial faces do to them."""
FEWEST_NODES = 2001
"""Nodes of larger boxes that are always afforded; else those of the grid judged."""
TOO_WIDE = 3.0
"""Closures' part, of the rest of the bar, from which on boxes may also narrow it."""
FELT = 1e-6
"""Truncation, of the range of V, up to which one box tells whether others are asked."""
NOTHING = 1e-9
"""Change by that box, of the range of V, that is but what iterations leave."""
MOST_LEFT = 0.94
"""Largest share of what the faces do that is believed to be left beyond a box."""
AT_ONCE = 3.0
"""What the first larger box may see of the whole: a third, where it decays at all."""
WITHOUT_END = 0.05
"""Change, of the range of V, from which on growth without end means no bar."""
NONE_LARGER = (
    "artificial faces: no larger box could be solved (functions may have no values "
    "there); their closure alone answers for them"
)
WITHOUT_BAR = (
    "artificial faces: what larger boxes change in V grows with them, so that V comes "
    "from beyond the faces and has no bar there; enlarge the domain, or give the faces "
    "a rule"
)


def require_settled(status: str) -> None:
    """Refuse what a larger box came to when its iteration did not converge."""
    if status == "not converged":
        raise NotConverged("the problem on a larger box did not converge.")


@dataclass(frozen=True, eq=False)
class LargerBox:
    """A problem's values (..., *shape) on nested grids, coarse to fine, and its scheme.

    `solved` solves the same problem on other boxes; it may fail in any way, since the
    user's functions are called where they need not be defined.
    """

    problem: ControlProblem
    grids: list[Grid]
    values: list[Array]
    solved: Solved

    def widened(self, bars: list[ErrorBar], inner: NDArray[np.bool_]) -> list[ErrorBar]:
        """Bars whose truncation parts rest on closures alone, of all values in turn.

        Their largest parts are those at the nodes `inner` (*shape).
        """
        if not any(self.problem.artificial_axes):
            return bars
        closures = np.stack([np.asarray(bar.truncation) for bar in bars])
        shape = closures.shape
        rest = np.stack([bar.total for bar in bars]) - closures
        size = float(np.ptp(self.values[-1]))
        unfelt = not self._acts_far_away() and closures.max() < FELT * size
        if unfelt and not self._changes_beyond(max(NOTHING * size, rest.min())):
            return bars
        wide = bool((closures > TOO_WIDE * rest)[..., inner].any())
        part, told = self.judged(closures.reshape(self.values[-1].shape), wide, unfelt)
        return [
            _with(bar, truncation, inner, told)
            for bar, truncation in zip(bars, part.reshape(shape), strict=True)
        ]

    def _acts_far_away(self) -> bool:
        """Whether slopes at a face cannot tell what happens beyond it.

        Who stops or intervenes does so where it pays, and jumps land anywhere.
        """
        problem = self.problem
        acts = problem.stops or problem.impulse is not None
        return bool(acts or problem.jumps is not None)

    def _changes_beyond(self, felt: float) -> bool:
        """Whether V on the coarsest grid changes by more than `felt` on a larger box,
        as the problem looks from inside.

        Where closures are exact inside, as of quadratic V, they know of nothing that
        begins beyond the faces: a bound on the control that holds farther out. A box
        on which closures may do more than that and than V's whole range tells nothing.
        The user's own functions are not asked out there before this says so.
        """
        found = self._change(0, FAR, from_inside=True)
        if found is None:
            return False
        change, rest = (float(one.max()) for one in found)
        return change > felt and rest <= max(change, float(np.ptp(self.values[0])))

    def judged(
        self, closures: Array, wide: bool = False, certain: bool = False
    ) -> tuple[Array, tuple[str, ...]]:
        """The truncation part (..., *shape): what `closures` tell of it, or boxes.

        With g_1, g_2 the changes by boxes whose faces are farther by shares 1/2 and
        3/2, and an influence that decays geometrically with the distance,
        ``e = g_2 / (1 - t^3)`` where ``g_2 / g_1 = 1 + t + t^2``. Besides, what the
        report should say of it. Boxes may tell of less only where `wide`; where it is
        not `certain` that they change V the first is asked first.
        """
        level = self._level()
        found = self._change(level, NEAR)
        if found is None:
            return closures, (NONE_LARGER,)
        near = found[0]
        first = AT_ONCE * self._carried(near, level)
        if not (wide or certain or (first > closures).any()):
            return closures, ()
        far, rest = self._change(level, FAR) or found
        left = NESTED_SAFETY * self._left(near, level)
        seen, limit = (
            self._carried(left * gap, level)
            for gap in (np.maximum(near, far), self._limit(near, far, rest, level))
        )
        if np.isinf(limit).any():
            if (seen > closures).any():
                return np.full_like(closures, np.inf), (WITHOUT_BAR,)
            return closures, ()
        if not wide:
            return np.where(limit > closures, limit, closures), ()
        # V is no farther from its limit than from the last box, and that from its own.
        most = self._carried(np.maximum(near, far) + rest, level)
        finer = self._change(level + 1, NEAR) if level + 1 < len(self.grids) else None
        if finer is not None:
            most = np.maximum(most, self._carried(finer[0], level + 1))
        most = np.maximum(limit, TRUNCATION_SAFETY * most)
        return np.where(limit > closures, limit, np.minimum(closures, most)), ()

    def _level(self) -> int:
        """The finest grid whose larger boxes are afforded."""
        most = max(self.grids[-1].size, FEWEST_NODES)
        for level in range(len(self.grids) - 1, 0, -1):
            cells = np.array(self.grids[level].shape) - 1.0
            cells[list(self.problem.artificial_axes)] *= 1.0 + 2.0 * FAR
            if np.prod(cells + 1.0) <= most:
                return level
        return 0

    def _left(self, near: Array, level: int) -> Array:
        """The share of a level's change that is left on the finest grid.

        What faces do through the cells' own errors is of some order in h, at least 1
        and believed up to 2; what comes from beyond them is of none.
        """
        finer = len(self.grids) - 1 - level
        coarser = self._change(level - 1, NEAR) if finer and level else None
        if coarser is None:
            return np.ones_like(near)
        before = self._each(coarser[0], prolonged, self.grids[level])
        fallen = np.maximum(before - near, 0.0) / np.maximum(near, 1e-300)
        return np.maximum(1.0 - fallen / 3.0, 0.25**finer)

    def _change(
        self, level: int, share: float, from_inside: bool = False
    ) -> tuple[Array, Array] | None:
        """How far V on a larger box is from V here, and what its faces do to it there.

        Of two boxes, one of which keeps the signs of the state, on that whose faces
        are felt less; None where V has no value on either. The problem there is the
        user's, or the one inside continued.
        """
        grid, V = self.grids[level], self.values[level]
        one_sign = any(x[0] * x[-1] >= 0.0 for x in grid.axes)
        best, least = None, np.inf
        for within_sign in (False, True) if one_sign else (False,):
            try:
                wider, wide, own = farther(self.problem, grid, share, within_sign)
                wider = continued(wider, grid.domain) if from_inside else wider
                with np.errstate(all="ignore"):
                    found = self.solved(wider, wide, level)
                value, felt = (one[(..., *own)] for one in found)
            # The user's own functions are called where they need not be defined.
            except Exception:
                continue
            if np.isfinite(value).all() and not felt.max() > least:
                best, least = (np.abs(value - V), felt), felt.max()
        if best is None:
            return None
        gap, felt = (self._each(one, neighbour_maximum, grid) for one in best)
        return gap, felt

    def _limit(self, near: Array, far: Array, rest: Array, level: int) -> Array:
        """What faces do, of which boxes twice and four times as wide see a part."""
        left = left_beyond(near, far)
        if left >= 1.0 and far.max() > WITHOUT_END * np.ptp(self.values[level]):
            return np.full_like(far, np.inf)
        far = np.maximum(near, far)
        return np.maximum(
            far / (1.0 - min(left, MOST_LEFT)), far + np.minimum(rest, far)
        )

    def _carried(self, gap: Array, level: int) -> Array:
        """A gap of one level on the finest grid; what has no bar has none around."""
        unknown = np.isinf(gap).astype(float)
        gap = np.where(unknown > 0, 0.0, gap)
        for grid in self.grids[level + 1 :]:
            gap, unknown = (self._each(one, prolonged, grid) for one in (gap, unknown))
        return np.where(unknown > 0, np.inf, gap)

    def _each(
        self, gap: Array, act: Callable[[Array, Grid], Array], grid: Grid
    ) -> Array:
        """`act` on every (*shape) of (..., *shape)."""
        lead = gap.ndim - grid.dimension
        flat = [act(one, grid) for one in gap.reshape(-1, *gap.shape[lead:])]
        return np.stack(flat).reshape(*gap.shape[:lead], *flat[0].shape)


def _with(
    bar: ErrorBar,
    truncation: Array,
    inner: NDArray[np.bool_],
    told: tuple[str, ...],
) -> ErrorBar:
    """A bar with another truncation part."""
    assert bar.truncation is not None
    more = np.zeros_like(truncation)
    other = truncation != bar.truncation
    more[other] = truncation[other] - bar.truncation[other]
    parts = {**bar.parts, "truncation": float(np.max(truncation[..., inner]))}
    notes = (*bar.notes, *told)
    return replace(
        bar, total=bar.total + more, parts=parts, notes=notes, truncation=truncation
    )
