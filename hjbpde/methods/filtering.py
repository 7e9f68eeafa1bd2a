"""Filtered steps: high order where it stays near the monotone step, monotone elsewhere.

With the monotone Euler step ``M(V) = V + dt (G_1 - rho V)``, G_1 by first-order
differences, and a step A(V) of high order,

    V_new = M + dt w F((A - M) / (dt w)),   F(s) = s on |s| <= 1, 0 on |s| >= 2,

linear in between. Where V is smooth |A - M| is of size dt h and the step is A; at kinks
the step is at most dt w away from a monotone one, which is enough for convergence to
the viscosity solution as w and h fall to zero, whatever A is (Froese and Oberman, SIAM
J. Numer. Anal. 51 (2013), theorem 3.4; in time Bokanovsky, Falcone and Sahu, SIAM J.
Sci. Comput. 38 (2016), theorem 2.3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..errors import MethodMismatch
from ..grid import Grid
from ..kernels.filtering import keep_within
from ..one_sided import ENO2, WENO3, WENO5, End, Ends, FirstOrder, OneSided
from .hamiltonians import Hamiltonian, Numerical
from .rates import Discount, rates_of

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Filtered:
    """A high-order reconstruction that may leave the monotone scheme only so far.

    For Hamiltonians that are neither convex nor concave in grad V (games) high order
    alone can settle on a solution that is not the viscosity one. It takes about a
    third more time. Where such a game has kinks, the error bar of every high-order
    scheme, filtered or not, reaches to what a monotone one finds.

    Parameters
    ----------
    high : ENO2, WENO3 or WENO5
        What is filtered.
    width : float, optional
        How far a rate V_t may lie from the monotone one, in the units of V over time.
        By default ``sqrt(h / L) (max|V_t| + sum_k max|dG/dp_k| osc(dV/dx_k))`` with
        h / L the largest step relative to its axis: it falls with h, so that the
        scheme converges, but slower than the first-order errors of smooth values,
        which must pass. The largest one met so far is kept.

    Raises
    ------
    MethodMismatch
        A first-order scheme, which needs no filter, or a width that is not positive.
    """

    high: ENO2 | WENO3 | WENO5 = field(default_factory=WENO5)
    width: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.high, ENO2 | WENO3 | WENO5):
            raise MethodMismatch(
                f"Filtered: high is {self.high!r}; give hjb.ENO2(), hjb.WENO3() or "
                "hjb.WENO5(): a first-order scheme is monotone without a filter."
            )
        if self.width is not None and not 0.0 < self.width < math.inf:
            raise MethodMismatch(
                f"Filtered: width is {self.width}; it must be positive and finite."
            )

    @property
    def order(self) -> int:
        """Where V is smooth."""
        return self.high.order


class Filter:
    """The monotone scheme beside a march, and how far from it a step may end.

    width: in force; share: of all nodes and steps so far, those that were filtered.
    """

    def __init__(
        self,
        filtered: Filtered,
        hamiltonian: Hamiltonian,
        numerical: Numerical,
        grid: Grid,
        ends: End | Ends,
        discount: Discount,
    ) -> None:
        self.grid, self.fixed = grid, filtered.width is not None
        self.width = filtered.width or 0.0
        one_sided = OneSided.on(grid, FirstOrder(), ends)
        self.rates = rates_of(hamiltonian, numerical, one_sided, discount)
        self.monotone = np.empty(grid.size)
        self.moved, self.steps = 0, 0

    @property
    def share(self) -> float:
        """Of all nodes and steps."""
        return self.moved / (max(self.steps, 1) * self.grid.size)

    def memory(self) -> Array:
        """For the checkpoint."""
        return np.array([self.width, self.moved, self.steps])

    def recall(self, memory: Array) -> None:
        """The inverse of `memory`."""
        self.width = float(memory[0])
        self.moved, self.steps = int(memory[1]), int(memory[2])

    def prepare(self, V: Array, t: float, dt: float) -> float:
        """The monotone step from V (N,) at calendar time t; its CFL number."""
        courant = dt * self.rates.measure(V, t)
        self.rates.step(V, 0.0, 1.0, dt, self.monotone)
        if not self.fixed:
            self.width = max(self.width, self._width(V, dt))
        return courant

    def _width(self, V: Array, dt: float) -> float:
        values, coarsest = V.reshape(self.grid.shape), 0.0
        total = float(np.abs(self.monotone - V).max()) / dt
        for k, speed in enumerate(self.rates.largest):
            steps = np.diff(self.grid.axes[k])
            view = [1] * self.grid.dimension
            view[k] = -1
            total += speed * float(
                np.ptp(np.diff(values, axis=k) / steps.reshape(view))
            )
            coarsest = max(coarsest, float(steps.max() / steps.sum()))
        return math.sqrt(coarsest) * total

    def apply(self, V: Array, dt: float) -> None:
        """Bring the step that ends in V (N,) within reach of the prepared one."""
        self.moved += keep_within(V, self.monotone, dt * self.width)
        self.steps += 1
