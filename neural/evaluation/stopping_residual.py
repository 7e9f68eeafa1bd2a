"""A network for the value of going on, and a surface that moves: see `surface_run`.

W is met by its residual where one goes on and by psi on the surface of the set, both
in the same Levenberg-Marquardt steps; the weights are kept from set to set.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hjbpde.errors import MethodMismatch
from hjbpde.problem import ControlProblem

from ..ansatz import AnsatzNetwork, Bump
from ..features import FeatureBasis, FeatureValue
from ..networks import MLP
from ..outcome import Outcome
from ..start import Policy
from ..stopping_payoff import box_around
from .equation import Equation, held_out_states
from .levenberg import Marquardt, evaluate_policy
from .surface_run import Beginning, Evaluated, SurfaceRun, at_once

if TYPE_CHECKING:
    from .residual import Residual

HELD_OUT = 300
FIRST = 3
"""Times more steps for the first set and policy, where weights are random."""
STEEP = {1: 4.0}
"""Initial slopes over those of `networks.MLP`, by the number of states."""


@dataclass(eq=False)
class NetworkEvaluator:
    """W as a network, by Levenberg-Marquardt from the weights of the last set."""

    fitter: Marquardt
    options: Residual
    name: str = "Residual"
    is_inexact: bool = True
    is_new: bool = True

    @property
    def weights(self) -> int:
        """How many weights the network has."""
        return sum(v.numel() for v in self.fitter.model.net.parameters())

    def evaluate(self, problem: ControlProblem, policy: Policy, seed: int) -> Evaluated:
        """W of `policy` in a problem that ends on the surface of the set."""
        rng, options = np.random.default_rng(seed), self.options
        n = round(options.points_per_weight * self.weights)
        held_out = held_out_states(problem, HELD_OUT, rng)
        equation = Equation.draw(problem, n, rng, given_rows=True)
        self.fitter.model = self.fitter.model.beside(*equation.sets)
        a = policy(equation.x)
        steps = options.steps * (FIRST if self.is_new else 1)
        self.is_new = False
        evaluate_policy(equation, self.fitter, a, policy, steps)
        return Evaluated(self.fitter.model.copy().beside(), equation.x, a, held_out)

    def details(self) -> Mapping[str, Any]:
        """The number of weights."""
        return {"weights": self.weights}


def learn_stopping(
    options: Residual, problem: ControlProblem, start: Any, seed: int, progress: bool
) -> Outcome:
    """Alternate the network's steps with those of policy and surface.

    Raises
    ------
    ProblemError, MethodMismatch
        As in `Beginning`; an option that does nothing here.
    """
    _refuse(options)
    began, rng = time.perf_counter(), np.random.default_rng(seed)
    d = problem.dimension + (problem.horizon is not None)
    source = torch.Generator().manual_seed(seed)
    net = MLP(d, 1, tuple(options.hidden), generator=source)
    slope = STEEP.get(d, 1.5)
    with torch.no_grad():
        net.weights[-1].zero_()
        net.weights[0].mul_(slope)
        net.biases[0].mul_(slope)
    surface = max(8, sum(v.numel() for v in net.parameters()) // 4)
    begin = Beginning.of("Residual", problem, surface, rng)
    if begin.first.everywhere:
        return at_once(begin.payoffs, begin.first)
    policy, words = begin.policy(start, rng)
    evaluator = NetworkEvaluator(Marquardt(_plain(net, begin)), options)
    limits = options.max_policies, options.tolerance
    at = begin.first, policy
    run = SurfaceRun(evaluator, begin.payoffs, limits, seed, "first", *at)
    run.iterate(progress)
    seconds = {"levenberg-marquardt": time.perf_counter() - began}
    return run.outcome(words, run.history, seconds)


def _plain(net: MLP, begin: Beginning) -> AnsatzNetwork:
    """V = size net(z): nothing is held by construction, the surface moves.

    Scaled to the box around where one goes on, and to psi on the surface.
    """
    payoffs, first = begin.payoffs, begin.first
    box = box_around(payoffs.problem, first)
    x = first.states if len(first.states) else box.sample(np.random.default_rng(0), 99)
    size = float(np.abs(payoffs.at(x, first.owner_at(x))).max())
    flat = FeatureBasis.draw(box, 0, 1.0, np.random.default_rng(0))
    lift = FeatureValue(flat, np.zeros(flat.size))
    held = np.zeros((box.dimension, 2))
    return AnsatzNetwork(net, lift, Bump(held, size if size > 0 else 1.0))


def _refuse(options: Residual) -> None:
    """Options that have no meaning, or no place, beside a surface that moves."""
    used = {
        "direct=True": options.direct,
        "schedule": options.schedule is not None,
        "adam_steps": options.adam_steps > 0,
        "checkpoint": options.checkpoint is not None,
    }
    for name, is_used in used.items():
        if is_used:
            raise MethodMismatch(
                f"Residual takes no {name} where somebody may stop: the rule for "
                "stopping is found by Levenberg-Marquardt steps with the noise that "
                "the problem has. Leave it out."
            )
