"""Paths that end in a region or at a face: the bridge, its order, what is learned."""

import dataclasses

import numpy as np
import pytest

import hjbpde as hjb
import neural
from neural.evaluation import crossing
from neural.evaluation.path_starts import LEFT, path_starts
from neural.evaluation.rollout import Rollout
from neural.evaluation.training import Training

SHORT = neural.MonteCarlo(
    paths=64, dt=0.05, hidden=(16,), value_steps=20, max_policies=2
)
QUICK = neural.MonteCarlo(
    paths=512, dt=0.02, hidden=(32, 32), value_steps=200, max_policies=12,
    learning_rate=1e-2,
)  # fmt: skip
EULER = neural.EulerMaruyama()


def no_control(x):
    return np.zeros((len(x), 0))


def squared(x):
    return hjb.namespace(x).sum(x * x, axis=-1)


def disc(dimension=2):
    """Brownian motion until |x| = 1, paid 1 a unit of time: V = (1 - |x|^2)/d."""
    return hjb.ControlProblem(
        drift=lambda x, a: 0.0 * x,
        diffusion=1.0,
        reward=lambda x, a: 1.0 + 0.0 * x[..., 0],
        domain=hjb.Box([-1.2] * dimension, [1.2] * dimension),
        exit=hjb.Exit(lambda x: 1.0 - squared(x) ** 0.5, 0.0),
        boundary=hjb.Reflecting(),
        exact=hjb.Exact(lambda x: (1.0 - (x * x).sum(-1)) / dimension),
        name="disc",
    )


def mean_payoff(problem, x0, dt, n, seed=0, model=None, horizon=3.0):
    """Mean and standard error of n paths from x0."""
    rollout = Rollout(problem, EULER, dt, horizon)
    x = np.tile(np.asarray(x0, float), (n, 1))
    payoff, _ = rollout.payoffs(no_control, model, x, np.random.default_rng(seed))
    return payoff.mean(), payoff.std() / np.sqrt(n)


def barrier(how, push, discount=0.5, sigma=0.8):
    """``dX = push dt + sigma dW`` until 0, which pays 1."""
    at_zero = (
        {"exit": hjb.Exit(lambda x: x[..., 0], 1.0)}
        if how == "exit"
        else {"boundary": {(0, "low"): hjb.Dirichlet(1.0)}}
    )
    low = -1.0 if how == "exit" else 0.0
    return hjb.ControlProblem(
        drift=lambda x, a: push + 0.0 * x,
        diffusion=sigma,
        reward=lambda x, a: 0.0 * x[..., 0],
        domain=hjb.Box([low], [60.0]),
        discount=discount,
        **at_zero,
    )


@pytest.mark.parametrize("how", ["exit", "face"])
@pytest.mark.parametrize("push", [-0.3, 0.0, 0.4])
@pytest.mark.parametrize("dt", [2.0, 0.5])
def test_time_of_reaching_a_plane_has_its_law_at_any_step(how, push, dt):
    """E e^(-rho tau) = exp(-a (mu + sqrt(mu^2 + 2 rho s^2)) / s^2) from a > 0.

    Borodin and Salminen, Handbook of Brownian Motion, formula 2.2.0.1. With constant
    data a step of any length is exact, so the only error is that of the sample.
    """
    rho, sigma, a = 0.5, 0.8, 0.7
    mean, error = mean_payoff(barrier(how, push), [a], dt, 20000, horizon=40.0)
    root = np.sqrt(push**2 + 2 * rho * sigma**2)
    assert error < 5e-3
    assert abs(mean - np.exp(-a * (push + root) / sigma**2)) < 4 * error


def seen_at_steps_only(surface, move, rng):
    """What a simulation without the bridge does."""
    return np.where(surface.distance(move.y)[0] <= 0, 1.0, np.inf)


def test_bridge_removes_the_error_of_order_a_half_at_the_exit(monkeypatch):
    """A factor 4 in dt leaves half of an error of order 1/2; standard error .0018."""
    problem, x0 = disc(), [0.3, 0.2]
    exact = problem.exact.value(np.array([x0]))[0]

    def errors():
        found = (mean_payoff(problem, x0, dt, 40000, 1)[0] for dt in (0.08, 0.02))
        return [abs(mean - exact) for mean in found]

    bridged = errors()
    monkeypatch.setattr(crossing, "_share_of_step", seen_at_steps_only)
    naive = errors()
    assert 1.6 < naive[0] / naive[1] < 2.5
    assert min(naive) > 0.03
    assert max(bridged) < 0.008


def test_noise_of_a_quadratic_value_is_removed_wholly():
    """V(X) - V(x) = p.k + k'Hk/2 for quadratic V, up to the state on the circle."""
    problem, x0 = disc(), [0.3, 0.2]
    model = neural.solve(problem).model
    mean, error = mean_payoff(problem, x0, 0.05, 1000, 1, model)
    assert abs(mean - problem.exact.value(np.array([x0]))[0]) < 1e-6
    assert error < 1e-6


def test_second_order_of_the_martingale_has_mean_zero():
    """A value that is wrong and bent, taken as control variate, changes no mean."""
    problem, x0 = disc(), [0.3, 0.2]

    class Wrong:
        def value(self, x):
            return 0.0 * x[:, 0]

        def gradient(self, x):
            return np.stack([x[:, 0] ** 2, 0.5 + 0.0 * x[:, 1]], -1)

        def hessian(self, x):
            out = np.zeros((len(x), 2, 2))
            out[:, 0, 0], out[:, 1, 1] = 2.0 * x[:, 0], 1.5
            return out

        def arrays(self):
            return {}

    mean, error = mean_payoff(problem, x0, 0.01, 10000, 1, Wrong())
    assert abs(mean - problem.exact.value(np.array([x0]))[0]) < 4 * error


@pytest.mark.parametrize("power", [1, 2, 4])
def test_level_need_not_be_a_distance(power):
    """1 - |x|, 1 - |x|^2 and 1 - |x|^4 are the same region."""
    region = hjb.Exit(lambda x: 1.0 - squared(x) ** (0.5 * power), 0.0)
    problem, x0 = dataclasses.replace(disc(), exit=region), [0.3, 0.2]
    mean, error = mean_payoff(problem, x0, 0.02, 20000)
    assert abs(mean - problem.exact.value(np.array([x0]))[0]) < 4 * error


def test_drift_alone_ends_paths_at_the_surface_and_not_at_the_step():
    """``dX = dt`` from 0 to 1, paid e^(-s) ds: 1 - 1/e, and 2/e at the end."""
    problem = hjb.ControlProblem(
        drift=lambda x, a: 1.0 + 0.0 * x,
        diffusion=None,
        reward=lambda x, a: 1.0 + 0.0 * x[..., 0],
        domain=hjb.Box([0.0], [1.3]),
        discount=1.0,
        exit=hjb.Exit(lambda x: 1.0 - x[..., 0], 2.0),
    )
    mean, _ = mean_payoff(problem, [0.0], 0.3, 4, horizon=5.0)
    assert abs(mean - (1.0 + np.exp(-1.0))) < 1e-9


def test_path_that_starts_on_a_face_takes_its_value_at_once():
    problem = barrier("face", 0.4)
    mean, error = mean_payoff(problem, [0.0], 0.5, 100)
    assert (mean, error) == (1.0, 0.0)


def test_paths_start_where_the_process_runs_and_most_of_them_end():
    problem = disc()
    x = path_starts(problem, 500, np.random.default_rng(0))
    assert (squared(x) < 1).all()
    learned = neural.solve(problem, neural.PolicyIteration(SHORT))
    horizon = learned.report.details["horizon"]
    rollout = Rollout(problem, EULER, 0.05, horizon)
    rng = np.random.default_rng(3)
    one, _ = rollout.pair(
        no_control, None, x, rng, lambda: rng.standard_normal((len(x), 2))
    )
    assert one.alive.mean() < 3 * LEFT
    assert "still ran" in str(learned.report)


def test_value_in_the_region_is_what_it_takes():
    problem = dataclasses.replace(
        disc(), exit=hjb.Exit(lambda x: 1.0 - squared(x) ** 0.5, lambda x: x[..., 0])
    )
    learned = neural.solve(problem, neural.PolicyIteration(SHORT))
    x = np.array([[1.1, 0.0], [-0.9, 0.9]])
    assert np.array_equal(learned.value_at(x), x[:, 0])


@pytest.mark.slow
@pytest.mark.parametrize("dimension", [1, 2])
def test_mean_exit_time_is_learned_without_discount(dimension):
    problem = disc(dimension)
    learned = neural.solve(problem, neural.PolicyIteration(QUICK))
    x = learned.region.sample(np.random.default_rng(0), 2000)
    x = x[squared(x) < 1]
    off = np.abs(learned.value_at(x) - problem.exact.value(x)).max()
    assert off < 5e-2 / dimension


@pytest.mark.slow
def test_interrupted_run_with_an_exit_goes_on_bit_for_bit(tmp_path, killed):
    problem, path = hjb.catalogue.get("unit-ball", dimension=1), tmp_path / "run"
    three = dataclasses.replace(SHORT, max_policies=3)
    whole = neural.solve(problem, neural.PolicyIteration(three), seed=3)
    kept = neural.PolicyIteration(dataclasses.replace(three, checkpoint=path))
    with killed(Training, "step", 2):
        neural.solve(problem, kept, seed=3)
    resumed = neural.solve(problem, kept, seed=3)
    x = np.random.default_rng(0).uniform(-0.6, 0.6, (50, 1))
    assert np.array_equal(resumed.value_at(x), whole.value_at(x))
    assert np.array_equal(resumed.control_at(x), whole.control_at(x))
    assert resumed.report.residuals == whole.report.residuals
