"""Sample paths of a controlled diffusion under a policy.

Euler-Maruyama, ``X += f dt + sigma dW``: weak order 1, strong order 1/2 (order 1
where the noise is constant). The running payoff is summed by the left rule with the
exact discount factor. A step ends with a jump with probability ``1 - exp(-lambda dt)``,
at most one: of order 1 in dt as well. Without noise this is Euler's method, of order
1, and the last step ends where the exit region or the face is met.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrival import part_of_step
from .boundary import Dirichlet, Reflecting, Robin, StateConstraint
from .errors import ProblemError
from .given_data import given_at
from .held import held, keywords
from .jumps import Jumps
from .landing import landing
from .problem import _OF_TIME, ControlProblem

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Paths:
    """Simulated paths.

    times (n,); states (paths, n, d); controls (paths, n, m); rewards (paths, n),
    the cumulative discounted payoff in the problem's own sense; exits: how many
    paths touched each face ``(axis, side)``; ended (paths,): when each path stopped,
    infinite where it still goes on.
    """

    times: Array
    states: Array
    controls: Array
    rewards: Array
    exits: dict[tuple[int, str], int]
    ended: Array = field(default_factory=lambda: np.zeros(0))


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
    policy: Callable[..., Any],
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
    there once; on artificial faces it stops and is counted. Without noise the time of
    the stop is found within the step; with noise it is the end of the step. Jumps land
    as `hjbpde.landing` says; beyond a Robin face they end on it, without its payoff.

    With a horizon T calendar time starts at 0, a policy that names t gets it by
    keyword, and paths that reach T collect the terminal payoff.

    Raises
    ------
    ProblemError
        dt or horizon not positive, beyond T or no multiple of dt there, x0 outside
        the domain, a policy of wrong shape.
    MethodMismatch
        A problem with modes, an adversary or rights to stop.
    """
    problem.require_only("simulate", "exit", "horizon", "jumps", "average")
    assert problem.domain is not None
    d, m = problem.dimension, problem.n_controls
    steps = _steps(problem, horizon, dt)
    x = np.array(np.broadcast_to(np.asarray(x0, float), (paths, d)))
    if not problem.domain.contains(x).all():
        raise ProblemError(f"simulate: x0 = {x0} is outside {problem.domain}.")
    k = _at(problem, 0.0).diffusion_at(x[:1], np.zeros((1, m))).shape[-1]
    noise, rng = noise or Noise(seed, paths, k, steps * dt, dt), _jump_rng(seed)
    states, controls = np.empty((paths, steps + 1, d)), np.zeros((paths, steps + 1, m))
    rewards, walls = np.zeros((paths, steps + 1)), _Walls(problem)
    states[:, 0], run = x, _Run(x, np.ones(paths), np.full(paths, np.inf))
    for n, dW in enumerate(noise.increments(dt)):
        a = _controls(policy, run.x, m, n * dt)
        controls[:, n] = a
        now = _at(problem, n * dt)
        gain = run.step(now, walls, a, dW, n * dt, dt)
        if now.jumps is not None:
            gain = gain + run.jump(now.jumps, walls, rng, (n + 1) * dt, dt)
        rewards[:, n + 1] = rewards[:, n] + gain
        states[:, n + 1] = run.x
    controls[:, steps] = _controls(policy, run.x, m, steps * dt)
    if problem.horizon is not None and steps * dt > problem.horizon * (1 - 1e-9):
        left = np.isinf(run.ended)
        last = np.asarray(problem.terminal_at(run.x), dtype=float)
        rewards[:, steps] += np.where(left, run.factor * last, 0.0)
        run.ended[left] = problem.horizon
    times = dt * np.arange(steps + 1, dtype=float)
    return Paths(times, states, controls, rewards, walls.exits, run.ended)


def _steps(problem: ControlProblem, horizon: float, dt: float) -> int:
    """How many steps dt are taken, refusing what makes no sense."""
    try:
        good = bool(dt > 0 and horizon >= dt)
    except TypeError:
        good = False
    if not good:
        raise ProblemError(
            f"simulate: dt = {dt} and horizon = {horizon}; give 0 < dt <= horizon."
        )
    steps, T = round(horizon / dt), problem.horizon
    if T is not None and horizon > T * (1 + 1e-9):
        raise ProblemError(
            f"simulate: horizon = {horizon:g}, but the problem ends at T = {T:g}."
        )
    if T is not None and abs(steps * dt - horizon) > 1e-9 * horizon:
        raise ProblemError(
            f"simulate: horizon = {horizon:g} is no multiple of dt = {dt:g}; with a "
            f"terminal payoff the last step must end there, e.g. dt = "
            f"{horizon / (steps + 1):.6g}."
        )
    return steps


def _at(problem: ControlProblem, t: float) -> ControlProblem:
    """The problem with its functions at calendar time t."""
    if not problem.depends_on_time:
        return problem
    now = {f: held(getattr(problem, f), t=t) for f in _OF_TIME}
    jumps = None if problem.jumps is None else problem.jumps.held(t=t)
    return replace(problem, **now, jumps=jumps)


def _jump_rng(seed: int) -> np.random.Generator:
    """Randomness of the jumps, apart from that of the noise."""
    return np.random.default_rng([seed, 1])


@dataclass(eq=False)
class _Run:
    """Where the paths are, their discount factors, and when they ended."""

    x: Array
    factor: Array
    ended: Array

    def step(
        self, problem: ControlProblem, walls: _Walls, a: Array, dW: Array, t: float,
        dt: float,
    ) -> Array:  # fmt: skip
        """One step; what it adds to the discounted payoff, (n,)."""
        x, alive = self.x, np.isinf(self.ended)
        payoff = np.asarray(problem.payoff_at(x, a))
        rho = np.asarray(problem.discount_at(x))
        drift = np.asarray(problem.drift_at(x, a))
        sigma = np.asarray(problem.diffusion_at(x, a))
        move = drift * dt + np.einsum("nik,nk->ni", sigma, dW)
        move = np.where(alive[:, None], move, 0.0)
        share = np.ones(len(x))
        if walls.quiet:
            share = part_of_step(walls.has_ended, x, move)
            share[~alive] = 1.0
        length = share * dt
        paid = self.factor * payoff * _discounted_length(rho, length)
        self.factor = self.factor * np.exp(-rho * length)
        self.x, stopped, data = walls.meet(x + share[:, None] * move, alive, t + length)
        self.ended = np.where(alive & stopped, t + length, self.ended)
        return np.where(alive, paid, 0.0) + self.factor * data

    def jump(
        self, jumps: Jumps, walls: _Walls, rng: np.random.Generator, t: float, dt: float
    ) -> Array:
        """At most one jump at the end t of a step; what landings pay, (n,)."""
        moves = jumps.displacements_at(self.x)
        moves = np.broadcast_to(moves, (len(self.x), *moves.shape[1:]))
        sums = np.cumsum(jumps.weights_at(self.x, moves.shape[1]), axis=1)
        chance = -np.expm1(-jumps.rate_at(self.x) * dt)
        does = (rng.random(len(self.x)) < chance) & np.isinf(self.ended)
        # The last sum may be below 1 by rounding.
        past = (rng.random(len(self.x))[:, None] > sums[:, :-1]).sum(axis=1)
        delta = np.take_along_axis(moves, past[:, None, None], axis=1)[:, 0]
        y = np.where(does[:, None], self.x + delta, self.x)
        self.x, stopped, data = walls.land(y, does, np.full(len(y), t))
        self.ended = np.where(stopped, t, self.ended)
        return self.factor * data


def _discounted_length(rho: Array, dt: Array) -> Array:
    """Integral of e^{-rho t} over a step: dt where rho is 0."""
    safe = np.where(rho > 0, rho, 1.0)
    return np.where(rho > 0, -np.expm1(-rho * dt) / safe, dt)


def _controls(policy: Callable[..., Any], x: Array, m: int, t: float) -> Array:
    at = {"t": t} if "t" in keywords(policy) else {}
    a = np.asarray(policy(x, **at), dtype=float)
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
        noise = problem.diffusion
        self.quiet = noise is None or not (callable(noise) or np.any(noise))

    def _beyond(self, x: Array, axis: int, side: str) -> tuple[NDArray[np.bool_], Any]:
        """Points outside one face, and where the face is."""
        assert self.problem.domain is not None
        low = side == "low"
        ends = self.problem.domain.low if low else self.problem.domain.high
        wall = np.asarray(ends)[axis]
        return (x[:, axis] < wall) if low else (x[:, axis] > wall), wall

    def has_ended(self, x: Array) -> NDArray[np.bool_]:
        """Whether paths stop that a step takes to x (n, d)."""
        domain, ended = self.problem.domain, np.zeros(len(x), bool)
        assert domain is not None
        x = domain.wrap(x)
        for face, rule in self.problem.faces.items():
            outside, wall = self._beyond(x, *face)
            if isinstance(rule, Reflecting | Robin):
                x[outside, face[0]] = 2 * wall - x[outside, face[0]]
            elif not isinstance(rule, StateConstraint):
                ended |= outside
        x = np.clip(x, np.asarray(domain.low), np.asarray(domain.high))
        if self.problem.exit is not None:
            ended |= np.asarray(self.problem.exit.region(x) <= 0)
        return ended

    def land(
        self, y: Array, jumped: NDArray[np.bool_], t: Array
    ) -> tuple[Array, NDArray[np.bool_], Array]:
        """As `meet` for jumps to y (n, d), of the paths that have jumped."""
        where = landing(self.problem, y)
        stopped, gain = np.zeros(len(y), bool), np.zeros(len(y))
        for face, depth in where.over.items():
            rule, outside = self.problem.faces[face], jumped & (depth > 0)
            self.exits[face] += int(outside.sum())
            stopped |= outside & (not isinstance(rule, Robin | StateConstraint))
            if isinstance(rule, Dirichlet) and outside.any():
                gain[outside] = _data(rule.g, where.x[outside], t[outside])
        return where.x, *self._exited(where.x, jumped, t, stopped, gain)

    def _exited(
        self, x: Array, alive: NDArray[np.bool_], t: Array,
        stopped: NDArray[np.bool_], gain: Array,
    ) -> tuple[NDArray[np.bool_], Array]:  # fmt: skip
        """Which paths have stopped and what they collect, the exit region included."""
        if self.problem.exit is not None:
            entered = np.asarray(self.problem.exit.region(x) <= 0) & alive & ~stopped
            if entered.any():
                gain[entered] = _data(self.problem.exit.value, x[entered], t[entered])
            stopped |= entered
        return stopped, gain

    def meet(
        self, x: Array, alive: NDArray[np.bool_], t: Array
    ) -> tuple[Array, NDArray[np.bool_], Array]:
        """Points brought back, which paths stopped, and what they collect at t (n,)."""
        domain = self.problem.domain
        assert domain is not None
        x = domain.wrap(x)
        stopped, gain = np.zeros(len(x), bool), np.zeros(len(x))
        for face, rule in self.problem.faces.items():
            axis = face[0]
            outside, wall = self._beyond(x, *face)
            outside = outside & alive
            if not outside.any():
                continue
            self.exits[face] += int(outside.sum())
            if isinstance(rule, Reflecting | Robin):
                x[outside, axis] = 2 * wall - x[outside, axis]
            else:
                x[outside, axis] = wall
                stopped |= outside & (not isinstance(rule, StateConstraint))
            if isinstance(rule, Dirichlet):
                inside = np.clip(x, np.asarray(domain.low), np.asarray(domain.high))
                gain[outside] = _data(rule.g, inside[outside], t[outside])
        x = np.clip(x, np.asarray(domain.low), np.asarray(domain.high))
        return x, *self._exited(x, alive, t, stopped, gain)


def _data(g: Any, x: Array, t: Array) -> Array:
    """Data of a face or exit at x (n, d), each path at its own time t (n,)."""
    if "t" in keywords(g):
        pairs = zip(x[:, None], t, strict=True)
        found = [np.asarray(g(one, t=float(at))).reshape(()) for one, at in pairs]
        return np.asarray(found, dtype=float)
    return given_at(g, x)
