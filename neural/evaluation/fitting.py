"""Regression of a network on targets: Adam, with a fixed schedule and seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ..networks import MLP, like

Array = NDArray[np.float64]


def mean_square(net: MLP, z: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean squared error of the network's outputs, one scalar."""
    return ((net(z) - targets) ** 2).mean()


def falling_rate(
    optimizer: torch.optim.Optimizer,
    rates: tuple[float, float],
    step: int,
    steps: int,
) -> None:
    """Set the learning rate of one of `steps` steps, falling geometrically."""
    share = step / max(steps - 1, 1)
    for group in optimizer.param_groups:
        group["lr"] = rates[0] * (rates[1] / rates[0]) ** share


def fit(
    net: MLP,
    optimizer: torch.optim.Optimizer,
    z: torch.Tensor,
    targets: Array,
    steps: int,
    rates: tuple[float, float],
    penalties: Sequence[Callable[[MLP], torch.Tensor]] = (),
) -> float:
    """Full-batch Adam steps, the learning rate falling geometrically; last loss.

    z (n, d) scaled states, targets (n, outputs); each penalty adds one scalar. The
    optimizer keeps its moments between calls: successive policies have nearly the
    same targets.
    """
    wanted = like(net, targets)
    loss = torch.zeros(())
    for step in range(steps):
        falling_rate(optimizer, rates, step, steps)
        optimizer.zero_grad()
        loss = mean_square(net, z, wanted)
        total = loss
        for penalty in penalties:
            total = total + penalty(net)
        total.backward()
        optimizer.step()
    return float(loss.detach())
