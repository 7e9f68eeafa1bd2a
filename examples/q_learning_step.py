"""Model-free Q-learning and the time step: bias, spread, and what collapses as dt -> 0.

The article's LQR. `spread_over_seeds` fits the gain from 20 000 transitions: the bias
falls like dt^order, the noise grows like dt^(-1/2), so there is a best dt, and the
second-order target moves it up. `collapse` fits one network, with one budget, to the
*exact* Q_dt = V + dt q: its maximiser is lost as dt -> 0, because the advantage sinks
below the fitting error, while the same network fitted to q keeps it. The loss is one
of approximation: in the exact quadratic class plain Q and little-q agree.
"""

import numpy as np
import torch

import hjbpde as hjb
import neural
import verification

problem = hjb.catalogue.get("lqr")
assert problem.exact is not None and problem.exact.control is not None
K = float(-problem.exact.control(np.ones((1, 1)))[0, 0])
P = 0.1 * K
STEPS = (0.2, 0.1, 0.05, 0.02, 0.005)


def spread_over_seeds(order: int, dt: float, seeds: int) -> tuple[float, float]:
    """Relative bias and spread of the gain."""
    method = neural.QLearning(neural.LittleQ(order), dt=dt)
    gains = []
    for seed in range(seeds):
        actor = method.learn(problem, seed, False).actor
        assert actor is not None
        gains.append((actor(np.zeros((1, 1))) - actor(np.ones((1, 1))))[0, 0])
    error = np.array(gains) / K - 1.0
    return float(error.mean()), float(error.std())


def study(order: int, seeds: int) -> tuple[list[tuple[float, float]], float]:
    """(bias, spread) at every dt, and the dt of the smallest |bias| + spread."""
    rows = [spread_over_seeds(order, dt, seeds) for dt in STEPS]
    totals = [abs(bias) + spread for bias, spread in rows]
    return rows, STEPS[int(np.argmin(totals))]


def collapse(dt: float | None, steps: int = 1500, seed: int = 0) -> float:
    """Relative policy error of a network fitted to exact V + dt q (None: to q)."""
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    x, a = rng.uniform(-1.5, 1.5, 4096), rng.uniform(-5.0, 5.0, 4096)
    q = -0.05 * (a + K * x) ** 2
    target = q if dt is None else -0.5 * P * x**2 + dt * q
    net = neural.MLP(2, 1, (32, 32), generator=generator)
    z = torch.from_numpy(np.stack([x / 1.5, a / 5.0], axis=1))
    wanted = torch.from_numpy((target - target.mean()) / target.std())[:, None]
    adam = torch.optim.Adam(net.parameters(), lr=5e-3)
    for _ in range(steps):
        k = torch.randint(len(x), (512,), generator=generator)
        loss = ((net(z[k]) - wanted[k]) ** 2).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    states, tried = np.linspace(-1.5, 1.5, 61), np.linspace(-5.0, 5.0, 401)
    pairs = np.stack(np.meshgrid(states / 1.5, tried / 5.0, indexing="ij"), axis=-1)
    with torch.no_grad():
        values = net(torch.from_numpy(pairs.reshape(-1, 2))).numpy().reshape(61, 401)
    chosen = tried[values.argmax(axis=1)]
    gap = np.linalg.norm(chosen + K * states) / np.linalg.norm(K * states)
    return float(gap)


def judged(method: neural.QLearning) -> verification.Verdict:
    """The verdict on the learned policy, its regret computed on a grid."""
    learned = neural.solve(problem, method)
    policy = verification.Candidate(control=learned.control_at)
    region = problem.domain.inner(0.75) if problem.domain is not None else None
    return verification.cross_check(policy, hjb.solve(problem, 201), region=region)


verdict = judged(neural.QLearning())

if __name__ == "__main__":
    for order in (1, 2):
        rows, best = study(order, 20)
        for dt, (bias, spread) in zip(STEPS, rows, strict=True):
            print(f"order {order}  dt {dt:<6} bias {bias:+.2%}  spread {spread:.2%}")
        print(f"order {order}  best dt {best}")
    for dt in (1.0, 0.1, 0.01, 0.001):
        print(f"plain Q_dt, network, dt {dt:<6} policy error {collapse(dt):.1%}")
    print(f"little q, same network          policy error {collapse(None):.1%}")
    print(verdict)
    networks = neural.QLearning(neural.LittleQ(2, neural.QNetworks()))
    print("networks:", judged(networks))
