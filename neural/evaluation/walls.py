"""Faces that paths must not cross: where a step meets them, and the limit from inside.

Near a face with a state constraint a policy may lead out, though on the face it may
not: there paths are held by another control. A step that would cross is cut where the
straight line through it meets the face; the rest of the step starts on the face.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hjbpde.boundary import StateConstraint
from hjbpde.problem import ControlProblem
from hjbpde.state_constraint import ON_FACE

Array = NDArray[np.float64]

BESIDE = 1e-9
"""How far inside, of the width, the limit of a policy at a face is taken."""


@dataclass(frozen=True, eq=False)
class Walls:
    """The constrained faces of a box.

    Parameters
    ----------
    axes : (k,)
    signs : (k,)
        Of the outward normals.
    places : (k,)
        Coordinates of the faces.
    widths : (k,)
        Of the box along the axes.
    """

    axes: NDArray[np.intp]
    signs: Array
    places: Array
    widths: Array

    @classmethod
    def of(cls, problem: ControlProblem) -> Walls:
        """Those of a problem, none where no face has the rule StateConstraint."""
        box = problem.domain
        assert box is not None
        found = [f for f, r in problem.faces.items() if isinstance(r, StateConstraint)]
        axes = np.array([axis for axis, _ in found], dtype=np.intp)
        low, high = np.asarray(box.low), np.asarray(box.high)
        high_side = np.array([side == "high" for _, side in found], dtype=bool)
        places = np.where(high_side, high[axes], low[axes])
        signs = np.where(high_side, 1.0, -1.0)
        return cls(axes, signs, places, np.asarray(box.width)[axes])

    def __len__(self) -> int:
        return len(self.axes)

    def depth(self, x: Array) -> Array:
        """Distance of x (n, d) from each face, negative beyond it, (n, k)."""
        return self.signs * (self.places - x[:, self.axes])

    def first_met(self, x: Array, y: Array) -> tuple[Array, NDArray[np.intp]]:
        """The share of the way from x to y (n, d) until a face is crossed; which one.

        1 and -1 where none is. A path that begins on a face is held there, and only
        rounding or an average over two controls can lead it out: that is no crossing.
        """
        if not len(self):
            return np.ones(len(x)), np.full(len(x), -1)
        before, after = self.depth(x), self.depth(y)
        crosses = (before > ON_FACE * self.widths) & (after < 0)
        gap = np.where(crosses, before - after, 1.0)
        share = np.where(crosses, before / gap, np.inf)
        first = share.argmin(1)
        least = share[np.arange(len(x)), first]
        return np.minimum(least, 1.0), np.where(np.isfinite(least), first, -1)

    def land(self, y: Array, first: NDArray[np.intp]) -> None:
        """Put paths y (n, d) on the faces they have met, in place."""
        y[np.arange(len(y)), self.axes[first]] = self.places[first]

    def beside(self, y: Array, x: Array | None = None) -> Array:
        """States y (n, d) moved off the faces, where x (n, d) is not on them as well.

        A policy asked there gives its limit from inside.
        """
        if not len(self):
            return y
        least = ON_FACE * self.widths
        move = self.depth(y) <= least
        if x is not None:
            move &= self.depth(x) > least
        out = y.copy()
        for k, axis in enumerate(self.axes):
            inside = self.places[k] - self.signs[k] * BESIDE * self.widths[k]
            out[move[:, k], axis] = inside
        return out
