"""Options on an asset that jumps: Merton's series, published and independent values."""

import numpy as np
import pytest

import hjbpde as hjb
from hjbpde.catalogue.jump_diffusion import merton_put, normal_atoms

PUBLISHED = {90.0: 9.285418, 100.0: 3.149026, 110.0: 1.401186}
"""European puts of d'Halluin, Forsyth and Labahn (2004), T = 1/4."""
AMERICAN = {90.0: 10.003822, 100.0: 3.241251, 110.0: 1.419803}
"""American puts of the same source."""
LAW = (0.1, np.exp(-0.9 + 0.5 * 0.45**2) - 1.0, -0.9, 0.45)


def put(**changes):
    return hjb.catalogue.get("jump-diffusion-put", **changes)


def at(prices):
    return np.log(np.array(list(prices)))[:, None]


def stretched(problem, n):
    """The suggested grid's map with n nodes."""
    axis = problem.suggested_grid.axes[0]
    number = np.linspace(0, len(axis) - 1, n)
    return hjb.Grid.from_axes([np.interp(number, np.arange(len(axis)), axis)])


def errors_of(solution, t=0.0):
    x = solution.grid.nodes()
    inside = solution.region.contains(x)
    return np.abs(solution.value[0] - solution.problem.exact.value(x, t))[
        inside
    ], inside


def test_mertons_series_meets_the_published_values():
    found = merton_put(np.array(list(PUBLISHED)), 100.0, 0.25, 0.05, 0.15, LAW)
    assert np.abs(found - list(PUBLISHED.values())).max() < 6e-7


def test_mertons_series_without_jumps_is_black_and_scholes():
    """Put-call parity with the BENCHOP call 7.485087593912603 at S = K = 100."""
    law = (1e-12, 0.0, 0.0, 0.1)
    found = merton_put(np.array([100.0]), 100.0, 1.0, 0.03, 0.15, law)[0]
    assert found == pytest.approx(
        7.485087593912603 - 100 + 100 * np.exp(-0.03), rel=1e-9
    )


def test_the_atoms_have_the_moments_of_the_law_and_hardly_move_the_price():
    """One jump of the law itself and of its atoms: E[(K - S e^J)+] at S = 100."""
    z, w = normal_atoms(-0.9, 0.45, 801)
    z = z[:, 0]
    assert w.sum() == pytest.approx(1.0, abs=1e-14)
    assert w @ z == pytest.approx(-0.9, abs=1e-9)
    assert w @ np.exp(z) == pytest.approx(1 + LAW[1], rel=1e-9)
    assert w @ (z + 0.9) ** 2 == pytest.approx(0.45**2, rel=1e-8)
    fine, fine_w = normal_atoms(-0.9, 0.45, 200_001)
    kinked = w @ np.maximum(100 - 100 * np.exp(z), 0)
    exact = fine_w @ np.maximum(100 - 100 * np.exp(fine[:, 0]), 0)
    # Felt at the rate .1 for a quarter: 1e-8 of the strike.
    assert abs(kinked - exact) * 0.1 * 0.25 < 1e-6


def test_the_european_put_on_its_suggested_grid():
    """Within 1e-5 of the strike of Merton's series; the bar covers at every time.

    The bar is of the problem with atoms, whose law is off by 1e-10 of the strike where
    V is kinked (1e-8 in the test above, felt for the last 3 % of the time at most).
    """
    problem = put()
    solution = hjb.solve(problem)
    assert isinstance(solution, hjb.TimedSolution)
    x = solution.grid.nodes()
    inside = solution.region.contains(x)
    for i, t in enumerate(solution.times):
        error = np.abs(solution.value[i] - problem.exact.value(x, t))[inside]
        assert np.mean(error <= solution.error_bar[i][inside] + 1e-8) >= 0.99
    assert errors_of(solution)[0].max() < 1e-5 * 100.0
    found = solution.value_at(at(PUBLISHED))
    assert np.abs(found - list(PUBLISHED.values())).max() < 1e-4


def test_the_european_put_converges_at_second_order_in_space():
    problem, errors = put(), []
    for n in (201, 401, 801):
        grid = stretched(problem, n)
        solution = hjb.solve(
            problem, grid, hjb.Marching(order=2, steps=32), times=[0.0]
        )
        errors.append(errors_of(solution)[0].max())
    order = np.log2(np.array(errors)[:-1] / np.array(errors)[1:])
    assert np.all(np.abs(order - 2.0) < 0.3)


def bermudan(steps, n=2**13, width=9.0):
    """The American put by exact steps of the process between dates of exercise.

    The transition is a product of Fourier modes with the characteristic function of
    Merton's process; nothing is shared with the grid. Linear in 1 / steps.
    """
    rate, sigma, dt = 0.05, 0.15, 0.25 / steps
    jump_rate, kappa, mean, spread = LAW
    y = np.linspace(-width, width, n, endpoint=False)
    k = 2 * np.pi * np.fft.fftfreq(n, y[1] - y[0])
    drift = rate - jump_rate * kappa - 0.5 * sigma**2
    jumps = jump_rate * (np.exp(1j * k * mean - 0.5 * (spread * k) ** 2) - 1)
    step = np.exp((1j * k * drift - 0.5 * (sigma * k) ** 2 + jumps - rate) * dt)
    payoff = 100 * np.maximum(1 - np.exp(y), 0)
    V = payoff
    for _ in range(steps):
        V = np.maximum(np.fft.ifft(np.fft.fft(V) * step).real, payoff)
    return np.interp(np.log(np.array(list(AMERICAN)) / 100), y, V)


def test_the_american_put_meets_published_values_and_bermudan_ones():
    with np.errstate(all="ignore"):
        limit = 2 * bermudan(1000) - bermudan(500)
    # Cells of 2e-3 in log S bend V by 1e-4; Richardson's rest is smaller.
    assert np.abs(limit - list(AMERICAN.values())).max() < 2e-4
    solution = hjb.solve(put(american=True), times=[0.0])
    error = np.abs(solution.value_at(at(AMERICAN)) - list(AMERICAN.values()))
    assert np.all(error <= solution.error_at(at(AMERICAN)) + 1e-6)
    assert error.max() < 1e-3
    assert error[1:].max() < 1e-4


def test_the_right_to_sell_early_is_worth_something_everywhere():
    european, american = (
        hjb.solve(put(american=a), stretched(put(), 101), times=[0.0]) for a in (0, 1)
    )
    assert np.all(american.value >= european.value - 1e-9)
    assert np.all(american.value[0] >= put().terminal(american.grid.nodes()) - 1e-12)


def test_an_exit_in_time_takes_the_value_there_when_jumps_land_in_it():
    """dX = 0, jumps of 1 at rate 2 into {x > 1}: V(t) = 3 t-data, E[g(tau)] by hand.

    g(x, t) = t beyond 1, 0 at T = 1: V(0) = int_0^1 2 e^{-2 t} t dt.
    """
    problem = hjb.ControlProblem(
        drift=lambda x, a: 0.0 * x,
        diffusion=None,
        reward=lambda x, a: 0.0 * x[..., 0],
        domain=hjb.Box(0.0, 2.0),
        horizon=1.0,
        terminal=lambda x: 1.0 * (x[..., 0] > 1.0),
        exit=hjb.Exit(lambda x: 1.0 - x[..., 0], lambda x, t: t + 0.0 * x[..., 0]),
        jumps=hjb.Jumps(2.0, [[1.0]], [1.0]),
        boundary=hjb.Reflecting(),
    )
    solution = hjb.solve(problem, 21, times=[0.0])
    wanted = 0.5 - 1.5 * np.exp(-2.0)
    assert solution.value_at([[0.33]])[0] == pytest.approx(wanted, abs=2e-6)


def test_rates_that_move_in_time_are_renewed():
    """On a circle V = c(t) + e(t) sin x; jumps of pi at the rate t: e' = 2 t e.

    Terminal sin x, no discount: V(0, x) = e^{-1} sin x at T = 1.
    """
    problem = hjb.ControlProblem(
        drift=lambda x, a: 0.0 * x,
        diffusion=None,
        reward=lambda x, a: 0.0 * x[..., 0],
        domain=hjb.Box(0.0, 2 * np.pi, periodic=True),
        horizon=1.0,
        terminal=lambda x: np.sin(x[..., 0]),
        jumps=hjb.Jumps(lambda x, t: t + 0.0 * x[..., 0], [[np.pi]], [1.0]),
    )
    solution = hjb.solve(problem, 64, hjb.Marching(steps=32, levels=2), times=[0.0])
    error = np.abs(solution.value[0] - np.exp(-1) * np.sin(solution.grid.axes[0]))
    # (2 pi / 64)^4 of space and (2 / 64)^2 of time, each times constants below 1.
    assert error.max() < 1e-3


def test_bad_parameters_are_refused():
    for bad in ({"sigma": 0.0}, {"jump_deviation": -1.0}, {"atoms": 1}):
        with pytest.raises(hjb.ProblemError, match=next(iter(bad))):
            put(**bad)
