"""Discounted payoff along simulated paths: unbiased up to the time step.

By Feynman-Kac, for any horizon T and any smooth function U,

    V^a(x) = E[ int_0^T e^(-rho s) r ds + e^(-rho T) V^a(X_T)
                - int_0^T e^(-rho s) grad U . sigma dW ],

the last term being a martingale: with U close to V^a it takes away the noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hjbpde.boundary import Dirichlet, Reflecting, Robin
from hjbpde.problem import ControlProblem

from ..start import Policy
from ..value_model import ValueModel

Array = NDArray[np.float64]


@dataclass(frozen=True)
class EulerMaruyama:
    """``X += f dt + sigma dW``, payoff by the left rule: weak order 1."""

    order = 1


@dataclass(frozen=True)
class Heun:
    """Drift averaged over a predictor, payoff by the trapezoidal rule.

    Weak order 2 where the noise is constant along a path, else 1.
    """

    order = 2


Stepper = EulerMaruyama | Heun


@dataclass(frozen=True, eq=False)
class Rollout:
    """How paths are simulated.

    Parameters
    ----------
    problem : ControlProblem
    stepper : EulerMaruyama or Heun
    dt, horizon : float
    control_variate : bool
        Subtract the martingale of the current V.
    """

    problem: ControlProblem
    stepper: Stepper
    dt: float
    horizon: float
    control_variate: bool = True

    def payoffs(
        self,
        policy: Policy,
        model: ValueModel | None,
        x: Array,
        rng: np.random.Generator,
        increments: Array | None = None,
    ) -> tuple[Array, float]:
        """Discounted payoff of one path from each state x (n, d), shape (n,).

        Also the share of paths that ended early at a face. `increments`
        (steps, n, k) replaces the noise, for two step sizes on one Brownian path.
        """
        state = _Paths(self, model, x)
        n_noise = _noise_dimension(self.problem, policy, x[:1])
        steps = max(1, round(self.horizon / self.dt))
        for step in range(steps):
            if increments is None:
                # Antithetic halves: linear parts of the noise cancel in the fit.
                half = rng.standard_normal(((len(x) + 1) // 2, n_noise))
                dW = np.sqrt(self.dt) * np.concatenate([half, -half])[: len(x)]
            else:
                dW = increments[step]
            state.advance(policy, dW)
        return state.finish(policy), state.stopped_share


def _noise_dimension(problem: ControlProblem, policy: Policy, x: Array) -> int:
    return problem.diffusion_at(x, policy(x)).shape[-1]


class _Paths:
    """Paths on their way: position, weight of the future, payoff so far."""

    def __init__(self, rollout: Rollout, model: ValueModel | None, x: Array) -> None:
        self.rollout, self.model = rollout, model
        self.x = x.copy()
        self.weight = np.ones(len(x))
        self.total = np.zeros(len(x))
        self.alive = np.ones(len(x), bool)

    @property
    def stopped_share(self) -> float:
        """Share of paths that ended at a face."""
        return 1.0 - float(self.alive.mean())

    def advance(self, policy: Policy, dW: Array) -> None:
        """One time step of every path still running."""
        on = self.alive
        problem, dt = self.rollout.problem, self.rollout.dt
        x = self.x[on]
        if not len(x):
            return
        a = policy(x)
        f = np.asarray(problem.drift_at(x, a))
        sigma = np.asarray(problem.diffusion_at(x, a))
        kick = np.einsum("nik,nk->ni", sigma, dW[on])
        rate, fade = self._discount(x)
        payoff = np.asarray(problem.payoff_at(x, a))
        if self.model is not None and self.rollout.control_variate:
            slope = self.model.gradient(x)
            self.total[on] -= self.weight[on] * (slope * kick).sum(-1)
        if isinstance(self.rollout.stepper, Heun):
            f, payoff = self._averaged(policy, x, f, payoff, kick, fade)
            gain = payoff * dt
        else:
            gain = payoff * np.where(rate > 0, -np.expm1(-rate * dt) / rate, dt)
        self.total[on] += self.weight[on] * gain
        self.weight[on] *= fade
        self._move(on, x + f * dt + kick)

    def _discount(self, x: Array) -> tuple[Array, Array]:
        rate = np.asarray(self.rollout.problem.discount_at(x))
        return rate, np.exp(-rate * self.rollout.dt)

    def _averaged(
        self,
        policy: Policy,
        x: Array,
        f: Array,
        payoff: Array,
        kick: Array,
        fade: Array,
    ) -> tuple[Array, Array]:
        problem, dt = self.rollout.problem, self.rollout.dt
        assert problem.domain is not None
        # Clipped: user functions are never called outside the domain.
        ahead = problem.domain.clip(problem.domain.wrap(x + f * dt + kick))
        b = policy(ahead)
        f = 0.5 * (f + np.asarray(problem.drift_at(ahead, b)))
        return f, 0.5 * (payoff + fade * np.asarray(problem.payoff_at(ahead, b)))

    def _move(self, on: NDArray[np.bool_], y: Array) -> None:
        """Put paths at y, and apply the rule of every face they crossed.

        Robin ``alpha V + beta V_n = g``: reflected, the weight changed by
        ``exp(-alpha/beta dL)`` and ``g/beta dL`` collected, dL the push inwards.
        """
        problem = self.rollout.problem
        assert problem.domain is not None
        domain = problem.domain
        low, high = np.asarray(domain.low), np.asarray(domain.high)
        index = np.flatnonzero(on)
        y = domain.wrap(y)
        for (axis, side), rule in problem.faces.items():
            wall, sign = (low[axis], -1.0) if side == "low" else (high[axis], 1.0)
            over = sign * (y[:, axis] - wall)
            hit = np.flatnonzero(over > 0)
            if not len(hit):
                continue
            push = 2.0 * over[hit]
            if isinstance(rule, Reflecting | Robin):
                y[hit, axis] = np.clip(wall - sign * over[hit], low[axis], high[axis])
            else:
                y[hit, axis] = wall
                self.alive[index[hit]] = False
            if isinstance(rule, Robin):
                data = _face_values(rule.g, domain.clip(y[hit])) / rule.beta
                self.total[index[hit]] += self.weight[index[hit]] * data * push
                self.weight[index[hit]] *= np.exp(-rule.alpha / rule.beta * push)
            if isinstance(rule, Dirichlet):
                data = _face_values(rule.g, domain.clip(y[hit]))
                self.total[index[hit]] += self.weight[index[hit]] * data
                self.weight[index[hit]] = 0.0
        self.x[index] = np.clip(y, low, high)

    def finish(self, policy: Policy) -> Array:
        """Payoff so far plus the rest: bootstrapped, or r / rho before there is V."""
        if self.model is not None:
            return self.total + self.weight * self.model.value(self.x)
        rate, _ = self._discount(self.x)
        payoff = self.rollout.problem.payoff_at(self.x, policy(self.x))
        return self.total + self.weight * np.asarray(payoff) / rate


def _face_values(g: float | Callable[..., Array], x: Array) -> Array:
    return np.broadcast_to(np.asarray(g(x) if callable(g) else g, float), (len(x),))
