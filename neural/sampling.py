"""Where the equation is asked to hold: states inside the box and on its faces."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hjbpde.boundary import Face
from hjbpde.sets import Box

Array = NDArray[np.float64]


def interior_points(
    box: Box,
    n: int,
    rng: np.random.Generator,
    inward: float = 0.0,
    outward: float = 0.0,
) -> Array:
    """n states (n, d), evenly spread in every projection (Latin hypercube).

    In 1-D Chebyshev nodes, denser at the ends, where a fit would otherwise swing. In
    more dimensions `outward` moves every coordinate z in [-1, 1] that share of the way
    to sin(pi z / 2), where it would be a Chebyshev node. A share `inward` of the
    states is drawn towards the centre, by a uniform factor: in many dimensions uniform
    states all lie near some face.
    """
    if box.dimension == 1:
        z = -np.cos(np.pi * (np.arange(n) + 0.5) / n)[:, None]
    else:
        cells = np.stack([rng.permutation(n) for _ in range(box.dimension)], -1)
        z = 2.0 * (cells + rng.random(cells.shape)) / n - 1.0
        if outward:
            z += outward * (np.sin(0.5 * np.pi * z) - z)
        k = round(inward * n)
        z[:k] *= rng.random((k, 1))
    return box.centre + 0.5 * box.width * z


def on_levels(box: Box, x: Array, n: int) -> Array:
    """States x with the last coordinate moved to n Chebyshev levels, evenly shared."""
    share = (x[:, -1] - np.asarray(box.low)[-1]) / box.width[-1]
    level = np.minimum(np.floor(n * share), n - 1)
    moved = x.copy()
    z = -np.cos(np.pi * (level + 0.5) / n)
    moved[:, -1] = box.centre[-1] + 0.5 * box.width[-1] * z
    return moved


@dataclass(frozen=True, eq=False)
class FacePoints:
    """States x (n, d) on one face, whose outward normal is ``sign`` e_axis."""

    axis: int
    sign: float
    x: Array

    @classmethod
    def draw(cls, box: Box, face: Face, n: int, rng: np.random.Generator) -> FacePoints:
        """n states on the face; one in 1-D, where the face is a point."""
        axis, side = face
        n = 1 if box.dimension == 1 else n
        x = interior_points(box, n, rng) if box.dimension > 1 else box.centre[None]
        x = np.array(x)
        x[:, axis] = np.asarray(box.low if side == "low" else box.high)[axis]
        return cls(axis, -1.0 if side == "low" else 1.0, x)

    def inside(self, box: Box, share: float) -> Array:
        """The same states moved inwards by `share` of the box's width."""
        x = self.x.copy()
        x[:, self.axis] -= self.sign * share * box.width[self.axis]
        return x


def training_states(
    box: Box, n: int, rng: np.random.Generator, rim: float = 0.0
) -> Array:
    """n independent uniform states (n, d); a share `rim` of them lies on faces."""
    x = box.sample(rng, n)
    k = round(rim * n)
    if k:
        axis = rng.integers(box.dimension, size=k)
        high = rng.integers(2, size=k).astype(bool)
        low, top = np.asarray(box.low)[axis], np.asarray(box.high)[axis]
        x[np.arange(k), axis] = np.where(high, top, low)
    return x
