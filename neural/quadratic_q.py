"""Continuous-time Q-learning in the linear-quadratic class, in closed form.

With w = (1, z, b), z and b the scaled state and control, the two unknowns are
``V(x) = (1, z)' P (1, z)`` and the Hamiltonian

    h(x, a) = r(x, a) + (L^a - rho) V (x) = w' S w,

whose maximum over a is zero at the solution and whose shape is the little q-function,
``q(x, a) = h(x, a) - max_b h(x, b)``. The transitions enter through one regression:
the conditional means of r and of the increments of every monomial of V on the
monomials of (x, a). These are the martingale orthogonality conditions with the
monomials of (x, a) as test functions, exactly as many as there are unknowns.

Source: Jia and Zhou, q-Learning in continuous time, JMLR 24 (2023) 161, Theorem 9 and
section 4; the second-order increments after Zhu, PhiBE, arXiv 2405.12535, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hjbpde.errors import ProblemError

from .transitions import Transitions

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Scales:
    """z = (x - centre) / half, b = (a - middle) / spread."""

    centre: Array
    half: Array
    middle: Array
    spread: Array

    def state(self, x: Array) -> Array:
        """z (n, d)."""
        return (x - self.centre) / self.half

    def control(self, a: Array) -> Array:
        """b (n, m)."""
        return (a - self.middle) / self.spread


def monomials(w: Array) -> Array:
    """w_i w_j for i <= j: (n, k) -> (n, k (k + 1) / 2)."""
    i, j = np.triu_indices(w.shape[1])
    return w[:, i] * w[:, j]


def matrix(c: Array, k: int) -> Array:
    """The symmetric S (k, k) with ``w' S w = sum c_ij w_i w_j``."""
    S = np.zeros((k, k))
    S[np.triu_indices(k)] = 0.5 * c
    return S + S.T


def coefficients(S: Array) -> Array:
    """The inverse of `matrix`."""
    out = 2.0 * S - np.diag(np.diag(S))
    return out[np.triu_indices(len(S))]


def with_one(z: Array) -> Array:
    """(1, z)."""
    return np.hstack([np.ones((len(z), 1)), z])


def increments(
    transitions: Transitions, order: int, rho: float, scales: Scales
) -> Array:
    """Rates of change of e^(-rho t) times every monomial of V, (n, monomials).

    Order 1: ``(e^(-rho dt) v_1 - v_0) / dt``; order 2: ``(-3/2 v_0 + 2 e^(-rho dt) v_1
    - 1/2 e^(-2 rho dt) v_2) / dt``, whose mean is ``(L^a - rho) v + O(dt^2)``.
    """
    t, dt = transitions, transitions.dt
    now, then = (
        monomials(with_one(scales.state(x))) for x in (t.states, t.next_states)
    )
    fade = np.exp(-rho * dt)
    if order == 1:
        return (fade * then - now) / dt
    later = monomials(with_one(scales.state(t.later_states)))
    return (-1.5 * now + 2.0 * fade * then - 0.5 * fade**2 * later) / dt


@dataclass(frozen=True, eq=False)
class Moments:
    """What the transitions say: r ~ reward, (L - rho) v_j ~ change[:, j].

    Both are coefficients on the monomials of (1, z, b).
    """

    reward: Array
    change: Array
    d: int
    m: int

    def hamiltonian(self, value: Array) -> Array:
        """S of ``r + (L^a - rho) V`` for the coefficients of V."""
        return matrix(self.reward + self.change @ value, 1 + self.d + self.m)

    def under(self, gain: Array) -> Array:
        """The linear map from coefficients in (x, a) to those in x at b = G (1, z)."""
        k = 1 + self.d + self.m
        T = np.vstack([np.eye(1 + self.d), gain])
        columns = [
            coefficients(T.T @ matrix(e, k) @ T) for e in np.eye(len(self.reward))
        ]
        return np.stack(columns, 1)


@dataclass(frozen=True, eq=False)
class Regression:
    """Monomials of (x, a), and rates and increments as their targets."""

    basis: Array
    targets: Array
    d: int
    m: int

    @classmethod
    def of(
        cls, t: Transitions, order: int, rho: float, sign: float, scales: Scales
    ) -> Regression:
        """The regression that the transitions pose."""
        w = np.hstack([with_one(scales.state(t.states)), scales.control(t.controls)])
        rates = sign * t.rates(order)
        targets = np.column_stack([rates, increments(t, order, rho, scales)])
        return cls(monomials(w), targets, t.states.shape[1], t.controls.shape[1])

    def moments(self, weights: Array | None = None) -> Moments:
        """Least squares, rows weighted by `weights` (n,) where given."""
        root = np.ones((len(self.basis), 1)) if weights is None else weights[:, None]
        found, _, rank, _ = np.linalg.lstsq(
            root * self.basis, root * self.targets, rcond=1e-10
        )
        if rank < self.basis.shape[1]:
            raise ProblemError(
                f"QLearning: the transitions span {rank} of the "
                f"{self.basis.shape[1]} monomials of (x, a), so the control's effect "
                "cannot be told from the state's. Explore: controls must vary "
                "independently of the state."
            )
        found = np.asarray(found, float)
        return Moments(found[:, 0], found[:, 1:], self.d, self.m)

    def weights(self, moments: Moments, value: Array) -> Array:
        """1 / the noise of ``r + D V`` at every row, seen in the residuals.

        The noise is ``|sigma' grad V| / sqrt(dt)`` and vanishes where V is flat; there
        the constant of V can be read off, and 1 / rho multiplies its error.
        """
        both = np.concatenate([[1.0], value])
        fitted = moments.reward + moments.change @ value
        squares = (self.targets @ both - self.basis @ fitted) ** 2
        shape = np.linalg.lstsq(self.basis, squares, rcond=1e-10)[0]
        mean = float(squares.mean())
        if mean == 0:
            return np.ones(len(squares))
        noise = np.maximum(self.basis @ shape, 0.02 * mean)
        return np.asarray(np.sqrt(mean / noise), float)


def best_gain(S: Array, d: int) -> Array:
    """G (m, 1 + d) with b = G (1, z) the maximiser of w' S w."""
    curve = S[1 + d :, 1 + d :]
    if not len(curve):
        return np.zeros((0, 1 + d))
    top = float(np.linalg.eigvalsh(curve).max())
    if not top < -1e-10 * float(np.abs(S).max()):
        raise ProblemError(
            f"QLearning: the estimated Hamiltonian is not concave in the control "
            f"(curvature {top:.2g} in scaled units), so no control maximises it. Give "
            "more transitions, wider exploration, or check the sign of the payoffs."
        )
    return np.asarray(-np.linalg.solve(curve, S[1 + d :, : 1 + d]), float)


@dataclass(frozen=True, eq=False)
class QuadraticAnswer:
    """V = (1, z)' P (1, z) by its coefficients, b = G (1, z), and the path there."""

    value: Array
    gain: Array
    changes: tuple[float, ...]
    converged: bool


def solve_little_q(moments: Moments, max_sweeps: int = 200) -> QuadraticAnswer:
    """``max_a h = 0`` from V = 0, by implicit steps of ``V' = max_a h``.

    The pseudo-time step doubles every sweep, so that the last sweeps are Newton's
    method (policy iteration); the small first ones find the stabilising root, which
    is the one that V = 0 is carried to.
    """
    size = moments.change.shape[1]
    value, step = np.zeros(size), 0.1
    gain, changes = np.zeros((moments.m, 1 + moments.d)), []
    for _ in range(max_sweeps):
        gain = best_gain(moments.hamiltonian(value), moments.d)
        under = moments.under(gain)
        left = np.eye(size) / step - under @ moments.change
        new = np.asarray(
            np.linalg.solve(left, value / step + under @ moments.reward), float
        )
        size_now = float(np.abs(new).max())
        if not np.isfinite(size_now) or size_now > 1e12:
            break
        changes.append(float(np.abs(new - value).max()) / max(size_now, 1e-300))
        value, step = new, min(2.0 * step, 1e12)
        if step > 1e6 and changes[-1] < 1e-11:
            gain = best_gain(moments.hamiltonian(value), moments.d)
            return QuadraticAnswer(value, gain, tuple(changes), True)
    return QuadraticAnswer(value, gain, tuple(changes), False)


def solve_fitted_q(
    moments: Moments, dt: float, rho: float, tolerance: float, max_sweeps: int
) -> QuadraticAnswer:
    """``Q <- r dt + e^(-rho dt) E max_a' Q(x', a')``, sweep by sweep.

    `moments` must be of order 1: then ``E e^(-rho dt) v(x') = v + dt change v``. The
    constant contracts by e^(-rho dt) a sweep, hence about ``1 / (rho dt)`` sweeps for
    every factor e.
    """
    k, d = 1 + moments.d + moments.m, moments.d
    size = moments.change.shape[1]
    lift = np.zeros((len(moments.reward), size))
    for column, e in enumerate(np.eye(size)):
        S = np.zeros((k, k))
        S[: 1 + d, : 1 + d] = matrix(e, 1 + d)
        lift[:, column] = coefficients(S)
    value, gain, changes = np.zeros(size), np.zeros((moments.m, 1 + d)), []
    limit = tolerance * -np.expm1(-rho * dt)
    for _ in range(max_sweeps):
        theta = dt * moments.reward + (lift + dt * moments.change) @ value
        S = matrix(theta, k)
        gain = best_gain(S, d)
        T = np.vstack([np.eye(1 + d), gain])
        new = coefficients(T.T @ S @ T)
        changes.append(float(np.abs(new - value).max() / np.abs(new).max()))
        value = new
        if changes[-1] < limit:
            return QuadraticAnswer(value, gain, tuple(changes), True)
    return QuadraticAnswer(value, gain, tuple(changes), False)
