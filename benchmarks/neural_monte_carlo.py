"""Monte Carlo with an exit, a horizon and the ascending actor; inner 75 %, seed 0."""

from dataclasses import replace

import numpy as np

import hjbpde as hjb
import neural

from .measuring import Measured

QUICK = neural.MonteCarlo(
    paths=512, hidden=(32, 32), value_steps=200, max_policies=12, learning_rate=1e-2
)
SIGMA, HORIZON = 0.5, 1.0


def measure() -> list[Measured]:
    """Largest errors of V and of the controls, over the largest of each."""
    ball = hjb.catalogue.get("unit-ball")
    fine = replace(QUICK, dt=0.02)
    out = learned("unit ball in 2-D, dt = .02", ball, fine, ball.exact)
    out += finite_horizon()
    # Merton's share divides by V'': the quick run is at 6e-2.
    for name, options in (("lqr", QUICK), ("merton", neural.MonteCarlo())):
        problem = hjb.catalogue.get(name)
        uphill = replace(options, actor=neural.Ascent())
        out += learned(f"{name}, Ascent", problem, uphill, problem.exact)
    return out


def learned(
    name: str,
    problem: hjb.ControlProblem,
    evaluation: neural.MonteCarlo,
    exact: hjb.Exact | None,
    goal: float = 5e-2,
) -> list[Measured]:
    """One problem that stands still."""
    solution = neural.solve(problem, neural.PolicyIteration(evaluation))
    assert exact is not None
    assert exact.control is not None
    x = solution.region.sample(np.random.default_rng(1), 5000)
    if problem.exit is not None:
        x = x[np.asarray(problem.exit.region(x)) > 0]
    pairs = [(solution.value_at(x)[:, None], np.asarray(exact.value(x))[:, None])]
    pairs.append((solution.control_at(x), np.asarray(exact.control(x))))
    return rows(name, pairs, goal)


def finite_horizon() -> list[Measured]:
    """Cost (x^2 + a^2)/2 along ``dx = a dt + sigma dW`` until T, nothing after.

    ``V = P x^2/2 + (sigma^2/2) log cosh(T - t)``, ``P = tanh(T - t)``, ``a* = -P x``
    (Yong and Zhou, Stochastic Controls, 1999, chapter 6).
    """
    problem = hjb.ControlProblem(
        drift=lambda x, a: a,
        diffusion=SIGMA,
        cost=lambda x, a: 0.5 * (x[..., 0] ** 2 + a[..., 0] ** 2),
        controls=hjb.Box([-np.inf], [np.inf]),
        domain=hjb.Box([-2.0], [2.0]),
        horizon=HORIZON,
        terminal=lambda x: 0.0 * x[..., 0],
        name="finite LQR",
    )
    solution = neural.solve(problem, neural.PolicyIteration(QUICK))
    assert isinstance(solution, neural.TimedLearnedSolution)
    x, out = np.linspace(-1.5, 1.5, 501)[:, None], []
    for t in (0.0, 0.5 * HORIZON):
        P, level = np.tanh(HORIZON - t), np.log(np.cosh(HORIZON - t))
        value = 0.5 * P * x**2 + 0.5 * SIGMA**2 * level
        found = solution.value_at(x, t=t)[:, None], solution.control_at(x, t=t)
        pairs = [(found[0], value), (found[1], -P * x)]
        out += rows(f"LQR until T = 1, t = {t:g}", pairs, 2e-2)
    return out


def rows(
    name: str, pairs: list[tuple[np.ndarray, np.ndarray]], goal: float
) -> list[Measured]:
    """V first, then the controls."""
    out = []
    for kind, (found, wanted) in zip(("V", "controls"), pairs, strict=True):
        error = (np.abs(found - wanted).max(0) / np.abs(wanted).max(0)).max()
        out.append(Measured(f"{name}: {kind}", float(error), goal))
    return out
