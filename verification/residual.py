"""The HJB equation between the nodes, and what a policy gives away in it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from hjbpde import Box, ControlProblem

from .differences import first_derivatives
from .jumps import jump_part
from .reference import Instant
from .subject import CURVE_STEP, Subject
from .targets import best_move
from .when import When

Array = NDArray[np.float64]

TIME_STEP = 2e-3
"""Difference step for V_t, as a share of the horizon."""


def hamiltonian(
    problem: ControlProblem, x: Array, a: Array, p: Array, curve: Array
) -> Array:
    """``r + f . p + 1/2 sum_k |sigma_k|^2 V_kk`` at points (n, d), shape (n,).

    `curve` (n, d) are the second derivatives along the axes; `mixed_part` is what
    noise that is correlated between axes adds.
    """
    drift = np.asarray(problem.drift_at(x, a))
    noise = (np.asarray(problem.diffusion_at(x, a)) ** 2).sum(axis=-1)
    payoff = np.asarray(problem.payoff_at(x, a))
    return payoff + (drift * p).sum(-1) + 0.5 * (noise * curve).sum(-1)


def mixed_part(subject: Subject, x: Array, a: Array) -> Array:
    """``sum_{i<j} sigma_i . sigma_j V_ij`` at points (n, d), shape (n,).

    Zero, without a difference taken, where the noise is independent between axes.
    """
    sigma = np.asarray(subject.joint.diffusion_at(x, a), dtype=float)
    out = np.zeros(len(x))
    for j in range(x.shape[1]):
        for i in range(j):
            covariance = (sigma[:, i] * sigma[:, j]).sum(axis=-1)
            if covariance.any():
                bends = first_derivatives(
                    lambda y, j=j: subject.gradient(y)[:, j],
                    x, subject.box, CURVE_STEP, (i,),
                )  # fmt: skip
                out += covariance * bends[:, 0]
    return out


def rate_of(problem: ControlProblem, x: Array, a: Array) -> Array:
    """What turns a rate of payoff into a value, per unit of time, shape (n,).

    The discount; with a horizon ``rho + 1/T``, as what is lost all the time adds up
    to at most ``min(1/rho, T)``; with an exit, or without any discount, also the rate
    at which noise and drift under the controls a (n, m) cross the domain, which in the
    long run is all there is.
    """
    rate = np.array(problem.discount_at(x), dtype=float)
    if problem.horizon is not None:
        rate += 1.0 / float(problem.horizon)
    if problem.exit is not None or problem.average or not rate.any():
        rate += crossing_rate(problem, x, a)
    return np.maximum(rate, 1e-300)


def crossing_rate(
    problem: ControlProblem, x: Array, a: Array, share: float = 1.0
) -> float:
    """The rate at which noise and drift cross a share of the domain's width.

    Under the controls a (n, m) at x (n, d), their mean.
    """
    assert problem.domain is not None
    width = share * problem.domain.width
    noise = (np.asarray(problem.diffusion_at(x, a)) ** 2).sum(axis=-1)
    speed = np.abs(np.asarray(problem.drift_at(x, a)))
    across = 0.5 * noise * (np.pi / width) ** 2 + speed / width
    return float(across.sum(axis=-1).mean()) if len(x) else 0.0


def value_residual(subject: Subject, instant: Instant, x: Array) -> Array:
    """The residual of the HJB or Isaacs' equation in units of V at x (n, d), (n,).

    ``(rho V - V_t - max_a H) / rate``, with an adversary ``max_a min_b H``, see
    `rate_of`; where somebody may stop, the obstacle's distance where that is smaller,
    and where the state may be moved at once that to ``M V``.
    In the long run ``(average - max_a H) / rate`` with the average that suits V best:
    the mean of max_a H at these points. By the comparison principle a bounded
    residual bounds the error only together with boundary data, so it is shown and
    never decides.
    """
    problem, now = instant.problem, instant.subject
    residual, V = equation_gap(subject, instant, x), now.value(x)
    for stop in problem.stops:
        gap = V - np.asarray(stop.payoff(x), float)
        larger = problem.sign * (1.0 if stop.by == "controller" else -1.0) < 0
        residual = (np.maximum if larger else np.minimum)(residual, gap)
    if problem.impulse is not None:
        gap = V - best_move(now, x)[0]
        residual = (np.maximum if problem.sign < 0 else np.minimum)(residual, gap)
    return residual


def equation_gap(
    subject: Subject,
    instant: Instant,
    x: Array,
    rate: Callable[[ControlProblem, Array, Array], Array] = rate_of,
) -> Array:
    """`value_residual` where nobody stops or moves the state, (n,), over a rate."""
    problem, now = instant.problem, instant.subject
    p, curve = now.gradient(x), now.curvature(x)
    out = np.full(len(x), np.nan)
    good = np.isfinite(p).all(axis=1) & np.isfinite(curve).all(axis=1)
    x, p, curve = x[good], p[good], curve[good]
    u, joint = now.best_choices(x), now.joint
    rho = np.asarray(problem.discount_at(x))
    left = rho * now.value(x) - hamiltonian(joint, x, u, p, curve)
    left = left - mixed_part(now, x, u) - jump_part(now, x)
    if instant.when.time is not None:
        left = left - _time_derivative(subject, x, instant.when)
    if instant.when.mode is not None:
        left = left - switching_part(subject, x, instant.when)
    if problem.average and len(left):
        left = left - left.mean()
    out[good] = left / rate(joint, x, u)
    return out


def _time_derivative(subject: Subject, x: Array, when: When) -> Array:
    """V_t at x (n, d), by the quartic through five times, shifted inside [0, T]."""
    horizon = subject.problem.horizon
    assert horizon is not None
    if when.mode is not None:
        subject = subject.in_mode(when.mode)
    low, high = np.asarray(subject.box.low), np.asarray(subject.box.high)
    box = Box(np.r_[low, 0.0], np.r_[high, float(horizon)])

    def value(y: Array) -> Array:
        found = np.empty(len(y))
        for at in np.unique(y[:, -1]):
            rows = y[:, -1] == at
            found[rows] = subject.at(float(at)).value(y[rows, :-1])
        return found

    y = When(when.time).places(x)
    return first_derivatives(value, y, box, TIME_STEP, (x.shape[1],))[:, 0]


def switching_part(subject: Subject, x: Array, when: When) -> Array:
    """``sum_j q_kj (V_j - V_k)`` of mode k at points (n, d), shape (n,)."""
    if when.time is not None:
        subject = subject.at(when.time)
    assert when.mode is not None
    rates = subject.problem.modes.at(x)[:, when.mode]
    own = subject.in_mode(when.mode).value(x)
    out = np.zeros(len(x))
    for j in np.flatnonzero(rates.any(axis=0)):
        out += rates[:, j] * (subject.in_mode(int(j)).value(x) - own)
    return out


def hamiltonian_gap(
    problem: ControlProblem,
    x: Array,
    a: Array,
    best: Array,
    p: Array,
    curve: Array,
) -> Array:
    """What control a gives away against `best` at the reference's gradient, >= 0.

    ``|H(x, best) - H(x, a)|``, a rate of payoff, shape (n,).
    """
    gap = hamiltonian(problem, x, best, p, curve) - hamiltonian(problem, x, a, p, curve)
    return np.maximum(problem.sign * gap, 0.0)
