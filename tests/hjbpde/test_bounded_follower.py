"""The bounded-velocity follower: a long-run average of the catalogue."""

import numpy as np
import pytest
from scipy.integrate import quad

import hjbpde as hjb

PARAMETERS = [{}, {"bound": 2.0, "sigma": 1.1}, {"bound": 0.5, "half_width": 6.0}]


@pytest.mark.parametrize("parameters", PARAMETERS)
def test_the_closed_form_satisfies_the_equation_and_its_own_policy(parameters):
    problem = hjb.catalogue.get("bounded-follower", **parameters)
    exact, h = problem.exact, 1e-4
    x = np.linspace(-2.0, 2.0, 40)[:, None]
    high, low = exact.value(x + h), exact.value(x - h)
    slope, bend = (high - low) / (2 * h), (high - 2 * exact.value(x) + low) / h**2
    np.testing.assert_allclose(exact.gradient(x)[:, 0], slope, atol=1e-7)
    noise = 0.5 * problem.diffusion_at(x, x)[:, 0, 0] ** 2 * bend
    bound = parameters.get("bound", 1.0)
    choices = np.linspace(-bound, bound, 21)[:, None]
    right = np.array(
        [
            problem.payoff_at(x, a + 0 * x) + (a * exact.gradient(x))[:, 0] + noise
            for a in choices
        ]
    )
    np.testing.assert_allclose(right.min(axis=0), exact.average, atol=1e-6)
    best = choices[right.argmin(axis=0)]
    np.testing.assert_array_equal(best, exact.control(x))
    assert exact.value(np.zeros((1, 1)))[0] == 0.0


@pytest.mark.parametrize("parameters", PARAMETERS)
def test_the_average_is_the_second_moment_of_the_density(parameters):
    """Of exp(-2 M |x| / sigma^2), by quadrature, and so V'(0) is 0."""
    exact = hjb.catalogue.get("bounded-follower", **parameters).exact
    M = parameters.get("bound", 1.0)
    rate = 2.0 * M / parameters.get("sigma", 0.6) ** 2
    mass = quad(lambda x: np.exp(-rate * x), 0, np.inf)[0]
    second = quad(lambda x: x * x * np.exp(-rate * x), 0, np.inf)[0]
    assert exact.average == pytest.approx(second / mass, rel=1e-9)
    assert exact.gradient(np.zeros((1, 1))) == 0.0


@pytest.mark.parametrize("boundary", ["exact", None])
def test_the_grid_finds_the_closed_form_within_its_bars(boundary):
    problem = hjb.catalogue.get("bounded-follower", boundary=boundary)
    solution = hjb.solve(problem, 201)
    off = abs(solution.average - problem.exact.average)
    assert off <= solution.report.details["average_error"] < 1e-5
    x = solution.grid.nodes()
    inside = solution.region.contains(x)
    error = np.abs(solution.value - problem.exact.value(x))[inside]
    assert np.all(error <= solution.error_bar[inside])
    away = np.abs(x[..., 0]) > 1e-9
    np.testing.assert_array_equal(
        solution.control[away], problem.exact.control(x)[away]
    )


def test_impossible_parameters_are_refused():
    with pytest.raises(hjb.ProblemError, match="sigma must be positive"):
        hjb.catalogue.get("bounded-follower", sigma=0.0)
    with pytest.raises(hjb.ProblemError, match="'exact', a rule or None"):
        hjb.catalogue.get("bounded-follower", boundary="free")
