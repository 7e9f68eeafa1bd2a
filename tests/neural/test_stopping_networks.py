"""Rights to stop, learned by networks: closed forms, a published price, the grid.

Kind: exact, agreement, contract.
"""

import dataclasses

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import i0, i1

import hjbpde as hjb
import neural
from verification import cross_check

RATE, SIGMA, STRIKE = 0.05, 0.3, 1.0


def learn(problem, evaluation, seed=0):
    return neural.solve(problem, neural.PolicyIteration(evaluation), seed=seed)


def error(learned, exact, n=2000):
    """Sup error of V over sup|V|, on the whole region."""
    x = learned.region.sample(np.random.default_rng(7), n)
    value = exact(x)
    return np.abs(learned.value_at(x) - value).max() / np.abs(value).max()


def perpetual(x):
    """McKean (1965): K - S below S*, (K - S*) (S / S*)^-g above, g = 2 r / sigma^2."""
    g = 2 * RATE / SIGMA**2
    edge = STRIKE * g / (1 + g)
    S = np.exp(x[..., 0])
    return np.where(S <= edge, STRIKE - S, (STRIKE - edge) * (S / edge) ** -g)


def put():
    return hjb.ControlProblem(
        drift=lambda x, a: 0.0 * x + RATE - 0.5 * SIGMA**2,
        diffusion=SIGMA,
        reward=lambda x, a: 0.0 * x[..., 0],
        domain=hjb.Box(-1.5, 1.5),
        boundary={(0, "high"): hjb.Dirichlet(perpetual)},
        discount=RATE,
        stop=lambda x: np.maximum(STRIKE - np.exp(x[..., 0]), 0.0),
        name="perpetual put",
    )


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


@pytest.mark.parametrize("seed", range(2))
def test_residual_learns_the_perpetual_put_and_is_judged_to_agree(seed):
    learned = learn(put(), neural.Residual(), seed)
    assert error(learned, perpetual) < 1e-4
    g = 2 * RATE / SIGMA**2
    edge = np.log(STRIKE * g / (1 + g))
    near = np.array([[edge - 1e-2], [edge + 1e-2]])
    assert learned.stopping_at(near).tolist() == [True, False]
    verdict = cross_check(learned, hjb.solve(put(), (801,)), tolerance=2e-2)
    assert verdict.status == "agree", str(verdict)


@pytest.mark.parametrize(
    ("by", "sense"), [("controller", "cost"), ("adversary", "reward")]
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


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"stop": lambda x: x}, hjb.ProblemError, "payoff has shape"),
        ({"diffusion": None}, hjb.MethodMismatch, "Residual.*needs noise"),
        (
            {"exit": hjb.Exit(lambda x: 1.0 - x[..., 0] ** 2, 0.0)},
            hjb.MethodMismatch,
            "Residual takes 'stop' or 'exit'",
        ),
    ],
)
def test_residual_refuses_what_least_squares_does(changes, kind, words):
    with pytest.raises(kind, match=words):
        learn(dataclasses.replace(put(), **changes), neural.Residual())


def test_residual_comes_back_bit_for_bit_and_repeats_itself(tmp_path):
    quick = neural.Residual(hidden=(8, 8), max_policies=2, steps=2)
    learned, same = learn(put(), quick, 3), learn(put(), quick, 3)
    again = neural.load(learned.save(tmp_path / "put"), put())
    x = learned.region.sample(np.random.default_rng(0), 100)
    for name in ("value_at", "gradient_at", "stopping_at"):
        there = getattr(learned, name)(x)
        assert np.array_equal(getattr(again, name)(x), there)
        assert np.array_equal(getattr(same, name)(x), there)
