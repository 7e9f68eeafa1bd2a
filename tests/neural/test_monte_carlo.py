"""The article's algorithm: accuracy, time-step bias, reproducibility, divergence."""

import dataclasses

import numpy as np
import pytest
import torch

import hjbpde as hjb
import neural
from neural.ends import Ends
from neural.evaluation.face_penalty import face_penalties
from neural.evaluation.first_guess import changes_sign, first_guess, relinked
from neural.evaluation.fitting import fit, mean_square, settle
from neural.evaluation.rollout import Rollout
from neural.evaluation.training import Training
from neural.value_network import Link, ValueNetwork

SHORT = neural.MonteCarlo(
    paths=64, dt=0.1, horizon=2.0, hidden=(16,), value_steps=20, max_policies=2
)


def idle(x):
    return np.zeros((len(x), 1))


def riccati(x):
    exact = hjb.catalogue.get("lqr").exact
    assert exact is not None
    assert exact.control is not None
    return exact.control(x)


@pytest.mark.slow
def test_article_lqr_is_learned_from_the_open_loop_policy():
    problem = hjb.catalogue.get("lqr")
    method = neural.PolicyIteration(neural.MonteCarlo(), start=idle)
    learned = neural.solve(problem, method)
    x = learned.region.sample(np.random.default_rng(0), 500)
    assert problem.exact is not None
    value, control = problem.exact.value(x), riccati(x)
    assert np.abs(learned.value_at(x) - value).max() < 5e-2 * np.abs(value).max()
    off = np.abs(learned.control_at(x) - control).max()
    assert off < 5e-2 * np.abs(control).max()
    assert 0 < learned.report.details["time_step_bias"] < 0.03


@pytest.mark.slow
def test_merton_value_and_controls_are_learned():
    problem = hjb.catalogue.get("merton")
    learned = neural.solve(problem, neural.PolicyIteration(neural.MonteCarlo()))
    x = learned.region.sample(np.random.default_rng(0), 500)
    assert problem.exact is not None
    assert problem.exact.control is not None
    value, control = problem.exact.value(x), problem.exact.control(x)
    assert np.abs(learned.value_at(x) - value).max() < 2e-2 * np.abs(value).max()
    off = np.abs(learned.control_at(x) / control - 1).max(0)
    assert off[0] < 0.05
    assert off[1] < 0.03


def weak_errors(stepper, steps=(0.2, 0.1, 0.05)):
    """V of the optimal LQR policy by rollouts, against the exact value."""
    problem = hjb.catalogue.get("lqr")
    exact = neural.solve(problem).model
    rng, x = np.random.default_rng(0), np.full((4000, 1), 0.8)
    out = []
    for dt in steps:
        rollout = Rollout(problem, stepper, dt, 4.0)
        payoff, _ = rollout.payoffs(riccati, exact, x, rng)
        out.append(float(payoff.mean() - exact.value(x[:1])[0]))
    return np.abs(out)


def test_heun_has_less_bias_than_euler_and_both_have_their_order():
    euler, heun = (weak_errors(s) for s in (neural.EulerMaruyama(), neural.Heun()))
    assert heun[-1] < 0.3 * euler[-1]
    assert abs(np.log2(euler[1] / euler[2]) - 1) < 0.3
    assert abs(np.log2(heun[1] / heun[2]) - 2) < 0.7


@pytest.mark.parametrize("boundary", ["homogeneous", "exact"])
def test_face_penalties_are_zero_exactly_where_the_rules_hold(boundary):
    problem = hjb.catalogue.get("merton", boundary=boundary)
    assert problem.exact is not None
    domain, centre = problem.domain, np.zeros((1, 1))
    # Without a hidden layer u is linear in y, and so is log(-V) of Merton.
    net = neural.MLP(1, 1, ())
    link = Link(0.0, float(problem.exact.value(centre)[0]), True)
    model = ValueNetwork(net, domain.centre, 0.5 * domain.width, link)
    terms = face_penalties(problem, model, np.random.default_rng(0))
    sums = []
    for slope in (-2.0, -1.8):
        with torch.no_grad():
            net.weights[0].fill_(slope)
            net.biases[0].zero_()
        sums.append(sum(float(term(net, model).detach()) for term in terms))
    assert len(terms) == 2
    assert sums[0] < 1e-20
    assert sums[1] > 1e-3


def costs_with_given_gains():
    """A cost that Dirichlet data turn into a gain on one side."""
    return hjb.ControlProblem(
        drift=lambda x, a: a,
        diffusion=0.3,
        cost=lambda x, a: 0.01 + x[..., 0] ** 2 + a[..., 0] ** 2,
        controls=hjb.Box(-1.0, 1.0),
        domain=hjb.Box(0.0, 2.0),
        discount=1.0,
        boundary={(0, "low"): hjb.Dirichlet(-1.0), (0, "high"): hjb.Dirichlet(4.0)},
    )


def test_no_logarithm_of_a_value_whose_sign_changes():
    """Payoffs of the first policy over decades, data of another sign on a face."""
    problem, net = costs_with_given_gains(), neural.MLP(1, 1, (4,))
    x = np.linspace(0.0, 2.0, 50)[:, None]
    nowhere = Ends(x[:0], np.zeros(0))
    paid = np.exp(2.0 * x[:, 0])
    model, _ = first_guess(net, problem, x, paid, nowhere)
    assert not model.link.exponential
    plain = dataclasses.replace(problem, boundary=None)
    model, _ = first_guess(net, plain, x, paid, nowhere)
    assert model.link.exponential
    assert not changes_sign(model, paid)
    better = paid - 5.0
    assert changes_sign(model, better)
    spanned = relinked(model, better).link
    assert not spanned.exponential
    assert np.abs(spanned.inverse(better)).max() <= 1.0 + 1e-12


def test_control_variate_removes_most_of_the_noise():
    problem = hjb.catalogue.get("lqr")
    exact = neural.solve(problem).model
    x = np.full((500, 1), 0.5)
    spread = []
    for on in (True, False):
        rollout = Rollout(problem, neural.Heun(), 0.02, 2.0, on)
        payoff, _ = rollout.payoffs(riccati, exact, x, np.random.default_rng(0))
        spread.append(payoff.std())
    assert spread[0] < 0.3 * spread[1]


def test_robin_face_gives_the_value_of_merton():
    problem = hjb.catalogue.get("merton")
    model = neural.solve(problem).model
    assert problem.exact is not None
    assert problem.exact.control is not None
    x = np.full((2000, 1), -1.9)
    rollout = Rollout(problem, neural.EulerMaruyama(), 0.01, 2.0)
    control = problem.exact.control
    payoff, _ = rollout.payoffs(control, model, x, np.random.default_rng(0))
    assert abs(payoff.mean() / problem.exact.value(x[:1])[0] - 1) < 2e-2


def test_same_seed_same_bits_and_the_exact_answer_is_not_read():
    problem = hjb.catalogue.get("lqr")
    blind = dataclasses.replace(problem, exact=None)
    method, x = neural.PolicyIteration(SHORT), np.linspace(-1, 1, 9)[:, None]
    first = neural.solve(problem, method, seed=5)
    second = neural.solve(blind, method, seed=5)
    assert np.array_equal(first.value_at(x), second.value_at(x))
    assert np.array_equal(first.control_at(x), second.control_at(x))
    assert "stopped" in str(first.report)
    assert "time step" in str(first.report)


def test_a_diverging_run_is_stopped_and_its_last_good_state_kept():
    wild = dataclasses.replace(SHORT, learning_rate=30.0, max_policies=20)
    problem = hjb.catalogue.get("lqr")
    learned = neural.solve(problem, neural.PolicyIteration(wild))
    assert learned.report.status in ("diverged", "not converged")
    assert np.isfinite(learned.value_at(np.linspace(-1, 1, 9)[:, None])).all()


@pytest.mark.parametrize("option", [{"paths": 0}, {"dt": -1.0}, {"horizon": 1e-3}])
def test_options_out_of_range_are_refused(option):
    with pytest.raises(hjb.ProblemError, match=next(iter(option))):
        neural.MonteCarlo(**option)


def test_faces_that_paths_cannot_follow_are_a_mismatch():
    problem = hjb.catalogue.get("lqr", boundary=hjb.Extrapolate())
    with pytest.raises(hjb.MethodMismatch, match="Extrapolate"):
        neural.solve(problem, neural.PolicyIteration(SHORT))


def test_an_interrupted_run_goes_on_from_its_checkpoint(tmp_path, killed):
    """Killed after the second policy of four: the same bits as never killed."""
    problem = hjb.catalogue.get("merton")
    path = tmp_path / "run"
    four = dataclasses.replace(SHORT, max_policies=4)
    whole = neural.solve(problem, neural.PolicyIteration(four), seed=3)
    kept = neural.PolicyIteration(dataclasses.replace(four, checkpoint=path))
    with killed(Training, "step", 2):
        neural.solve(problem, kept, seed=3)
    resumed = neural.solve(problem, kept, seed=3)
    x = resumed.region.sample(np.random.default_rng(0), 100)
    assert np.array_equal(resumed.value_at(x), whole.value_at(x))
    assert np.array_equal(resumed.control_at(x), whole.control_at(x))
    assert resumed.report.residuals == whole.report.residuals
    with pytest.raises(hjb.ProblemError, match="another problem, method or seed"):
        neural.solve(problem, kept, seed=4)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(hjb.ProblemError, match="truncated"):
        neural.solve(problem, kept, seed=3)


def rows(x, scatter, rng):
    """Network inputs x (n, 1) and cos(3 x) with noise, as tensors."""
    y = np.cos(3.0 * x) + scatter * rng.standard_normal(x.shape)
    return torch.from_numpy(x), torch.from_numpy(y)


def test_the_last_fit_ends_where_adam_still_circles():
    """The same work from the same weights; targets without noise."""
    rng = np.random.default_rng(0)
    z, wanted = rows(np.linspace(-1, 1, 200)[:, None], 0.0, rng)
    losses = []
    for last in (False, True):
        net = neural.MLP(1, 1, (16,), generator=torch.Generator().manual_seed(0))
        adam = torch.optim.Adam(net.parameters())
        fit(net, adam, z, wanted.numpy(), 100 if last else 400, (1e-2, 1e-3))
        if last:
            settle(net, (z, wanted), (z, wanted), 300)
        losses.append(float(mean_square(net, z, wanted).detach()))
    assert losses[1] < 1e-2 * losses[0]


@pytest.mark.slow
def test_the_last_fit_stops_before_it_follows_the_noise():
    """Few noisy targets, many weights: without a look at others these are lost."""
    rng = np.random.default_rng(1)
    few, apart = (rows(rng.uniform(-1, 1, (60, 1)), 0.3, rng) for _ in range(2))
    losses = []
    for watched in (apart, few):
        net = neural.MLP(1, 1, (64, 64), generator=torch.Generator().manual_seed(0))
        adam = torch.optim.Adam(net.parameters())
        fit(net, adam, few[0], few[1].numpy(), 100, (1e-2, 1e-3))
        before = float(mean_square(net, *apart).detach())
        settle(net, few, watched, 2000)
        losses.append(float(mean_square(net, *apart).detach()))
    assert losses[0] <= before
    assert losses[0] < 0.5 * losses[1]
