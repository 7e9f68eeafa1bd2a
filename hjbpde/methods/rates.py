"""How V changes: the whole grid at once, or slab by slab where speeds are tabulated.

`measure` asks for the CFL sum at V, `step` takes the Runge-Kutta stage from there:
``out = a one + b (V + dt (G(x, grad V) - rho V))``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..kernels.lax_friedrichs import blend
from ..kernels.slab import march_slabs, slab_of
from ..one_sided import OneSided
from .hamiltonians import (
    AffineHamiltonian,
    Hamiltonian,
    LaxFriedrichs,
    Numerical,
    Slopes,
)
from .reflecting_faces import reflecting_faces

Array = NDArray[np.float64]
Discount = Callable[[float], Array]
"""rho (N or 1,) at a calendar time."""


class Rates(Protocol):
    """The rate of V (N,); where measured last, largest (d,) is max|dG/dp_k|, and rho
    (N or 1,) the discount rate."""

    largest: Array
    rho: Array

    def measure(self, V: Array, t: float) -> float:
        """Prepare `step` from V at calendar time t; returns the CFL sum."""
        ...

    def step(self, one: Array, a: float, b: float, dt: float, out: Array) -> None:
        """One stage from the V measured last into `out`, which is not V."""
        ...


def rates_of(
    hamiltonian: Hamiltonian,
    numerical: Numerical,
    one_sided: OneSided,
    discount: Discount,
) -> Rates:
    """Slab by slab with the speeds of all controls, else the whole grid."""
    if (
        isinstance(hamiltonian, AffineHamiltonian)
        and isinstance(numerical, LaxFriedrichs)
        and numerical.reach == LaxFriedrichs.CONTROLS
        and numerical.bounds is None
    ):
        return SlabRates(hamiltonian, numerical, one_sided, discount)
    return GridRates(hamiltonian, numerical, one_sided, discount)


def _inverse_h(one_sided: OneSided) -> Array:
    steps = one_sided.inverse_steps()
    width = max(step.size for step in steps)
    return np.stack([np.broadcast_to(step, (width,)) for step in steps])


class GridRates:
    """All slopes first, since speeds depend on their range over the grid."""

    def __init__(
        self,
        hamiltonian: Hamiltonian,
        numerical: Numerical,
        one_sided: OneSided,
        discount: Discount,
    ) -> None:
        d, n = one_sided.grid.dimension, one_sided.grid.size
        self.hamiltonian, self.numerical = hamiltonian, numerical
        self.one_sided, self.discount = one_sided, discount
        self.rho = np.zeros(1)
        slopes = np.empty((d, n)), np.empty((d, n))
        self.slopes = Slopes(*slopes, _inverse_h(one_sided))
        self.faces = reflecting_faces(one_sided, self.slopes.inverse_h)
        self.V, self.rate, self.largest = np.empty(0), np.empty(n), np.zeros(d)

    def measure(self, V: Array, t: float) -> float:
        """As `Rates.measure`; the rate is filled along with it."""
        self.V, self.rho, slopes = V, self.discount(t), self.slopes
        self.one_sided.fill(V, slopes.minus, slopes.plus)
        given = self.hamiltonian.at(t), self.numerical
        total = given[0].fill_rate(slopes, given[1], self.rate, self.largest)
        for face in self.faces:
            self.rate[face.nodes] = face.rate(V, *given)
        return total

    def step(self, one: Array, a: float, b: float, dt: float, out: Array) -> None:
        """As `Rates.step`."""
        blend(one, a, self.V, b, self.rate, dt, self.rho, out)


class SlabRates:
    """Speeds over all controls are known beforehand: a stage is one pass over V."""

    def __init__(
        self,
        hamiltonian: AffineHamiltonian,
        numerical: LaxFriedrichs,
        one_sided: OneSided,
        discount: Discount,
    ) -> None:
        self.hamiltonian, self.numerical = hamiltonian, numerical
        self.one_sided, self.discount = one_sided, discount
        self.rho = np.zeros(1)
        self.cut = slab_of(one_sided.grid.shape)
        self.inverse_h = _inverse_h(one_sided)
        self.faces = reflecting_faces(one_sided, self.inverse_h)
        self.V = np.empty(0)
        self._take(hamiltonian)

    def _take(self, hamiltonian: AffineHamiltonian) -> None:
        self.now = hamiltonian
        self.largest, self.total = hamiltonian.fastest(self.inverse_h)

    def measure(self, V: Array, t: float) -> float:
        """As `Rates.measure`."""
        self.V, self.rho, now = V, self.discount(t), self.hamiltonian.at(t)
        if now is not self.now:
            self._take(now)
        return self.total

    def step(self, one: Array, a: float, b: float, dt: float, out: Array) -> None:
        """As `Rates.step`."""
        lattice, scratch = self.one_sided.lattice, self.one_sided.scratch
        V = self.V
        march_slabs(
            V,
            lattice,
            self.cut,
            scratch,
            self.now.packed,
            one,
            a,
            b,
            dt,
            self.rho,
            out,
        )
        rho = np.broadcast_to(self.rho, V.shape)
        for face in self.faces:
            at = face.nodes
            change = face.rate(V, self.now, self.numerical) - rho[at] * V[at]
            out[at] = a * one[at] + b * (V[at] + dt * change)
