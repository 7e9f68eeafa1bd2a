"""What explicit marching asks of a Hamiltonian, and the two kinds it can be.

In the maximising sense ``G(x, p, t) = sup_a inf_b { r + f . p }``. Where drift and
payoff separate into affine and diagonal quadratic terms of each control, extrema are
closed-form (`AffineHamiltonian`); otherwise they run over samples
(`SampledHamiltonian`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import MethodMismatch, StabilityError
from ..kernels import lax_friedrichs as kernels
from ..kernels.between import affine_rise, sampled_rise
from ..kernels.godunov import godunov
from .columns import Columns, pack

Array = NDArray[np.float64]
ENORMOUS = 1e300
"""1/R where R = 0: the maximiser of a linear gain is an end of its interval."""


@dataclass(frozen=True)
class LaxFriedrichs:
    """Central Hamiltonian plus just enough dissipation; monotone at first order.

    Parameters
    ----------
    reach : int
        Gradients over which dissipation must dominate |dG/dp_k| at a node:
        `LaxFriedrichs.GRID` one number an axis for all nodes; `NODE` all gradients
        met on the grid, node by node; `CONTROLS` any gradient whatever, node by node:
        the fastest, for bounded controls; `AXIS` (default) those between p- and p+ on
        the own axis, all on the others (local Lax-Friedrichs); `LOCAL` between p- and
        p+ on every axis, sharpest, not provably monotone.
    bounds : sequence of float, optional
        One dissipation an axis instead; refused where |dG/dp_k| exceeds it.

    Source: Osher and Shu, SIAM J. Numer. Anal. 28 (1991), equations 3.5 to 3.7.
    """

    reach: int = kernels.AXIS
    bounds: tuple[float, ...] | None = None

    GRID = 0
    NODE = kernels.NODE
    AXIS = kernels.AXIS
    LOCAL = kernels.LOCAL
    CONTROLS = kernels.CONTROLS


@dataclass(frozen=True)
class Godunov:
    """Least dissipation of all monotone ones; separable Hamiltonians only.

    Each control acts on one axis and each axis has one control at most (Osher and
    Shu, equation 3.8).
    """


Numerical = LaxFriedrichs | Godunov


@dataclass(frozen=True)
class Slopes:
    """One-sided gradients (d, N) with 1/h: list of (1,) or (N,)."""

    minus: Array
    plus: Array
    inverse_h: Array

    def box(self) -> Array:
        """Range of every component over the grid, (d, 2)."""
        low = np.minimum(self.minus.min(axis=1), self.plus.min(axis=1))
        high = np.maximum(self.minus.max(axis=1), self.plus.max(axis=1))
        return np.stack([low, high], axis=1)


class Hamiltonian(Protocol):
    """The numerical Hamiltonian at one time."""

    def at(self, t: float) -> Hamiltonian:
        """The same at calendar time t."""
        ...

    def taken(self, nodes: NDArray[np.intp]) -> Hamiltonian:
        """The same at some nodes only, at the present time."""
        ...

    def fill_rate(
        self, slopes: Slopes, numerical: Numerical, rate: Array, largest: Array
    ) -> float:
        """rate (N,) and max|dG/dp_k| in `largest` (d,); returns the CFL sum."""
        ...

    def rise(self, k: int, p: Array, slope: Array, sign: Array) -> Array:
        """``sign max { sign (G(q) - G(0)) }`` (N,), p_k = q from 0 to slope (N,)."""
        ...

    def extremal(self, p: Array) -> tuple[Array, Array]:
        """Controls a (m, N) and b (mb, N) at the gradient p (d, N)."""
        ...


@dataclass(frozen=True, eq=False)
class AffineHamiltonian:
    """``r0 + f0 . p + sum_i opt_i {(r1_i + B_i . p) u_i -+ R_i u_i^2 / 2}``.

    Parameters
    ----------
    f0 : (d, N or 1)
    B : (d, M, N or 1)
    r0 : (N or 1)
    r1, R, low, high : (M, N or 1)
        R >= 0 bends against the extremum taken: a cost of u_i for its own player.
    sense : (M,)
        +1 where u_i maximises, -1 where it minimises.
    at_time : callable, optional
        ``at_time(t) -> AffineHamiltonian`` where tables depend on t.
    shape : tuple of int, optional
        The grid's: tables constant along some of its axes are read faster.

    Raises
    ------
    StabilityError
        A negative R, or an unbounded control that costs nothing.
    """

    f0: Array
    B: Array
    r0: Array
    r1: Array
    R: Array
    low: Array
    high: Array
    sense: Array
    at_time: Callable[[float], AffineHamiltonian] | None = None
    shape: tuple[int, ...] | None = None
    _tables: tuple[Array, ...] = field(init=False, repr=False)
    _columns: Columns = field(init=False, repr=False)
    _acts: NDArray[np.bool_] = field(init=False, repr=False)
    _speeds: Array = field(init=False, repr=False)

    def __post_init__(self) -> None:
        open_side = ~(np.isfinite(self.low) & np.isfinite(self.high))
        if (self.R < 0).any() or (open_side & (self.R <= 0)).any():
            raise StabilityError(
                "the running payoff bends the wrong way, or not at all, in an "
                "unbounded control: its extremum is infinite. Give finite bounds or a "
                "quadratic control cost."
            )
        with np.errstate(divide="ignore"):
            inverse_R = np.where(self.R > 0, 1.0 / self.R, ENORMOUS)
        rows = (self.f0, self.B, self.r1, inverse_R, self.low, self.high, self.R)
        tables = tuple(np.ascontiguousarray(row, dtype=float) for row in rows)
        object.__setattr__(self, "_tables", tables)
        object.__setattr__(self, "_acts", (self.B != 0.0).any(axis=2))
        object.__setattr__(self, "_speeds", self._fastest())
        f0, B, *rest = tables
        rows = [f0, B, self.r0[None], *rest, self._speeds]
        object.__setattr__(self, "_columns", pack(rows, self.shape or self._line()))

    def _line(self) -> tuple[int]:
        """The nodes in a row, where their grid is not known."""
        return (max(table.shape[-1] for table in (*self._tables, self.r0)),)

    def _fastest(self) -> Array:
        """max|f_k| over both boxes, (d, N or 1); infinite where a box is."""
        least = most = self.f0
        for i in range(len(self.r1)):
            with np.errstate(invalid="ignore"):
                one, two = self.B[:, i] * self.low[i], self.B[:, i] * self.high[i]
            one, two = (np.where(self.B[:, i] == 0.0, 0.0, x) for x in (one, two))
            least, most = least + np.minimum(one, two), most + np.maximum(one, two)
        return np.ascontiguousarray(np.maximum(np.abs(least), np.abs(most)))

    @property
    def bounded(self) -> bool:
        """Whether both boxes of controls are finite."""
        return bool(np.isfinite(self.low).all() and np.isfinite(self.high).all())

    def at(self, t: float) -> AffineHamiltonian:
        """The same at calendar time t."""
        return self if self.at_time is None else self.at_time(t)

    def taken(self, nodes: NDArray[np.intp]) -> AffineHamiltonian:
        """The same at some nodes only, at the present time."""
        f0, B, r1, _, low, high, R = (_at(table, nodes) for table in self._tables)
        r0 = _at(self.r0, nodes)
        return AffineHamiltonian(f0, B, r0, r1, R, low, high, self.sense)

    def axis_of(self) -> NDArray[np.int64] | None:
        """The one axis each control acts on (-1: none), None if not separable."""
        acts = self._acts
        if (acts.sum(0) > 1).any() or (acts.sum(1) > 1).any():
            return None
        return np.where(acts.any(0), acts.argmax(0), -1).astype(np.int64)

    def fill_rate(
        self, slopes: Slopes, numerical: Numerical, rate: Array, largest: Array
    ) -> float:
        """As `Hamiltonian.fill_rate`.

        Raises
        ------
        MethodMismatch
            Godunov on a Hamiltonian that is not separable.
        StabilityError
            Dissipation bounds below max|dG/dp_k|.
        """
        if isinstance(numerical, Godunov):
            return self._godunov(slopes, rate, largest)
        d = len(largest)
        fixed = np.zeros(d)
        given = numerical.bounds is not None
        if numerical.reach == LaxFriedrichs.CONTROLS and not given:
            largest[:], total = self.fastest(slopes.inverse_h)
            kernels.fastest_lax_friedrichs(
                *self.packed, slopes.minus, slopes.plus, rate
            )
            return total
        local = numerical.reach == LaxFriedrichs.LOCAL and not given
        box = np.zeros((d, 2)) if local else slopes.box()
        if given or numerical.reach == LaxFriedrichs.GRID:
            args = (*self.packed, slopes.minus, slopes.plus)
            kernels.largest_speeds(*args, box, largest)
            fixed = checked_bounds(numerical, largest)
        span = kernels.NODE if fixed.any() else numerical.reach
        return kernels.lax_friedrichs(
            *self.packed,
            slopes.minus,
            slopes.plus,
            box,
            span,
            fixed,
            slopes.inverse_h,
            rate,
            largest,
        )

    @property
    def packed(self) -> tuple[Columns, NDArray[np.bool_], Array]:
        """What kernels read: packed tables, where B acts, the senses."""
        return self._columns, self._acts, self.sense

    def fastest(self, inverse_h: Array) -> tuple[Array, float]:
        """max|f_k| over all nodes and controls (d,), and the CFL sum with 1/h.

        Raises
        ------
        MethodMismatch
            Unbounded controls.
        """
        if not self.bounded:
            raise MethodMismatch(
                "LaxFriedrichs.CONTROLS needs bounded controls; use AXIS."
            )
        total = float((self._speeds * inverse_h).sum(axis=0).max())
        return self._speeds.max(axis=1), total

    def _godunov(self, slopes: Slopes, rate: Array, largest: Array) -> float:
        axis_of = self.axis_of()
        if axis_of is None:
            raise MethodMismatch(
                "Godunov needs a separable Hamiltonian (every control acts on one "
                "axis, one control an axis); use hjb.LaxFriedrichs()."
            )
        return godunov(
            self._tables,
            self.r0,
            axis_of,
            self.sense,
            slopes.minus,
            slopes.plus,
            slopes.inverse_h,
            rate,
            largest,
        )

    def rise(self, k: int, p: Array, slope: Array, sign: Array) -> Array:
        """As `Hamiltonian.rise`."""
        out = np.empty(slope.size)
        affine_rise(self._tables, self.sense, p, k, slope, sign, out)
        return out

    def extremal(self, p: Array) -> tuple[Array, Array]:
        """Controls a (m, N) and b (mb, N) at the gradient p (d, N)."""
        _, B, r1, inverse_R, low, high, _ = self._tables
        gain = self.sense[:, None] * (r1 + np.einsum("kin,kn->in", _wide(B, p), p))
        u = np.clip(gain * np.minimum(inverse_R, 1e200), low, high)
        return u[self.sense > 0], u[self.sense < 0]


@dataclass(frozen=True, eq=False)
class SampledHamiltonian:
    """``max_a min_b r[a, b] + f[a, b] . p`` over samples of both controls.

    Parameters
    ----------
    f : (na, nb, d, N)
    r : (na, nb, N)
    a, b : (na, m) or (na, m, N); (nb, mb)
        The samples themselves.
    at_time : callable, optional
        ``at_time(t) -> SampledHamiltonian`` where tables depend on t.
    """

    f: Array
    r: Array
    a: Array
    b: Array
    at_time: Callable[[float], SampledHamiltonian] | None = None
    _speeds: Array = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_speeds", np.abs(self.f).max(axis=(0, 1)))

    def at(self, t: float) -> SampledHamiltonian:
        """The same at calendar time t."""
        return self if self.at_time is None else self.at_time(t)

    def taken(self, nodes: NDArray[np.intp]) -> SampledHamiltonian:
        """The same at some nodes only, at the present time."""
        f, r = np.ascontiguousarray(self.f[..., nodes]), self.r[..., nodes]
        a = self.a[..., nodes] if self.a.ndim == 3 else self.a
        return SampledHamiltonian(f, np.ascontiguousarray(r), a, self.b)

    def fill_rate(
        self, slopes: Slopes, numerical: Numerical, rate: Array, largest: Array
    ) -> float:
        """As `Hamiltonian.fill_rate`; every reach but GRID means node by node."""
        if isinstance(numerical, Godunov):
            raise MethodMismatch(
                "Godunov needs closed-form extrema (affine drift, diagonal quadratic "
                "payoff, boxes of controls); use hjb.LaxFriedrichs()."
            )
        fixed = np.zeros(len(largest))
        if numerical.bounds is not None or numerical.reach == LaxFriedrichs.GRID:
            largest[:] = self._speeds.max(axis=1)
            fixed = checked_bounds(numerical, largest)
        return kernels.sampled_lax_friedrichs(
            self.f,
            self.r,
            self._speeds,
            slopes.minus,
            slopes.plus,
            fixed,
            slopes.inverse_h,
            rate,
            largest,
        )

    def rise(self, k: int, p: Array, slope: Array, sign: Array) -> Array:
        """As `Hamiltonian.rise`."""
        out = np.empty(slope.size)
        sampled_rise(self.f, self.r, p, k, slope, sign, out)
        return out

    def extremal(self, p: Array) -> tuple[Array, Array]:
        """Controls a (m, N) and b (mb, N) at the gradient p (d, N)."""
        payoff = self.r + np.einsum("abkn,kn->abn", self.f, p)
        worst = payoff.argmin(axis=1)
        best = payoff.min(axis=1).argmax(axis=0)
        reply = np.take_along_axis(worst, best[None], axis=0)[0]
        a = self.a[best].T
        return np.ascontiguousarray(a), np.ascontiguousarray(self.b[reply].T)


def checked_bounds(numerical: LaxFriedrichs, largest: Array) -> Array:
    """Dissipation an axis: the bounds given, or max|dG/dp_k| over the grid.

    Raises
    ------
    StabilityError
        A bound below max|dG/dp_k|, naming the axis and the number needed.
    """
    if numerical.bounds is None:
        return np.maximum(largest, 1e-300)
    bounds = np.asarray(numerical.bounds, dtype=float)
    if bounds.shape != largest.shape:
        raise StabilityError(
            f"LaxFriedrichs: {bounds.size} dissipation bounds for {largest.size} axes."
        )
    short = np.flatnonzero(bounds < largest * (1 - 1e-12))
    if short.size:
        k = int(short[0])
        raise StabilityError(
            f"LaxFriedrichs: the dissipation bound {bounds[k]:g} of axis {k} is below "
            f"max|dH/dp| = {largest[k]:.6g} on this grid, so the scheme is not "
            f"monotone. Give at least {largest[k]:.6g}, or leave bounds out."
        )
    return bounds


def _at(table: Array, nodes: NDArray[np.intp]) -> Array:
    """A table (..., N or 1) at some nodes."""
    return table if table.shape[-1] == 1 else np.ascontiguousarray(table[..., nodes])


def _wide(table: Array, p: Array) -> Array:
    return np.broadcast_to(table, (*table.shape[:-1], p.shape[-1]))
