"""Hamilton's equations along characteristics, by symplectic integrators.

A first-order problem ``V_t + H(x, grad V) = 0``, ``V(T) = g`` with

    H(x, p) = sup_a { r(x, a) + f(x, a) . p }          (reward; inf with cost)

is an ordinary differential equation along each characteristic,

    x' = H_p,   p' = -H_x,   V' = p . H_p - H,   p = grad V,

started at (x, grad g(x), g(x)) and followed backward from T (Evans, Partial
Differential Equations, 2nd ed., section 3.2.5). What it carries
is the value as long as no two characteristics have met: a truth without a grid to
compare grids with. Beyond, the value has kinks and characteristics say nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import MethodMismatch, NotConverged, ProblemError
from .greedy import greedy_control
from .problem import ControlProblem

Array = NDArray[np.float64]
DIFFERENCE = 1e-3
"""Step of five-point differences, relative to the width of an axis."""
APART = 1e-5
"""Distance of the neighbours that measure how a flow spreads, relative as well."""
SAMPLES = 32
"""Points on which H is tested for being separable."""
ALIKE = 1e-8
"""Relative difference below which derivatives count as equal."""


@dataclass(frozen=True)
class Hamiltonian:
    """H(x, p) and its derivatives, for states and gradients (n, d).

    Parameters
    ----------
    value : callable
        ``H(x, p) -> (n,)``.
    in_x, in_p : callable
        ``H_x(x, p)`` and ``H_p(x, p)``, (n, d).
    """

    value: Callable[[Array, Array], Array]
    in_x: Callable[[Array, Array], Array]
    in_p: Callable[[Array, Array], Array]

    @classmethod
    def of(cls, problem: ControlProblem) -> Hamiltonian:
        """That of a problem; smooth where its maximiser is.

        By the envelope theorem ``H_p = f(x, a*)`` and ``H_x`` is the derivative at
        fixed a*, taken by five-point differences inside the domain.

        Raises
        ------
        MethodMismatch
            Noise, discount, data that name t, or special fields but the horizon.
        ProblemError
            From its functions: a characteristic that leaves the domain.
        """
        _check(problem)

        def best(x: Array, p: Array) -> tuple[Array, Array]:
            x = _inside(problem, x)
            return x, greedy_control(problem, x, p)

        def gain(x: Array, p: Array, a: Array) -> Array:
            move = np.asarray(problem.drift_at(x, a))
            return np.asarray(problem.payoff_at(x, a)) + (move * p).sum(-1)

        def value(x: Array, p: Array) -> Array:
            x, a = best(x, p)
            return gain(x, p, a)

        def in_x(x: Array, p: Array) -> Array:
            x, a = best(x, p)
            return gradient_of(problem, lambda y: gain(y, p, a), x)

        def in_p(x: Array, p: Array) -> Array:
            return np.array(problem.drift_at(*best(x, p)), dtype=float)

        return cls(value, in_x, in_p)

    def separates(self, x: Array, p: Array) -> bool:
        """Whether ``H = T(p) + U(x)`` as far as these different points (n, d) tell."""
        elsewhere, other = np.roll(x, 1, axis=0), np.roll(p, 1, axis=0)
        return _alike(self.in_p(x, p), self.in_p(elsewhere, p)) and _alike(
            self.in_x(x, p), self.in_x(x, other)
        )


@dataclass(frozen=True)
class StoermerVerlet:
    """Half a kick, a drift, half a kick: order 2, symplectic, explicit.

    For ``H = T(p) + U(x)`` only; V gains the discrete action, so that p stays its
    gradient. Source: Hairer, Lubich and Wanner, Geometric Numerical Integration, 2nd
    ed., section I.1.4, and section VI.6 for the action.
    """

    def step(
        self, H: Hamiltonian, x: Array, p: Array, dt: float
    ) -> tuple[Array, Array, Array]:
        """x and p a time dt later, and what V gains."""
        half = p - 0.5 * dt * H.in_x(x, p)
        speed = H.in_p(x, half)
        after = x + dt * speed
        mean = 0.5 * (H.value(x, half) + H.value(after, half))
        gain = dt * ((half * speed).sum(-1) - mean)
        return after, half - 0.5 * dt * H.in_x(after, half), gain


@dataclass(frozen=True)
class ImplicitMidpoint:
    """The midpoint rule: order 2, symplectic for every H, keeps quadratic invariants.

    Parameters
    ----------
    tolerance : float
        Of the fixed-point iteration for the midpoint, relative.
    max_iter : int

    Source: Hairer, Lubich and Wanner, section VI.4.
    """

    tolerance: float = 1e-13
    max_iter: int = 100

    def step(
        self, H: Hamiltonian, x: Array, p: Array, dt: float
    ) -> tuple[Array, Array, Array]:
        """x and p a time dt later, and what V gains."""
        xm, pm = x, p
        for _ in range(self.max_iter):
            speed, force = H.in_p(xm, pm), -H.in_x(xm, pm)
            x_next, p_next = x + 0.5 * dt * speed, p + 0.5 * dt * force
            moved = max(np.abs(x_next - xm).max(), np.abs(p_next - pm).max())
            xm, pm = x_next, p_next
            size = 1.0 + max(np.abs(xm).max(), np.abs(pm).max())
            if not moved > self.tolerance * size:
                break
        if not moved <= self.tolerance * size:
            raise NotConverged(
                f"ImplicitMidpoint: the midpoint still moves by {moved:.3g} after "
                f"{self.max_iter} iterations with steps of {abs(dt):g}; take more of "
                "them."
            )
        gain = dt * ((pm * H.in_p(xm, pm)).sum(-1) - H.value(xm, pm))
        return 2.0 * xm - x, 2.0 * pm - p, gain


@dataclass(frozen=True)
class Rays:
    """Characteristics from t = 0 to T, one a start.

    times (n,), increasing; states (rays, n, d), not wrapped on periodic axes;
    gradients (rays, n, d); values (rays, n); energies (rays, n), H along each,
    constant but for O(dt^2); crossing, the calendar time at and before which rays
    have met, so that their values may not be the least (largest with reward): where
    the flow first folds over, backward from T, -inf if it does not. It is seen on the
    rays given: let them cover the domain.
    """

    times: Array
    states: Array
    gradients: Array
    values: Array
    energies: Array
    crossing: float


def characteristics(
    problem: ControlProblem,
    x: Any,
    steps: int,
    *,
    hamiltonian: Hamiltonian | None = None,
    method: StoermerVerlet | ImplicitMidpoint | None = None,
) -> Rays:
    """Characteristics of a first-order problem backward from the horizon.

    Parameters
    ----------
    problem : ControlProblem
        With a horizon, without noise and discount. Data on faces start no
        characteristics here.
    x : (rays, d)
        Where they are at the horizon.
    steps : int
        Equal steps over [0, T]; errors are O(T^2 / steps^2).
    hamiltonian : Hamiltonian, optional
        Default ``Hamiltonian.of(problem)``; your own also works outside the domain.
    method : optional
        Default StoermerVerlet where H separates, else ImplicitMidpoint.

    Raises
    ------
    MethodMismatch
        A problem that has no such characteristics; Stoermer-Verlet where H does not
        separate.
    ProblemError
        Starts of the wrong shape or outside, a characteristic that leaves the domain.
    NotConverged
        Steps too long for the implicit midpoint rule.
    """
    _check(problem)
    x = _starts(problem, x, steps)
    H = hamiltonian or Hamiltonian.of(problem)
    assert problem.domain is not None and problem.horizon is not None
    n, d = x.shape
    width = np.asarray(problem.domain.width, dtype=float)
    low, high = np.asarray(problem.domain.low), np.asarray(problem.domain.high)
    # Neighbours of a ray on a face are taken around a point just inside.
    middle = np.clip(x, low + APART * width, high - APART * width)
    offsets = [s * APART * width[k] * np.eye(d)[k] for k in range(d) for s in (1, -1)]
    every = np.concatenate([x, *(middle + offset for offset in offsets)])
    g = np.asarray(problem.terminal_at(every), dtype=float)
    p = gradient_of(problem, problem.terminal_at, every)
    dt = problem.horizon / steps
    method = _method(problem, H, p, method)
    states, gradients, values = flow(H, every, p, g, -dt, steps, method)
    spread = states.reshape(steps + 1, 2 * d + 1, n, d)[:, 1:]
    spread = (spread[:, 0::2] - spread[:, 1::2]) / (2 * APART * width[:, None, None])
    bent = np.linalg.det(np.moveaxis(spread, 1, 3))
    energies = [H.value(*z) for z in zip(states[:, :n], gradients[:, :n], strict=True)]
    return Rays(
        times=np.linspace(0.0, problem.horizon, steps + 1),
        states=np.moveaxis(states[::-1, :n], 0, 1),
        gradients=np.moveaxis(gradients[::-1, :n], 0, 1),
        values=values[::-1, :n].T,
        energies=np.stack(energies[::-1], axis=1),
        crossing=problem.horizon - dt * _first_fold(bent),
    )


def flow(
    H: Hamiltonian,
    x: Array,
    p: Array,
    V: Array,
    dt: float,
    steps: int,
    method: StoermerVerlet | ImplicitMidpoint,
) -> tuple[Array, Array, Array]:
    """Hamilton's equations from x, p (n, d) and V (n,), over `steps` steps dt.

    Negative dt goes backward. Returns x, p (steps + 1, n, d) and V (steps + 1, n).
    That H separates where Stoermer-Verlet is asked for is not checked here.
    """
    states, gradients = np.empty((2, steps + 1, *x.shape))
    values = np.empty((steps + 1, len(x)))
    states[0], gradients[0], values[0] = x, p, V
    for k in range(steps):
        x, p, gain = method.step(H, x, p, dt)
        states[k + 1], gradients[k + 1], values[k + 1] = x, p, values[k] + gain
    return states, gradients, values


def _method(
    problem: ControlProblem,
    H: Hamiltonian,
    p: Array,
    method: StoermerVerlet | ImplicitMidpoint | None,
) -> StoermerVerlet | ImplicitMidpoint:
    """The method asked for, or the one that fits H on a sample of the domain."""
    assert problem.domain is not None
    rng = np.random.default_rng(0)
    x = problem.domain.sample(rng, SAMPLES)
    apart = H.separates(x, (1.0 + np.abs(p).max()) * rng.standard_normal(x.shape))
    if isinstance(method, StoermerVerlet) and not apart:
        raise MethodMismatch(
            "StoermerVerlet needs H(x, p) = T(p) + U(x), and H_p changes with x or H_x "
            "with p; hjb.ImplicitMidpoint() takes every smooth H."
        )
    return method or (StoermerVerlet() if apart else ImplicitMidpoint())


def gradient_of(
    problem: ControlProblem, function: Callable[[Array], Any], x: Array
) -> Array:
    """Gradient of a function of the state at x (n, d), by five points an axis.

    Error O(h^4) with h a thousandth of the width; points are kept inside the domain.
    """
    assert problem.domain is not None
    domain, out = problem.domain, np.empty(x.shape)
    nodes = np.arange(-2.0, 3.0)
    # Coefficients of the five Lagrange polynomials in powers of (x - centre) / h.
    basis = np.linalg.inv(np.vander(nodes, increasing=True))
    for k, periodic in enumerate(domain.periodic_axes or (False,) * x.shape[1]):
        h = DIFFERENCE * float(domain.width[k])
        low, high = float(np.asarray(domain.low)[k]), float(np.asarray(domain.high)[k])
        centre = x[:, k] if periodic else np.clip(x[:, k], low + 2 * h, high - 2 * h)
        at = (x[:, k] - centre) / h
        powers = np.stack([j * at ** max(j - 1, 0) for j in range(5)], axis=-1)
        weights = powers @ basis / h
        total = np.zeros(len(x))
        for j, node in enumerate(nodes):
            y = x.copy()
            y[:, k] = centre + node * h
            total += weights[:, j] * np.asarray(function(domain.wrap(y)), dtype=float)
        out[:, k] = total
    return out


def _check(problem: ControlProblem) -> None:
    """Refuse problems whose value no such characteristics carry."""
    problem.require_only("characteristics", "horizon")
    noise = problem.diffusion
    if callable(noise) or (noise is not None and np.any(noise)):
        raise MethodMismatch("characteristics: the problem has noise; solve takes it.")
    if problem.horizon is None:
        raise MethodMismatch(
            "characteristics: they start at the terminal data; give horizon=T and "
            "terminal=g."
        )
    if callable(problem.discount) or problem.discount or problem.depends_on_time:
        raise MethodMismatch(
            "characteristics: the problem has a discount or data that name t, so H is "
            "not constant along them; solve takes it."
        )


def _starts(problem: ControlProblem, x: Any, steps: int) -> Array:
    x = np.array(x, dtype=float)
    if x.ndim != 2 or x.shape[1] != problem.dimension or not len(x):
        raise ProblemError(
            f"characteristics: starts have shape {x.shape}; expected (rays, "
            f"{problem.dimension})."
        )
    if int(steps) != steps or steps < 1:
        raise ProblemError(f"characteristics: steps = {steps!r} must be 1 or more.")
    assert problem.domain is not None
    if not problem.domain.contains(x).all():
        raise ProblemError(f"characteristics: a start is outside {problem.domain}.")
    return x


def _inside(problem: ControlProblem, x: Array) -> Array:
    """States where the problem's functions may be called."""
    assert problem.domain is not None
    x = problem.domain.wrap(x)
    good = problem.domain.contains(x)
    if not good.all():
        raise ProblemError(
            f"characteristics: one leaves the domain at x = {x[np.argmin(good)]}. "
            "Start further inside, or give hamiltonian=hjb.Hamiltonian(...), which "
            "may be called outside."
        )
    return x


def _alike(one: Array, other: Array) -> bool:
    return bool(np.abs(one - other).max() <= ALIKE * (1.0 + np.abs(one).max()))


def _first_fold(bent: Array) -> float:
    """Steps until a determinant (steps + 1, n) first reaches 0; inf if none does."""
    folded = bent <= 0
    if not folded.any():
        return np.inf
    k = int(np.argmax(folded.any(axis=1)))
    before, after = bent[k - 1][folded[k]], bent[k][folded[k]]
    return float(np.min(k - 1 + before / (before - after)))
