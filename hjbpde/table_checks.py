"""What tables must satisfy before any work is spent on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .errors import ProblemError, StabilityError
from .faces import Faces
from .grid import Grid
from .probe import describe_point, same_noise

if TYPE_CHECKING:
    from .tables import QuadraticTables

Array = NDArray[np.float64]


def check_bounded(tables: QuadraticTables, x: Array) -> None:
    """Refuse an infinite control whose cost does not grow."""
    diagonal = np.einsum("iin->in", tables.R)
    open_side = ~(np.isfinite(tables.low) & np.isfinite(tables.high))
    bad = np.argwhere(open_side & (diagonal <= 0))
    if bad.size:
        i, n = bad[0]
        raise ProblemError(
            f"control {i} is unbounded but the payoff is not strictly concave in it "
            f"near x = {x[min(n, len(x) - 1)]}: the maximum is infinite. Give finite "
            "bounds or a quadratic control cost."
        )


def check_noiseless(grid: Grid, faces: Faces, D: Array) -> None:
    """Refuse noise across a state-constrained face: no control can keep it in."""
    for face in faces.faces:
        if not face.noiseless:
            continue
        noise = np.broadcast_to(D[face.axis], (grid.size,)).reshape(grid.shape)
        slab = faces.slab(face, 0)
        bad = np.argwhere(noise[slab] > 0)
        if len(bad):
            where: list[int] = bad[0].tolist()
            where.insert(face.axis, face.at(0, grid.shape[face.axis]))
            x = np.array([axis[i] for axis, i in zip(grid.axes, where, strict=True)])
            raise ProblemError(
                f"StateConstraint on face {(face.axis, face.side)}: the noise across "
                f"it is {np.sqrt(2 * noise[tuple(where)]):.3g} at x = {x}, so no "
                "control keeps the state inside. Let the diffusion vanish there, or "
                "use Reflecting()."
            )


Noise = tuple[Array, Array | None]
"""D (d, n) and the pairs of half the covariance, if there are any."""


def check_free_pairs(one: Noise, two: Noise, x: Array, a: Array) -> None:
    """Refuse correlated noise that two controls, the second a (n, m), feel differently.

    The rates along offsets are those of one covariance a node.
    """
    if one[1] is None and two[1] is None:
        return
    bad = np.flatnonzero(~same_noise(one, two))
    if bad.size:
        n = int(bad[0])
        raise StabilityError(
            "'diffusion' correlates the noise of two axes and depends on the control, "
            f"first seen at {describe_point(x[n], a[n])}. Correlated noise may depend "
            "on the state (and on time) only; let the control act on noise that is "
            "independent between axes, or rotate the state so that it is."
        )
