"""Problems that end in a region, against closed forms on curved surfaces."""

import dataclasses
import math

import numpy as np
import pytest

import hjbpde as hjb
import neural


def inside(solution, n=3000):
    """States where the process runs, at the inner 75 % along artificial axes."""
    x = solution.region.sample(np.random.default_rng(7), n)
    return x[np.asarray(solution.problem.exit.region(x)) > 0]


def error(solution):
    x, exact = inside(solution), solution.problem.exact.value
    value = exact(x)
    return np.abs(solution.value_at(x) - value).max() / np.abs(value).max()


@pytest.mark.parametrize("dimension", [1, 2, 3])
def test_unit_ball_is_learned_to_1e_9(dimension):
    """Zhou, Han and Lu (2021), section 5.1: V = k |x|^2, u* = -beta k x / q."""
    learned = neural.solve(hjb.catalogue.get("unit-ball", dimension=dimension))
    x, exact = inside(learned), learned.problem.exact
    assert learned.report.status == "converged"
    assert error(learned) < 1e-9
    assert np.abs(learned.gradient_at(x) - exact.gradient(x)).max() < 1e-8
    assert np.abs(learned.control_at(x) - exact.control(x)).max() < 1e-8


def ellipse(x):
    """Positive within x^2/1.7^2 + y^2 < 1."""
    return 1.0 - (x[..., 0] / 1.7) ** 2 - x[..., 1] ** 2


def disc(x):
    """Positive outside a target of radius 1/2."""
    return (x[..., 0] - 0.5) ** 2 + x[..., 1] ** 2 - 0.25


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("region", [ellipse, disc])
def test_manufactured_value_is_learned_up_to_a_curved_surface(region, seed):
    base = hjb.catalogue.get("manufactured", dimension=2, boundary=None)
    leaving = hjb.Exit(region, base.exact.value)
    learned = neural.solve(dataclasses.replace(base, exit=leaving), seed=seed)
    assert error(learned) < 1e-7


def harmonic(x):
    """e^x cos y, whose Laplacian is 0."""
    xp = hjb.namespace(x)
    return xp.exp(x[..., 0]) * xp.cos(x[..., 1])


def brownian(reward=0.0, value=harmonic, exact=harmonic):
    """Brownian motion in the unit disc, without control or discount."""
    return hjb.ControlProblem(
        drift=lambda x, a: 0.0 * x,
        diffusion=1.0,
        reward=lambda x, a: reward + 0.0 * x[..., 0],
        domain=hjb.Box([-1.2] * 2, [1.2] * 2),
        exit=hjb.Exit(
            lambda x: 1.0 - hjb.namespace(x).sum(x * x, axis=-1) ** 0.5, value
        ),
        boundary=hjb.Reflecting(),
        exact=hjb.Exact(exact),
    )


def test_exit_value_of_brownian_motion_is_harmonic():
    assert error(neural.solve(brownian())) < 1e-7


def test_mean_exit_time_of_a_disc():
    """E tau = (1 - |x|^2)/d for Brownian motion from x in the unit ball."""
    problem = brownian(1.0, 0.0, lambda x: 0.5 * (1.0 - (x * x).sum(-1)))
    assert error(neural.solve(problem)) < 1e-9


def test_value_where_the_process_has_ended_is_what_it_takes():
    learned = neural.solve(brownian())
    x = np.array([[1.1, 0.0], [-0.9, 0.9], [0.0, 0.0]])
    np.testing.assert_allclose(learned.value_at(x), harmonic(x), atol=1e-8)
    assert np.array_equal(learned.value_at(x[:2]), harmonic(x[:2]))


def test_horizon_and_exit_go_together():
    """``V = sin x + (1 - x^2) cos t`` on [-1, 1], V = sin x at both ends."""

    def value(x, t):
        z = x[..., 0]
        return hjb.namespace(x).sin(z) + (1.0 - z * z) * math.cos(t)

    def reward(x, a, t):
        z, xp = x[..., 0], hjb.namespace(x)
        second = -xp.sin(z) - 2.0 * math.cos(t)
        return 0.3 * value(x, t) + (1.0 - z * z) * math.sin(t) - 0.32 * second

    problem = hjb.ControlProblem(
        drift=lambda x, a: 0.0 * x,
        diffusion=0.8,
        reward=reward,
        domain=hjb.Box([-1.3], [1.3]),
        discount=0.3,
        horizon=1.0,
        terminal=lambda x: value(x, 1.0),
        exit=hjb.Exit(
            lambda x: 1.0 - x[..., 0] ** 2, lambda x: hjb.namespace(x).sin(x[..., 0])
        ),
    )
    learned = neural.solve(problem)
    x = np.linspace(-0.999, 0.999, 81)[:, None]
    for t in (0.0, 0.4, 1.0):
        assert np.abs(learned.value_at(x, t=t) - value(x, t)).max() < 1e-6
    end = np.array([[1.2]])
    assert np.array_equal(learned.value_at(end, t=0.4), np.sin(end[:, 0]))


def test_small_hole_is_seen_in_the_residual():
    """log r is harmonic outside a hole of radius 0.1 that no feature resolves."""

    def region(x):
        r = hjb.namespace(x).sum(x * x, axis=-1) ** 0.5
        return hjb.namespace(x).minimum(1.0 - r, r - 0.1)

    def value(x):
        return 0.5 * hjb.namespace(x).log(hjb.namespace(x).sum(x * x, axis=-1))

    problem = dataclasses.replace(brownian(), exit=hjb.Exit(region, value))
    learned = neural.solve(problem)
    assert learned.report.details["history"][-1]["residual"] > 1e-2


def test_solution_comes_back_bit_for_bit_with_its_problem(tmp_path):
    problem = brownian()
    learned = neural.solve(problem)
    path = learned.save(tmp_path / "disc")
    again, bare = neural.load(path, problem), neural.load(path)
    x = learned.region.sample(np.random.default_rng(0), 50)
    assert np.array_equal(again.value_at(x), learned.value_at(x))
    with pytest.raises(hjb.ProblemError, match="neural.load"):
        bare.value_at(x)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_region_that_is_nowhere_or_everywhere_is_refused(sign):
    leaving = hjb.Exit(lambda x: sign + 0.0 * x[..., 0], 0.0)
    with pytest.raises(hjb.ProblemError, match="hardly a state"):
        neural.solve(dataclasses.replace(brownian(), exit=leaving))


@pytest.mark.parametrize(
    ("leaving", "words"),
    [
        (hjb.Exit(lambda x: 1.0 - x * x, 0.0), "region.x. has shape"),
        (hjb.Exit(lambda x: 1.0 - (x * x).sum(-1), lambda x: x), "value.x. has shape"),
        (
            hjb.Exit(lambda x: 1.0 - (x * x).sum(-1), lambda x: x[..., 0] + np.nan),
            "not finite",
        ),
    ],
)
def test_unusable_exit_is_refused_by_name(leaving, words):
    with pytest.raises(hjb.ProblemError, match=words):
        neural.solve(dataclasses.replace(brownian(), exit=leaving))


def test_other_methods_refuse_an_exit_by_name():
    with pytest.raises(hjb.MethodMismatch, match="'exit'"):
        neural.solve(brownian(), neural.QLearning())
