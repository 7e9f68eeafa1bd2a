"""What a score network is fitted to: states, targets and their weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from .networks import like
from .posterior_mean import posterior_mean
from .reverse_diffusion import ReverseDiffusion
from .score_network import ScoreNetwork

Array = NDArray[np.float64]
ALONE = 0.05
"""Mean share of a draw in its own target from which a pool is of no use."""


class Batch(NamedTuple):
    """Network inputs (n, d + 1), wanted outputs (n, d) and weights (n,)."""

    inputs: torch.Tensor
    wanted: torch.Tensor
    weight: torch.Tensor

    def loss(self, network: ScoreNetwork) -> torch.Tensor:
        """Weighted mean square of what is missing."""
        gap = network.net(self.inputs) - self.wanted
        return (self.weight * (gap**2).sum(-1)).mean()


@dataclass(frozen=True, eq=False)
class Targets:
    """Batches of one problem for one network.

    Parameters
    ----------
    problem : ReverseDiffusion
    network : ScoreNetwork
    first_time : float
        Smallest t drawn; times are log-uniform up to the horizon.
    """

    problem: ReverseDiffusion
    network: ScoreNetwork
    first_time: float

    def draw(
        self, n: int, pool: Array, rng: np.random.Generator
    ) -> tuple[Batch, float]:
        """2 n states, and the mean share of a draw in its own target.

        Times are stratified, one in each of n equal cells; every draw of p_data is
        used with xi and -xi, whose 1/s parts cancel to leading order.
        """
        low, high = np.log(self.first_time), np.log(self.problem.horizon)
        cells = (np.arange(n) + rng.random(n)) / n
        t = np.tile(np.exp(low + (high - low) * cells), 2)
        own = np.tile(self.problem.target.sample(n, rng), (2, 1))
        xi = rng.standard_normal((n, own.shape[1]))
        fade, s, v = self.network.scales(t)
        y = fade[:, None] * own + s[:, None] * np.concatenate([xi, -xi])
        data, share = posterior_mean(y, own, pool, fade, s)
        wanted = (fade[:, None] * data - y) / s[:, None] ** 2
        wanted -= self.network.gaussian(y, t)
        wanted *= (v / (fade * self.network.size))[:, None]
        net = self.network.net
        weight = like(net, s / np.sqrt(v))
        batch = Batch(self.network.inputs(y, t), like(net, wanted), weight)
        return batch, float(share.mean())


@dataclass(eq=False)
class Stream:
    """Batches of 2 n states: fresh ones, or from a fixed set in a new order a pass.

    Parameters
    ----------
    targets : Targets
    batch : int
        n.
    states, pool : int
        Size of the fixed set and of the pool behind its targets. Where a draw carries
        more than 5 % of its own target (many dimensions, few draws), or without a
        pool, targets are noise and every batch is drawn afresh.
    rng : numpy.random.Generator
    """

    targets: Targets
    batch: int
    states: int
    pool: int
    rng: np.random.Generator

    def __post_init__(self) -> None:
        target = self.targets.problem.target
        self.none = target.sample(0, self.rng)
        self.share, self.fixed, self.order = 1.0, None, np.empty(0, int)
        if self.pool == 0:
            return
        draws = target.sample(self.pool, self.rng)
        _, self.share = self.targets.draw(100, draws, self.rng)
        if self.share < ALONE:
            self.fixed, _ = self.targets.draw(self.states // 2, draws, self.rng)

    def next(self) -> Batch:
        """The batch of one step."""
        if self.fixed is None:
            return self.targets.draw(self.batch, self.none, self.rng)[0]
        if self.order.size < 2 * self.batch:
            self.order = self.rng.permutation(len(self.fixed.weight))
        rows, self.order = np.split(self.order, [2 * self.batch])
        chosen = torch.from_numpy(rows)
        return Batch(*(part[chosen] for part in self.fixed))
