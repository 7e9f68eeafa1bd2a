"""Data that jump, bend or pass quickly in time: steps begin there, bars see them.

V is linear in the payoff: with drift f(t), noise sigma(t), discount rho(t) around a
circle and payoff c(t) cos x it is Re(e^{ix} Z), where Z sums c(s) and the terminal 1,
each turned by the integral of f and damped by that of rho + sigma^2 / 2 up to then.
"""

import numpy as np
import pytest

import hjbpde as hjb
from hjbpde.data_in_time import DataInTime

KNOTS = np.array([0.0, 0.0827, 0.2113, 0.5, 0.6391, 0.9104, 1.0])
LEVELS = np.array([0.4, 1.0, 0.3, 0.9, 0.2, 1.0, 0.7])
SPEED, NOISE, RATE = 1.1, 0.5, 0.2


def problem(c, *, noise=0.0, f=SPEED, rho=RATE):
    """On [0, 1]; c, f, noise and rho are numbers or functions of t."""

    def at(data, t):
        return data(t) if callable(data) else data

    return hjb.ControlProblem(
        drift=lambda x, a, t: at(f, t) + 0.0 * x,
        reward=lambda x, a, t: at(c, t) * np.cos(x[..., 0]),
        discount=lambda x, t: at(rho, t) + 0.0 * x[..., 0],
        diffusion=None
        if noise == 0.0
        else lambda x, a, t: at(noise, t) + 0 * x[..., None],
        domain=hjb.Box(-np.pi, np.pi, periodic=True),
        horizon=1.0,
        terminal=lambda x: np.cos(x[..., 0]),
    )


def exact(x, c, breaks=(), *, noise=0.0, f=SPEED, rho=RATE):
    """V(0, x) by Gauss's rule between the breaks, on pieces of 1/400 and shorter."""
    edges = np.unique(
        np.concatenate([np.linspace(0, 1, 401), np.asarray(breaks, float)])
    )
    points, weights = np.polynomial.legendre.leggauss(8)
    half = 0.5 * np.diff(edges)[:, None]
    s = edges[:-1, None] + half * (1.0 + points)

    def at(data):
        return data(s) if callable(data) else np.full(s.shape, float(data))

    rate = 1j * at(f) - at(rho) - 0.5 * at(noise) ** 2
    # The integral of the rate up to each point: whole pieces, then within the piece.
    whole = (rate * weights * half).sum(axis=1)
    before = np.concatenate([[0.0], np.cumsum(whole)])
    powers = np.vander(points, 8, increasing=True)
    upto = np.stack([(points**k - (-1.0) ** k) / k for k in range(1, 9)], axis=1)
    within = half * (rate @ np.linalg.solve(powers.T, upto.T))
    grown = np.exp(before[:-1, None] + within)
    Z = (at(c) * grown * weights * half).sum() + np.exp(before[-1])
    return np.real(np.exp(1j * x) * Z)


WAYS = {
    "implicit": (None, NOISE, 64),
    "explicit": (None, 0.0, 64),
    "semi-lagrangian": (hjb.SemiLagrangian(), 0.0, 64),
    "semi-lagrangian with noise": (hjb.SemiLagrangian(), NOISE, 48),
}


def judged(way, c, breaks=(), **data):
    """The largest error at t = 0, in all and in bars."""
    method, noise, nodes = WAYS[way]
    data = {"noise": noise, **data}
    solution = hjb.solve(problem(c, **data), nodes, method, times=[0.0])
    error = np.abs(solution.value[0] - exact(solution.grid.axes[0], c, breaks, **data))
    return error.max(), (error / solution.error_bar[0]).max()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("at", [0.0731, 0.437, 0.6893, 0.9417])
def test_a_jump_of_the_payoff_costs_no_accuracy(way, at):
    # Where halved steps share the one that hides the jump, bars were up to 5000 times
    # too small: .437 lies in the last quarter of the coarsest step up to 7/16.
    jumps = judged(way, lambda t: np.where(np.asarray(t) < at, 0.2, 1.0), [at])
    smooth = judged(way, lambda t: 0.2 + 0.8 * np.asarray(t))
    assert jumps[1] <= 1.0
    assert jumps[0] <= 4.0 * smooth[0] + 1e-7


@pytest.mark.parametrize("way", WAYS)
def test_jumps_may_belong_to_the_time_before(way):
    assert (
        judged(way, lambda t: np.where(np.asarray(t) <= 0.5, 0.2, 1.0), [0.5])[1] <= 1
    )


@pytest.mark.parametrize("way", WAYS)
def test_curves_of_straight_pieces_cost_no_accuracy(way):
    def curve(t):
        return np.interp(t, KNOTS, LEVELS)

    bent, smooth = judged(way, curve, KNOTS), judged(way, lambda t: 0.4 + 0.3 * t)
    assert bent[1] <= 1.0
    assert bent[0] <= 4.0 * smooth[0] + 1e-6


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("field", ["f", "noise", "rho"])
def test_coefficients_may_jump(way, field):
    if field == "noise" and WAYS[way][1] == 0.0:
        pytest.skip("without noise there is none that jumps")

    def data(t):
        return np.where(np.asarray(t) < 0.6893, 0.5, 0.8)

    error, bars = judged(
        way, lambda t: 1.0 + 0.0 * np.asarray(t), [0.6893], **{field: data}
    )
    assert bars <= 1.0
    assert error <= 2e-3


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("at", "width"), [(0.183, 0.004), (0.77, 0.02), (0.355, 0.0021)]
)
def test_a_pulse_is_met(way, at, width):
    # The steps without it are up to .1 long.
    def pulse(t):
        return 0.2 + np.exp(-(((np.asarray(t) - at) / width) ** 2)) / width

    around = np.clip(at + width * np.linspace(-8, 8, 161), 0, 1)
    error, bars = judged(way, pulse, around)
    assert bars <= 1.0
    assert error <= 5e-3


@pytest.mark.parametrize("way", WAYS)
def test_fast_oscillations_are_followed(way):
    error, bars = judged(way, lambda t: 1.0 + np.cos(200.0 * np.asarray(t)))
    assert bars <= 1.0
    assert error <= 5e-3


def breaks_of(c):
    return DataInTime.of(problem(c)).breaks().times


def test_breaks_are_found_to_rounding():
    rng = np.random.default_rng(2)
    for at in rng.uniform(0.0, 1.0, 12):
        found = breaks_of(lambda t, at=at: np.where(t < at, 0.0, 1.0) + np.cos(7 * t))
        assert found.size == 1
        # The first time after the jump, and T - (T - t) still is.
        assert 0.0 <= found[0] - at < 1e-14
        assert 1.0 - (1.0 - found[0]) >= at
        found = breaks_of(lambda t, at=at: abs(t - at) + np.cos(7 * t))
        np.testing.assert_allclose(found, [at], atol=1e-8)
    np.testing.assert_allclose(
        breaks_of(lambda t: np.interp(t, KNOTS, LEVELS)), KNOTS[1:-1], atol=1e-12
    )


@pytest.mark.parametrize(
    "smooth",
    [
        lambda t: np.cos(300.0 * t),
        lambda t: np.exp(-(((t - 0.3) / 0.002) ** 2)),
        lambda t: np.sqrt(1.0 + t),
        lambda t: 0.0 * t,
        lambda t: np.float64(np.float32(np.cos(3.0 * t))),
    ],
)
def test_smooth_data_have_no_breaks(smooth):
    assert breaks_of(smooth).size == 0


def test_problems_that_name_no_time_are_not_sampled():
    calls = []

    def reward(x, a):
        calls.append(1)
        return np.cos(x[..., 0])

    still = hjb.ControlProblem(
        drift=lambda x, a: 0.0 * x,
        reward=reward,
        domain=hjb.Box(-np.pi, np.pi, periodic=True),
        horizon=1.0,
        terminal=0.0,
    )
    assert DataInTime.of(still).breaks().times.size == 0
    assert not calls
