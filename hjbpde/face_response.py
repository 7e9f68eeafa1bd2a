"""What a wrong slope at artificial faces does to V, and V back to the slope."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .closure import target_slopes
from .faces import Faces
from .grid import Grid
from .linear import Rows, ladder_for
from .methods.state import GridState

Array = NDArray[np.float64]
HEAVY = 1e6
"""Weight of a row that is given its value against the heaviest other row."""
MOST_FEEDBACK = 0.9
"""Largest feedback of a face on its own slope that is left undamped."""


class SlopeResponse(Protocol):
    """What errors of the outward slopes do to V, and V to the continued slopes."""

    def to(self, slopes: list[Any]) -> Array: ...

    def returned(self, V: Array, z: Array) -> list[Array]: ...


class FaceResponse:
    """Rows of the computed policy with the artificial faces' slopes as input."""

    def __init__(self, state: GridState) -> None:
        assert state.under is not None
        self.state = state
        self.rows, lower, upper = state.rows(state.under)
        shape = state.grid.shape
        self.pushes = []
        for face in state.faces.artificial:
            outside = (lower if face.side == "low" else upper)[face.axis]
            slab = state.faces.slab(face, 0)
            self.pushes.append(outside.reshape(shape)[slab] * 2 * face.step)
        state.faces.fold(lower, upper, self.rows.c, None)
        self.held = state.stopped_nodes() if state.may_stop else None
        if self.held is not None:
            # A stopped node is worth its payoff, whatever the faces do.
            held = self.held.ravel()
            lower[:, held], upper[:, held], self.rows.c[held] = 0.0, 0.0, 1.0
            self.rows.stay_on_axes(held)

    def to(self, slopes: list[Any], source: Array | None = None) -> Array:
        """The shift of V for these errors of the outward slopes, and of the payoff."""
        faces, grid = self.state.faces, self.state.grid
        rhs = np.zeros(grid.shape) if source is None else source.reshape(grid.shape)
        if self.state.off_axes is not None:
            rhs = rhs + self.state.off_axes.pushed(slopes).reshape(grid.shape)
        for face, push, slope in zip(
            faces.artificial, self.pushes, slopes, strict=True
        ):
            rhs[faces.slab(face, 0)] += push * slope
        for mask in (faces.fixed_mask, self.held):
            if mask is not None:
                rhs[mask] = 0.0
        return np.abs(solve_roughly(self.rows, rhs, grid))

    def reached(self) -> Array:
        """How likely the process comes to an artificial face (*shape), discounted."""
        faces, rows, at = self.state.faces, self.rows, np.zeros(self.state.grid.shape)
        for face in faces.artificial:
            at[faces.slab(face, 0)] = 1.0
        for mask in (faces.fixed_mask, self.held):
            if mask is not None:
                at[mask] = 0.0
        weight = float(np.max(rows.c + rows.lower.sum(0) + rows.upper.sum(0)))
        heavy = HEAVY * weight * at.ravel()
        found = solve_roughly(replace(rows, c=rows.c + heavy), heavy, self.state.grid)
        return np.clip(found, 0.0, 1.0)

    def returned(self, V: Array, z: Array) -> list[Array]:
        """The change of the continued slopes when V moves by z, absolute."""
        return slopes_returned(self.state.faces, V, z)


def slopes_returned(faces: Faces, V: Array, z: Array) -> list[Array]:
    """How far the continued slopes move when V moves by z, absolute."""
    size = 1e-4 * (float(np.max(np.abs(V))) or 1.0)
    size /= max(float(np.max(np.abs(z))), 1e-300)
    before = target_slopes(faces, V, choose=False)
    after = target_slopes(faces, V + size * z, choose=False)
    return [
        np.abs(np.asarray(b) - np.asarray(a)) / size
        for a, b in zip(before, after, strict=True)
    ]


def _feedback(state: GridState) -> list[Array]:
    """Undamped: what a unit error of all slopes returns, on the artificial faces."""
    for face in state.faces.artificial:
        face.damping = 1.0
    response = FaceResponse(state)
    units = [np.ones_like(push) for push in response.pushes]
    return response.returned(state.V, response.to(units))


def most_feedback(state: GridState) -> float:
    """Largest feedback of a face on its own slope, damping taken off."""
    return max(float(np.max(gain)) for gain in _feedback(state))


def damp(state: GridState) -> None:
    """Weaken the continuation where it would feed on itself.

    Where the optimal drift points out of the box, V at the face is carried in from
    outside: the continued slope then fixes V, V the slope, and any growing solution
    would do. There the slope is damped, by the fourth power of the excess so that a
    face that feeds back more than it gets ends as a reflecting one; what damping
    leaves out is part of the truncation error.
    """
    for face, gain in zip(state.faces.artificial, _feedback(state), strict=True):
        share = np.minimum(1.0, MOST_FEEDBACK / np.maximum(gain, 1e-300))
        face.damping = share**4


def solve_roughly(rows: Rows, rhs: Array, grid: Grid) -> Array:
    """A x = rhs to 1e-6, relative; the bar needs two digits."""
    b = rhs.ravel().copy()
    if not b.any():
        return np.zeros(grid.shape)
    ladder = ladder_for(rows)
    ladder.prepare(rows)
    x, left = np.zeros_like(b), b
    for _ in range(12):
        step, ratio = ladder.correct(left, 1e-3)
        x, left = x + step, rows.residual(x + step, b)
        if np.max(np.abs(left)) <= 1e-6 * np.max(np.abs(b)) or ratio >= 1.0:
            break
    return x.reshape(grid.shape)
