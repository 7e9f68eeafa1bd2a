"""Terminal data with kinks anywhere in their cells, and faces closed beside them."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.interpolate import BSpline
from scipy.stats import norm

import hjbpde as hjb
from hjbpde.methods.kinked_data import Kinks, averaged

AXIS = np.linspace(-1.0, 1.0, 41)
LINE = hjb.Grid(hjb.Box(-1.0, 1.0), 41)
B = BSpline.basis_element(np.arange(-2.0, 3.0), extrapolate=False)


def kernel(s):
    """phi = B + (2 B - B(. - 1) - B(. + 1)) / 6, by scipy's own splines."""

    def b(y):
        return float(np.nan_to_num(B(y)))

    return b(s) + (2 * b(s) - b(s - 1) - b(s + 1)) / 6


def means(data, grid=LINE, axes=(0,)):
    values = np.asarray(data(grid.nodes()), dtype=float)
    return averaged(data, grid, values, list(axes)), values


@pytest.mark.parametrize("place", [0.0, 0.013, 0.025, 0.241])
@pytest.mark.parametrize("order", [0, 1])
def test_averages_are_integrals_of_the_kernel(place, order):
    """Kinks (order 1) and jumps (order 0), by adaptive quadrature; h = .05."""

    def data(x):
        far = x[..., 0] - place
        return np.where(far > 0, far**order, 0.0) + np.sin(2 * x[..., 0])

    (found, kinks), values = means(data)
    assert kinks == (Kinks.AVERAGED if order else Kinks.JUMPS_AVERAGED)
    near = np.flatnonzero(found != values)
    assert 4 <= len(near) <= 9
    for i in near:
        cuts = [*range(-3, 4), (place - AXIS[i]) / 0.05]
        wanted = quad(
            lambda s, i=i: float(data(np.array([AXIS[i] + 0.05 * s]))) * kernel(s),
            -3,
            3,
            points=sorted({c for c in cuts if -3 < c < 3}),
        )[0]
        # A jump is found to 1/8192 of a cell, under a kernel of at most .9.
        assert found[i] == pytest.approx(wanted, abs=2e-4 if order == 0 else 1e-7)
    assert np.abs(AXIS[near] - place).max() <= 0.05 * 3


def test_smooth_data_are_left_alone_however_steep():
    for width in (0.05, 0.1, 0.3):
        found, values = means(lambda x, w=width: np.exp(-((x[..., 0] / w) ** 2)))
        assert np.array_equal(found[0], values)
        assert found[1] is Kinks.NONE


def test_polynomials_of_degree_three_pass_through_the_average():
    """The kernel reproduces them: the kink alone is changed."""

    def cubic(x):
        return 1 - x[..., 0] + 2 * x[..., 0] ** 2 - 3 * x[..., 0] ** 3

    def kink(x):
        return 100 * np.abs(x[..., 0] - 0.01)

    (both, _), _ = means(lambda x: cubic(x) + kink(x))
    (alone, _), _ = means(kink)
    np.testing.assert_allclose(both - alone, cubic(LINE.nodes()), atol=1e-10)


def test_a_kink_that_has_no_room_or_no_noise_is_left_and_said():
    near_the_face, at_a_node = (lambda x, c=c: np.abs(x[..., 0] - c) for c in (0.92, 0))
    (found, kinks), values = means(near_the_face)
    assert kinks is Kinks.LEFT
    (found, kinks), values = means(at_a_node, axes=())
    assert kinks is Kinks.LEFT
    assert np.array_equal(found, values)


def test_two_axes_and_a_kink_along_a_curve():
    """Means of max(x - y - c, 0) are the same all along the diagonal.

    Where the kink meets the faces it has no room, and that is said.
    """
    grid = hjb.Grid(hjb.Box([-1.0, -1.0], [1.0, 1.0]), (41, 41))
    (found, kinks), values = means(
        lambda x: np.maximum(x[..., 0] - x[..., 1] - 0.02, 0.0), grid, (0, 1)
    )
    assert kinks is Kinks.LEFT
    inner = np.arange(5, 36)
    diagonal = found[inner, inner]
    assert np.ptp(diagonal) < 1e-12
    assert diagonal[0] > values[20, 20] == 0.0
    # Far from the kink nothing changes.
    assert found[30, 10] == values[30, 10]


def black_scholes(x, tau, strike, r, sigma):
    S, spread = np.exp(x[..., 0]), sigma * np.sqrt(tau)
    d = (np.log(S / strike) + (r + sigma**2 / 2) * tau) / spread
    return S * norm.cdf(d) - strike * np.exp(-r * tau) * norm.cdf(d - spread)


def portfolio(strikes, weights, half, r=0.03, sigma=0.3, horizon=1.0):
    """Calls in any number, with artificial faces `half` from the first strike."""

    def terminal(x):
        xp = hjb.namespace(x)
        price, out = xp.exp(x[..., 0]), 0.0 * x[..., 0]
        for strike, weight in zip(strikes, weights, strict=True):
            out = out + weight * xp.clip(price - strike, 0.0, None)
        return out

    def value(x, t=0.0):
        if t >= horizon:
            return terminal(x)
        return sum(
            weight * black_scholes(x, horizon - t, strike, r, sigma)
            for strike, weight in zip(strikes, weights, strict=True)
        )

    middle = np.log(100.0)
    return hjb.ControlProblem(
        drift=lambda x, a: 0.0 * x + (r - sigma**2 / 2),
        diffusion=sigma,
        reward=lambda x, a: 0.0 * x[..., 0],
        domain=hjb.Box(middle - half, middle + half),
        discount=r,
        horizon=horizon,
        terminal=terminal,
        exact=hjb.Exact(value=value, source="Black and Scholes (1973)"),
    )


def misses(problem, n, method=None, times=(0.0, 0.5)):
    """Relative errors and bars in the region at the times, (T, nodes)."""
    solution = hjb.solve(problem, n, method, times=list(times))
    x = solution.grid.nodes()
    inner = solution.region.contains(x, 1e-12)
    found = []
    for i, t in enumerate(times):
        gap = np.abs(solution.value[i] - problem.exact.value(x, t))
        found.append((gap[inner], solution.error_bar[i][inner]))
    return np.array([f[0] for f in found]), np.array([f[1] for f in found])


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5])
def test_order_four_wherever_the_strike_lies_in_its_cell(share):
    """Nodal payoffs give order 2 with a constant that jumps from grid to grid.

    In ln S on 3.2 each way; the time steps are extrapolated to well below.
    """
    errors = []
    for n in (101, 201, 401):
        strike = 100.0 * np.exp(share * 6.4 / (n - 1))
        gap, bar = misses(portfolio([strike], [1.0], 3.2), n, hjb.Marching(levels=4))
        near = slice(n // 4, -n // 4)  # away from the faces
        errors.append(gap[0, near].max() / 100)
        assert np.mean(gap <= bar) >= 0.99
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.all(orders > 3.4)
    assert np.all(orders < 4.6)
    assert errors[-1] < 1e-6


@pytest.mark.parametrize("seed", range(6))
def test_bars_cover_calls_struck_anywhere_beside_artificial_faces(seed):
    """Two or three strikes between the layers from which slopes are continued."""
    rng = np.random.default_rng(seed)
    strikes = 100 * np.exp(rng.uniform(-0.3, 0.3, 2 + seed % 2))
    weights = rng.normal(size=len(strikes))
    problem = portfolio(strikes, weights, rng.uniform(1.2, 1.8))
    gap, bar = misses(problem, int(rng.choice([101, 201])), times=(0.0, 0.4, 0.8))
    assert np.mean(gap <= bar) >= 0.99


def test_the_value_kept_at_the_horizon_is_the_terminal_one():
    problem = portfolio([103.0], [1.0], 2.0)
    solution = hjb.solve(problem, 101, times=[0.0])
    x = solution.grid.nodes()
    np.testing.assert_allclose(solution.value[-1], problem.terminal(x), rtol=1e-14)
    digital = replace(problem, terminal=lambda x: np.where(x[..., 0] > 4.7, 1.0, 0.0))
    found = hjb.solve(digital, 101, times=[0.0])
    np.testing.assert_allclose(found.value[-1], digital.terminal(x), atol=1e-14)
