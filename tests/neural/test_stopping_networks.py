"""Rights to stop, learned by networks: closed forms, a published price, the grid.

Kind: exact, agreement, contract.
"""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from scipy.special import i0, i1

import hjbpde as hjb
import neural
from neural.evaluation.rollout import less_scattered
from neural.free_boundary import advanced_by_slopes
from neural.root_clock import OnRootClock
from neural.stopping_payoff import Payoffs, differences
from neural.stopping_set import StoppingSet
from neural.value_network import Link, ValueNetwork
from verification import cross_check

STRIKE = 1.0
QUICK = {"paths": 256, "hidden": (24, 24), "value_steps": 150, "max_policies": 6}
MODEST = {"paths": 512, "hidden": (32, 32), "value_steps": 200, "max_policies": 12}


def learn(problem, evaluation, seed=0):
    return neural.solve(problem, neural.PolicyIteration(evaluation), seed=seed)


def error(learned, exact, n=2000):
    """Sup error of V over sup|V|, on the whole region."""
    x = learned.region.sample(np.random.default_rng(7), n)
    value = exact(x)
    return np.abs(learned.value_at(x) - value).max() / np.abs(value).max()


def perpetual(rate=0.05, sigma=0.3):
    """The put without horizon: McKean (1965). Problem, V, and log S*.

    V is K - S below S* = K g / (1 + g) and (K - S*) (S / S*)^-g above it, with
    g = 2 r / sigma^2; states are log S.
    """
    g = 2 * rate / sigma**2
    edge = STRIKE * g / (1 + g)

    def value(x):
        S = np.exp(x[..., 0])
        return np.where(S <= edge, STRIKE - S, (STRIKE - edge) * (S / edge) ** -g)

    problem = hjb.ControlProblem(
        drift=lambda x, a: 0.0 * x + rate - 0.5 * sigma**2,
        diffusion=sigma,
        reward=lambda x, a: 0.0 * x[..., 0],
        domain=hjb.Box(-1.5, 1.5),
        boundary={(0, "high"): hjb.Dirichlet(value)},
        discount=rate,
        stop=lambda x: np.maximum(STRIKE - np.exp(x[..., 0]), 0.0),
        name="perpetual put",
    )
    return problem, value, np.log(edge)


def put():
    return perpetual()[0]


def stretched(by="controller", sense="cost", stretch=2.0):
    """Brownian motion in a plane, one axis stretched, that ends at psi = -|y|^2.

    With y the unstretched state and rho = 1/2, V = -R^2 I_0(|y|) / I_0(R) inside
    |y| < R and psi beyond, where z I_1(z) = 2 I_0(z) at z = R: V and its slope fit.
    Stopping earns a negative cost; an adversary who may stop has the same rule where
    the sense is turned.
    """
    R = brentq(lambda z: z * i1(z) / i0(z) - 2, 0.5, 10)
    axes = np.array([1.0, stretch])

    def psi(x):
        return -((x / hjb.constant(axes, like=x)) ** 2).sum(-1)

    def value(x):
        r = np.sqrt(-psi(x))
        inside = -(R**2) * i0(np.minimum(r, R)) / i0(R)
        return np.where(r < R, inside, psi(x))

    problem = hjb.ControlProblem(
        drift=lambda x, a: 0.0 * x,
        diffusion=np.diag(axes),
        **{sense: lambda x, a: 0.0 * x[..., 0]},
        domain=hjb.Box(-1.5 * R * axes, 1.4 * R * axes),
        boundary=hjb.Dirichlet(psi),
        discount=0.5,
        stop=hjb.Stop(psi, by=by),
    )
    return problem, value, R, axes


def drawn(seed):
    """Pushed on a line at a cost, free to leave at an affine one; all at random."""
    rng = np.random.default_rng(seed)
    back, sigma, leave, effort, rho = rng.uniform(
        [0.1, 0.4, 0.6, 0.3, 0.1], [0.4, 0.8, 1.4, 1.0, 0.4]
    )
    return hjb.ControlProblem(
        drift=lambda x, a: -back * x + a,
        diffusion=sigma,
        cost=lambda x, a: x[..., 0] ** 2 + effort * a[..., 0] ** 2,
        controls=hjb.Box([-1.0], [1.0]),
        domain=hjb.Box([-2.5], [2.5]),
        discount=rho,
        stop=lambda x: leave + 0.2 * x[..., 0],
    )


def excess(learned, truth, **when):
    """Largest distance beyond the grid's own bar, over sup|V|."""
    x = learned.region.sample(np.random.default_rng(3), 1000)
    value = truth.value_at(x, **when)
    gap = np.abs(learned.value_at(x, **when) - value) - truth.error_at(x, **when)
    return gap.max() / np.abs(value).max()


def is_judged_to_agree(learned, problem, nodes):
    verdict = cross_check(learned, hjb.solve(problem, nodes), tolerance=2e-2)
    assert verdict.status == "agree", str(verdict)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_residual_learns_the_perpetual_put_and_is_judged_to_agree(seed):
    problem, value, edge = perpetual()
    learned = learn(problem, neural.Residual(), seed)
    assert error(learned, value) < 1e-4
    near = np.array([[edge - 1e-2], [edge + 1e-2]])
    assert learned.stopping_at(near).tolist() == [True, False]
    is_judged_to_agree(learned, problem, (801,))


@pytest.mark.parametrize(
    ("by", "sense"),
    [
        pytest.param("controller", "cost", marks=pytest.mark.slow),
        ("adversary", "reward"),
    ],
)
def test_residual_stops_on_an_ellipse_for_either_player(by, sense):
    problem, value, R, axes = stretched(by, sense)
    small = neural.Residual(hidden=(14, 14), max_policies=8)
    learned = learn(problem, small)
    assert error(learned, value) < 2e-3
    x = learned.region.sample(np.random.default_rng(1), 1000)
    r = np.linalg.norm(x / axes, axis=1)
    clear = np.abs(r - R) > 0.02 * R
    assert np.array_equal(learned.stopping_at(x)[clear], (r > R)[clear])
    # A cost of one's own, or a reward that another holds down: V <= psi in both.
    assert (learned.value_at(x) <= problem.stops[0].payoff(x)).all()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [5, 6])
def test_residual_lies_within_the_grid_s_bar_on_controlled_problems_drawn(seed):
    problem = drawn(seed)
    assert excess(learn(problem, neural.Residual()), hjb.solve(problem, (801,))) < 2e-3


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_residual_prices_seydel_s_american_put(seed):
    """17.44876443: Seydel, Tools for Computational Finance, 6th ed., section 4.6."""
    problem = hjb.catalogue.get("american-put")
    learned = learn(problem, neural.Residual(), seed)
    truth = hjb.solve(problem, (401,), times=[0.0, 0.5, 1.0])
    x = learned.region.sample(np.random.default_rng(0), 999)
    scale = np.abs(truth.value_at(x, t=0.0)).max()
    for t in (0.0, 0.5):
        assert excess(learned, truth, t=t) < 2e-3
    price = learned.value_at(np.log([[100.0]]), t=0.0)[0]
    assert abs(price - 17.44876443) < 2e-3 * scale


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_paths_learn_the_perpetual_put_and_are_judged_to_agree(seed):
    # A put of short lives, so that few steps are many.
    problem, value, edge = perpetual(0.3, 0.5)
    learned = learn(problem, neural.MonteCarlo(dt=0.1, **MODEST), seed)
    assert error(learned, value) < 2e-2
    # V is wrong by the square of the surface's distance: half widths over 10 at most.
    near = np.array([[edge - 0.15], [edge + 0.15]])
    assert learned.stopping_at(near).tolist() == [True, False]
    is_judged_to_agree(learned, problem, (801,))


def test_surface_moves_to_smooth_fit_from_slopes_alone():
    """With W exact for a set that stops too late or too early, one Newton step."""
    problem, _, edge = perpetual(0.3, 0.5)
    payoffs, half = Payoffs(problem), np.array([1.5])
    g = 2 * 0.3 / 0.5**2
    for off in (-0.05, 0.02, 0.05):
        at = edge + off
        set_ = dataclasses.replace(
            StoppingSet.constant(half, False),
            states=np.array([[at]]),
            normals=np.ones((1, 1)),
            owners=np.zeros(1, np.int64),
        )
        going_on = Power((STRIKE - np.exp(at)) * np.exp(g * at), -g)
        moved, _ = advanced_by_slopes(payoffs, set_, going_on, 0.2)
        # Newton: an error of the order of the square of the first one.
        assert abs(moved.states[0, 0] - edge) < 4 * off**2


class Power:
    """W = c e^(m x)."""

    def __init__(self, c, m):
        self.c, self.m = c, m

    def value(self, x):
        return self.c * np.exp(self.m * x[:, 0])

    def gradient(self, x):
        return self.m * self.value(x)[:, None]

    def hessian(self, x):
        return self.m**2 * self.value(x)[:, None, None]

    def arrays(self):
        return {}


@pytest.mark.slow
def test_paths_stop_on_an_ellipse():
    problem, value, _, _ = stretched()
    assert error(learn(problem, neural.MonteCarlo(**MODEST)), value) < 2e-2


@pytest.mark.slow
@pytest.mark.parametrize("seed", [5, 6])
def test_paths_learn_controlled_problems_drawn(seed):
    problem = drawn(seed)
    learned = learn(problem, neural.MonteCarlo(**MODEST))
    assert excess(learned, hjb.solve(problem, (801,))) < 2e-2


@pytest.mark.slow
def test_paths_price_seydel_s_american_put():
    problem = hjb.catalogue.get("american-put")
    learned = learn(problem, neural.MonteCarlo(dt=0.02, **MODEST))
    truth = hjb.solve(problem, (401,), times=[0.0, 0.5, 1.0])
    for t in (0.0, 0.5):
        assert excess(learned, truth, t=t) < 2e-2


def test_root_clock_has_the_derivatives_of_the_network_it_reads():
    generator = torch.Generator().manual_seed(0)
    net = neural.MLP(2, 1, (8,), generator=generator)
    plain = ValueNetwork(net, np.array([0.2, 1.0]), np.ones(2), Link(0.0, 1.0))
    model = OnRootClock(plain, 2.0)
    y = np.random.default_rng(0).uniform([-1, -0.9], [1, -0.2], (20, 2))
    box = hjb.Box([-2.0, -2.0], [2.0, 2.0])
    slope, bend = differences(model.value, box, y, 1e-4)
    np.testing.assert_allclose(model.gradient(y), slope, atol=1e-6)
    np.testing.assert_allclose(model.hessian(y), bend, atol=1e-5)


def test_paths_with_a_horizon_come_back_bit_for_bit(tmp_path):
    problem = hjb.catalogue.get("american-put")
    quick = {**QUICK, "paths": 32, "max_policies": 2, "value_steps": 5}
    learned = learn(problem, neural.MonteCarlo(dt=0.2, **quick))
    again = neural.load(learned.save(tmp_path / "put"), problem)
    x = learned.region.sample(np.random.default_rng(0), 100)
    for name in ("value_at", "gradient_at", "stopping_at"):
        there = getattr(learned, name)(x, t=0.4)
        assert np.array_equal(getattr(again, name)(x, t=0.4), there)


@pytest.mark.parametrize("wrong", [1.0, 0.3, -1.0, 30.0])
def test_best_share_of_the_martingale_never_adds_scatter(wrong):
    """``plain - share M``: all of it where M is the noise, none where it is not."""
    rng = np.random.default_rng(0)
    value, noise = rng.normal(size=4000), rng.normal(size=4000)
    plain, martingale = value + noise, wrong * noise
    found = less_scattered(plain - martingale, martingale, value)
    left = (found - value).std()
    assert left <= min((plain - value).std(), (plain - martingale - value).std()) + 1e-9
    assert abs(found.mean() - value.mean()) < 5 * 4000**-0.5


def test_paths_refuse_a_checkpoint_by_name():
    with pytest.raises(hjb.MethodMismatch, match="checkpoint"):
        learn(put(), neural.MonteCarlo(checkpoint="run"))


@pytest.mark.parametrize(
    "option",
    [
        {"direct": True},
        {"schedule": neural.NoiseSchedule()},
        {"adam_steps": 10},
        {"checkpoint": "run"},
    ],
)
def test_residual_names_options_that_stopping_has_no_place_for(option):
    with pytest.raises(hjb.MethodMismatch, match=next(iter(option))):
        learn(put(), neural.Residual(**option))


@pytest.mark.parametrize("evaluation", [neural.MonteCarlo(), neural.Residual()])
@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"stop": lambda x: x}, hjb.ProblemError, "payoff has shape"),
        ({"diffusion": None}, hjb.MethodMismatch, "needs noise"),
        (
            {"exit": hjb.Exit(lambda x: 1.0 - x[..., 0] ** 2, 0.0)},
            hjb.MethodMismatch,
            "takes 'stop' or 'exit'",
        ),
    ],
)
def test_networks_refuse_what_least_squares_does(changes, kind, words, evaluation):
    with pytest.raises(kind, match=words):
        learn(dataclasses.replace(put(), **changes), evaluation)


def test_residual_comes_back_bit_for_bit_and_repeats_itself(tmp_path):
    quick = neural.Residual(hidden=(8, 8), max_policies=2, steps=2)
    learned, same = learn(put(), quick, 3), learn(put(), quick, 3)
    again = neural.load(learned.save(tmp_path / "put"), put())
    x = learned.region.sample(np.random.default_rng(0), 100)
    for name in ("value_at", "gradient_at", "stopping_at"):
        there = getattr(learned, name)(x)
        assert np.array_equal(getattr(again, name)(x), there)
        assert np.array_equal(getattr(same, name)(x), there)
