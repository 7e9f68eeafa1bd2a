"""Artificial faces of problems with a horizon: slopes continued, anchored at the end.

At the horizon V is known up to the face, and with it what the continuation from inside
(closure.py) misses there, often because kinks lie between its layers. Earlier it is
taken to miss as much less as it misses less at its first layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..closure import Continuation, outward_slope, target_slopes
from ..faces import Faces

Array = NDArray[np.float64]
CLOSURE_SAFETY = 2.5
"""Factor on what other closures of artificial faces move: two guesses can err alike."""


class Closing(Enum):
    """How artificial faces are closed; between the three lies what nobody knows."""

    ANCHORED = "anchored"
    CONTINUED = "continued"
    HELD = "held"


@dataclass(frozen=True, eq=False)
class Anchor:
    """What one rule misses at a face at the horizon, and at its first layer."""

    at_face: Array
    at_layer: Array

    def slope(self, shape: Continuation, geometric: bool) -> Array:
        """The rule's slope without what it is thought to miss."""
        layer = self.at_layer
        miss = np.minimum(shape.miss(geometric), layer)
        share = miss / np.where(layer > 0, layer, 1.0)
        return np.asarray(shape.slope(geometric) - share * self.at_face)


@dataclass(frozen=True, eq=False)
class EndSlopes:
    """Outward slopes of the terminal values at artificial faces, and the anchors.

    Of each face the linear rule's anchor comes first, then the geometric one's.
    """

    slopes: list[Array]
    anchors: list[tuple[Anchor, Anchor]]

    @classmethod
    def of(cls, faces: Faces, ends: Array) -> EndSlopes:
        """From the terminal values (*shape)."""
        slopes, anchors = [], []
        for face in faces.artificial:
            end = outward_slope(faces.grid, face, ends, 0)
            shape = Continuation(faces.grid, face, ends)
            line, power = (
                Anchor(shape.slope(rule) - end, shape.miss(rule))
                for rule in (False, True)
            )
            slopes.append(end)
            anchors.append((line, power))
        return cls(slopes, anchors)

    def at(self, faces: Faces, V: Array, closing: Closing) -> list[Any]:
        """Slopes at every artificial face under V (*shape).

        Unless they are held, the faces' rules are picked anew.
        """
        if closing is Closing.HELD:
            return list(self.slopes)
        if closing is Closing.CONTINUED:
            return target_slopes(faces, V, choose=True)
        found = []
        for face, pair in zip(faces.artificial, self.anchors, strict=True):
            shape = Continuation(faces.grid, face, V)
            face.geometric = shape.prefers_geometric()
            found.append(pair[face.geometric].slope(shape, face.geometric))
        return found
