"""Model-free Q-learning and the time step: bias, spread, and what collapses as dt -> 0.

The article's LQR. `spread_over_seeds` fits the gain from 20 000 transitions: the bias
falls like dt^order, the noise grows like dt^(-1/2), so there is a best dt, and the
second-order target moves it up. `collapse` fits one network, with one budget, to the
*exact* Q_dt = V + dt q: its maximiser is lost as dt -> 0, because the advantage sinks
below the fitting error, while the same network fitted to q keeps it. The loss is one
of approximation: in the exact quadratic class plain Q and little-q agree.

Run as a command it prints both studies and draws them (docs/images/q_learning_dt.png).
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

import hjbpde as hjb
import neural
import verification

problem = hjb.catalogue.get("lqr")
assert problem.exact is not None and problem.exact.control is not None
K = float(-problem.exact.control(np.ones((1, 1)))[0, 0])
P = 0.1 * K
STEPS = (0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002)
COLLAPSING = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
SEEDS = 20
FORMS = {
    "little-q, networks": neural.LittleQ(2, neural.QNetworks()),
    "temporal differences": neural.TemporalDifference(),
    "temporal differences, networks": neural.TemporalDifference(neural.QNetworks()),
}
Rows = list[tuple[float, float]]


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


def study(order: int, seeds: int) -> tuple[Rows, float]:
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


def draw_gains(axes: Any, order: int, rows: Rows, best: float) -> None:
    """|bias| and spread of the gain against dt, a star at the best dt.

    Markers are hollow where the bias is within two standard errors of 0.
    """
    colour, marker = {1: ("#D55E00", "o"), 2: ("#0072B2", "s")}[order]
    bias, spread = np.abs(100.0 * np.array(rows)).T
    style = {"color": colour, "marker": marker, "markersize": 6}
    axes.loglog(STEPS, bias, label=f"order {order}: |bias|", **style)
    unsure = np.where(bias < 2.0 * spread / np.sqrt(SEEDS), bias, np.nan)
    axes.loglog(STEPS, unsure, linestyle="none", markerfacecolor="white", **style)
    axes.loglog(STEPS, spread, "--", color=colour, label=f"order {order}: spread")
    total = (bias + spread)[STEPS.index(best)]
    label = f"order {order}: |bias| + spread at the best dt, {best:g}"
    axes.plot(
        best, total, "*", color=colour, ms=15, mec="black", ls="none", label=label
    )


def draw_collapse(axes: Any, errors: list[float], alone: float) -> None:
    """The plain Q-function's policy error against dt, and that of q alone."""
    label = "fitted to Q = V + dt q"
    axes.loglog(
        COLLAPSING, 100.0 * np.array(errors), "D-", color="#000000", label=label
    )
    axes.axhline(100.0 * alone, ls="-.", color="#009E73", label="fitted to q alone")


def picture(
    studies: dict[int, tuple[Rows, float]], errors: list[float], q: float
) -> Any:
    """Both studies, log-log, in colours that the colour-blind tell apart."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11.0, 4.6), layout="tight")
    for order, (rows, best) in studies.items():
        draw_gains(left, order, rows, best)
    hollow = "hollow: bias within 2 standard errors of 0"
    left.plot([], [], "o", color="black", mfc="white", label=hollow)
    left.set_ylim(top=500.0)
    left.set_ylabel("error of the gain K, % of the Riccati gain")
    left.set_title(f"Little-q from 20 000 transitions, {SEEDS} seeds")
    draw_collapse(right, errors, q)
    right.set_ylabel("error of the policy, % of its size (L2)")
    right.set_title("One network, one budget: the plain Q-function collapses")
    for axes in (left, right):
        axes.set_xlabel("time step dt, in the problem's units of time")
        axes.grid(True, which="major", alpha=0.4)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.legend(fontsize=8, loc="upper left" if axes is left else "upper right")
    return figure


verdict = judged(neural.QLearning())

if __name__ == "__main__":
    studies = {order: study(order, SEEDS) for order in (1, 2)}
    for order, (rows, best) in studies.items():
        for dt, (bias, spread) in zip(STEPS, rows, strict=True):
            print(f"order {order}  dt {dt:<6} bias {bias:+.2%}  spread {spread:.2%}")
        print(f"order {order}  best dt {best}")
    errors, alone = [collapse(dt) for dt in COLLAPSING], collapse(None)
    for dt, error in zip(COLLAPSING, errors, strict=True):
        print(f"plain Q_dt, network, dt {dt:<6} policy error {error:.1%}")
    print(f"little q, same network          policy error {alone:.1%}")
    folder = Path(__file__).resolve().parents[1] / "docs" / "images"
    picture(studies, errors, alone).savefig(folder / "q_learning_dt.png", dpi=110)
    print(verdict)
    for name, form in FORMS.items():
        print(f"{name}:", judged(neural.QLearning(form)))
