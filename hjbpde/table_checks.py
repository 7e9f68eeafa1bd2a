"""What tables must satisfy, before any work is spent on them where that can be told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from .coefficients import describe_point, same_noise
from .errors import ProblemError, StabilityError
from .faces import Faces
from .grid import Grid

if TYPE_CHECKING:
    from .tables import QuadraticTables

Array = NDArray[np.float64]
ROUNDING = 1e-12
"""Outward drift, relative to 1 + sup|f|, that counts as none on a face."""


def check_bounded(tables: QuadraticTables, x: Array, opposed: int = 0) -> None:
    """Refuse an infinite control whose cost does not grow.

    The last `opposed` controls are an adversary's.
    """
    m = tables.n_controls
    sense = np.where(np.arange(m) < m - opposed, 1.0, -1.0)[:, None]
    open_side = ~(np.isfinite(tables.low) & np.isfinite(tables.high))
    bad = np.argwhere(open_side & (sense * np.einsum("iin->in", tables.R) <= 0))
    if bad.size:
        i, n = bad[0]
        own = i if i < m - opposed else i - (m - opposed)
        who, best = ("", "maximum") if own == i else ("the adversary's ", "minimum")
        raise ProblemError(
            f"{who}control {own} is unbounded but the payoff is not strictly "
            f"{'concave' if own == i else 'convex'} in it near "
            f"x = {x[min(n, len(x) - 1)]}: the {best} is infinite. Give finite bounds "
            "or a quadratic control cost."
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


def hold_inside(grid: Grid, faces: Faces, f: Array, a: Array) -> None:
    """Refuse a policy a (N, m) whose drift f (d, N) crosses a face that forbids it.

    What is outward by rounding alone is set to 0, in place.
    """
    for face in faces.faces:
        if not face.inward_only:
            continue
        slab = faces.slab(face, 0)
        sign = -1.0 if face.side == "low" else 1.0
        push = np.zeros(grid.shape)
        push[slab] = sign * f[face.axis].reshape(grid.shape)[slab]
        bad = np.flatnonzero(
            push.ravel() > ROUNDING * (1.0 + np.nanmax(np.abs(f), initial=0.0))
        )
        if bad.size:
            node = int(bad[0])
            x = grid.nodes_of(bad[:1])[0]
            raise ProblemError(
                f"the policy drives the state out through the face "
                f"{(face.axis, face.side)}: at {describe_point(x, a[node])} the drift "
                f"across it is {push.ravel()[node]:.3g} outwards, and the rule there "
                "(StateConstraint or Extrapolate) admits inward drift only. Change the "
                "policy there, or the rule."
            )
        f[face.axis][push.ravel() > 0] = 0.0


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


def no_control(grid: Grid, node: int) -> ProblemError:
    """The error of a node whose face admits no control."""
    x, place = grid.nodes_of(np.array([node]))[0], np.unravel_index(node, grid.shape)
    return ProblemError(
        f"node {tuple(map(int, place))} at x = {x} lies on a face that "
        "admits only inward drift (StateConstraint or Extrapolate), and no control "
        "gives it one without noise across the face. Change the rule, the control "
        "set, or the face."
    )
