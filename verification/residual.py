"""The HJB equation between the nodes, and what a policy gives away in it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hjbpde import ControlProblem
from hjbpde.greedy import greedy_control

from .candidate import Subject

Array = NDArray[np.float64]


def hamiltonian(
    problem: ControlProblem, x: Array, a: Array, p: Array, curve: Array
) -> Array:
    """``r + f . p + 1/2 sum_k |sigma_k|^2 V_kk`` at points (n, d), shape (n,).

    `curve` (n, d) are the second derivatives along the axes; the noise is taken as
    uncorrelated between axes, as everywhere in the grid solver.
    """
    drift = np.asarray(problem.drift_at(x, a))
    noise = (np.asarray(problem.diffusion_at(x, a)) ** 2).sum(axis=-1)
    payoff = np.asarray(problem.payoff_at(x, a))
    return payoff + (drift * p).sum(-1) + 0.5 * (noise * curve).sum(-1)


def value_residual(subject: Subject, x: Array) -> Array:
    """``V - max_a H / rho`` at x (n, d), shape (n,): the HJB residual in units of V.

    By the comparison principle a bounded residual bounds the error only together
    with boundary data, so it is shown and never decides.
    """
    problem = subject.problem
    p, curve = subject.gradient(x), subject.curvature(x)
    out = np.full(len(x), np.nan)
    good = np.isfinite(p).all(axis=1) & np.isfinite(curve).all(axis=1)
    x, p, curve = x[good], p[good], curve[good]
    a = greedy_control(problem, x, p, _hessian(problem, curve))
    rho = np.asarray(problem.discount_at(x))
    out[good] = subject.value(x) - hamiltonian(problem, x, a, p, curve) / rho
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

    ``|H(x, best) - H(x, a)| / rho`` in units of V, shape (n,).
    """
    rho = np.asarray(problem.discount_at(x))
    gap = hamiltonian(problem, x, best, p, curve) - hamiltonian(problem, x, a, p, curve)
    return np.maximum(problem.sign * gap, 0.0) / rho


def _hessian(problem: ControlProblem, curve: Array) -> Array | None:
    if not callable(problem.diffusion):
        return None
    return np.einsum("ni,ij->nij", curve, np.eye(curve.shape[1]))
