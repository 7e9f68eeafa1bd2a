"""What the rules of the faces ask of a network, as terms of its loss."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from hjbpde.boundary import Dirichlet, Reflecting, Robin
from hjbpde.problem import ControlProblem

from ..exit_region import exit_states, exit_value, running
from ..networks import MLP, like
from ..sampling import FacePoints
from ..value_network import Link, ValueNetwork

Array = NDArray[np.float64]
POINTS = 64


@dataclass(frozen=True, eq=False)
class FacePenalty:
    """Mean square of ``alpha V + beta V_n - g`` on one face, in the network's units.

    The sampled payoffs say little of V's slope at the rim, and the greedy control of
    a problem with controlled noise divides by V's curvature there.
    """

    z: torch.Tensor
    axis: int
    outward: float
    alpha: float
    beta: float
    g: torch.Tensor

    def __call__(self, net: MLP, model: ValueNetwork) -> torch.Tensor:
        """One scalar, differentiable in the weights."""
        u, slope = net.value_and_gradient(self.z)
        half = float(model.half[self.axis])
        value, rate = _linked(model.link, u)
        normal = self.outward * rate * slope[:, self.axis] / half
        gap = self.alpha * value + self.beta * normal - self.g
        size = abs(self.alpha) + abs(self.beta) / half
        return ((gap / (size * rate)) ** 2).mean()


@dataclass(frozen=True, eq=False)
class ExitPenalty:
    """Mean square of ``V - g`` on the surface of an exit, in the network's units."""

    z: torch.Tensor
    g: torch.Tensor

    def __call__(self, net: MLP, model: ValueNetwork) -> torch.Tensor:
        """One scalar, differentiable in the weights."""
        value, rate = _linked(model.link, net(self.z)[:, 0])
        return (((value - self.g) / rate) ** 2).mean()


def _linked(link: Link, u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """V and dV/du of the network's output u (n,)."""
    if link.exponential:
        value = link.scale * torch.exp(u)
        return value, value
    return link.shift + link.scale * u, torch.full_like(u, link.scale)


def face_penalties(
    problem: ControlProblem, model: ValueNetwork, rng: np.random.Generator
) -> list[FacePenalty | ExitPenalty]:
    """One term for every face with a Dirichlet, Reflecting or Robin rule, and an exit.

    With an exit only the parts of faces where the process runs are asked.
    """
    assert problem.domain is not None
    out: list[FacePenalty | ExitPenalty] = []
    for face, rule in problem.faces.items():
        if isinstance(rule, Dirichlet):
            alpha, beta, g = 1.0, 0.0, rule.g
        elif isinstance(rule, Robin):
            alpha, beta, g = rule.alpha, rule.beta, rule.g
        elif isinstance(rule, Reflecting):
            alpha, beta, g = 0.0, 1.0, 0.0
        else:
            continue
        points = FacePoints.draw(problem.domain, face, POINTS, rng)
        x = points.x[running(problem, points.x)]
        if not len(x):
            continue
        data = np.asarray(g(x) if callable(g) else g, dtype=float)
        target = like(model.net, np.broadcast_to(data, (len(x),)))
        z = model.scaled(x)
        out.append(FacePenalty(z, points.axis, points.sign, alpha, beta, target))
    if problem.exit is not None:
        x = exit_states(problem, POINTS * problem.dimension, rng)
        target = like(model.net, exit_value(problem, x))
        out.append(ExitPenalty(model.scaled(x), target))
    return out
