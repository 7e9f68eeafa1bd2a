"""How the policy network follows the value: fitted to the maximiser, or uphill."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from hjbpde.errors import MethodMismatch
from hjbpde.probe import control_range
from hjbpde.problem import ControlProblem
from hjbpde.sets import Box

from ..time_state import TimedProblem
from ..value_model import greedy_policy
from ..value_network import PolicyNetwork, ValueNetwork
from .fitting import falling_rate, fit

Array = NDArray[np.float64]


class Actor(Protocol):
    """One improvement of a policy network, in place."""

    def check(self, problem: ControlProblem) -> None:
        """Refuse problems that it cannot follow."""
        ...

    def improve(
        self,
        actor: PolicyNetwork,
        model: ValueNetwork,
        x: Array,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule,
    ) -> None:
        """Change the weights of `actor` after `model`, at states x (n, d)."""
        ...


@dataclass(frozen=True)
class Schedule:
    """Steps of Adam, and the learning rate at the first and the last of them."""

    steps: int
    rates: tuple[float, float]


@dataclass(frozen=True)
class GreedyFit:
    """Regression on the maximiser of ``r + L^a V``, found exactly at every state."""

    def check(self, problem: ControlProblem) -> None:
        """Every problem will do."""

    def improve(
        self,
        actor: PolicyNetwork,
        model: ValueNetwork,
        x: Array,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule,
    ) -> None:
        """Least squares in units of the network's output."""
        assert actor.problem is not None
        wanted = greedy_policy(actor.problem, model, x) - actor.offset
        z = actor.scaled(x)
        wanted = wanted / actor.spread
        fit(actor.net, optimizer, z, wanted, schedule.steps, schedule.rates)


@dataclass(frozen=True)
class Ascent:
    """The article's actor: its weights go uphill on Q, grad V and hess V held fast.

    ``Q(x, a) = r(x, a) + f(x, a) . p + 1/2 tr(sigma sigma'(x, a) H)`` with p = grad V
    and H = hess V, as numbers, at every state; the mean of ``Q(x, a_w(x))`` over
    states, in units of the value network's slope, is raised by Adam in the weights w.
    Nothing is maximised state by state, so that it takes any number of controls; it
    finds a local maximum of Q only. In a control box the network's output is cut to
    the bounds, Q's slope acts on it as if it were not, and a quadratic penalty keeps
    it next to them: cut outputs would not feel the slope and never come back.

    Needs controls in a box, bounded or not, and no horizon.

    Source: the article's section on policy improvement; Silver et al., "Deterministic
    policy gradient algorithms", ICML 2014, equation 9, with Q known.
    """

    def check(self, problem: ControlProblem) -> None:
        """Refuse finite control sets and horizons.

        Raises
        ------
        MethodMismatch
        """
        if problem.controls is not None and not isinstance(problem.controls, Box):
            raise MethodMismatch(
                "Ascent needs controls in a box, to have slopes; these are a finite "
                "set. Use actor=neural.GreedyFit()."
            )
        if isinstance(problem, TimedProblem):
            raise MethodMismatch(
                "Ascent takes no horizon: the policy of the answer is then the greedy "
                "one of V(x, t). Use actor=neural.GreedyFit()."
            )

    def improve(
        self,
        actor: PolicyNetwork,
        model: ValueNetwork,
        x: Array,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule,
    ) -> None:
        """Ascend `schedule.steps` times on the same states."""
        assert actor.problem is not None
        frozen = _Frozen.of(actor.problem, model, x)
        low, high = (
            torch.from_numpy(np.ascontiguousarray(bound.T))
            for bound in control_range(actor.problem, x)
        )
        z, offset, spread = (
            actor.scaled(x),
            torch.from_numpy(actor.offset),
            torch.from_numpy(actor.spread),
        )
        for step in range(schedule.steps):
            falling_rate(optimizer, schedule.rates, step, schedule.steps)
            optimizer.zero_grad()
            wished = offset + spread * actor.net(z).to(offset)
            cut = torch.minimum(torch.maximum(wished, low), high)
            beyond = (wished - cut) / spread
            gain = frozen.gain(wished + (cut - wished).detach())
            loss = (beyond**2).sum(-1).mean() - gain.mean()
            loss.backward()
            optimizer.step()


@dataclass(frozen=True, eq=False)
class _Frozen:
    """States, slopes and curvatures of V as tensors that ask for no gradient."""

    problem: ControlProblem
    x: torch.Tensor
    slope: torch.Tensor
    bend: torch.Tensor | None
    unit: torch.Tensor

    @classmethod
    def of(cls, problem: ControlProblem, model: ValueNetwork, x: Array) -> _Frozen:
        value, slope = model.value_and_gradient(x)
        link = model.link
        unit = np.abs(value) if link.exponential else np.full(len(x), link.scale)
        bend: Any = None
        if callable(problem.diffusion):
            bend = torch.from_numpy(model.hessian(x))
        return cls(
            problem,
            torch.from_numpy(x.copy()),
            torch.from_numpy(slope),
            bend,
            torch.from_numpy(unit),
        )

    def gain(self, a: torch.Tensor) -> torch.Tensor:
        """Q at controls a (n, m), to be raised, in the network's units, (n,)."""
        problem, x = self.problem, self.x
        q = problem.payoff_at(x, a) + (problem.drift_at(x, a) * self.slope).sum(-1)
        if self.bend is not None:
            sigma = problem.diffusion_at(x, a)
            q = q + 0.5 * torch.einsum("nik,njk,nij->n", sigma, sigma, self.bend)
        return problem.sign * q / self.unit


def scaled_actor(
    net: Any, problem: ControlProblem, model: ValueNetwork, x: Array
) -> PolicyNetwork:
    """A policy network whose outputs of order 1 span the greedy controls at x."""
    greedy = greedy_policy(problem, model, x)
    spread = np.ptp(greedy, axis=0)
    spread = 0.5 * np.where(spread > 0, spread, np.abs(greedy).max(0) + 1e-3)
    middle = 0.5 * (greedy.max(0) + greedy.min(0))
    return PolicyNetwork(net, problem, model.centre, model.half, middle, spread)
