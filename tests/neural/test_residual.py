"""Networks on the residual: rows, ansatz, exact answers, and kinks in their places."""

import dataclasses

import numpy as np
import pytest
import torch

import hjbpde as hjb
import neural
from neural.ansatz import AnsatzNetwork, Bump, set_weights, weights_of
from neural.evaluation.network_rows import NetworkTables, with_noise
from neural.features import FeatureBasis, FeatureValue
from neural.networks import MLP
from neural.value_model import generator_of

RATE = 0.1


def ansatz(d, seed=0):
    rng = np.random.default_rng(seed)
    box = hjb.Box([-1.0] * d, [2.0] * d)
    basis = FeatureBasis.draw(box, 5, 1.0, rng)
    held = np.ones((d, 2))
    held[0, 1] = 0
    net = MLP(d, 1, (6, 5), generator=torch.Generator().manual_seed(seed))
    lift = FeatureValue(basis, rng.standard_normal(basis.size))
    return AnsatzNetwork(net, lift, Bump(held, 1.5)), box.sample(rng, 7), rng


def learn(problem, seed=0, start=None, **options):
    method = neural.PolicyIteration(neural.Residual(**options), start)
    return neural.solve(problem, method, seed=seed)


def errors(solution):
    """Sup error of V over sup|V|, and of grad V in the relative L2 norm."""
    exact = solution.problem.exact
    x = solution.region.sample(np.random.default_rng(7), 2000)
    value, slope = exact.value(x), exact.gradient(x)
    gap = np.linalg.norm(solution.gradient_at(x) - slope) / np.linalg.norm(slope)
    return np.abs(solution.value_at(x) - value).max() / np.abs(value).max(), gap


def distance_value(d):
    """(1 - exp(-rho d)) / rho: time to go distance d at speed 1, discounted."""
    return (1 - np.exp(-RATE * d)) / RATE


def interval(boundary=None):
    return hjb.ControlProblem(
        drift=lambda x, a: a,
        cost=lambda x, a: 1.0 + 0.0 * x[..., 0],
        controls=hjb.Box(-1.0, 1.0),
        domain=hjb.Box(-1.0, 1.0),
        discount=RATE,
        boundary=boundary or hjb.Dirichlet(0.0),
    )


def square():
    def drift(x, a):
        xp = hjb.namespace(a)
        size = xp.sqrt(xp.sum(a * a, axis=-1))[..., None]
        return a / xp.where(size > 1, size, xp.ones_like(size))

    def best_control(x, p, hess):
        xp = hjb.namespace(p)
        return -p / xp.sqrt(xp.sum(p * p, axis=-1) + 1e-300)[..., None]

    return hjb.ControlProblem(
        drift=drift,
        cost=lambda x, a: 1.0 + 0.0 * x[..., 0],
        controls=hjb.Box([-1.0, -1.0], [1.0, 1.0]),
        domain=hjb.Box([-1.0, -1.0], [1.0, 1.0]),
        discount=RATE,
        boundary=hjb.Dirichlet(0.0),
        best_control=best_control,
    )


@pytest.mark.parametrize("d", [1, 2, 3])
def test_ansatz_derivatives_are_those_of_its_value(d):
    model, x, _ = ansatz(d)
    step, slope, bend = 1e-5, model.gradient(x), model.hessian(x)
    for i in range(d):
        e = step * np.eye(d)[i]
        one = (model.value(x + e) - model.value(x - e)) / (2 * step)
        two = (model.gradient(x + e) - model.gradient(x - e)) / (2 * step)
        np.testing.assert_allclose(one, slope[:, i], atol=1e-8)
        np.testing.assert_allclose(two, bend[:, i], atol=1e-7)


@pytest.mark.parametrize("d", [1, 3])
def test_rows_are_the_equation_and_its_derivatives_by_the_weights(d):
    model, x, rng = ansatz(d)
    rho, f = rng.random(7), rng.standard_normal((7, d))
    sigma = rng.standard_normal((7, d, 2))
    rows = NetworkTables(model, x).equation(rho, f, sigma)
    bend = np.einsum("nik,njk,nij->n", sigma, sigma, model.hessian(x))
    plain = rho * model.value(x) - (f * model.gradient(x)).sum(-1) - 0.5 * bend
    np.testing.assert_allclose(rows[:, -1], plain, rtol=1e-12, atol=1e-13)
    w, step = weights_of(model.net), 1e-5
    for k in range(len(w)):
        ends = []
        for sign in (1, -1):
            set_weights(model.net, w + sign * step * np.eye(len(w))[k])
            ends.append(NetworkTables(model, x).equation(rho, f, sigma)[:, -1])
        quotient = (ends[0] - ends[1]) / (2 * step)
        np.testing.assert_allclose(rows[:, k], quotient, atol=1e-7)


def test_added_noise_is_epsilon_times_the_scaled_laplacian():
    problem = hjb.catalogue.get("manufactured", dimension=2)
    noisy, epsilon = with_noise(problem, 0.3), 0.3
    model, _, rng = ansatz(2)
    x = problem.domain.inner(0.4).sample(rng, 20)
    a = rng.standard_normal((20, 2))
    more = generator_of(noisy, model, x, a) - generator_of(problem, model, x, a)
    half = 0.5 * problem.domain.width
    wanted = epsilon * (np.einsum("nii->ni", model.hessian(x)) * half**2).sum(1)
    np.testing.assert_allclose(more, wanted, rtol=1e-10)


@pytest.mark.parametrize("boundary", ["exact", None])
def test_manufactured_value_in_1d_is_learned_to_1e_6(boundary):
    problem = hjb.catalogue.get("manufactured", boundary=boundary)
    value, slope = errors(learn(problem))
    assert value < 1e-6
    assert slope < 1e-5


def test_manufactured_value_in_2d_is_learned_by_a_small_network():
    problem = hjb.catalogue.get("manufactured", dimension=2)
    solution = learn(problem, hidden=(24,), max_policies=8)
    value, slope = errors(solution)
    assert value < 2e-4
    assert slope < 1e-3
    edge = problem.domain.sample(np.random.default_rng(0), 200)
    edge[:, 0] = 2.0
    np.testing.assert_allclose(
        solution.value_at(edge), problem.exact.value(edge), atol=1e-6
    )


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("boundary", ["exact", None])
def test_manufactured_value_in_2d_is_learned_to_6e_6(boundary, seed):
    problem = hjb.catalogue.get("manufactured", dimension=2, boundary=boundary)
    assert errors(learn(problem, seed))[0] < 6e-6


def test_adam_alone_lowers_the_residual_of_the_direct_form():
    problem = hjb.catalogue.get("manufactured", dimension=1)
    options = {"direct": True, "hidden": (12,), "max_policies": 1}
    short = learn(problem, adam_steps=20, **options).report.details["history"]
    long = learn(problem, adam_steps=600, **options).report.details["history"]
    assert long[-1]["residual"] < short[-1]["residual"]


def test_eikonal_on_the_interval_comes_out_right_with_falling_noise():
    solution = learn(interval(), direct=True, schedule=neural.NoiseSchedule())
    x = np.linspace(-1, 1, 201)[:, None]
    wanted = distance_value(1 - np.abs(x[:, 0]))
    assert np.abs(solution.value_at(x) - wanted).max() < 1e-2
    assert solution.value_at(x)[[0, -1]] == pytest.approx(0, abs=1e-12)
    assert any("artificial noise" in line for line in solution.report.checks)


@pytest.mark.slow
@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("seed", range(8))
def test_eikonal_on_the_interval_is_right_from_every_seed(seed, direct):
    schedule = neural.NoiseSchedule()
    solution = learn(interval(), seed, direct=direct, schedule=schedule)
    x = np.linspace(-1, 1, 201)[:, None]
    wanted = distance_value(1 - np.abs(x[:, 0]))
    assert np.abs(solution.value_at(x) - wanted).max() < 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_eikonal_on_the_square_is_right_from_every_seed(seed):
    schedule = neural.NoiseSchedule(last=0.01, levels=10)
    solution = learn(square(), seed, direct=True, schedule=schedule)
    x = solution.domain.sample(np.random.default_rng(1), 2000)
    wanted = distance_value(1 - np.abs(x).max(-1))
    assert np.abs(solution.value_at(x) - wanted).max() < 4e-2


@pytest.mark.slow
def test_without_noise_most_seeds_end_wrong_at_a_residual_that_does_not_tell():
    x = np.linspace(-1, 1, 201)[:, None]
    wanted = distance_value(1 - np.abs(x[:, 0]))
    found = [learn(interval(), s, direct=True, adam_steps=500) for s in range(8)]
    gaps = [np.abs(s.value_at(x) - wanted).max() for s in found]
    assert sum(gap > 0.1 for gap in gaps) >= 3


def test_reflecting_faces_and_a_periodic_axis_are_rows():
    box = hjb.Box([-1.0, -np.pi], [1.0, np.pi], periodic=(False, True))

    def reward(x, a):
        xp = hjb.namespace(x)
        return xp.cos(x[..., 1]) - x[..., 0] ** 2 - xp.sum(a * a, axis=-1)

    problem = hjb.ControlProblem(
        drift=lambda x, a: a,
        diffusion=0.7,
        reward=reward,
        controls=hjb.Box([-np.inf] * 2, [np.inf] * 2),
        domain=box,
        discount=0.5,
        boundary=hjb.Reflecting(),
    )
    learned = learn(problem, hidden=(14, 14), max_policies=6)
    truth = hjb.solve(problem, (61, 61))
    x = box.sample(np.random.default_rng(0), 200)
    assert np.abs(learned.value_at(x) - truth.value_at(x)).max() < 1e-2


def test_solution_survives_saving(tmp_path):
    problem = hjb.catalogue.get("manufactured", dimension=2, boundary=None)
    solution = learn(problem, hidden=(8,), max_policies=2)
    again = neural.load(solution.save(tmp_path / "v"), problem)
    x = problem.domain.inner(0.5).sample(np.random.default_rng(0), 9)
    assert np.array_equal(solution.value_at(x), again.value_at(x))
    assert np.array_equal(solution.control_at(x), again.control_at(x))


def test_same_seed_same_bits_and_the_exact_answer_is_not_read():
    problem = hjb.catalogue.get("manufactured", boundary=None)
    blind = dataclasses.replace(problem, exact=None)
    x = np.linspace(-1, 1, 9)[:, None]
    one, two = (learn(p, 3, max_policies=2, adam_steps=5) for p in (problem, blind))
    other = learn(problem, 4, max_policies=2, adam_steps=5)
    assert np.array_equal(one.value_at(x), two.value_at(x))
    assert not np.array_equal(one.value_at(x), other.value_at(x))


def test_inadmissible_start_is_refused():
    problem = hjb.catalogue.get("lqr", alpha=0.5)
    with pytest.raises(hjb.ProblemError, match="not admissible"):
        learn(problem, start=lambda x: np.zeros((len(x), 1)))


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"hidden": ()}, "hidden"),
        ({"points_per_weight": 0.5}, "points_per_weight"),
        ({"steps": 0}, "steps"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"schedule": 0.1}, "schedule"),
    ],
)
def test_options_out_of_range_are_refused(options, name):
    with pytest.raises(hjb.ProblemError, match=name):
        neural.Residual(**options)


@pytest.mark.parametrize(
    "options", [{"first": 0.1, "last": 0.2}, {"last": 0.0}, {"levels": 0}]
)
def test_noise_that_does_not_fall_is_refused(options):
    with pytest.raises(hjb.ProblemError, match="NoiseSchedule"):
        neural.NoiseSchedule(**options)
