"""Sample paths of a controlled diffusion under a policy.

Euler-Maruyama, ``X += f dt + sigma dW``: weak order 1, strong order 1/2 (order 1
where the noise is constant). The running payoff is summed by the left rule with the
exact discount factor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .boundary import Dirichlet, Reflecting, Robin, StateConstraint
from .errors import ProblemError
from .problem import ControlProblem

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Paths:
    """Simulated paths.

    times (n,); states (paths, n, d); controls (paths, n, m); rewards (paths, n),
    the cumulative discounted payoff in the problem's own sense; exits: how many
    paths touched each face ``(axis, side)``.
    """

    times: Array
    states: Array
    controls: Array
    rewards: Array
    exits: dict[tuple[int, str], int]


@dataclass(frozen=True)
class Noise:
    """Brownian increments; the same path at every step size.

    Parameters
    ----------
    seed : int
    paths, dimension : int
    horizon, finest_dt : float
        Steps that are multiples of ``finest_dt`` see sums of the finest increments.
    """

    seed: int
    paths: int
    dimension: int
    horizon: float
    finest_dt: float

    def increments(self, dt: float) -> Array:
        """Increments of steps dt, shape (steps, paths, dimension)."""
        ratio = round(dt / self.finest_dt)
        if ratio < 1 or abs(ratio * self.finest_dt - dt) > 1e-9 * dt:
            raise ProblemError(
                f"Noise: dt = {dt:g} is not a multiple of finest_dt = "
                f"{self.finest_dt:g}."
            )
        steps = round(self.horizon / dt)
        rng = np.random.default_rng(self.seed)
        shape = (steps * ratio, self.paths, self.dimension)
        fine = rng.standard_normal(shape) * np.sqrt(self.finest_dt)
        return fine.reshape(steps, ratio, *shape[1:]).sum(axis=1)


def simulate(
    problem: ControlProblem,
    policy: Callable[[Array], Any],
    x0: Any,
    horizon: float,
    dt: float,
    paths: int,
    seed: int,
    *,
    noise: Noise | None = None,
) -> Paths:
    """Paths under ``policy(x (n, d)) -> (n, m)`` from x0, (d,) or (paths, d).

    Reflecting and Robin faces reflect, state constraints clip, periodic axes wrap;
    on Dirichlet faces and in the exit region a path stops and collects the data
    there once; on artificial faces it stops and is counted.

    Raises
    ------
    ProblemError
        dt or horizon not positive, x0 outside the domain, a policy of wrong shape.
    MethodMismatch
        A problem with a horizon, modes or rights to stop.
    """
    problem.require_only("simulate", "exit")
    if not (dt > 0 and horizon >= dt):
        raise ProblemError(
            f"simulate: dt = {dt:g} and horizon = {horizon:g}; give 0 < dt <= horizon."
        )
    assert problem.domain is not None
    d, m = problem.dimension, problem.n_controls
    x = np.array(np.broadcast_to(np.asarray(x0, float), (paths, d)))
    if not problem.domain.contains(x).all():
        raise ProblemError(f"simulate: x0 = {x0} is outside {problem.domain}.")
    steps = round(horizon / dt)
    k = problem.diffusion_at(x[:1], np.zeros((1, m))).shape[-1]
    noise = noise or Noise(seed, paths, k, steps * dt, dt)
    states, controls = np.empty((paths, steps + 1, d)), np.zeros((paths, steps + 1, m))
    rewards, factor = np.zeros((paths, steps + 1)), np.ones(paths)
    alive = np.ones(paths, bool)
    walls = _Walls(problem)
    states[:, 0] = x
    for n, dW in enumerate(noise.increments(dt)):
        a = _controls(policy, x, m)
        controls[:, n] = a
        payoff = np.asarray(problem.payoff_at(x, a))
        rho = np.asarray(problem.discount_at(x))
        rewards[:, n + 1] = rewards[:, n] + np.where(
            alive, factor * payoff * _discounted_length(rho, dt), 0.0
        )
        drift = np.asarray(problem.drift_at(x, a))
        sigma = np.asarray(problem.diffusion_at(x, a))
        move = drift * dt + np.einsum("nik,nk->ni", sigma, dW)
        factor = factor * np.exp(-rho * dt)
        x, stopped, gain = walls.meet(x + np.where(alive[:, None], move, 0.0), alive)
        rewards[:, n + 1] += factor * gain
        alive = alive & ~stopped
        states[:, n + 1] = x
    controls[:, steps] = _controls(policy, x, m)
    times = dt * np.arange(steps + 1, dtype=float)
    return Paths(times, states, controls, rewards, walls.exits)


def _discounted_length(rho: Array, dt: float) -> Array:
    """Integral of e^{-rho t} over a step: dt where rho is 0."""
    safe = np.where(rho > 0, rho, 1.0)
    return np.where(rho > 0, -np.expm1(-rho * dt) / safe, dt)


def _controls(policy: Callable[[Array], Any], x: Array, m: int) -> Array:
    a = np.asarray(policy(x), dtype=float)
    if a.shape != (len(x), m):
        raise ProblemError(
            f"simulate: the policy returned shape {a.shape} for states {x.shape}; "
            f"expected {(len(x), m)}."
        )
    return a


class _Walls:
    """What happens to paths that reach a face."""

    def __init__(self, problem: ControlProblem) -> None:
        self.problem = problem
        self.exits = dict.fromkeys(problem.faces, 0)

    def meet(
        self, x: Array, alive: NDArray[np.bool_]
    ) -> tuple[Array, NDArray[np.bool_], Array]:
        """Points brought back, which paths stopped, and what they collect."""
        domain = self.problem.domain
        assert domain is not None
        low, high = np.asarray(domain.low), np.asarray(domain.high)
        x = domain.wrap(x)
        stopped, gain = np.zeros(len(x), bool), np.zeros(len(x))
        for (axis, side), rule in self.problem.faces.items():
            wall = low[axis] if side == "low" else high[axis]
            outside = (x[:, axis] < wall) if side == "low" else (x[:, axis] > wall)
            outside = outside & alive
            if not outside.any():
                continue
            self.exits[(axis, side)] += int(outside.sum())
            if isinstance(rule, Reflecting | Robin):
                x[outside, axis] = 2 * wall - x[outside, axis]
            elif isinstance(rule, StateConstraint):
                x[outside, axis] = wall
            else:
                x[outside, axis] = wall
                stopped |= outside
            if isinstance(rule, Dirichlet):
                inside = np.clip(x[outside], low, high)
                data = rule.g(inside) if callable(rule.g) else rule.g
                gain[outside] = np.broadcast_to(np.asarray(data), int(outside.sum()))
        x = np.clip(x, low, high)
        if self.problem.exit is not None:
            entered = np.asarray(self.problem.exit.region(x) <= 0) & alive & ~stopped
            g: Any = self.problem.exit.value
            if entered.any():
                gain[entered] = np.asarray(g(x[entered]) if callable(g) else g)
            stopped |= entered
        return x, stopped, gain
