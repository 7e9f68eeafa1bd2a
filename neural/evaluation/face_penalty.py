"""What the rules of the faces ask of a network, as terms of its loss."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from hjbpde.boundary import Dirichlet, Reflecting, Robin
from hjbpde.problem import ControlProblem

from ..networks import MLP
from ..sampling import FacePoints
from ..value_network import ValueNetwork

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
        link, half = model.link, float(model.half[self.axis])
        if link.exponential:
            value = link.scale * torch.exp(u)
            rate = value
        else:
            value = link.shift + link.scale * u
            rate = torch.full_like(u, link.scale)
        normal = self.outward * rate * slope[:, self.axis] / half
        gap = self.alpha * value + self.beta * normal - self.g
        size = abs(self.alpha) + abs(self.beta) / half
        return ((gap / (size * rate)) ** 2).mean()


def face_penalties(
    problem: ControlProblem, model: ValueNetwork, rng: np.random.Generator
) -> list[FacePenalty]:
    """One term for every face with a Dirichlet, Reflecting or Robin rule."""
    assert problem.domain is not None
    out = []
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
        data = np.asarray(g(points.x) if callable(g) else g, dtype=float)
        target = torch.from_numpy(np.array(np.broadcast_to(data, (len(points.x),))))
        z = model.scaled(points.x)
        out.append(FacePenalty(z, points.axis, points.sign, alpha, beta, target))
    return out
