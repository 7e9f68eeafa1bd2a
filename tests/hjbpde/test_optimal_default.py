"""Optimal default: Leland's closed form, the free boundary and the grid."""

import numpy as np
import pytest

import hjbpde as hjb

CASES = [{}, {"rate": 0.03, "payout": 0.06, "sigma": 0.4, "coupon": 2.0, "tax": 0.0}]


@pytest.mark.parametrize("parameters", CASES)
def test_the_closed_form_solves_the_equation_and_fits_smoothly(parameters):
    """r V = delta A - c + (r - delta - s^2/2) V' + s^2/2 V'' while owners pay."""
    given = {"rate": 0.06, "payout": 0.03, "sigma": 0.25, "coupon": 4.0, "tax": 0.35}
    r, delta, sigma, C, tax = ({**given, **parameters}[k] for k in given)
    problem = hjb.catalogue.get("optimal-default", **parameters)
    low, high, h = problem.domain.low[0], problem.domain.high[0], 1e-5
    barrier = low + (high - low) / 3.0  # the box: half its width below, one above
    x = np.linspace(barrier + 2 * h, high - 2 * h, 60)[:, None]
    V, exact = problem.exact.value(x), problem.exact
    slope = exact.gradient(x)[:, 0]
    differences = (exact.value(x + h) - exact.value(x - h)) / (2 * h)
    np.testing.assert_allclose(slope, differences, rtol=1e-6, atol=1e-6)
    bend = (exact.gradient(x + h) - exact.gradient(x - h))[:, 0] / (2 * h)
    flow = delta * np.exp(x[:, 0]) - (1 - tax) * C
    right = flow + (r - delta - 0.5 * sigma**2) * slope + 0.5 * sigma**2 * bend
    np.testing.assert_allclose(right, r * V, rtol=1e-6, atol=1e-6)
    # Value and slope vanish together at the barrier; waiting is worth something.
    near = np.array([[barrier]])
    assert exact.value(near)[0] == pytest.approx(0.0, abs=1e-9)
    assert exact.gradient(near)[0, 0] == pytest.approx(0.0, abs=1e-9)
    assert (V > 0).all()


def test_the_barrier_of_leland():
    """Payout 0 in the limit: A* = (1 - tax) C / (r + sigma^2 / 2), Leland eq. 14."""
    problem = hjb.catalogue.get("optimal-default", payout=1e-9)
    low, high = problem.domain.low[0], problem.domain.high[0]
    barrier = np.exp(low + (high - low) / 3.0)
    assert barrier == pytest.approx(0.65 * 4.0 / (0.06 + 0.5 * 0.25**2), rel=1e-6)


@pytest.mark.parametrize("parameters", CASES)
def test_the_grid_finds_the_value_at_second_order_and_the_barrier(parameters):
    problem, errors = hjb.catalogue.get("optimal-default", **parameters), []
    # 3 n + 1 nodes: the barrier, a third of the way up, is a node of every grid.
    for n in (151, 301, 601):
        found = hjb.solve(problem, n)
        gap = np.abs(found.value - problem.exact.value(found.grid.nodes()))
        assert (gap <= found.error_bar + 1e-12).mean() >= 0.99
        errors.append(gap.max())
        x = found.grid.axes[0]
        low, high = problem.domain.low[0], problem.domain.high[0]
        edge = x[found.stopping].max()
        assert abs(edge - (low + (high - low) / 3.0)) < 4 * (x[1] - x[0])
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.all(np.abs(orders - 2.0) < 0.25), errors


@pytest.mark.parametrize("name", ["rate", "payout", "sigma", "coupon", "half_width"])
def test_numbers_out_of_range_are_refused(name):
    with pytest.raises(hjb.ProblemError, match=name):
        hjb.catalogue.get("optimal-default", **{name: 0.0})
    with pytest.raises(hjb.ProblemError, match="tax"):
        hjb.catalogue.get("optimal-default", tax=1.0)
