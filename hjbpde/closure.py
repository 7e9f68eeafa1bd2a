"""Closing artificial faces: the slope of V continued from inside.

Nothing is known beyond an artificial face, so its outward slope is guessed from the
slopes at layers 1/8 and 2/8 of the width inside: linearly (exact for quadratic V) or
geometrically (exact for exponential V, power laws on a log axis), whichever predicts
the slope at 1/8 better from those at 2/8 and 3/8. Layers at physical distances give
the closure a limit as the grid is refined, and wide, low-order rules feed little of
the guess's own error back into the guess.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .grid import Grid
from .weights import finite_difference_weights

if TYPE_CHECKING:
    from .faces import FaceNodes, Faces

Array = NDArray[np.float64]
LAYER = 0.125
"""Distance between layers in widths of the axis."""
LAYERS = (1, 2, 3, 4)
POOR = 0.05
"""Relative miss beyond which the rule is not believed to converge towards the face."""
STEEPEST = 8.0
"""Largest ratio of slopes between layers that is continued geometrically."""


def layers(grid: Grid, face: FaceNodes) -> tuple[int, ...]:
    """Node numbers of the layers at 1/8 to 4/8 of the width, as depths."""
    return _layers(grid, face.axis, face.side)


@lru_cache(maxsize=64)
def _layers(grid: Grid, axis: int, side: str) -> tuple[int, ...]:
    inside = _inward(grid, axis, side)
    found = [int(np.argmin(np.abs(inside - k * LAYER * inside[-1]))) for k in LAYERS]
    return tuple(sorted({max(1, depth) for depth in found}))


def _inward(grid: Grid, axis: int, side: str) -> Array:
    """Distances of an axis's nodes from a face, increasing."""
    x = grid.axes[axis]
    return x - x[0] if side == "low" else (x[-1] - x)[::-1]


def outward_slope(grid: Grid, face: FaceNodes, V: Array, depth: int) -> Array:
    """dV/dn on the layer `depth` nodes inside, by up to five points."""
    n = grid.shape[face.axis]
    width = min(5, n)
    start = min(max(depth - width // 2, 0), n - width)
    index = [face.at(i, n) for i in range(start, start + width)]
    weights = _slope_weights(grid, face.axis, tuple(index), face.at(depth, n))
    total = np.tensordot(weights, V.take(index, axis=face.axis), (0, face.axis))
    return total if face.side == "high" else -total


@lru_cache(maxsize=256)
def _slope_weights(grid: Grid, axis: int, index: tuple[int, ...], at: int) -> Array:
    """Weights of dV/dx at node `at` from the nodes `index`, asked for every step."""
    x = grid.axes[axis]
    return finite_difference_weights(x[list(index)], float(x[at]), 1)


def continued(near: Array, far: Array, share: float, geometric: bool) -> Array:
    """The slope `share` layer distances beyond `near`, seen from near and far."""
    line = near + share * (near - far)
    if not geometric:
        return line
    safe = np.where(far == 0, 1.0, far)
    ratio = np.where(far == 0, -1.0, near / safe)
    usable = (ratio > 1 / STEEPEST) & (ratio < STEEPEST)
    return np.where(usable, near * np.where(usable, ratio, 1.0) ** share, line)


class Continuation:
    """Slopes on four layers of one face and what either rule makes of them."""

    def __init__(self, grid: Grid, face: FaceNodes, V: Array) -> None:
        x, n = grid.axes[face.axis], grid.shape[face.axis]
        depths = layers(grid, face)
        self.slopes = [outward_slope(grid, face, V, k) for k in depths]
        at = np.abs(np.array([x[face.at(k, n)] for k in depths]) - x[face.at(0, n)])
        self.at = at

    def slope(self, geometric: bool, first: int = 0) -> Array:
        """The slope at the face (first=0), or at the layer before `first`."""
        if len(self.slopes) < first + 2:
            return np.asarray(self.slopes[-1])
        near, far = self.slopes[first], self.slopes[first + 1]
        target = 0.0 if first == 0 else self.at[first - 1]
        share = (self.at[first] - target) / (self.at[first + 1] - self.at[first])
        return continued(near, far, float(share), geometric)

    def excess(self, geometric: bool, layer: int = 1) -> Array:
        """What the rule, fed from two layers, makes too much of the slope before."""
        if len(self.slopes) < layer + 2:
            return np.asarray(self.slopes[0] - self.slopes[-1])
        return self.slope(geometric, first=layer) - self.slopes[layer - 1]

    def miss(self, geometric: bool, layer: int = 1) -> Array:
        """How wrong the rule is at a layer (1, 2), from the two beyond it."""
        return np.abs(self.excess(geometric, layer))

    def prefers_geometric(self) -> bool:
        """Whether the geometric rule predicts the first layer clearly better."""
        line, power = np.mean(self.miss(False)), np.mean(self.miss(True))
        return bool(power < 0.7 * line)


def target_slopes(faces: Faces, V: Array, choose: bool) -> list[Any]:
    """The slopes V itself suggests at every artificial face; may pick their rules.

    Damped where the face's feedback on itself asks for it (see face_response.py).
    """
    found = []
    for face in faces.artificial:
        shape = Continuation(faces.grid, face, V)
        if choose:
            face.geometric = shape.prefers_geometric()
        found.append(face.damping * shape.slope(face.geometric))
    return found


def slope_error(grid: Grid, face: FaceNodes, V: Array) -> Array:
    """How far the continued slope can be off: what it misses inside, continued.

    The misses e_1, e_2 at the first two layers are continued to the face both as they
    grow, e_1^2/|e_2|, and along a line, |e_1| + |e_1 - e_2|: either alone is too small
    somewhere, the first where e changes sign. A rule that is poor at the layers
    already is not believed at all: its own size is added, and growth counts twice.
    """
    shape = Continuation(grid, face, V)
    first, second = shape.excess(face.geometric), shape.excess(face.geometric, 2)
    line, first, second = np.abs(first - second), np.abs(first), np.abs(second)
    growth = np.clip(first / np.maximum(second, 1e-300), 1.0, 6.0)
    guess = shape.slope(face.geometric)
    poor = first > POOR * np.abs(shape.slopes[0])
    miss = np.maximum(first * growth, first + line)
    miss = np.where(poor, miss * growth + np.abs(guess), miss)
    return np.asarray(miss + np.abs(guess - face.slope))


def bend_beyond(grid: Grid, face: FaceNodes, V: Array) -> Array:
    """How strongly V may bend beyond the face: |V''| as seen from two layers inside.

    What the tangent at a layer misses of V at the layers nearer to the face and at the
    face itself, ``2 |V(s) - V - s V'| / s^2``, grown outward as it grew inside.
    """
    x, n = grid.axes[face.axis], grid.shape[face.axis]
    depths = [0, *layers(grid, face)]
    lines = [V.take(face.at(k, n), axis=face.axis) for k in depths]
    at = np.abs(np.array([x[face.at(k, n)] for k in depths]) - x[face.at(0, n)])
    seen = []
    for base in range(1, min(3, len(depths))):
        slope = outward_slope(grid, face, V, depths[base])
        bends = []
        for nearer in range(base):
            s = at[base] - at[nearer]
            tangent = lines[base] + s * slope
            bends.append(2.0 * np.abs(lines[nearer] - tangent) / s**2)
        seen.append(np.max(bends, axis=0))
    growth = np.clip(seen[0] / np.maximum(seen[-1], 1e-300), 1.0, 6.0)
    return np.asarray(np.max(seen, axis=0) * growth)
