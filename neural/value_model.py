"""What a learned value must offer, and what follows from it pointwise."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from hjbpde.greedy import greedy_control
from hjbpde.point_tables import KeptTables
from hjbpde.problem import ControlProblem

Array = NDArray[np.float64]


@runtime_checkable
class ValueModel(Protocol):
    """V with two derivatives at scattered float64 points x (n, d)."""

    def value(self, x: Array) -> Array:
        """V, shape (n,)."""
        ...

    def gradient(self, x: Array) -> Array:
        """grad V, shape (n, d)."""
        ...

    def hessian(self, x: Array) -> Array:
        """hess V, shape (n, d, d)."""
        ...

    def arrays(self) -> dict[str, Array]:
        """Everything needed to rebuild it."""
        ...


def greedy_policy(
    problem: ControlProblem,
    model: ValueModel,
    x: Array,
    start: Array | None = None,
    kept: KeptTables | None = None,
) -> Array:
    """The maximiser of r + L^a V at x (n, d), shape (n, m).

    On a face with a state constraint it is the maximiser among the controls that do
    not lead across it. The Hessian is asked for only where the noise may depend on
    the control. `kept` as in `greedy_control`.
    """
    hess = model.hessian(x) if callable(problem.diffusion) else None
    slope = model.gradient(x)
    return greedy_control(problem, x, slope, hess, start, kept)


def generator_of(
    problem: ControlProblem, model: ValueModel, x: Array, a: Array
) -> Array:
    """L^a V = f . grad V + 1/2 tr(sigma sigma' hess V) at x (n, d), shape (n,)."""
    drift = (np.asarray(problem.drift_at(x, a)) * model.gradient(x)).sum(-1)
    if problem.diffusion is None:
        return drift
    sigma = np.asarray(problem.diffusion_at(x, a))
    noise = np.einsum("nik,njk->nij", sigma, sigma)
    return drift + 0.5 * np.einsum("nij,nij->n", noise, model.hessian(x))


def hjb_residual(
    problem: ControlProblem, model: ValueModel, x: Array, a: Array
) -> Array:
    """rho V - r - L^a V at x (n, d), over `row_scale`: in the units of V."""
    rho = np.asarray(problem.discount_at(x))
    payoff = np.asarray(problem.payoff_at(x, a))
    gap = rho * model.value(x) - payoff - generator_of(problem, model, x, a)
    return gap / row_scale(problem, x, a)


def row_scale(problem: ControlProblem, x: Array, a: Array) -> Array:
    """rho + |f / half| + |sigma / half|^2, the rate that makes rows comparable.

    Without it the fast rows near the faces decide the fit and the policy iteration
    may end in a limit cycle.
    """
    assert problem.domain is not None
    half = 0.5 * problem.domain.width
    f = np.asarray(problem.drift_at(x, a)) / half
    sigma = np.asarray(problem.diffusion_at(x, a)) / half[:, None]
    rho = np.asarray(problem.discount_at(x))
    return rho + np.linalg.norm(f, axis=-1) + (sigma**2).sum((-2, -1))
