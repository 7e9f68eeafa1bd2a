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

from hjbpde.boundary import Dirichlet, Reflecting, Robin, StateConstraint
from hjbpde.problem import ControlProblem

from ..start import Policy
from ..time_state import TimedProblem
from ..value_model import ValueModel
from ..waiting_set import WaitingSet
from .paths import Paths
from .steppers import Stepper

Array = NDArray[np.float64]


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
    fitted_share : bool
        Subtract the share of the martingale that leaves the targets the least scatter
        about V: a V that is wrong somewhere cannot add noise, which the next one
        would follow. Without Richardson only.
    rule : WaitingSet, optional
        Where a path is stopped and takes psi.
    looks : int
        Steps of dt from one look at the rule to the next; none at the start.
    """

    problem: ControlProblem
    stepper: Stepper
    dt: float
    horizon: float
    control_variate: bool = True
    richardson: bool = False
    parts: int = 1
    fitted_share: bool = False
    rule: WaitingSet | None = None
    looks: int = 1

    @property
    def order(self) -> int:
        """Weak order in dt: 1 where paths end at a surface or are reflected.

        And beside a face with a state constraint: the noise, which vanishes on it, is
        not constant along a path. Without noise it keeps the stepper's order.
        """
        rules = (Dirichlet, Reflecting, Robin)
        if self.problem.diffusion is not None:
            rules = (*rules, StateConstraint)
        last = self.problem.dimension - isinstance(self.problem, TimedProblem)
        met = any(
            isinstance(rule, rules) and axis < last
            for (axis, _), rule in self.problem.faces.items()
        )
        ends = self.problem.exit is not None or self.rule is not None
        return 1 if met or ends else self.stepper.order

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
        found = paths.finish(policy)
        if self.fitted_share and model is not None:
            found = less_scattered(found, paths.gained, model.value(x))
        return found, paths.stopped_share

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


def less_scattered(targets: Array, gained: Array, value: Array) -> Array:
    """Targets with the best share of the martingale in [0, 1] instead of all of it.

    The classical control variate's coefficient: Glasserman, Monte Carlo Methods in
    Financial Engineering, equation 4.4. Its bias is of order 1 / n.
    """
    plain, centred = targets + gained, gained - gained.mean()
    size = float(centred @ centred)
    share = float(centred @ (plain - value)) / size if size > 0 else 1.0
    return plain - min(max(share, 0.0), 1.0) * gained


def _noise_dimension(problem: ControlProblem, policy: Policy, x: Array) -> int:
    return problem.diffusion_at(x, policy(x)).shape[-1]
