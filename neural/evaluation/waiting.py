"""Monte Carlo with rights to stop in many states: psi against the value of waiting.

A network is fitted to what one earns who waits until the next look and then keeps to
the present rule, from states on both sides of it. Where psi is better, and waiting a
moment loses, one stops: the next rule (Longstaff and Schwartz, Rev. Financial Studies
14 (2001) 113-147; Tsitsiklis and Van Roy, IEEE Trans. Neural Networks 12 (2001)
694-703, as policy iteration). No surface is sampled.

Such a rule moves by what a path sees from one look to the next. So the first looks are
far apart, and each policy has them twice as dense until there is one every dt. What
is lost by looking every dt only, order dt because at the best rule V does not feel its
surface to first order, is added where a path is stopped (`WaitingSet.settled`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from hjbpde.problem import ControlProblem
from hjbpde.progress import bar_over, last_of

from ..admissible import admissible_start, timed_start
from ..networks import MLP
from ..outcome import Outcome
from ..payoff_network import PayoffNetwork
from ..sampling import interior_points
from ..start import Policy
from ..stopping_payoff import Payoffs
from ..tikhonov import regularised_solve
from ..time_state import TimedProblem
from ..value_network import Link, ValueNetwork
from ..waiting_set import WaitingSet
from .earned import earned
from .path_starts import few_times
from .surface_run import PROBES, refuse
from .training import Training

if TYPE_CHECKING:
    from .monte_carlo import MonteCarlo

Array = NDArray[np.float64]
CENTRAL = 0.5
"""Share of the states drawn towards the centre: a ball in a box of many dimensions has
next to no volume."""
DRAWN, GOING_ON = 8, 0.7
"""States drawn for each one that is used, and the share from which one goes on."""
FIRST_LOOKS = 4
"""Looks on the first paths."""
SMOOTHING = 1e-2
"""Tikhonov weight of the first, noisiest regression."""
JUDGED = 64
"""States from which fresh paths say what policy and rule earn."""


def learn_waiting(
    options: MonteCarlo, problem: ControlProblem, start: Any, seed: int, progress: bool
) -> Outcome:
    """Alternate: paths under one policy and one rule, then better ones.

    Raises
    ------
    ProblemError
        Payoffs of the wrong shape, not finite, or crossing; an inadmissible start.
    MethodMismatch
        A right to stop together with an exit, or no noise.
    """
    refuse("MonteCarlo", problem)
    rng = np.random.default_rng(seed)
    given = problem
    if problem.horizon is not None:
        problem = TimedProblem.of(problem)
    payoffs = Payoffs(problem)
    payoffs.check(payoffs.box.sample(rng, PROBES))
    bare = replace(problem, stop=None, exact=None)
    if isinstance(bare, TimedProblem):
        policy, words = timed_start(given, bare, start, rng)
    else:
        policy, words = admissible_start(bare, start, rng)
    training = WaitingTraining(options, payoffs, policy, rng, seed)
    steps = range(options.max_policies)
    for _ in bar_over(
        steps, steps, progress, "policy and rule", lambda: last_of(training.history)
    ):
        if training.step():
            break
    training.polish()
    return training.outcome(words)


class WaitingTraining(Training):
    """A run whose paths stop where its network says that waiting is worth less."""

    def __init__(
        self, options: MonteCarlo, payoffs: Payoffs, policy: Policy,
        rng: np.random.Generator, seed: int,
    ) -> None:  # fmt: skip
        bare = replace(payoffs.problem, stop=None, exact=None)
        super().__init__(options, bare, policy, rng, seed)
        self.payoffs = payoffs
        source = torch.Generator().manual_seed(seed)
        kind = {"dtype": options.precision, "device": options.device}
        inputs = bare.dimension + len(payoffs.stops)
        net = MLP(inputs, 1, options.hidden, generator=source)
        self.value_net = net.to(**kind)
        self.value_adam = torch.optim.Adam(self.value_net.parameters())
        looks = max(1, self.rollout.steps // FIRST_LOOKS)
        rule = WaitingSet.of(payoffs)
        self.rollout = replace(self.rollout, fitted_share=True, rule=rule, looks=looks)
        check = self.drawn(256, np.random.default_rng(7))
        going = check[~rule.judged(check)[0]]
        self.check = going if len(going) else check

    def starts(self, rng: np.random.Generator) -> Array:
        """States on both sides of the rule, (n, d)."""
        return self.drawn(self.options.paths, rng)

    def drawn(self, n: int, rng: np.random.Generator) -> Array:
        """n states, `GOING_ON` of them where one goes on, as far as there are such."""
        x = interior_points(self.payoffs.box, DRAWN * n, rng, CENTRAL)
        x = few_times(self.problem, rng)(x[rng.permutation(len(x))])
        assert self.rollout.rule is not None
        stops = self.rollout.rule.judged(x)[0]
        wanted = np.where(stops, 1.0 - GOING_ON, GOING_ON) * n
        rank = np.where(stops, np.cumsum(stops), np.cumsum(~stops))
        return x[np.argsort(rank / wanted, kind="stable")[:n]]

    def first_guess(self, x: Array, targets: Array) -> tuple[ValueNetwork, Array]:
        """Quadratic regression of what the network is to say, as for any problem."""
        model = PayoffNetwork.around(self.value_net, self.payoffs, x)
        lead = model.asked(x, self._cut(x, targets))
        link = Link(float(lead.mean()), float(lead.std()) or 1.0)
        model = replace(model, link=link)
        z = model.scaled(x).double().cpu().numpy()
        i, j = np.triu_indices(z.shape[1])
        rows = np.hstack([np.ones((len(z), 1)), z, z[:, i] * z[:, j]])
        u = regularised_solve(rows, link.inverse(lead)[:, None], SMOOTHING)[:, 0]
        return model, model.linked(rows @ u) + self.payoffs.all_at(x).mean(1)

    def _cut(self, x: Array, targets: Array) -> Array:
        """Targets (n,) that inside the set lose no more than going on gains elsewhere.

        How much waiting loses there decides nothing, and far inside it may be so much
        that a network would fit nothing else.
        """
        assert self.rollout.rule is not None
        stops, owners = self.rollout.rule.judged(x)
        if stops.all():
            return targets
        lead = np.abs(targets[:, None] - self.payoffs.all_at(x))
        room, out = float(lead[~stops].min(1).mean()), targets.copy()
        for k, side in enumerate(self.payoffs.sides):
            here = stops & (owners == k)
            least = self.payoffs.of(k, x[here]) - side * room
            out[here] = side * np.maximum(side * out[here], side * least)
        return out

    def _fit_value(self, x: Array, targets: Array) -> float:
        return super()._fit_value(x, self._cut(x, targets))

    def _rows(self, x: Array, targets: Array) -> tuple[torch.Tensor, torch.Tensor]:
        return super()._rows(x, self._cut(x, targets))

    def step(self) -> bool:
        """Take the network's rule, with more looks, improve and evaluate once."""
        if self.model is not None:
            looks = max(1, self.rollout.looks // 2)
            rule = WaitingSet.of(self.payoffs, self.model)
            self.rollout = replace(self.rollout, rule=rule, looks=looks)
            if looks > 1:
                self.settled = 0
        return super().step()

    def outcome(self, words: str) -> Outcome:
        """The last good state with everything the report says, and its rule."""
        found = super().outcome(words)
        model = found.model
        assert isinstance(model, PayoffNetwork) and self.kept is not None
        rule = WaitingSet.of(self.payoffs, model)
        self.rollout = replace(self.rollout, rule=rule, looks=1)
        long = replace(self.rollout, horizon=self.horizons.first)
        x = self.drawn(JUDGED, np.random.default_rng(11))
        going = x[~rule.judged(x)[0]]
        policy = self.policy if self.kept[1] is None else self.kept[1]
        off = earned(long, policy, model, going, self.rng)
        settled = found.status in ("converged", "stagnated")
        share = rule.judged(self.payoffs.box.sample(self.rng, PROBES))[0].mean()
        return replace(
            found,
            status="not converged" if settled and not off.is_small else found.status,
            checks=(*found.checks, f"stopped: {share:.1%} of the domain", str(off)),
            details={**found.details, "earned_error": off.size},
            stopping=rule,
        )

    def _terms(self) -> list[Any]:
        """Faces speak through the paths that start on them."""
        return []
