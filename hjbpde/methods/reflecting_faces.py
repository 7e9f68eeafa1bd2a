"""How V changes at nodes on faces where lines are mirrored.

The state is held at such a face: where the drift points outward it does not count. At
a low face of axis k, s the derivative of V inward (at a high face the signs turn),

    V_tau = sup_a inf_b { r + max(f_k, 0) s + ... } - rho V,
          = max (s > 0) or min (s < 0) { G(x, q) : q_k between 0 and s } - rho V,

the viscosity form of dV/dn = 0 (Lions, Duke Math. J. 52 (1985)) by Godunov's formula
(Osher and Shu, SIAM J. Numer. Anal. 28 (1991), equation 3.8) with slope 0 beyond the
face. Where V has a slope there its mirror image has a kink on the face, which other
numerical Hamiltonians would smear: for them the face would not be where it is.

Where several such faces meet, one takes the extremum and on the axes of the others the
numerical Hamiltonian sees slope 0 beyond the face.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..kernels import weno
from ..one_sided import OneSided
from .hamiltonians import Hamiltonian, Numerical, Slopes

Array = NDArray[np.float64]
Indices = NDArray[np.intp]
DEEP = 8
"""Nodes behind a face that its one-sided derivatives may see."""


@dataclass(eq=False)
class ReflectingFace:
    """One face of the grid of `one_sided`.

    low: whether it is the low end of `axis`. nodes (F,): their flat indices.
    """

    one_sided: OneSided
    axis: int
    low: bool
    inverse_h: Array
    nodes: Indices = field(init=False)
    _steps: Array = field(init=False)
    _read: tuple[Hamiltonian, tuple[Hamiltonian, Hamiltonian]] | None = field(
        init=False, default=None
    )

    def __post_init__(self) -> None:
        shape = self.one_sided.grid.shape
        at = 0 if self.low else shape[self.axis] - 1
        every = np.arange(math.prod(shape)).reshape(shape)
        self.nodes = every.take(at, self.axis).ravel()
        self._steps = self.inverse_h
        if self.inverse_h.shape[1] > 1:
            self._steps = np.tile(self.inverse_h[:, self.nodes], 2)

    def rate(self, V: Array, hamiltonian: Hamiltonian, numerical: Numerical) -> Array:
        """What V_tau + rho V is at the face's nodes (F,); V (N,) on the whole grid."""
        minus, plus = self._slopes(V)
        slope = (plus if self.low else minus)[self.axis].copy()
        sign = np.where((slope if self.low else -slope) >= 0.0, 1.0, -1.0)
        here, twice = self._taken(hamiltonian)
        # Along the other axes as anywhere, dissipation for slopes from 0 to s here.
        minus[self.axis] = plus[self.axis] = 0.0
        slopes = Slopes(np.tile(minus, 2), np.tile(plus, 2), self._steps)
        slopes.minus[self.axis, slope.size :] = slope
        slopes.plus[self.axis, slope.size :] = slope
        rate, speeds = np.empty(2 * slope.size), np.empty(len(minus))
        twice.fill_rate(slopes, numerical, rate, speeds)
        mean = 0.5 * (minus + plus)
        return rate[: slope.size] + here.rise(self.axis, mean, slope, sign)

    def _slopes(self, V: Array) -> tuple[Array, Array]:
        """minus and plus (d, F) at the face's nodes, 0 beyond other faces like it."""
        whole = V.reshape(self.one_sided.grid.shape)
        n, k = whole.shape[self.axis], self.axis
        first = 0 if self.low else max(n - DEEP, 0)
        behind = whole.take(range(first, min(first + DEEP, n)), k)
        at = 0 if self.low else behind.shape[k] - 1
        face = behind.take([at], k)
        minus, plus = np.empty((2, whole.ndim, self.nodes.size))
        for j in range(whole.ndim):
            if j == k:
                pair = self._along(behind, j, first)
                minus[j], plus[j] = (one.take(at, k).ravel() for one in pair)
                continue
            back, fore = self._along(face, j, 0)
            ends, lines = self.one_sided.ghosts[j], [slice(None)] * whole.ndim
            for one, end, code in ((back, 0, ends[0]), (fore, -1, ends[1])):
                lines[j] = slice(end, end + 1 or None)
                if code == weno.MIRROR:
                    one[tuple(lines)] = 0.0
            minus[j], plus[j] = back.ravel(), fore.ravel()
        return minus, plus

    def _along(self, V: Array, j: int, first: int) -> tuple[Array, Array]:
        """One-sided derivatives along axis j of some layers, node `first` foremost."""
        one, n = self.one_sided, V.shape[j]
        minus, plus = np.empty(V.shape), np.empty(V.shape)
        weno.one_sided_along(
            np.ascontiguousarray(V).ravel(),
            n,
            math.prod(V.shape[j + 1 :]),
            one.inverse[j, first : first + n],
            one.scheme.code,
            one.epsilon[j],
            one.ghosts[j],
            minus.ravel(),
            plus.ravel(),
            one.scratch,
        )
        return minus, plus

    def _taken(self, hamiltonian: Hamiltonian) -> tuple[Hamiltonian, Hamiltonian]:
        """Its tables at the face's nodes, once and twice."""
        if self._read is None or self._read[0] is not hamiltonian:
            nodes = self.nodes
            both = hamiltonian.taken(nodes), hamiltonian.taken(np.tile(nodes, 2))
            self._read = hamiltonian, both
        return self._read[1]


def reflecting_faces(one_sided: OneSided, inverse_h: Array) -> list[ReflectingFace]:
    """All faces where lines are mirrored; a later one decides where they meet."""
    return [
        ReflectingFace(one_sided, k, low, inverse_h)
        for k in range(one_sided.grid.dimension)
        for low, code in zip((True, False), one_sided.ghosts[k], strict=True)
        if code == weno.MIRROR
    ]
