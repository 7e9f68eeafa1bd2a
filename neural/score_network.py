"""A score network: the best Gaussian's score, and a correction of order one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .forward_process import LinearForward
from .networks import MLP, as_array, like
from .value_network import network_arrays, network_from

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ScoreNetwork:
    """``s(y, t) = -(y - fade m) / v + k F(y', c)``, ``v = fade^2 D^2 + s(t)^2``.

    m and D^2 are the mean and mean variance of the data, y' the state in units of
    sqrt(v) and ``c = log(s / (fade D)) / 2``. The first term is exact for a round
    Gaussian. ``k = fade D / v`` keeps F of order one at every t, where noise
    prediction would ask for a part of order s(t) of the network's output.

    Source: the preconditioning of Karras et al., NeurIPS 2022, arXiv 2206.00364,
    table 1 and appendix B.6, with the output scale bounded as t -> 0.
    """

    net: MLP
    process: LinearForward
    mean: Array
    size: float

    @classmethod
    def draw(
        cls,
        process: LinearForward,
        points: Array,
        hidden: Sequence[int],
        generator: torch.Generator,
    ) -> ScoreNetwork:
        """An untrained network for data `points` (n, d)."""
        d = points.shape[1]
        net = MLP(d + 1, d, hidden, generator=generator)
        with torch.no_grad():
            net.weights[-1].zero_()
        size = float(np.sqrt(points.var(axis=0).mean()))
        return cls(net, process, points.mean(axis=0), size)

    def scales(self, t: Array) -> tuple[Array, Array, Array]:
        """fade, s and v at times t."""
        fade, s = np.asarray(self.process.fade(t)), np.asarray(self.process.spread(t))
        return fade, s, (fade * self.size) ** 2 + s**2

    def inputs(self, y: Array, t: Array) -> Tensor:
        """The network's inputs (n, d + 1) at y (n, d), t (n,), as its weights are."""
        fade, s, v = self.scales(t)
        scaled = (y - fade[:, None] * self.mean) / np.sqrt(v)[:, None]
        level = 0.5 * np.log(s / (fade * self.size))
        return like(self.net, np.column_stack([scaled, level]))

    def gaussian(self, y: Array, t: Array) -> Array:
        """The first term at y (n, d), t (n,)."""
        fade, _, v = self.scales(t)
        return -(y - fade[:, None] * self.mean) / v[:, None]

    def __call__(self, y: Array, t: float | Array) -> Array:
        """The score at y (n, d), forward time t > 0 (a number or (n,)), (n, d)."""
        times = np.broadcast_to(np.asarray(t, float), (len(y),))
        fade, _, v = self.scales(times)
        with torch.no_grad():
            F = as_array(self.net(self.inputs(y, times)))
        return self.gaussian(y, times) + (fade * self.size / v)[:, None] * F

    def arrays(self) -> dict[str, Array]:
        """Weights and scales."""
        own = {"mean": self.mean, "size": np.array([self.size])}
        return {**own, **network_arrays(self.net)}

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, Array], process: LinearForward
    ) -> ScoreNetwork:
        """The inverse of `arrays`."""
        net = network_from(arrays)
        return cls(net, process, arrays["mean"], float(arrays["size"][0]))
