"""The equation's rows for a network: linear in a small change of its weights.

Every table has P + 1 columns: derivatives by the P weights, then the row applied to
the present value. Face rules written for linear features work on them unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hjbpde.problem import ControlProblem

from ..ansatz import AnsatzNetwork, NetworkOperator
from ..time_state import TimedProblem

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class NetworkTables:
    """An ansatz at n states x (n, d), see `features.FeatureTables`."""

    model: AnsatzNetwork
    x: Array

    def values(self) -> Array:
        """V: (n, P + 1)."""
        n, d = self.x.shape
        return self._rows(np.ones(n), np.zeros((n, d)), np.zeros((n, d, 0)), 0.0)

    def along(self, direction: Array) -> Array:
        """direction . grad V, direction (n, d) or (d,): (n, P + 1)."""
        n, d = self.x.shape
        f = np.broadcast_to(direction, self.x.shape)
        return self._rows(np.zeros(n), f, np.zeros((n, d, 0)), 0.0)

    def curvature(self, sigma: Array) -> Array:
        """1/2 tr(sigma sigma' hess V), sigma (n, d, k) or (1, d, k): (n, P + 1)."""
        n, d = self.x.shape
        sigma = np.broadcast_to(sigma, (n, d, sigma.shape[-1]))
        return self._rows(np.zeros(n), np.zeros((n, d)), sigma, 1.0)

    def equation(self, rho: Array, f: Array, sigma: Array) -> Array:
        """rho V - f . grad V - 1/2 tr(sigma sigma' hess V): (n, P + 1)."""
        return self._rows(rho, -f, sigma, -1.0)

    def _rows(self, c: Array, f: Array, sigma: Array, bend: float) -> Array:
        operator = on_network(self.model, self.x, c, f, sigma, bend)
        columns, values = operator.jacobian(self.model.net)
        values = values + on_lift(self.model, self.x, c, f, sigma, bend)
        return np.hstack([columns, values[:, None]])


def on_network(
    model: AnsatzNetwork, x: Array, c: Array, f: Array, sigma: Array, bend: float
) -> NetworkOperator:
    """``c V + f . grad V + bend/2 tr(sigma sigma' hess V)`` of V = bump net.

    By the product rule: ``c0 = A B``, ``c1 = f B + bend sigma sigma' grad B``,
    ``c2 = bend B``.
    """
    at = model.frame(x)
    u, S = f / model.half, sigma / model.half[:, None]
    B, dB, ddB = at.jet
    inward = np.einsum("nik,njk,nj->ni", S, S, dB)
    c0 = c * B + (u * dB).sum(-1) + 0.5 * bend * np.einsum("nik,njk,nij->n", S, S, ddB)
    return NetworkOperator(at.z, c0, u * B[:, None] + bend * inward, bend * B, S)


def on_lift(
    model: AnsatzNetwork, x: Array, c: Array, f: Array, sigma: Array, bend: float
) -> Array:
    """The same operator on the lift, (n,)."""
    at = model.frame(x)
    out = c * at.value + (f * at.gradient).sum(-1)
    if bend == 0.0 or sigma.shape[-1] == 0:
        return out
    noise = np.einsum("nik,njk->nij", sigma, sigma)
    return out + 0.5 * bend * np.einsum("nij,nij->n", noise, at.hessian)


def with_noise(problem: ControlProblem, epsilon: float) -> ControlProblem:
    """The same problem with noise ``sqrt(2 epsilon) half_i dW_i`` added.

    Its equation has the extra term ``epsilon sum_i half_i^2 V_ii``; the viscosity
    solution is the limit epsilon -> 0 (Crandall and Lions, Trans. AMS 277, 1983).
    Time, the last state of a problem with a horizon, stays without noise.
    """
    if epsilon == 0.0:
        return problem
    assert problem.domain is not None
    extra = np.diag(np.sqrt(2.0 * epsilon) * 0.5 * problem.domain.width)
    if isinstance(problem, TimedProblem):
        extra = extra[:, :-1]
    if callable(problem.diffusion):
        return replace(problem, diffusion=_Noisier(problem, extra))
    nothing = np.zeros((1, problem.n_controls))
    sigma = np.asarray(problem.diffusion_at(problem.domain.centre[None], nothing))[0]
    return replace(problem, diffusion=np.hstack([sigma, extra]))


@dataclass(frozen=True, eq=False)
class _Noisier:
    problem: ControlProblem
    extra: Array

    def __call__(self, x: Array, a: Array) -> Array:
        sigma = np.asarray(self.problem.diffusion_at(x, a))
        more = np.broadcast_to(self.extra, (*sigma.shape[:-1], self.extra.shape[-1]))
        return np.concatenate([sigma, more], -1)
