"""What artificial faces cost values in time: other closures, and larger boxes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..checkpoint import Checkpoint
from ..error_bar import NESTED_SAFETY, SAFETY, neighbour_maximum
from ..grid import Grid
from ..problem import ControlProblem
from .end_slopes import CLOSURE_SAFETY, Closing
from .farther_faces import FAR, NEAR, farther
from .marching import Marches, Marching, Run, march
from .moded_marching import stepper_of

Array = NDArray[np.float64]
Solved = Callable[[ControlProblem, Grid], tuple[Array, Array]]
"""Values and bars of a problem on a grid, in rows."""
MOST_AXES = 2
"""Axes of problems marched on a larger box as well: more take longer than the solve."""
RULED = 0.25
"""Share of nodes at which it has to be as wide: beside faces it always is."""
TOO_WIDE = 3.0
"""Closures' part, of the rest of the bar, from which on boxes may narrow it."""


@dataclass(frozen=True, eq=False)
class Plan:
    """Times to go of the coarsest time grid, the times to keep, and the file."""

    to_go: Array
    outputs: Array
    checkpoint: Checkpoint


@dataclass(frozen=True, eq=False)
class MarchedFaces:
    """The artificial faces of a march: its first run on the grid, and a stepper of it.

    Rows of values are those of `InTime`.
    """

    problem: ControlProblem
    method: Marching
    plan: Plan
    first: Run
    last: Marches

    @property
    def grid(self) -> Grid:
        """Where V is judged."""
        return self.last.grid

    @property
    def values(self) -> Array:
        """The first run's values (rows, *shape)."""
        return self.first.values.reshape(-1, *self.grid.shape)

    @cached_property
    def inner(self) -> NDArray[np.bool_]:
        """The nodes of the region that the answer is for."""
        region = self.grid.domain.inner(0.75, self.problem.artificial_axes)
        return region.contains(self.grid.nodes(), 1e-12)

    def truncation(self, beyond: bool = True) -> Array:
        """How far artificial faces move V, (rows, *shape).

        What covers the most that a larger box changes is believed as it is; closures
        are believed alone unless `beyond`.
        """
        if not any(self.problem.artificial_axes):
            return np.zeros_like(self.values)
        cut = self._widened(CLOSURE_SAFETY * self._closed_otherwise())
        gap = self._gap if beyond else None
        if gap is not None and gap[:, self.inner].max() > cut[:, self.inner].max():
            cut = np.maximum(cut, NESTED_SAFETY * gap)
        return cut

    def narrowed(self, cut: Array, rest: Array, values: Array, solved: Solved) -> Array:
        """The same where `cut` is far wider than the `rest` of the bar, (rows, *shape).

        Values are no farther from the truth than from those `solved` on a larger box,
        and those by their own bar; or from those on the box of `_gap`, farther yet: its
        faces are beyond what the other's closures know nothing of. With one state: more
        take too long.
        """
        felt = any(self.problem.artificial_axes) and self.grid.dimension == 1
        if not felt or np.mean((cut > TOO_WIDE * rest)[:, self.inner]) <= RULED:
            return cut
        for wider, wide, own in self._boxes(NEAR):
            try:
                with np.errstate(all="ignore"):
                    found = solved(wider, wide)
            # The user's own functions are called where they need not be defined.
            except Exception:
                continue
            there, bar = (
                one.reshape(-1, *wide.shape)[(slice(None), *own)] for one in found
            )
            if np.isfinite(there).all():
                apart = self._widened(np.abs(there - values.reshape(there.shape)))
                least = apart if self._gap is None else np.maximum(apart, self._gap)
                return np.minimum(cut, SAFETY * least + bar)
        return cut

    @cached_property
    def _gap(self) -> Array | None:
        """How far V is from that on a larger box, where one is afforded."""
        return self._farther(FAR if self.grid.dimension == 1 else NEAR)

    def _closed_otherwise(self) -> Array:
        """How far other closures move V.

        Slopes held where the terminal data have them, and slopes continued from inside
        without regard to those, against anchored ones; on the grid itself, since coarse
        grids continue slopes that are wrong for other reasons. With jumps also V bent
        beyond the faces as much as it may be, against straight.
        """
        values, scheme = self.values, self.method.scheme
        apart = np.zeros_like(values)
        others = [
            stepper_of(self.problem, self.grid, scheme, closing, self.last)
            for closing in (Closing.HELD, Closing.CONTINUED)
        ]
        if self.problem.jumps is not None:
            others.append(stepper_of(self.problem, self.grid, scheme, before=self.last))
            others[-1].parts[0].bent = True
        for number, other in enumerate(others):
            words = f"{self.grid.shape}, closed otherwise {number}"
            moved = self._marched(other, words)
            apart += np.abs(moved.reshape(values.shape) - values)
        return apart

    def _farther(self, share: float) -> Array | None:
        """How far V is from that on a larger box; None where there is none."""
        if self.grid.dimension > MOST_AXES:
            return None
        for wider, wide, own in self._boxes(share):
            words = f"{self.grid.shape}, farther faces, {wider.domain}"
            try:
                with np.errstate(all="ignore"):
                    far = self._marched(
                        stepper_of(wider, wide, self.method.scheme), words
                    )
            # The user's own functions are called where they need not be defined.
            except Exception:
                continue
            there = far.reshape(-1, *wide.shape)[(slice(None), *own)]
            if np.isfinite(there).all():
                return self._widened(np.abs(there - self.values))
        return None

    def _boxes(
        self, share: float
    ) -> Iterator[tuple[ControlProblem, Grid, tuple[slice, ...]]]:
        """Larger boxes, see `farther`, in the order in which they are tried.

        First one that keeps the signs of the state where it has any: beyond 0 wealth
        and prices may have values that mean nothing.
        """
        one_sign = any(x[0] * x[-1] >= 0.0 for x in self.grid.axes)
        for within_sign in (True, False) if one_sign else (False,):
            yield farther(self.problem, self.grid, share, within_sign)

    def _marched(self, stepper: Marches, words: str) -> Array:
        page = self.plan.checkpoint.page(words)
        return march(stepper, self.plan.to_go, self.plan.outputs, page).values

    def _widened(self, rows: Array) -> Array:
        return np.stack([neighbour_maximum(one, self.grid) for one in rows])
