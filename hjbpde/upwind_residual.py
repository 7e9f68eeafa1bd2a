"""The residual of a value under one-sided differences of order 5.

Slopes are taken on the side that the drift leads to, from the smoothest of three
stencils (WENO5), so that neither kinks of V nor faces with data make waves; second
derivatives are central, of order 4. Where axes are stretched, differences are divided
by the steps they span and weighted as if these were equal: of order 2 then.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .coefficients import Coefficients
from .defect import ROUGH_STEP, HighOrder, correlated_part
from .faces import Faces
from .grid import Grid
from .improvement import SmoothSlopes, greedy
from .methods.state import GridState
from .one_sided import WENO5, OneSided
from .sets import Box
from .weights import finite_difference_weights

Array = NDArray[np.float64]
GHOSTS = 3
"""Nodes added beyond the ends of an axis, as many as the stencils reach."""
INNER = slice(GHOSTS, -GHOSTS)
CUBIC = 4
"""Nodes that a cubic passes through."""
FEWEST = CUBIC + 1
"""Nodes of an axis at least: a face may be continued from those behind it."""


@dataclass(frozen=True, eq=False)
class UpwindResidual:
    """R(V) of one state's equation, V (*shape) maximised.

    `one_sided` differs on the grid with `margins`; `minus` and `plus` are its scratch.
    """

    state: GridState
    high: HighOrder
    margins: Margins
    one_sided: OneSided
    minus: Array
    plus: Array

    @classmethod
    def of(cls, state: GridState) -> UpwindResidual:
        """For a state, whose V sets the scale of slopes that count as none."""
        margins = Margins.of(state.grid)
        value = margins.continued(state.V)
        one_sided = OneSided.on(margins.wide, WENO5(), value=value, stretched=True)
        minus, plus = np.empty((2, state.grid.dimension, value.size))
        high = HighOrder(state.faces, 4)
        return cls(state, high, margins, one_sided, minus, plus)

    def at(self, V: Array, a: Array) -> Array:
        """R(V), (N,), under the better of a (m, N) and the control greedy for V.

        The better one is written into a: beside a kink central slopes see neither
        side, and the control that was greedy for one-sided differences does.
        """
        state, slopes = self.state, self.high.slopes(V)
        sides, other = self._sides(V, slopes), a.copy()
        out = self._gain(greedy(state.tables, slopes, other), sides, slopes)
        if len(a):
            held = self._gain(state.tables.under(a), sides, slopes)
            better = out >= held
            a[...] = np.where(better, other, a)
            out = np.where(better, out, held)
        out -= np.broadcast_to(state.tables.rho, out.shape) * V.ravel()
        if state.noise is not None:
            out += correlated_part(state, self.high, V, slopes)
        if state.jumps is not None:
            out += state.jumps.smooth(np.ascontiguousarray(V).ravel())
        for face in state.faces.faces:
            if face.fixed or face.inward_only:
                out.reshape(V.shape)[state.faces.slab(face, 0)] = 0.0
        if state.noise is not None:
            out[state.noise.rough] *= ROUGH_STEP
        return out

    def _sides(self, V: Array, slopes: SmoothSlopes) -> tuple[Array, Array]:
        """Slopes (d, N) behind and ahead; on faces with a rule the one it gives.

        Values given on a face are those of the new time, V beside it is off by the
        error of the step: drift away from the face must not feel the difference.
        """
        faces, (minus, plus) = self.state.faces, self._filled(V)
        if faces.fixed_mask is not None:
            inside = self._filled(self.margins.without_faces(V, faces))
            for k, n in enumerate(V.shape):
                lines = np.moveaxis(np.stack([minus[k], plus[k]]), k + 1, 1)
                within = np.moveaxis(np.stack([one[k] for one in inside]), k + 1, 1)
                lines[1, : n // 2] = within[1, : n // 2]
                lines[0, n // 2 :] = within[0, n // 2 :]
                minus[k], plus[k] = np.moveaxis(lines, 1, k + 1)
        for face in faces.faces:
            if not face.fixed and not face.inward_only:
                slab, k = faces.slab(face, 0), face.axis
                given = slopes.p[k].reshape(V.shape)[slab]
                minus[k][slab] = plus[k][slab] = given
        return minus.reshape(V.ndim, -1), plus.reshape(V.ndim, -1)

    def _filled(self, V: Array) -> tuple[Array, Array]:
        """Slopes of V (*shape) behind and ahead, both (d, *shape)."""
        wide = self.margins.wide
        beyond = self.margins.continued(V).ravel()
        self.one_sided.fill(beyond, self.minus, self.plus)
        inner = tuple(slice(None) if around else INNER for around in wide.periodic)
        minus, plus = (
            side.reshape(-1, *wide.shape)[:, *inner].copy()
            for side in (self.minus, self.plus)
        )
        return minus, plus

    def _gain(
        self, under: Coefficients, sides: tuple[Array, Array], slopes: SmoothSlopes
    ) -> Array:
        """r + f . p + D . q, with the p of each axis that its drift leads to."""
        out = np.array(np.broadcast_to(under.r, (self.state.grid.size,)))
        for f, D, behind, ahead, q in zip(
            under.f, under.D, *sides, slopes.q, strict=True
        ):
            out += np.where(f > 0, f * ahead, f * behind) + D * q
        return out


@dataclass(frozen=True, eq=False)
class Margins:
    """A grid with `GHOSTS` more nodes at either end of axes that end.

    `ends` are weights (`GHOSTS`, 4) of the cubics through the last nodes below and
    above every axis; `behind` those (1, 4) of a face from the nodes behind it.
    """

    wide: Grid
    ends: list[tuple[Array, Array]]
    behind: list[tuple[Array, Array]]

    @classmethod
    def of(cls, grid: Grid) -> Margins:
        """Beyond an end steps are as long as the last one."""
        axes, ends, behind = [], [], []
        low, high = np.array(grid.domain.low), np.array(grid.domain.high)
        steps = np.arange(1, GHOSTS + 1)
        for k, (x, around) in enumerate(zip(grid.axes, grid.periodic, strict=True)):
            below = x[0] - steps[::-1] * (x[1] - x[0])
            above = x[-1] + steps * (x[-1] - x[-2])
            axes.append(x if around else np.concatenate([below, x, above]))
            low[k], high[k] = (low[k], high[k]) if around else (below[0], above[-1])
            ends.append((_cubics(x[:CUBIC], below), _cubics(x[-CUBIC:], above)))
            first, last = x[:FEWEST], x[-FEWEST:]
            behind.append(
                (_cubics(first[1:], first[:1]), _cubics(last[:-1], last[-1:]))
            )
        periodic = tuple(bool(around) for around in grid.periodic)
        wide = Grid.from_axes(axes, Box(low, high, periodic=periodic))
        return cls(wide, ends, behind)

    def continued(self, V: Array) -> Array:
        """V (*shape) on the wider grid."""
        for k, (below, above) in enumerate(self.ends):
            if not self.wide.periodic[k]:
                V = np.moveaxis(V, k, 0)
                ends = below @ _flat(V[:CUBIC]), above @ _flat(V[-CUBIC:])
                ends = [end.reshape(GHOSTS, *V.shape[1:]) for end in ends]
                V = np.moveaxis(np.concatenate([ends[0], V, ends[1]]), 0, k)
        return np.ascontiguousarray(V)

    def without_faces(self, V: Array, faces: Faces) -> Array:
        """V (*shape) continued from inside on faces with given values."""
        out = V.copy()
        for face in faces.faces:
            if face.fixed:
                lines, low = np.moveaxis(V, face.axis, 0), face.side == "low"
                near = lines[1:FEWEST] if low else lines[-FEWEST:-1]
                found = self.behind[face.axis][0 if low else 1] @ _flat(near)
                out[faces.slab(face, 0)] = found.reshape(lines.shape[1:])
        return out


def _flat(layers: Array) -> Array:
    return layers.reshape(len(layers), -1)


def _cubics(x: Array, places: Array) -> Array:
    """Weights (places, 4) of the cubic through values at x (4,)."""
    return np.array([finite_difference_weights(x, float(y), 0) for y in places])
