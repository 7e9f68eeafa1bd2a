"""A network of your own for a game, and a pursuer who trained against nobody.

In relative coordinates the pursuer's speed is at most 1 along each axis, the evader's
at most .6, and what counts is the distance squared at T = 1:

    dx = (a + b) dt,  V(x, T) = |x|^2,  V_t - .4 (|V_x| + |V_y|) = 0,

the pursuer minimises. A network in plain PyTorch is trained on this equation with the
terminal value built in: it is some per cent off in the middle, where V is 0, and its
pursuer loses nearly nothing by that. Beside it stands a policy without a value: steer
so that x would be 0 at T if the evader stood still. That is as good as any against such
an evader; the verdict says what it loses against one who knows it.
"""

import numpy as np
import torch

import hjbpde as hjb
import verification

T, FAST, SLOW = 1.0, 1.0, 0.6
problem = hjb.ControlProblem(
    drift=lambda x, a, b: a + b,
    cost=lambda x, a, b: 0.0 * x[..., 0],
    controls=hjb.Box([-FAST] * 2, [FAST] * 2),
    adversary=hjb.Box([-SLOW] * 2, [SLOW] * 2),
    domain=hjb.Box([-2.0, -2.0], [2.0, 2.0]),
    horizon=T,
    terminal=lambda x: (x**2).sum(-1),
    name="pursuit",
)


def exact(x, t):
    """Either axis is a race of its own, won by .4 a unit of time."""
    left = np.maximum(np.abs(x) - (FAST - SLOW) * (T - t), 0.0)
    return (left**2).sum(-1)


def value_of(net, x, t):
    """g(x) + (T - t) N(x, t), x (n, 2) and t (n, 1)."""
    return (x**2).sum(-1) + (T - t[:, 0]) * net(torch.cat([x, t], -1))[:, 0]


def train(steps=1000, points=1024, seed=0):
    """The squared residual at random states and times, by Adam with a falling rate."""
    random = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    layers = torch.nn.Linear(3, 64), torch.nn.Tanh(), torch.nn.Linear(64, 64)
    net = torch.nn.Sequential(*layers, torch.nn.Tanh(), torch.nn.Linear(64, 1))
    net.double()
    adam = torch.optim.Adam(net.parameters(), lr=3e-3)
    rate = torch.optim.lr_scheduler.ExponentialLR(adam, 0.02 ** (1 / steps))
    for _ in range(steps):
        draw = torch.rand(points, 3, generator=random, dtype=torch.float64)
        x = (4.0 * draw[:, :2] - 2.0).requires_grad_()
        t = (T * draw[:, 2:]).requires_grad_()
        total = value_of(net, x, t).sum()
        slope, rise = torch.autograd.grad(total, (x, t), create_graph=True)
        residual = rise[:, 0] - (FAST - SLOW) * slope.abs().sum(-1)
        adam.zero_grad()
        (residual**2).mean().backward()
        adam.step()
        rate.step()
    return net


net = train()


def learned(x, t):
    """The network as array code; t is one time."""
    states = torch.as_tensor(x.reshape(-1, 2))
    with torch.no_grad():
        found = value_of(net, states, torch.full((len(states), 1), float(t)).double())
    return found.numpy().reshape(x.shape[:-1])


def hopeful(x, t):
    """At x = 0 by T, were the evader to stand still."""
    return -np.clip(x / max(T - t, 1e-9), -FAST, FAST)


truth = hjb.solve(problem, (61, 61), times=[0.0, 0.25, 0.5, 0.75, T])
region = hjb.Box([-1.5, -1.5], [1.5, 1.5])
judged = {
    name: verification.cross_check(candidate, truth, region=region, tolerance=2e-2)
    for name, candidate in (
        ("network", verification.Candidate(value=learned)),
        ("hopeful pursuer", verification.Candidate(control=hopeful)),
    )
}

if __name__ == "__main__":
    for name, verdict in judged.items():
        print(f"{name}: {verdict.status}")
        for reason in verdict.reasons:
            print("   " + reason)
        print(f"   the pursuer loses up to {verdict.regret:.1e} of max|V|")
