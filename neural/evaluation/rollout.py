"""Discounted payoff along simulated paths: unbiased up to the time step.

By Feynman-Kac, for any horizon T and any smooth function U,

    V^a(x) = E[ int_0^T e^(-rho s) r ds + e^(-rho T) V^a(X_T)
                - int_0^T e^(-rho s) grad U . sigma dW ],

the last term being a martingale: with U close to V^a it takes away the noise. A path
that ends before T takes what it gets there, and the martingale ends with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hjbpde.boundary import Dirichlet, Reflecting, Robin
from hjbpde.problem import ControlProblem

from ..exit_region import running
from ..start import Policy
from ..time_state import TimedProblem
from ..value_model import ValueModel
from .crossing import Crossing, Move, first_crossing, surfaces_of

Array = NDArray[np.float64]
Indices = NDArray[np.intp]


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
        A `TimedProblem` where there is a horizon: its paths end exactly at T, in
        equal steps of dt or less.
    stepper : EulerMaruyama or Heun
    dt, horizon : float
        Paths that still run after `horizon` are continued by V.
    control_variate : bool
        Subtract the martingale of the current V.
    richardson : bool
        Extrapolate from dt and dt/2 on the same Brownian path.
    parts : int
        Equal parts that every step is cut into.
    """

    problem: ControlProblem
    stepper: Stepper
    dt: float
    horizon: float
    control_variate: bool = True
    richardson: bool = False
    parts: int = 1

    @property
    def order(self) -> int:
        """Weak order in dt: 1 where paths end at a surface or are reflected."""
        rules = (Dirichlet, Reflecting, Robin)
        last = self.problem.dimension - isinstance(self.problem, TimedProblem)
        met = any(
            isinstance(rule, rules) and axis < last
            for (axis, _), rule in self.problem.faces.items()
        )
        return 1 if met or self.problem.exit is not None else self.stepper.order

    @property
    def steps(self) -> int:
        """Steps of dt until the horizon."""
        share = self.horizon / self.dt
        if isinstance(self.problem, TimedProblem):
            return max(1, math.ceil(share - 1e-9))
        return max(1, round(share))

    def payoffs(
        self,
        policy: Policy,
        model: ValueModel | None,
        x: Array,
        rng: np.random.Generator,
    ) -> tuple[Array, float]:
        """Discounted payoff of one path from each state x (n, d), shape (n,).

        Also the share of paths that ended early at a face.
        """
        size = (len(x), _noise_dimension(self.problem, policy, x[:1]))

        def draw() -> Array:
            # Antithetic halves: linear parts of the noise cancel in the fit.
            half = rng.standard_normal(((size[0] + 1) // 2, size[1]))
            return np.concatenate([half, -half])[: size[0]]

        if self.richardson:
            return self._extrapolated(policy, model, x, rng, draw)
        paths = Paths(self, model, x)
        for _ in range(self.steps):
            if not paths.alive.any():
                break
            paths.advance(policy, np.sqrt(self.dt) * draw(), rng)
        return paths.finish(policy), paths.stopped_share

    def pair(
        self,
        policy: Policy,
        model: ValueModel | None,
        x: Array,
        rng: np.random.Generator,
        draw: Callable[[], Array],
    ) -> tuple[Paths, Paths]:
        """Paths in steps of dt and of dt/2 on the same noise, from x (n, d).

        ``draw()`` gives standard normal numbers (n, k), once every half step. Whether
        a path met a surface between steps is drawn for each of the two alone.
        """
        coarse = Paths(replace(self, parts=1), model, x)
        fine = Paths(replace(self, parts=2), model, x)
        for _ in range(self.steps):
            if not (coarse.alive.any() or fine.alive.any()):
                break
            one, two = (draw() * np.sqrt(0.5 * self.dt) for _ in range(2))
            coarse.advance(policy, one + two, rng)
            fine.advance(policy, one, rng)
            fine.advance(policy, two, rng)
        return coarse, fine

    def _extrapolated(
        self,
        policy: Policy,
        model: ValueModel | None,
        x: Array,
        rng: np.random.Generator,
        draw: Callable[[], Array],
    ) -> tuple[Array, float]:
        """``(2^p Y_(dt/2) - Y_dt) / (2^p - 1)``: the leading term c dt^p cancels."""
        coarse, fine = self.pair(policy, model, x, rng, draw)
        factor = 2.0**self.order
        one, two = coarse.finish(policy), fine.finish(policy)
        return (factor * two - one) / (factor - 1.0), fine.stopped_share


def _noise_dimension(problem: ControlProblem, policy: Policy, x: Array) -> int:
    return problem.diffusion_at(x, policy(x)).shape[-1]


class Paths:
    """Paths on their way: position, weight of the future, payoff so far."""

    def __init__(self, rollout: Rollout, model: ValueModel | None, x: Array) -> None:
        self.rollout, self.model, self.problem = rollout, model, rollout.problem
        self.surfaces = surfaces_of(rollout.problem)
        self.x = x.copy()
        self.weight = np.ones(len(x))
        self.total = np.zeros(len(x))
        self.alive = np.ones(len(x), bool)
        self.stopped = np.zeros(len(x), bool)
        self.h = np.full(len(x), rollout.dt / rollout.parts)
        self.left = np.full(len(x), -1)
        if isinstance(self.problem, TimedProblem):
            self._share_time()

    def _share_time(self) -> None:
        """Equal steps that end at T, at most dt each."""
        rollout, box = self.rollout, self.problem.domain
        assert box is not None
        rest = np.maximum(np.asarray(box.high)[-1] - self.x[:, -1], 0.0)
        steps = np.maximum(np.ceil(rest / rollout.dt - 1e-9).astype(int), 1)
        self.h, self.left = rest / steps / rollout.parts, steps * rollout.parts
        self._end_at_horizon(np.flatnonzero(rest <= 1e-12 * box.width[-1]))

    @property
    def stopped_share(self) -> float:
        """Share of paths that ended at a face."""
        return float(self.stopped.mean())

    def advance(self, policy: Policy, dW: Array, rng: np.random.Generator) -> None:
        """One time step of every path still running, dW (n, k) its noise over dt."""
        on = np.flatnonzero(self.alive)
        if not len(on):
            return
        problem, x, h, dW = self.problem, self.x[on], self.h[on], dW[on]
        if isinstance(problem, TimedProblem):
            dW = dW * np.sqrt(h * self.rollout.parts / self.rollout.dt)[:, None]
        a = policy(x)
        f = np.asarray(problem.drift_at(x, a))
        sigma = np.asarray(problem.diffusion_at(x, a))
        kick = np.einsum("nik,nk->ni", sigma, dW)
        rate = np.asarray(problem.discount_at(x))
        payoff = np.asarray(problem.payoff_at(x, a))
        if isinstance(self.rollout.stepper, Heun):
            ahead = x + f * h[:, None] + kick
            fade = np.exp(-rate * h)
            f, payoff = self._averaged(policy, x, ahead, f, payoff, fade)
        y, time, ended = x + f * h[:, None] + kick, h, None
        if self.surfaces:
            assert problem.domain is not None
            move = Move(x, f, sigma, dW, h, y)
            ended = first_crossing(self.surfaces, problem.domain, move, rng)
            time = h.copy()
            time[ended.which], kick[ended.which] = ended.time, ended.kick
        if self.model is not None and self.rollout.control_variate:
            self.total[on] -= self.weight[on] * self._martingale(x, sigma, kick, time)
        self._collect(on, rate, payoff, time)
        go_on = np.ones(len(on), bool)
        if ended is not None:
            self._end(on, ended)
            go_on[ended.which] = False
        self._move(on[go_on], y[go_on])
        self.left[on] -= 1
        self._end_at_horizon(on[(self.left[on] == 0) & go_on])

    def _averaged(
        self,
        policy: Policy,
        x: Array,
        ahead: Array,
        f: Array,
        payoff: Array,
        fade: Array,
    ) -> tuple[Array, Array]:
        """Drift and discounted payoff, the mean of x and of the predictor ahead."""
        problem = self.problem
        assert problem.domain is not None
        # Clipped: user functions are never called outside the domain.
        ahead = problem.domain.clip(problem.domain.wrap(ahead))
        if problem.exit is not None:
            # Nor where the process has ended; the path is about to end as well.
            ahead = np.where(running(problem, ahead)[:, None], ahead, x)
        b = policy(ahead)
        f = 0.5 * (f + np.asarray(problem.drift_at(ahead, b)))
        return f, 0.5 * (payoff + fade * np.asarray(problem.payoff_at(ahead, b)))

    def _martingale(self, x: Array, sigma: Array, kick: Array, time: Array) -> Array:
        """What V gains by the noise `kick` (m, d) of `time` (m,), of mean 0.

        ``p . k``, and with an exit or a horizon ``(k' H k - tr(sigma' H sigma) h) / 2``
        as well: there noise is large over few steps, and this is the next of it.
        """
        assert self.model is not None
        gain = (self.model.gradient(x) * kick).sum(-1)
        if self.problem.exit is None and not isinstance(self.problem, TimedProblem):
            return gain
        bend = self.model.hessian(x)
        square = np.einsum("ni,nij,nj->n", kick, bend, kick)
        mean = np.einsum("nik,nij,njk->n", sigma, bend, sigma)
        return gain + 0.5 * (square - mean * time)

    def _collect(self, on: Indices, rate: Array, payoff: Array, time: Array) -> None:
        """The payoff of `time` (m,)."""
        if isinstance(self.rollout.stepper, Heun):
            gain = payoff * time
        else:
            gain = payoff * discounted_time(rate, time)
        self.total[on] += self.weight[on] * gain
        self.weight[on] *= np.exp(-rate * time)

    def _end(self, on: Indices, ended: Crossing) -> None:
        """Paths that reached a surface take its value."""
        index = on[ended.which]
        self.total[index] += self.weight[index] * ended.value
        self.weight[index], self.alive[index] = 0.0, False
        self.stopped[index] = ended.at_face

    def _end_at_horizon(self, index: Indices) -> None:
        """Paths that have reached T take the terminal value."""
        if not len(index):
            return
        self.total[index] += self.weight[index] * self._terminal(self.x[index])
        self.weight[index], self.alive[index] = 0.0, False

    def _terminal(self, x: Array) -> Array:
        rule = self.problem.faces[self.problem.dimension - 1, "high"]
        assert isinstance(rule, Dirichlet)
        return _face_values(rule.g, x)

    def _move(self, index: Indices, y: Array) -> None:
        """Put paths at y, and apply the rule of every face they crossed.

        Robin ``alpha V + beta V_n = g``: reflected, the weight changed by
        ``exp(-alpha/beta dL)`` and ``g/beta dL`` collected, dL the push inwards.
        """
        problem = self.problem
        assert problem.domain is not None
        domain = problem.domain
        low, high = np.asarray(domain.low), np.asarray(domain.high)
        y = domain.wrap(y)
        for (axis, side), rule in problem.faces.items():
            if isinstance(rule, Dirichlet):
                continue  # a surface, or the horizon
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
                self.stopped[index[hit]] = True
            if isinstance(rule, Robin):
                data = _face_values(rule.g, domain.clip(y[hit])) / rule.beta
                self.total[index[hit]] += self.weight[index[hit]] * data * push
                self.weight[index[hit]] *= np.exp(-rule.alpha / rule.beta * push)
        self.x[index] = np.clip(y, low, high)

    def finish(self, policy: Policy) -> Array:
        """Payoff so far plus the rest: bootstrapped, or guessed before there is V."""
        out = self.total.copy()
        on = np.flatnonzero(self.weight > 0)
        if len(on):
            x, weight = self.x[on], self.weight[on]
            if self.model is None:
                out[on] += self._guess(x, weight, policy)
            else:
                out[on] += weight * self.model.value(x)
        return out

    def _guess(self, x: Array, weight: Array, policy: Policy) -> Array:
        """The rest from x (m, d) as if the state stayed there: until T, or for ever.

        0 without discount or horizon: nearly all paths have ended by then.
        """
        rate = np.asarray(self.problem.discount_at(x))
        paid = weight * np.asarray(self.problem.payoff_at(x, policy(x)))
        if not isinstance(self.problem, TimedProblem):
            return np.divide(paid, rate, out=np.zeros(len(x)), where=rate > 0)
        assert self.problem.domain is not None
        time = np.asarray(self.problem.domain.high)[-1] - x[:, -1]
        later = weight * np.exp(-rate * time) * self._terminal(x)
        return paid * discounted_time(rate, time) + later


def discounted_time(rate: Array, time: Array) -> Array:
    """``int_0^time e^(-rate s) ds``."""
    return np.divide(-np.expm1(-rate * time), rate, out=time.copy(), where=rate > 0)


def _face_values(g: float | Callable[..., Array], x: Array) -> Array:
    return np.broadcast_to(np.asarray(g(x) if callable(g) else g, float), (len(x),))
