"""One-sided derivatives on a grid: which reconstruction, and what lies outside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from .errors import MethodMismatch, ProblemError
from .grid import Grid
from .kernels import weno

Array = NDArray[np.float64]
RELATIVE_EPSILON = 1e-6


@dataclass(frozen=True)
class FirstOrder:
    """Differences to the next neighbour: order 1, monotone, any spacing."""

    order: int = 1
    monotone: bool = True
    code: int = weno.FIRST
    epsilon: float = 0.0


@dataclass(frozen=True)
class ENO2:
    """Second order away from kinks; of two stencils the smoother (Osher and Shu)."""

    order: int = 2
    monotone: bool = False
    code: int = weno.ENO2
    epsilon: float = 0.0


@dataclass(frozen=True)
class WENO3:
    """Two stencils weighted by smoothness: order 3 where smooth.

    epsilon: added to the smoothness indicators, which are squares of differences of
    slopes; None takes 1e-6 of the squared largest slope of the first value.
    """

    epsilon: float | None = None
    order: int = 3
    monotone: bool = False
    code: int = weno.WENO3


@dataclass(frozen=True)
class WENO5:
    """Three stencils weighted by smoothness: order 5 where smooth (Jiang and Peng).

    epsilon: as in `WENO3`; a number, e.g. 1e-6, is used as it is.
    """

    epsilon: float | None = None
    order: int = 5
    monotone: bool = False
    code: int = weno.WENO5


Reconstruction = FirstOrder | ENO2 | WENO3 | WENO5


class End(Enum):
    """What a line of values continues as beyond the end of an axis.

    LINEAR keeps the slope; AWAY_FROM_ZERO keeps its size and moves away from zero,
    so that no zero level enters (reachability); MIRROR reflects (zero slope).
    """

    LINEAR = weno.LINEAR
    AWAY_FROM_ZERO = weno.AWAY_FROM_ZERO
    MIRROR = weno.MIRROR


Ends = Sequence[tuple[End, End]]
"""The low and high end of every axis; periodic axes ignore theirs."""


@dataclass(frozen=True, eq=False)
class OneSided:
    """Left and right derivatives of values on one grid along every axis.

    Raises
    ------
    MethodMismatch
        A stretched axis with a reconstruction that needs equal steps.
    ProblemError
        An axis with fewer nodes than the stencil needs.
    """

    grid: Grid
    scheme: Reconstruction
    ghosts: NDArray[np.int64]
    inverse: Array
    epsilon: Array
    scratch: Array

    @classmethod
    def on(
        cls,
        grid: Grid,
        scheme: Reconstruction,
        ends: End | Ends = End.LINEAR,
        value: Array | None = None,
        stretched: bool = False,
    ) -> OneSided:
        """Prepared for a grid; `value` sets the scale of epsilon where it is None.

        `stretched` axes are taken by any scheme, but at order 2 at most.
        """
        pairs = [(ends, ends)] * grid.dimension if isinstance(ends, End) else ends
        ghosts = np.zeros((grid.dimension, 2), np.int64)
        inverse = np.zeros((grid.dimension, max(grid.shape)))
        epsilon = np.full(grid.dimension, scheme.epsilon or 0.0)
        for k, pair in enumerate(pairs):
            _check_axis(grid, k, scheme, stretched)
            if not grid.periodic[k]:
                ghosts[k] = [end.value for end in pair]
            inverse[k, : grid.shape[k]] = 1.0 / grid.spacing(k)[1]
            if scheme.epsilon is None:
                epsilon[k] = RELATIVE_EPSILON * _steepest(grid, k, value) ** 2
        # Below the floor products of indicators would underflow to 0 / 0.
        epsilon = np.maximum(epsilon, 1e-36)
        scratch = np.empty(weno.scratch_size(grid.shape))
        return cls(grid, scheme, ghosts, inverse, epsilon, scratch)

    @property
    def lattice(self) -> tuple[NDArray[np.int64], Array, int, Array, NDArray[np.int64]]:
        """For kernels: shape, 1/h (d, .), the scheme's code, epsilons, ghosts."""
        shape = np.array(self.grid.shape)
        return shape, self.inverse, self.scheme.code, self.epsilon, self.ghosts

    def fill(self, V: Array, minus: Array, plus: Array) -> None:
        """minus, plus (d, N) from V (N,) in C order; not safe between threads."""
        inner = self.grid.size
        for k, n in enumerate(self.grid.shape):
            inner //= n
            weno.one_sided_along(
                V,
                n,
                inner,
                self.inverse[k],
                self.scheme.code,
                self.epsilon[k],
                self.ghosts[k],
                minus[k],
                plus[k],
                self.scratch,
            )

    def inverse_steps(self) -> list[Array]:
        """1/h of every axis for the CFL sum: (1,), or (N,) where h varies."""
        found = []
        for k in range(self.grid.dimension):
            below, above = self.grid.spacing(k)
            least = np.minimum(below, above)
            if np.allclose(least, least[0], rtol=1e-9):
                found.append(np.array([1.0 / least.min()]))
                continue
            view = [1] * self.grid.dimension
            view[k] = -1
            spread = np.broadcast_to((1.0 / least).reshape(view), self.grid.shape)
            found.append(np.ascontiguousarray(spread).ravel())
        return found


def _check_axis(grid: Grid, k: int, scheme: Reconstruction, stretched: bool) -> None:
    step, high = grid.spacing(k)[1], scheme.order > 1
    if high and not stretched and not np.allclose(step, step[0], rtol=1e-9):
        raise MethodMismatch(
            f"{type(scheme).__name__} needs equal steps, axis {k} is stretched "
            f"(steps {step.min():.3g} to {step.max():.3g}). Use hjb.FirstOrder(), or "
            "an axis of equal steps in a transformed state."
        )
    need = 4 if scheme.order > 1 else 3
    if grid.shape[k] < need:
        raise ProblemError(
            f"{type(scheme).__name__} needs at least {need} nodes an axis, axis {k} "
            f"has {grid.shape[k]}."
        )


def _steepest(grid: Grid, k: int, value: Array | None) -> float:
    if value is None:
        return 1.0
    slope = np.diff(value.reshape(grid.shape), axis=k)
    view = [1] * grid.dimension
    view[k] = -1
    steps = np.diff(grid.axes[k]).reshape(view)
    largest = float(np.abs(slope / steps).max())
    return largest if largest > 0.0 else 1.0
