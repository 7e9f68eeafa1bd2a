"""Monte Carlo with a horizon: V(x, t) against closed forms, paths that end at T."""

import dataclasses
import math

import numpy as np
import pytest
from scipy.integrate import solve_ivp

import hjbpde as hjb
import neural
from neural.evaluation.path_starts import path_starts
from neural.evaluation.rollout import Rollout
from neural.evaluation.training import Training
from neural.time_state import TimedProblem

SHORT = neural.MonteCarlo(
    paths=64, dt=0.1, hidden=(16,), value_steps=20, max_policies=2
)
QUICK = neural.MonteCarlo(
    paths=512, hidden=(32, 32), value_steps=200, max_policies=12, learning_rate=1e-2
)
STEPPERS = (neural.EulerMaruyama(), neural.Heun())


def linear_quadratic(alpha=0.5, sigma=0.5):
    """Cost ``(x^2 + a^2)/2`` along ``dx = (alpha x + a) dt + sigma dW``, then
    ``(x - 1)^2`` at T = 1; V, and a* = -V', from the Riccati equations in time to go.

    ``V = P x^2/2 + q x + c``, ``P' = 1 + 2 alpha P - P^2``, ``q' = (alpha - P) q``,
    ``c' = (sigma^2 P - q^2)/2`` (Yong and Zhou, Stochastic Controls, 1999, chapter 6).
    """

    def rate(_, y):
        P, q, _ = y
        squares = 0.5 * sigma**2 * P - 0.5 * q * q
        return [1 + 2 * alpha * P - P * P, (alpha - P) * q, squares]

    sol = solve_ivp(
        rate, (0, 1), [2.0, -2.0, 1.0], rtol=1e-12, atol=1e-13, dense_output=True
    ).sol

    def exact(x, t):
        P, q, c = sol(1.0 - t)
        z = x[:, 0]
        return 0.5 * P * z * z + q * z + c, -(P * z + q)[:, None]

    problem = hjb.ControlProblem(
        drift=lambda x, a: alpha * x + a,
        diffusion=sigma,
        cost=lambda x, a: 0.5 * (x[..., 0] ** 2 + a[..., 0] ** 2),
        controls=hjb.Box([-np.inf], [np.inf]),
        domain=hjb.Box([-2.0], [2.0]),
        horizon=1.0,
        terminal=lambda x: (x[..., 0] - 1.0) ** 2,
        name="finite LQR",
    )
    return problem, exact


def moving(sigma=0.3):
    """``V = .2 sin(x + t) - k(t) x^2``, made exact by the reward; functions of t.

    ``f = -x/2 + .3 sin x + a``, cost of control a^2/4, so a* = 2 V'; the discount is
    ``.2 + .1 cos t``.
    """

    def wave(x, t):
        xp, z = hjb.namespace(x), x[..., 0]
        k, pace = 0.5 + 0.25 * math.cos(2 * t), 0.5 * math.sin(2 * t)
        v = 0.2 * xp.sin(z + t) - k * z * z
        later = pace * z * z + 0.2 * xp.cos(z + t)
        slope = 0.2 * xp.cos(z + t) - 2 * k * z
        return v, later, slope, -2 * k - 0.2 * xp.sin(z + t)

    def free(z):
        return -0.5 * z + 0.3 * hjb.namespace(z).sin(z)

    def rho(t):
        return 0.2 + 0.1 * math.cos(t)

    def reward(x, a, t):
        v, later, slope, bend = wave(x, t)
        paid = (free(x[..., 0]) + slope) * slope
        return rho(t) * v - later - 0.5 * sigma**2 * bend - paid - 0.25 * a[..., 0] ** 2

    problem = hjb.ControlProblem(
        drift=lambda x, a: free(x) + a,
        diffusion=sigma,
        reward=reward,
        controls=hjb.Box([-np.inf], [np.inf]),
        domain=hjb.Box([-2.0], [2.0]),
        discount=lambda x, t: rho(t) + 0.0 * x[..., 0],
        horizon=1.0,
        terminal=lambda x: wave(x, 1.0)[0],
        name="moving",
    )

    def exact(x, t):
        v, _, slope, _ = wave(x, t)
        return v, 2.0 * slope[:, None]

    return problem, exact


@pytest.mark.slow
@pytest.mark.parametrize("case", [linear_quadratic, moving])
def test_value_and_policy_are_learned_at_every_time(case):
    problem, exact = case()
    learned = neural.solve(problem, neural.PolicyIteration(QUICK))
    assert isinstance(learned, neural.TimedLearnedSolution)
    x = problem.domain.inner(0.75).sample(np.random.default_rng(7), 1000)
    for t in (0.0, 0.5):
        value, control = exact(x, t)
        off = np.abs(learned.value_at(x, t=t) - value).max()
        assert off < 2e-2 * np.abs(value).max()
        off = np.abs(learned.control_at(x, t=t) - control).max()
        assert off < 5e-2 * np.abs(control).max()


def payoff_errors(stepper, steps):
    """Mean payoffs of the optimal policy from (.8, t = .1), against V."""
    given, exact = moving()
    problem = TimedProblem.of(given)
    model = neural.solve(given).model
    y = np.tile([0.8, 0.1], (4000, 1))

    def policy(y):
        out = np.empty((len(y), 1))
        for t in np.unique(y[:, 1]):
            here = y[:, 1] == t
            out[here] = exact(y[here, :1], t)[1]
        return out

    out = []
    for dt in steps:
        rollout = Rollout(problem, stepper, dt, 1.0)
        payoff, _ = rollout.payoffs(policy, model, y, np.random.default_rng(0))
        out.append(abs(payoff.mean() - exact(y[:1, :1], 0.1)[0][0]))
    return out


def test_both_steppers_keep_their_order_up_to_the_horizon():
    euler, heun = (payoff_errors(s, (0.1, 0.05)) for s in STEPPERS)
    assert abs(np.log2(euler[0] / euler[1]) - 1) < 0.3
    assert heun[0] < 0.1 * euler[0]


@pytest.mark.parametrize("stepper", STEPPERS)
@pytest.mark.parametrize("dt", [0.3, 0.25, 7.0])
def test_paths_end_exactly_at_the_horizon(stepper, dt):
    """Drift 1, reward and discount 0, g = x: every payoff is x + (T - t)."""
    given = hjb.ControlProblem(
        drift=lambda x, a: 1.0 + 0.0 * x,
        diffusion=None,
        reward=lambda x, a: 0.0 * x[..., 0],
        domain=hjb.Box([0.0], [5.0]),
        horizon=1.0,
        terminal=lambda x: x[..., 0],
    )
    y = np.array([[0.5, 0.0], [0.5, 0.37], [1.0, 0.999], [1.0, 1.0]])
    rollout = Rollout(TimedProblem.of(given), stepper, dt, 1.0)
    payoff, stopped = rollout.payoffs(
        lambda y: np.zeros((len(y), 0)), None, y, np.random.default_rng(0)
    )
    np.testing.assert_allclose(payoff, y[:, 0] + 1.0 - y[:, 1], rtol=1e-12)
    assert stopped == 0.0


def test_starts_share_few_times_that_move_from_batch_to_batch():
    problem, rng = TimedProblem.of(moving()[0]), np.random.default_rng(0)
    one, two = (np.unique(path_starts(problem, 2000, rng)[:, 1]) for _ in range(2))
    assert len(one) < 20
    assert one[0] == 0.0
    assert set(one) & set(two) == {0.0}


def test_horizon_and_exit_go_together():
    """Paid 1 a unit of time until |x| = 1 or T = 1/2: V(0, 0) = E min(tau, 1/2).

    ``P(tau > t) = sum_n 4/(n pi) sin(n pi/2) e^(-n^2 pi^2 t/8)`` over odd n.
    """
    problem = hjb.ControlProblem(
        drift=lambda x, a: 0.0 * x,
        diffusion=1.0,
        reward=lambda x, a: 1.0 + 0.0 * x[..., 0],
        domain=hjb.Box([-1.3], [1.3]),
        horizon=0.5,
        terminal=lambda x: 0.0 * x[..., 0],
        exit=hjb.Exit(lambda x: 1.0 - x[..., 0] ** 2, 0.0),
    )
    rollout = Rollout(TimedProblem.of(problem), neural.Heun(), 0.05, 0.5)
    y = np.tile([0.0, 0.0], (20000, 1))
    payoff, _ = rollout.payoffs(
        lambda y: np.zeros((len(y), 0)), None, y, np.random.default_rng(0)
    )
    n = np.arange(1, 40, 2)
    rate = n**2 * np.pi**2 / 8
    exact = 4 / (n * np.pi) * np.sin(n * np.pi / 2) * (1 - np.exp(-rate / 2)) / rate
    assert abs(payoff.mean() - exact.sum()) < 4 * payoff.std() / np.sqrt(len(y))
    learned = neural.solve(problem, neural.PolicyIteration(SHORT))
    end = np.array([[1.2]])
    assert learned.value_at(end, t=0.2) == 0.0


@pytest.mark.slow
def test_interrupted_run_with_a_horizon_goes_on_bit_for_bit(tmp_path, killed):
    (problem, _), path = moving(), tmp_path / "run"
    three = dataclasses.replace(SHORT, max_policies=3)
    whole = neural.solve(problem, neural.PolicyIteration(three), seed=3)
    kept = neural.PolicyIteration(dataclasses.replace(three, checkpoint=path))
    with killed(Training, "step", 2):
        neural.solve(problem, kept, seed=3)
    resumed = neural.solve(problem, kept, seed=3)
    x = np.linspace(-1.5, 1.5, 50)[:, None]
    assert np.array_equal(resumed.value_at(x, t=0.4), whole.value_at(x, t=0.4))
    assert resumed.report.residuals == whole.report.residuals
