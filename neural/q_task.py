"""Transitions with their rate and sense, and the models that answers become."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hjbpde.errors import ProblemError
from hjbpde.problem import ControlProblem
from hjbpde.sets import Box

from .features import FeatureBasis, FeatureValue
from .networks import MLP
from .q_networks import NetworkAnswer
from .quadratic_q import QuadraticAnswer, Scales, matrix
from .transitions import Transitions
from .value_network import Link, PolicyNetwork, ValueNetwork

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class QTask:
    """Transitions with the rate, the sense and the control box."""

    data: Transitions
    rho: float
    sign: float
    controls: Any

    @property
    def scales(self) -> Scales:
        """Boxes of the states and controls seen."""
        x, a = self.data.states, self.data.controls
        half, spread = 0.5 * np.ptp(x, axis=0), a.std(axis=0)
        if (half == 0).any() or (spread == 0).any():
            raise ProblemError(
                "QLearning: a state or control never changes in the transitions, so "
                "nothing can be learned about it. Explore more widely."
            )
        return Scales(0.5 * (x.min(0) + x.max(0)), half, a.mean(axis=0), spread)

    def numbers(self) -> Array:
        """What tells these transitions from others: rate, sense, bounds, rows, means.

        One row; a checkpoint keeps it.
        """
        t = self.data
        parts = [[self.rho, self.sign, t.dt, len(t)], *self.limits()]
        for rows in (t.states, t.controls, t.payoffs, t.next_states, t.later_states):
            if rows is not None:
                parts += [rows[:4], rows.mean(axis=0)]
        return np.nan_to_num(np.concatenate([np.ravel(part) for part in parts]))

    def limits(self) -> tuple[Array, Array]:
        """Bounds of the controls, (m,) each."""
        m = self.data.controls.shape[1]
        if not isinstance(self.controls, Box):
            return np.full(m, -np.inf), np.full(m, np.inf)
        low = np.broadcast_to(np.asarray(self.controls.low, float), (m,))
        return low, np.broadcast_to(np.asarray(self.controls.high, float), (m,))

    def scaled_box(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The bounds of b: of the set, and of what was explored."""
        a = self.data.controls
        low, high = self.limits()
        low, high = np.maximum(low, a.min(0)), np.minimum(high, a.max(0))
        low, high = (self.scales.control(v[None])[0] for v in (low, high))
        return torch.from_numpy(low), torch.from_numpy(high)

    def saturation(self, answer: NetworkAnswer) -> float:
        """The share of states whose control lies on a bound."""
        low, high = self.scaled_box()
        with torch.no_grad():
            b = answer.actor(torch.from_numpy(self.scales.state(self.data.states)))
        return float(((b <= low) | (b >= high)).double().mean())

    def rounding(self, answer: NetworkAnswer, eps: float) -> float:
        """What numbers of relative spacing `eps` may do to ``(V' - V) / dt``.

        Over the spread of the payoff's rate, which is what V's rate is added to.
        """
        with torch.no_grad():
            V = answer.value(torch.from_numpy(self.scales.state(self.data.states)))
        return eps * float(V.abs().max()) / self.data.dt


def quadratic_value(answer: QuadraticAnswer, task: QTask) -> FeatureValue:
    """V as a quadratic, in the problem's own sense."""
    d, s = len(task.scales.half), task.scales
    P = task.sign * matrix(answer.value, 1 + d)
    basis = FeatureBasis(s.centre, s.half, np.zeros((0, d)), np.zeros(0))
    i, j = np.triu_indices(d)
    # 1/2 z'Qz is stored as c_ij z_i z_j / 2 over the upper triangle.
    quadratic = np.where(i == j, 2.0, 4.0) * P[1:, 1:][i, j]
    return FeatureValue(basis, np.concatenate([[P[0, 0]], 2.0 * P[0, 1:], quadratic]))


def linear_policy(
    answer: QuadraticAnswer, task: QTask, problem: ControlProblem | None
) -> PolicyNetwork:
    """The linear feedback b = G (1, z)."""
    d, m = len(task.scales.half), len(task.scales.spread)
    net = MLP(d, m, ())
    with torch.no_grad():
        net.weights[0].copy_(torch.from_numpy(answer.gain[:, 1:]))
        net.biases[0].copy_(torch.from_numpy(answer.gain[:, 0]))
    return policy_of(net, task, problem)


def policy_of(net: MLP, task: QTask, problem: ControlProblem | None) -> PolicyNetwork:
    """A network in scaled coordinates as a policy."""
    s = task.scales
    return PolicyNetwork(
        net, problem, s.centre, s.half, s.middle, s.spread, task.limits()
    )


def network_value(answer: NetworkAnswer, task: QTask) -> ValueNetwork:
    """V as a network, in the problem's own sense."""
    link = Link(0.0, task.sign * answer.unit)
    return ValueNetwork(answer.value, task.scales.centre, task.scales.half, link)
