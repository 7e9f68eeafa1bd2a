"""Regression of a network on targets: Adam, with a fixed schedule and seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from hjbpde.errors import ProblemError

from ..networks import MLP, like

Array = NDArray[np.float64]
ROUND = 50
"""Steps of L-BFGS, and pairs it remembers, between two looks at what is set apart."""
PATIENCE = 3
"""Rounds in a row that may bring nothing there."""


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
        sum((penalty(net) for penalty in penalties), start=loss).backward()
        optimizer.step()
    return float(loss.detach())


def refuse_lost(values: Array, rate: float) -> None:
    """Refuse to go on where the first fit to finite targets left no numbers.

    Raises
    ------
    ProblemError
        Values that are NaN or infinite.
    """
    if not np.isfinite(values).all():
        raise ProblemError(
            "MonteCarlo: V became NaN or infinite in the first fit, although its "
            "targets are finite: the steps of Adam were too long. Give a smaller "
            f"learning_rate (now {rate:g})."
        )


def settle(
    net: MLP,
    fitted: tuple[torch.Tensor, torch.Tensor],
    apart: tuple[torch.Tensor, torch.Tensor],
    steps: int,
    penalties: Sequence[Callable[[MLP], torch.Tensor]] = (),
) -> None:
    """At most `steps` of L-BFGS on `fitted`, as long as the loss `apart` falls.

    Both are scaled states (n, d) and targets (n, outputs). Adam circles a minimum at
    the distance of its rate, which the slope of V shows first: it decides the policy.
    What is set apart keeps the network from bending after the noise of the targets.
    """

    def loss(rows: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return sum((p(net) for p in penalties), start=mean_square(net, *rows))

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        total = loss(fitted)
        total.backward()
        return total.detach()

    optimizer = torch.optim.LBFGS(
        net.parameters(), max_iter=ROUND, history_size=ROUND,
        tolerance_grad=0.0, tolerance_change=0.0, line_search_fn="strong_wolfe",
    )  # fmt: skip
    best, lowest, since = copied(net), float(loss(apart).detach()), 0
    for _ in range(math.ceil(steps / ROUND)):
        optimizer.step(closure)
        reached = float(loss(apart).detach())
        if reached < lowest:
            best, lowest, since = copied(net), reached, 0
            continue
        since += 1
        if since == PATIENCE:
            break
    net.load_state_dict(best)


def copied(net: MLP) -> dict[str, torch.Tensor]:
    """The weights of a network as they are now."""
    return {name: weight.clone() for name, weight in net.state_dict().items()}
