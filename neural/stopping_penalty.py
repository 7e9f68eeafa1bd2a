"""A rough idea of where to stop in many states: stopping at a finite rate.

A chain on nodes (`neural.stopping_sketch`) has too many of them beyond four states.
Here whoever may stop is stopped at a rate m while that pays, instead of at once,

    rho V = max_a { r + L^a V } + m max(psi - V, 0),

an equation without a surface, solved by policy iteration on a few features. V rises
to the value with m (Bensoussan and Lions, Applications of Variational Inequalities in
Stochastic Control, 1982, chapter 3). Where waiting a moment loses, and V leads psi by
little against that loss, one stops: too large a set is better to start from than one
with pockets, and what waiting loses is known without V.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hjbpde.problem import ControlProblem

from .collocation import Collocation
from .features import FeatureBasis, FeatureValue
from .outcome import GreedyPolicy
from .start import Policy, constant_starts, held_inside
from .stopping_payoff import Owners, Payoffs
from .value_model import row_scale

Array = NDArray[np.float64]
FEATURES, SCALE, SMOOTHING = 300, 0.5, 1e-8
RATES, POLICIES = (1.0, 4.0), 3
"""m over the rate at which the process crosses the box, and policies for each: layers
of a larger m are thinner than the features resolve."""
DOUBT = 0.5
"""By how much V must lead psi to keep from stopping, over what waiting loses."""


@dataclass(frozen=True, eq=False)
class Penalised:
    """Stopping at a finite rate where `value` says so; None: wherever waiting loses."""

    payoffs: Payoffs
    rate: float
    value: FeatureValue | None = None
    doubt: float = 0.0

    def stops(self, k: int, x: Array) -> NDArray[np.bool_]:
        """Whether the k-th right is used at x (n, d), (n,)."""
        loss = self.payoffs.loss_of_waiting(k, x)
        if self.value is None:
            return loss > 0
        lead = self.payoffs.sides[k] * (self.value.value(x) - self.payoffs.of(k, x))
        return (loss > 0) & (lead < self.doubt * loss)

    def labels(self, x: Array) -> tuple[NDArray[np.bool_], Owners]:
        """Whether one stops at x (n, d), and by which right."""
        used = np.stack([self.stops(k, x) for k in range(len(self.payoffs.stops))])
        return np.asarray(used.any(0)), np.asarray(used.argmax(0), dtype=np.int64)

    @property
    def problem(self) -> ControlProblem:
        """Without rights to stop: the rate is in its discount and its payoff."""
        payoffs, bare = self.payoffs, replace(self.payoffs.problem, stop=None)

        def discount(x: Array) -> Array:
            stops, _ = self.labels(x)
            rho = np.asarray(bare.discount_at(x))
            return np.asarray(rho + self.rate * stops, dtype=float)

        def payoff(x: Array, a: Array) -> Array:
            stops, owners = self.labels(x)
            paid = self.rate * stops * payoffs.at(x, owners)
            return np.asarray(bare.payoff_at(x, a)) + paid

        field = "reward" if bare.reward is not None else "cost"
        paid: dict[str, Any] = {field: payoff}
        return replace(bare, discount=discount, exact=None, **paid)


def penalised(payoffs: Payoffs, rng: np.random.Generator) -> Penalised:
    """Howard's iteration at growing rates, from stopping wherever waiting loses."""
    bare = replace(payoffs.problem, stop=None, exact=None)
    starts = constant_starts(bare)
    policy: Policy = held_inside(bare, starts[len(starts) // 2])
    basis = FeatureBasis.draw(payoffs.box, FEATURES, SCALE, rng)
    system = Collocation.build(bare, basis, 2.0, rng)
    unit = float(np.median(row_scale(bare, system.x, policy(system.x))))
    now = Penalised(payoffs, unit)
    for rate in RATES:
        for _ in range(POLICIES):
            now = replace(now, rate=rate * unit)
            here = replace(system, problem=now.problem)
            value = here.solve(policy, policy(system.x), SMOOTHING).value
            now, policy = replace(now, value=value), GreedyPolicy(bare, value)
    return replace(now, doubt=DOUBT)
