"""Consumption and saving, against steady states, laws of the long run, finer grids."""

import functools

import numpy as np
import pytest

import hjbpde as hjb


@functools.cache
def saving(n, richardson=True) -> hjb.ModedSolution:
    method = hjb.PolicyIteration(order=1, richardson=richardson)
    solution = hjb.solve(hjb.catalogue.get("consumption-saving"), n, method)
    assert isinstance(solution, hjb.ModedSolution)
    return solution


@pytest.mark.parametrize(("richardson", "order"), [(False, 1.0), (True, 1.5)])
def test_the_bar_covers_a_much_finer_grid_and_the_order_is_known(richardson, order):
    """No closed form: the reference is the value on 20001 points, with its bar.

    The scheme is of first order. Extrapolation gains half an order, not one: V'' is
    unbounded at the borrowing limit, where consumption grows as a square root.
    """
    finest = saving(20001)
    errors = []
    for n in (500, 2000, 10000):
        solution = saving(n, richardson)
        assert np.isfinite(solution.value).all()
        x = solution.grid.nodes()
        gaps = []
        for k in range(2):
            error = np.abs(finest.value_at(x, mode=k) - solution.value[k])
            # Without the reference's own bar: it covers the limit h -> 0.
            assert np.all(error <= solution.error_bar[k] + 1e-7)
            assert np.all(finest.error_at(x, mode=k) < 0.5 * solution.error_bar.max())
            gaps.append(error.max())
        errors.append(max(gaps))
    orders = np.log(np.array(errors[:-1]) / errors[1:]) / np.log([4.0, 5.0])
    assert np.all(np.abs(orders - order) < (0.25 if richardson else 0.15))
    assert errors[0] < (0.02 if richardson else 0.2)


def dense_at_the_limit(n) -> hjb.Grid:
    return hjb.Grid.from_axes([-0.15 + 5.15 * np.linspace(0.0, 1.0, n) ** 2])


def test_nodes_dense_at_the_borrowing_limit_gain_a_whole_order():
    """V is smooth in sqrt(a + .15): extrapolation is of second order on such nodes.

    The reference stands on other, uniform nodes; its own bar is added.
    """
    finest, errors = saving(80001), []
    for n in (126, 251, 501):
        solution = hjb.solve(finest.problem, dense_at_the_limit(n))
        x, miss = solution.grid.nodes(), []
        for k in range(2):
            gap = np.abs(finest.value_at(x, mode=k) - solution.value[k])
            assert np.all(gap <= solution.error_bar[k] + finest.error_at(x, mode=k))
            miss.append(gap.max())
        errors.append(max(miss))
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.all((orders > 1.7) & (orders < 2.3))
    # The same number of uniform nodes is off by .015.
    assert errors[-1] < 1e-3


def test_at_the_borrowing_limit_the_poor_consume_what_they_earn():
    solution = saving(2000)
    poor, rich = solution.control[..., 0]
    held = 0.1 + 0.03 * -0.15
    assert poor[0] == pytest.approx(held, rel=1e-14)
    assert rich[0] < 0.2 + 0.03 * -0.15  # the rich leave the limit
    assert (np.diff(poor) > 0).all()
    assert (np.diff(rich) > 0).all()
    # Value increasing and concave in both states.
    assert (np.diff(solution.value) > 0).all()
    assert (np.diff(solution.value, 2) < 1e-9).all()


def test_the_long_run_holds_shares_of_incomes_and_a_mass_at_the_limit():
    """Shares of the income chain alone: 3/5 poor, 2/5 rich."""
    capital, mass = [], []
    for n in (500, 2000, 10000):
        solution = saving(n)
        held = solution.stationary_density() * solution.node_volumes()
        np.testing.assert_allclose(held.sum(1), [0.6, 0.4], rtol=1e-9)
        capital.append((held * solution.grid.axes[0]).sum())
        mass.append(held[0, 0])
    # Two extrapolations to h -> 0 agree: first order, both settle.
    finest = capital[2] + (capital[2] - capital[1]) / 4
    coarse = capital[1] + (capital[1] - capital[0]) / 3
    assert finest == pytest.approx(coarse, rel=1e-3)
    assert 0.36 < mass[2] < mass[1] < mass[0] < 0.39


def test_mean_saving_is_zero_in_the_long_run():
    """E[drift] = 0 under the stationary density: nobody leaves through the faces."""
    solution = saving(2000)
    held = solution.stationary_density() * solution.node_volumes()
    a = solution.grid.axes[0]
    drift = np.array([[0.1], [0.2]]) + 0.03 * a - solution.control[..., 0]
    assert abs((held * drift).sum()) < 1e-12
    assert (held * drift)[0, 0] == pytest.approx(0, abs=1e-16)


def test_consumption_follows_the_euler_equation():
    """d u'(c)/dt expected: (rho - r) u'_k = u''(c_k) c_k' s_k + sum_j q_kj u'_j.

    Achdou et al. (2022), equation 8, away from the limit; first order in h.
    """
    worst = []
    for n in (501, 2001):
        solution = saving(n)
        a = solution.grid.axes[0]
        c = solution.control[..., 0]
        s = np.array([[0.1], [0.2]]) + 0.03 * a - c
        u1, u2 = c**-2.0, -2 * c**-3.0
        q = np.array([[-0.02, 0.02], [0.03, -0.03]])
        gap = (0.05 - 0.03) * u1 - u2 * np.gradient(c, a, axis=1) * s - q @ u1
        inside = (a > 0.5) & (a < 4.5)
        worst.append(np.abs(gap / u1)[:, inside].max())
    assert worst[1] < 2e-4
    assert np.log2(worst[0] / worst[1]) / 2 == pytest.approx(1, abs=0.2)


def test_impossible_debts_are_refused():
    with pytest.raises(hjb.ProblemError, match="raise low"):
        hjb.catalogue.get("consumption-saving", low=-4.0)
    with pytest.raises(hjb.ProblemError, match="2 modes"):
        hjb.catalogue.get("consumption-saving", incomes=(0.1, 0.2, 0.3))


def diffusing(shape=None, method=None, **parameters) -> hjb.GridSolution:
    problem = hjb.catalogue.get("consumption-saving-diffusion", **parameters)
    return hjb.solve(problem, shape or problem.suggested_grid, method)


@pytest.fixture(scope="module")
def suggested():
    return diffusing()


def test_diffusing_incomes_agree_with_a_finer_grid_and_a_second_method(suggested):
    fine = diffusing((661, 121))
    x = suggested.grid.nodes()
    error = np.abs(fine.value_at(x) - suggested.value)
    assert np.all(error <= suggested.error_bar + fine.error_at(x))
    scale = np.abs(suggested.value).max()
    assert suggested.error_bar.max() < 1e-2 * scale
    assert fine.error_bar.max() < 0.5 * suggested.error_bar.max()
    # Characteristics and interpolation instead of differences.
    other = diffusing((111, 21), hjb.SemiLagrangian())
    x = other.grid.nodes()
    gap = np.abs(fine.value_at(x) - other.value)
    assert np.all(gap <= other.error_bar + fine.error_at(x))
    assert other.error_bar.max() < 1e-2 * scale


def test_the_long_run_of_diffusing_incomes(suggested):
    """Incomes alone: the reflected Ornstein-Uhlenbeck density; saving nets to zero."""
    held = suggested.stationary_density() * suggested.node_volumes()
    a, z = suggested.grid.axes
    drift = z + 0.03 * a[:, None] - suggested.control[..., 0]
    assert abs((held * drift).sum()) < 1e-12
    density = np.exp(-0.3 * (z - 1) ** 2 / 0.1**2)
    density[[0, -1]] *= 0.5
    density /= density.sum()
    # Second order: (h / standard deviation)^2 = (.025 / .129)^2 = .038, over 12.
    assert np.abs(held.sum(0) - density).max() < 0.038 / 12 * density.max()
    assert 0.2 < held[0].sum() < 0.4  # the poor rest at their limit


def test_a_frozen_income_at_the_limit_is_consumed_for_ever():
    """V(low, z) = u(z + r low) / rho where nothing moves the income and r < rho."""
    solution = diffusing((111, 9), noise=0.0, reversion=0.0)
    z = solution.grid.axes[1]
    wanted = -1 / (z + 0.03 * -1.0) / 0.05
    assert np.abs(solution.value[0] - wanted).max() < 1e-10 * np.abs(wanted).max()


def test_impossible_diffusing_incomes_are_refused():
    for parameters, said in (
        ({"low": -20.0}, "raise low"),
        ({"noise": -1.0}, "noise and reversion"),
        ({"incomes": (1.5, 0.5)}, "below high"),
    ):
        with pytest.raises(hjb.ProblemError, match=said):
            hjb.catalogue.get("consumption-saving-diffusion", **parameters)


STEADY = 1.5 ** (1 / 0.7)


def test_capital_rests_at_the_golden_rule():
    """V = u(c*) / rho at the steady state, where c* = A k^alpha - delta k."""
    problem = hjb.catalogue.get("growth")
    eaten = 0.5 * STEADY**0.3 - 0.05 * STEADY
    wanted = -1 / eaten / 0.05
    errors = []
    for n in (201, 401, 801):
        solution = hjb.solve(problem, n, hjb.PolicyIteration(order=1))
        x = solution.grid.nodes()
        drift = problem.drift(x, solution.control)[:, 0]
        h = x[1, 0] - x[0, 0]
        assert (drift[x[:, 0] < STEADY - h] > 0).all()
        assert (drift[x[:, 0] > STEADY + h] < 0).all()
        at = np.array([[STEADY]])
        errors.append(abs(solution.value_at(at)[0] - wanted))
        assert errors[-1] <= solution.error_at(at)[0]
    assert errors[-1] < 2e-3 * abs(wanted)
