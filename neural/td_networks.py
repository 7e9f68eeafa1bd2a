"""The article's temporal-difference actor-critic, step by step."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from hjbpde.progress import bar_over, last_number

from .checkpoint import NetworkRun
from .networks import MLP, gradient_size, layer_share
from .q_networks import Batch, Fitting, NetworkAnswer, QNetworks, descend
from .value_network import as_answered

KEEP = 0.98
"""Share of the target critic that one step keeps."""


def train_td(given: Fitting) -> NetworkAnswer:
    """Critic on ``y = r dt + e^(-rho dt) Qbar(x', a_w(x'))``, actor on ``max Q``.

    Qbar is a slow copy of the critic. All step sizes fixed, the advantage ``dt q`` in
    Q = V + dt q sinks below the critic's fitting error as dt -> 0.

    Source: the article's TD target and losses L_Q and max_w E Q(x, a_w(x)).
    """
    data, options, generator = given.data, given.options, given.generator
    critic, actor = _networks(data, options, generator)
    slow = copy.deepcopy(critic)
    fits = [torch.optim.Adam(net.parameters()) for net in (critic, actor)]
    fade, n = float(np.exp(-given.rho * data.dt)), len(data.rate)
    changes, norms = [], []
    nets = {"critic": critic, "actor": actor, "slow": slow}
    adams = dict(zip(nets, fits, strict=False))
    logs = {"changes": changes, "norms": norms}
    run = NetworkRun(given.file, nets, adams, generator, logs=logs)
    epochs = range(run.resume()[0], options.sweeps)

    def choose(z: Tensor) -> Tensor:
        return torch.clamp(actor(z), *given.box)

    for sweep, _ in bar_over(
        epochs, epochs, given.progress, "epoch", lambda: last_number("loss", changes)
    ):
        loss = torch.zeros(())
        for fit in fits:
            fit.param_groups[0]["lr"] = options.rate(sweep)
        for _ in range(options.steps):
            k = torch.randint(n, (min(options.batch, n),), generator=generator)
            x, then, a = data.now[k], data.then[k], data.control[k]
            with torch.no_grad():
                ahead = slow(torch.cat([then, choose(then)], 1))[:, 0].double()
                y = (data.rate[k] * data.dt + fade * ahead).to(x)
            loss = ((critic(torch.cat([x, a], 1))[:, 0] - y) ** 2).mean()
            norms.append(_step(loss, fits[0]))
            _step(-critic(torch.cat([x, choose(x)], 1)).mean(), fits[1])
            _follow(slow, critic)
        changes.append(float(loss.detach()) ** 0.5)
        run.keep(sweep + 1)
    value = _distilled(critic, choose, data, options, generator)
    spread = float(np.min(norms)), float(np.max(norms))
    nets = as_answered(value), as_answered(actor)
    share = layer_share(critic.parameters())
    return NetworkAnswer(*nets, data.unit, tuple(changes), spread, share)


def _networks(
    data: Batch, options: QNetworks, generator: torch.Generator
) -> tuple[MLP, MLP]:
    """Critic (starts at 0) and actor (starts near the middle control)."""
    d, m = data.now.shape[1], data.control.shape[1]
    critic = MLP(d + m, 1, options.hidden, generator=generator)
    actor = MLP(d, m, options.hidden, generator=generator)
    with torch.no_grad():
        critic.weights[-1].zero_()
        actor.weights[-1].mul_(0.1)
    return critic.to(data.now), actor.to(data.now)


def _follow(slow: MLP, critic: MLP) -> None:
    """The target critic moves a little towards the critic."""
    with torch.no_grad():
        for old, new in zip(slow.parameters(), critic.parameters(), strict=True):
            old.mul_(KEEP).add_(new, alpha=1.0 - KEEP)


def _step(loss: Tensor, fit: torch.optim.Optimizer) -> float:
    fit.zero_grad()
    loss.backward()
    fit.step()
    return gradient_size(fit.param_groups[0]["params"])


def _distilled(
    critic: MLP,
    choose: Callable[[Tensor], Tensor],
    data: Batch,
    options: QNetworks,
    generator: torch.Generator,
) -> MLP:
    """V(x) = Q(x, a_w(x)) as a network of x alone."""
    value = MLP(data.now.shape[1], 1, options.hidden, generator=generator).to(data.now)
    with torch.no_grad():
        wanted = critic(torch.cat([data.now, choose(data.now)], 1))[:, 0]
        value.weights[-1].zero_()
        value.biases[-1].add_(wanted.mean())
    fit = torch.optim.Adam(value.parameters(), lr=options.learning_rate)

    def loss(k: Tensor) -> Tensor:
        return ((value(data.now[k])[:, 0] - wanted[k]) ** 2).mean()

    for sweep in range(10):
        fit.param_groups[0]["lr"] = options.learning_rate * 0.6**sweep
        descend(loss, fit, options, len(wanted), generator)
    return value
