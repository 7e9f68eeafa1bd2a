"""Optimal dividends at a bounded rate, against the closed form and simulation."""

import numpy as np
import pytest

import hjbpde as hjb

CASES = [
    {},
    {"max_rate": 0.1, "discount": 0.3},  # the full rate from the start: x* = 0
    {"mu": 0.2, "sigma": 0.7, "discount": 0.05, "max_rate": 0.15},  # A < mu
]


def threshold_of(problem) -> float:
    """Where the exact control jumps, by bisection."""
    low, high = 0.0, float(problem.domain.high[0])
    for _ in range(60):
        middle = 0.5 * (low + high)
        pays = problem.exact.control(np.array([[middle]]))[0, 0] > 0
        low, high = (low, middle) if pays else (middle, high)
    return high


@pytest.mark.parametrize("parameters", CASES)
def test_the_closed_form_solves_the_equation_and_fits_smoothly(parameters):
    """rho V = sup_a {a (1 - V')} + mu V' + sigma^2 V''/2, V(0) = 0, V' = 1 at x*.

    V' is checked against differences of V; V'' is differences of V', on each side
    alone, so that the equation itself is tested at every point, x* included.
    """
    given = {"mu": 0.5, "sigma": 1.0, "discount": 0.1, "max_rate": 1.0, **parameters}
    mu, sigma, rho, A = (given[k] for k in ("mu", "sigma", "discount", "max_rate"))
    problem = hjb.catalogue.get("optimal-dividends", **parameters)
    exact, star = problem.exact, threshold_of(problem)
    assert exact.value(np.zeros((1, 1)))[0] == pytest.approx(0, abs=1e-14)
    h = 1e-5
    sides = [np.linspace(star + 2 * h, 8 - 2 * h, 50)]
    if star > 1e-9:
        sides.append(np.linspace(2 * h, star - 2 * h, 50))
    for y in sides:
        x = y[:, None]
        slope = exact.gradient(x)[:, 0]
        differences = (exact.value(x + h) - exact.value(x - h)) / (2 * h)
        # Rounding of V over h is 1e-10 at most.
        np.testing.assert_allclose(slope, differences, rtol=1e-7, atol=1e-10)
        bend = (exact.gradient(x + h) - exact.gradient(x - h))[:, 0] / (2 * h)
        best = np.maximum(A * (1 - slope), 0.0)
        right = best + mu * slope + 0.5 * sigma**2 * bend
        np.testing.assert_allclose(right, rho * exact.value(x), atol=1e-8)
        # The control attains the maximum.
        paid = exact.control(x)[:, 0] * (1 - slope)
        np.testing.assert_allclose(paid, best, atol=1e-12)
    if star > 1e-9:
        near = np.array([[star - 1e-9], [star + 1e-9]])
        np.testing.assert_allclose(exact.gradient(near), 1.0, atol=1e-8)
        assert exact.value(near)[0] == pytest.approx(exact.value(near)[1], abs=1e-8)


def test_the_threshold_tends_to_the_barrier_of_unbounded_rates():
    """b = 2 ln(-r- / r+) / (r+ - r-): Gerber and Shiu, N. Am. Actuar. J. 8 (2004) 1.

    It is where V'' = 0 for V = e^{r+ x} - e^{r- x}; a bound costs O(1/A).
    """
    root = np.sqrt(0.5**2 + 2 * 0.1)
    rising, falling = -0.5 + root, -0.5 - root
    barrier = 2 * np.log(-falling / rising) / (rising - falling)
    gaps = [
        barrier - threshold_of(hjb.catalogue.get("optimal-dividends", max_rate=A))
        for A in (10.0, 100.0, 1000.0)
    ]
    assert 0 < gaps[2] < 1e-3 * barrier
    ratios = np.array(gaps[:-1]) / gaps[1:]
    assert np.all(np.abs(np.log10(ratios) - 1) < 0.1)


def test_the_value_converges_at_second_order_with_the_threshold_on_a_node():
    """V''' jumps at x*: only with x* on a node are all errors of one order."""
    star = threshold_of(hjb.catalogue.get("optimal-dividends"))
    problem = hjb.catalogue.get("optimal-dividends", high=4 * star)
    errors = []
    for n in (101, 201, 401):
        solution = hjb.solve(problem, n)
        gap = np.abs(solution.value - problem.exact.value(solution.grid.nodes()))
        assert np.all(gap <= solution.error_bar + 1e-14)
        errors.append(gap.max())
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.all(np.abs(orders - 2) < 0.15)


@pytest.mark.parametrize("boundary", ["decay", None])
@pytest.mark.parametrize("parameters", CASES)
def test_the_suggested_grid_finds_value_and_threshold(parameters, boundary):
    problem = hjb.catalogue.get("optimal-dividends", boundary=boundary, **parameters)
    solution = hjb.solve(problem)
    x = solution.grid.nodes()
    inside = solution.region.contains(x, 1e-12)
    gap = np.abs(solution.value - problem.exact.value(x))[inside]
    bar = solution.error_bar[inside]
    assert (gap <= bar + 1e-14).mean() >= 0.99
    assert bar.max() < 1e-4 * np.abs(solution.value).max()
    # Bang-bang: the same control but at nodes next to x*.
    h = x[1, 0] - x[0, 0]
    away = (np.abs(x[:, 0] - threshold_of(problem)) > h) & (x[:, 0] > 0) & inside
    np.testing.assert_array_equal(
        solution.control[away], problem.exact.control(x)[away]
    )


@pytest.mark.slow
def test_paths_under_the_policy_collect_the_value():
    """Independent of the equation: Euler paths, their dividends until ruin.

    Ruin between two steps is missed, which is an error of order sqrt(dt): two step
    sizes and their extrapolation in sqrt(dt); four standard errors are allowed.
    """
    problem = hjb.catalogue.get("optimal-dividends", discount=0.5)
    solution = hjb.solve(problem)
    found, spread = [], []
    for dt in (0.04, 0.01):
        paths = solution.simulate([1.0], 16.0, dt, paths=8000, seed=3)
        paid = paths.rewards[:, -1]
        found.append(paid.mean())
        spread.append(paid.std() / np.sqrt(len(paid)))
    limit = 2 * found[1] - found[0]
    allowed = 4 * np.hypot(2 * spread[1], spread[0])
    wanted = problem.exact.value(np.array([[1.0]]))[0]
    assert abs(limit - wanted) < allowed
    assert allowed < 0.15 * wanted


@pytest.mark.parametrize(
    ("parameters", "text"),
    [
        ({"high": 2.0}, "threshold x"),
        ({"sigma": 0.0}, "sigma must be positive"),
        ({"max_rate": -1.0}, "max_rate must be positive"),
        ({"boundary": "nonsense"}, "'decay', a rule or None"),
    ],
)
def test_unusable_parameters_are_refused(parameters, text):
    with pytest.raises(hjb.ProblemError, match=text):
        hjb.catalogue.get("optimal-dividends", **parameters)
