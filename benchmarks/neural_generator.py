"""The generator of a network: forward Taylor pass against nested differentiation."""

import numpy as np
import torch

from neural.generator import generator_autograd, generator_taylor
from neural.networks import MLP

from .measuring import Measured, seconds

BATCH = 4096


def measure() -> list[Measured]:
    """Ratio of times with the gradient of the weights, and the difference of values."""
    torch.set_num_threads(1)
    out = []
    for d in (1, 2, 4, 10, 20):
        source = torch.Generator().manual_seed(d)
        net = MLP(d, 1, (64, 64, 64), generator=source)
        x, f = torch.randn(2, BATCH, d, generator=source, dtype=torch.float64)
        sigma = torch.randn(BATCH, d, d, generator=source, dtype=torch.float64)

        def trained(generator, net=net, x=x, f=f, sigma=sigma) -> None:
            loss = (generator(net, x, f, sigma) ** 2).mean()
            torch.autograd.grad(loss, list(net.parameters()), allow_unused=True)

        nested = seconds(lambda run=trained: run(generator_autograd), 5)
        forward = seconds(lambda run=trained: run(generator_taylor), 5)
        one = generator_autograd(net, x, f, sigma).detach().numpy()
        two = generator_taylor(net, x, f, sigma).detach().numpy()
        apart = float(np.abs(one - two).max() / np.abs(one).max())
        goal = 1.5 if d >= 4 else 0.0
        what = f"d = {d}: times faster"
        out.append(Measured(what, nested / forward, goal, at_most=False))
        out.append(Measured(f"d = {d}: apart", apart, 1e-12))
    return out
