"""Paths stopped by comparing psi with the value of waiting, in five and more states.

Kind: exact, agreement, contract. The problems are those of
test_stopping_many_states.py: all reduce to one state, which the learner is not told.
"""

import dataclasses
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

import hjbpde as hjb
import neural
from neural.evaluation.earned import earned
from neural.evaluation.rollout import Rollout
from neural.evaluation.steppers import Heun
from neural.networks import MLP
from neural.payoff_network import PayoffNetwork
from neural.stopping_payoff import Payoffs, differences
from neural.value_model import row_scale
from neural.value_network import Link
from neural.waiting_set import LATE, WaitingSet, loss_of_a_moment

_spec = importlib.util.spec_from_file_location(
    "many_states", Path(__file__).with_name("test_stopping_many_states.py")
)
assert _spec is not None and _spec.loader is not None
problems = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(problems)

MODEST = {"paths": 2048, "hidden": (32, 32), "value_steps": 100, "max_policies": 12}
TINY = {
    "paths": 64, "dt": 0.2, "hidden": (8, 8), "value_steps": 2, "max_policies": 1,
    "horizon": 0.6,
}  # fmt: skip


def learn(problem, seed=0, **options):
    method = neural.PolicyIteration(neural.MonteCarlo(**options))
    return neural.solve(problem, method, seed=seed)


def mean_square(learned, value, x, **when):
    """|V - V*| over |V*|, both as root mean squares over states x."""
    wanted = value(x)
    return np.linalg.norm(learned.value_at(x, **when) - wanted) / np.linalg.norm(wanted)


def along_radii(inside, d, n=3000):
    """States whose radius, not volume, is uniform: in 20 states next to all the volume
    of a ball lies at its surface, where V = psi."""
    x = inside(n)
    return x * np.random.default_rng(3).random((n, 1))


def network(problem, seed=0):
    payoffs = Payoffs(problem)
    source = torch.Generator().manual_seed(seed)
    net = MLP(problem.dimension + len(payoffs.stops), 1, (8,), generator=source)
    x = payoffs.box.sample(np.random.default_rng(0), 100)
    model = PayoffNetwork.around(net, payoffs, x)
    return dataclasses.replace(model, link=Link(0.3, 1.7))


@pytest.mark.parametrize("kind", ["put", "game"])
def test_network_with_payoffs_as_inputs_has_its_own_derivatives(kind):
    if kind == "put":
        problem = problems.geometric_put(5)[0]
    else:
        problem = problems.along_a_line(5, "game", 1)[0]
    model, box = network(problem), problem.domain
    x = box.inner(0.7).sample(np.random.default_rng(1), 20)
    slope, bend = differences(model.value, box, x, 1e-4)
    np.testing.assert_allclose(model.gradient(x), slope, atol=1e-5)
    np.testing.assert_allclose(model.hessian(x), bend, atol=1e-4)


def test_what_waiting_a_moment_loses_is_found_without_the_hessian():
    for problem in (problems.ellipsoid(5, 0)[0], problems.geometric_put(5, 0.5)[0]):
        payoffs = Payoffs(problem)
        x = problem.domain.inner(0.8).sample(np.random.default_rng(1), 50)
        # Away from the kink of the put, which differences smear each in their way.
        x = x[np.abs(x.mean(1)) > 0.1]
        a = np.zeros((len(x), 0))
        wanted = payoffs.loss_of_waiting(0, x) * row_scale(problem, x, a)
        np.testing.assert_allclose(loss_of_a_moment(payoffs, 0, x), wanted, atol=5e-3)


def test_first_rule_stops_where_waiting_a_moment_loses():
    """Brownian motion at |x|^2: rho |x|^2 > d."""
    problem, _, _ = problems.ellipsoid(6)
    x = problem.domain.inner(0.9).sample(np.random.default_rng(1), 500)
    stops, _ = WaitingSet.of(Payoffs(problem)).judged(x)
    assert np.array_equal(stops, 0.5 * (x**2).sum(1) > 6)


class Known:
    """The put's own value, off by a number."""

    def __init__(self, problem, value, off=0.0):
        self.problem, self.exact, self.off = problem, value, off

    def value(self, x):
        return self.exact(x) + self.off

    def gradient(self, x):
        return differences(self.exact, self.problem.domain, x, 1e-4)[0]


def known_put(dt):
    """The put in five states under its best rule, and states where one goes on."""
    problem, value = problems.geometric_put(5, 0.5)
    model = Known(problem, value)
    # A hair below: where one stops V = psi up to rounding.
    rule = WaitingSet.of(Payoffs(problem), Known(problem, value, -1e-9))
    bare = dataclasses.replace(problem, stop=None)
    rollout = Rollout(bare, Heun(), dt, 10.0, rule=rule)
    x = problem.domain.inner(0.5).sample(np.random.default_rng(0), 64)
    return rollout, model, x[~rule.judged(x)[0]]


def idle(x):
    return np.zeros((len(x), 0))


def test_paths_from_apart_find_out_a_value_that_is_not_earned():
    """V too high by a tenth of sup|V|, under the best rule of the put."""
    rollout, model, x = known_put(0.2)
    size = np.abs(model.value(x)).max()
    wrong = Known(model.problem, model.exact, 0.1 * size)
    right = earned(rollout, idle, model, x, np.random.default_rng(1))
    found = earned(rollout, idle, wrong, x, np.random.default_rng(1))
    assert right.is_small
    assert not found.is_small
    assert found.mean < -0.03


def test_time_in_the_set_between_looks_is_that_of_a_gaussian_walk():
    """E[R^2] of the overshoot over a far level, by walking there."""
    rng = np.random.default_rng(0)
    s, over = np.zeros(20_000), np.zeros(0)
    while len(s):
        s = s + rng.standard_normal(len(s))
        over, s = np.r_[over, s[s > 8.0] - 8.0], s[s <= 8.0]
        s = s[s > -60.0]
    spread = (over**2).std() / np.sqrt(len(over))
    assert abs((over**2).mean() - LATE) < 4 * spread


def test_looking_once_a_year_hardly_costs_the_put(monkeypatch):
    """Stopped late by .58 sigma sqrt(dt), one would lose V'' jump s^2 / 2 = .017."""
    rollout, model, x = known_put(1.0)
    size = np.abs(model.value(x)).max()
    told = earned(rollout, idle, model, x, np.random.default_rng(1)).mean
    monkeypatch.setattr("neural.waiting_set.LATE", 0.0)
    late = earned(rollout, idle, model, x, np.random.default_rng(1)).mean
    assert late < -5e-3
    assert abs(told) < abs(late) / 3
    assert late * size > -0.02


@pytest.fixture(scope="module")
def tiny_put():
    problem = problems.geometric_put(5)[0]
    return learn(problem, **TINY), problem


def test_rule_comes_back_with_its_problem_and_asks_for_it(tiny_put, tmp_path):
    learned, problem = tiny_put
    same = learn(problem, **TINY)
    path = learned.save(tmp_path / "put")
    again, bare = neural.load(path, problem), neural.load(path)
    x = problem.domain.sample(np.random.default_rng(0), 50)
    for name in ("value_at", "gradient_at", "stopping_at"):
        assert np.array_equal(getattr(again, name)(x), getattr(learned, name)(x))
        assert np.array_equal(getattr(same, name)(x), getattr(learned, name)(x))
    assert (learned.value_at(x) >= problem.stop(x)).all()
    for name in ("value_at", "stopping_at"):
        with pytest.raises(hjb.ProblemError, match="neural.load"):
            getattr(bare, name)(x)
    assert "fresh paths" in str(learned.report)


def test_paths_follow_the_learned_rule(tiny_put):
    learned, problem = tiny_put
    x = problem.domain.sample(np.random.default_rng(0), 300)
    at = x[learned.stopping_at(x)][0]
    paths = learned.simulate(at, 1e-5, 1e-6, 10, seed=0)
    assert (paths.ended <= 2e-6).all()
    np.testing.assert_allclose(paths.rewards[:, -1], problem.stop(at), rtol=2e-2)


def test_dates_of_a_right_are_refused_by_name():
    base = problems.geometric_put(5)[0]
    dated = dataclasses.replace(
        base,
        horizon=1.0,
        terminal=base.stop,
        boundary=hjb.Reflecting(),
        stop=hjb.Stop(base.stop, dates=[0.5, 1.0]),
    )
    for evaluation in (neural.MonteCarlo(), neural.LeastSquares(), neural.Residual()):
        with pytest.raises(hjb.MethodMismatch, match="dates"):
            neural.solve(dated, neural.PolicyIteration(evaluation))


def test_options_that_are_left_out_depend_on_the_problem_and_given_ones_do_not():
    """Quieter targets and a smaller network only where psi is compared with waiting."""
    put, line = problems.geometric_put(5)[0], hjb.catalogue.get("lqr")
    few_states, free = neural.MonteCarlo().filled(line), problems.geometric_put(1)[0]
    many = neural.MonteCarlo().filled(put)
    assert many.paths > few_states.paths
    assert sum(many.hidden) < sum(few_states.hidden)
    assert neural.MonteCarlo().filled(free) == few_states
    given = neural.MonteCarlo(**MODEST)
    assert given.filled(put) == given.filled(line) == given


@pytest.mark.slow
@pytest.mark.parametrize("name", ["put", "sphere"])
def test_default_options_will_do_in_many_states(name):
    """1024 paths and layers of 64 left the put, at dt = .2 as here, 3e-2 off."""
    steps = {}
    if name == "put":
        problem, value = problems.geometric_put(5, 0.5)
        x, steps = problems.inner(problem), {"dt": 0.2}
    else:
        problem, value, inside = problems.ellipsoid(10)
        x = along_radii(inside, 10)
    assert mean_square(learn(problem, **steps), value, x) < 2e-2


@pytest.mark.slow
def test_a_put_on_twenty_assets_is_learned():
    problem, value = problems.geometric_put(20, 0.5)
    learned = learn(problem, dt=0.2, **MODEST)
    assert mean_square(learned, value, problems.inner(problem)) < 2e-2


@pytest.mark.slow
def test_brownian_motion_is_stopped_on_a_sphere_in_twenty_states():
    problem, value, inside = problems.ellipsoid(20)
    learned = learn(problem, **MODEST | {"paths": 4096})
    assert mean_square(learned, value, along_radii(inside, 20)) < 2e-2
    assert mean_square(learned, value, problems.inner(problem)) < 2e-2


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["game", "controlled"])
def test_either_side_may_stop_and_a_push_may_help_in_five_states(kind):
    problem, truth, w = problems.along_a_line(5, kind, seed=1)
    learned = learn(problem, **MODEST)
    x = problems.inner(problem)

    def value(x):
        return truth.value_at((x @ w)[:, None])

    assert mean_square(learned, value, x) < 2e-2


@pytest.mark.slow
def test_stretched_brownian_motion_is_stopped_in_ten_states():
    problem, value, inside = problems.ellipsoid(10, seed=0)
    learned = learn(problem, **MODEST)
    assert mean_square(learned, value, along_radii(inside, 10)) < 2e-2


def american_put(d):
    """The put on a geometric mean with a year to go, no rule on any face; V by a grid
    in the mean alone."""
    year = {"boundary": None, "horizon": 1.0}
    many, one = problems.geometric_put(d, 0.5)[0], problems.geometric_put(1)[0]
    many = dataclasses.replace(
        many, terminal=many.stop, domain=hjb.Box([-1.5] * d, [1.5] * d), **year
    )
    one = dataclasses.replace(
        one, terminal=one.stop, domain=hjb.Box([-3.0], [3.0]), **year
    )
    truth = hjb.solve(one, (801,), times=[0.0, 0.5, 1.0])
    return many, lambda x, t: truth.value_at(x.mean(1)[:, None], t=t)


@pytest.mark.slow
@pytest.mark.parametrize(("d", "policies"), [(5, 12), (10, 24)])
def test_american_puts_on_many_assets_are_learned(d, policies):
    problem, value = american_put(d)
    options = {**MODEST, "max_policies": policies}
    learned = learn(problem, **options)
    x = problems.inner(problem)
    for t in (0.0, 0.5):
        assert mean_square(learned, lambda x, t=t: value(x, t), x, t=t) < 2e-2


def swirling(d=5):
    """Ornstein-Uhlenbeck that turns, a cost of its own in every state, an affine way
    out: nothing to reduce."""
    weights, turn = np.linspace(0.4, 1.6, d), np.roll(np.eye(d), 1, 1)

    def drift(x, a):
        return -0.5 * x + 0.2 * x @ hjb.constant(turn, like=x)

    return hjb.ControlProblem(
        drift=drift,
        diffusion=0.6,
        cost=lambda x, a: (hjb.constant(weights, like=x) * x * x).sum(-1),
        domain=hjb.Box([-1.5] * d, [1.5] * d),
        discount=0.3,
        stop=lambda x: 4.5 + 0.5 * x[..., 0],
    )


@pytest.mark.slow
def test_paths_and_least_squares_agree_where_nothing_reduces():
    """psi alone is 16 % off least squares in the middle."""
    problem = swirling()
    one, two = neural.solve(problem), learn(problem, **MODEST)
    x = problem.domain.inner(0.4).sample(np.random.default_rng(2), 2000)
    psi = problem.stop(x)
    assert np.linalg.norm(psi - one.value_at(x)) > 0.1 * np.linalg.norm(psi)
    assert mean_square(two, one.value_at, x) < 2e-2
