"""Extrapolation in the time step, and the two ways the actor follows the value."""

import dataclasses

import numpy as np
import pytest
import torch

import hjbpde as hjb
import neural
from neural.evaluation.actor import Schedule
from neural.evaluation.rollout import Rollout
from neural.time_state import TimedProblem
from neural.value_network import Link, PolicyNetwork, ValueNetwork

STEPPERS = (neural.EulerMaruyama(), neural.Heun())


def decay():
    """``dx = -x dt``, reward ``-x^2`` until T = 1, then -x: no noise, no control."""
    return hjb.ControlProblem(
        drift=lambda x, a: -x,
        diffusion=None,
        reward=lambda x, a: -(x[..., 0] ** 2),
        domain=hjb.Box([-2.0], [2.0]),
        horizon=1.0,
        terminal=lambda x: -x[..., 0],
    )


def order(stepper, richardson):
    """From the errors of V(1, 0) = -(1 - e^-2)/2 - e^-1 at dt = .1 and .05."""
    exact = -0.5 * (1 - np.exp(-2.0)) - np.exp(-1.0)
    errors = []
    for dt in (0.1, 0.05):
        rollout = Rollout(
            TimedProblem.of(decay()), stepper, dt, 1.0, richardson=richardson
        )
        payoff, _ = rollout.payoffs(
            lambda y: np.zeros((len(y), 0)),
            None,
            np.array([[1.0, 0.0]]),
            np.random.default_rng(0),
        )
        errors.append(abs(payoff[0] - exact))
    return np.log2(errors[0] / errors[1])


@pytest.mark.parametrize("stepper", STEPPERS)
def test_extrapolation_raises_the_order_by_one(stepper):
    assert abs(order(stepper, False) - stepper.order) < 0.2
    assert abs(order(stepper, True) - stepper.order - 1) < 0.3


class Bowl:
    """V = x^2 + 1/4, what ``dx = dW / 2`` costs at x^2 and rho = 1."""

    def value(self, x):
        return x[..., 0] ** 2 + 0.25

    def gradient(self, x):
        return 2.0 * x

    def hessian(self, x):
        return np.full((len(x), 1, 1), 2.0)

    def arrays(self):
        return {}


def test_paths_beyond_an_artificial_face_are_continued_with_little_bias():
    """Four of five leave. V of the face alone is 9 % off here, of order 1/2.

    With slope and bend of V what is left is the payoff of the step that leaves, whose
    predictor is cut at the face: sqrt(dt) off for a time dt, order 3/2.
    """
    problem = hjb.ControlProblem(
        drift=lambda x, a: 0.0 * x, diffusion=0.5, cost=lambda x, a: x[..., 0] ** 2,
        domain=hjb.Box([-1.0], [1.0]), discount=1.0,
    )  # fmt: skip
    x, errors = np.full((40_000, 1), 0.95), []
    for dt in (0.1, 0.025):
        rollout = Rollout(problem, neural.Heun(), dt, 1.0)
        rng = np.random.default_rng(0)
        found, left = rollout.payoffs(lambda y: np.zeros((len(y), 0)), Bowl(), x, rng)
        assert left > 0.5
        errors.append(found.mean() / Bowl().value(x[:1])[0] - 1.0)
    assert abs(0.5 * np.log2(errors[0] / errors[1]) - 1.5) < 0.3
    assert abs(errors[0]) < 0.02


def test_extrapolation_removes_most_of_the_bias_under_noise():
    problem = hjb.catalogue.get("lqr")
    exact = neural.solve(problem).model
    x, off = np.full((4000, 1), 0.8), []
    for richardson in (False, True):
        rollout = Rollout(problem, STEPPERS[0], 0.1, 4.0, richardson=richardson)
        payoff, _ = rollout.payoffs(
            problem.exact.control, exact, x, np.random.default_rng(0)
        )
        off.append(abs(float(payoff.mean() - exact.value(x[:1])[0])))
    assert off[1] < 0.2 * off[0]


def test_surfaces_and_reflection_bring_the_order_to_one():
    plain = hjb.catalogue.get("lqr")
    for problem, expected in (
        (plain, 2),
        (dataclasses.replace(plain, boundary=hjb.Reflecting()), 1),
        (hjb.catalogue.get("unit-ball"), 1),
        (TimedProblem.of(decay()), 2),
    ):
        assert Rollout(problem, neural.Heun(), 0.1, 1.0).order == expected


@pytest.mark.slow
def test_training_extrapolates_when_asked():
    problem, x = hjb.catalogue.get("lqr"), np.linspace(-1.5, 1.5, 9)[:, None]
    plain = neural.MonteCarlo(
        paths=64, dt=0.1, horizon=2.0, hidden=(16,), value_steps=20, max_policies=1
    )
    one, two = (
        neural.solve(problem, neural.PolicyIteration(m)).value_at(x)
        for m in (plain, dataclasses.replace(plain, richardson=True))
    )
    assert np.isfinite(two).all()
    assert not np.array_equal(one, two)


def smooth_model(box):
    """Some value without a kink; only its derivatives matter below."""
    net = neural.MLP(1, 1, (16,), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        net.weights[0].mul_(0.4)
    return ValueNetwork(net, box.centre, 0.5 * box.width, Link(0.0, 5.0))


@pytest.mark.parametrize(
    ("limits", "tolerance"), [((-np.inf, np.inf), 0.05), ((-0.8, 0.3), 0.1)]
)
def test_ascent_finds_the_greedy_control_of_a_frozen_value(limits, tolerance):
    """f = a, cost a^2/2: the best control is -V'; a network rounds its cut corner."""
    box = hjb.Box([-1.0], [1.0])
    problem = hjb.ControlProblem(
        drift=lambda x, a: a,
        diffusion=0.3,
        cost=lambda x, a: 0.5 * a[..., 0] ** 2,
        controls=hjb.Box([limits[0]], [limits[1]]),
        domain=box,
        discount=1.0,
    )
    model = smooth_model(box)
    x = np.linspace(-1, 1, 200)[:, None]
    wanted = np.clip(-model.gradient(x), *limits)
    net = neural.MLP(1, 1, (32,), generator=torch.Generator().manual_seed(1))
    actor = PolicyNetwork(
        net, problem, model.centre, model.half, np.zeros(1), np.ones(1)
    )
    adam = torch.optim.Adam(net.parameters())
    neural.Ascent().improve(actor, model, x, adam, Schedule(2000, (2e-2, 1e-3)))
    off = np.abs(actor(x) - wanted)
    assert off.max() < tolerance * np.abs(wanted).max()
    assert (actor(x) >= limits[0]).all()
    assert (actor(x) <= limits[1]).all()


QUICK = neural.MonteCarlo(
    paths=512, hidden=(32, 32), value_steps=200, max_policies=12, learning_rate=1e-2
)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "policies"), [("lqr", 12), ("merton", 20)])
def test_ascent_learns_the_policy(name, policies):
    problem = hjb.catalogue.get(name)
    assert problem.exact is not None
    assert problem.exact.control is not None
    uphill = dataclasses.replace(QUICK, max_policies=policies, actor=neural.Ascent())
    learned = neural.solve(problem, neural.PolicyIteration(uphill))
    x = learned.region.sample(np.random.default_rng(0), 500)
    control = problem.exact.control(x)
    off = np.abs(learned.control_at(x) - control).max(0)
    assert (off < 5e-2 * np.abs(control).max(0)).all()


def test_ascent_refuses_what_has_no_slope():
    problem = dataclasses.replace(
        hjb.catalogue.get("lqr"), controls=hjb.Finite([-1.0, 0.0, 1.0])
    )
    method = neural.PolicyIteration(neural.MonteCarlo(actor=neural.Ascent()))
    with pytest.raises(hjb.MethodMismatch, match="finite"):
        neural.solve(problem, method)
    with pytest.raises(hjb.ProblemError, match="actor"):
        neural.MonteCarlo(actor="ascent")  # type: ignore[arg-type]
