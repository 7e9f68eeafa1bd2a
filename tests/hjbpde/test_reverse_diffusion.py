"""Reverse diffusion on the grid: V = -log p_(T-t) of a mixture."""

import numpy as np
import pytest
from scipy.stats import norm

import hjbpde as hjb

PLANE = {
    "means": ((-1.5, 0.0), (1.0, 1.2), (1.0, -1.2)),
    "variances": (0.2, 0.3, 0.2),
    "half_width": 3.0,
}


def test_exact_value_is_the_density_of_the_noised_data():
    """p_s as an integral of p_0 against the transition density, by quadrature."""
    problem = hjb.catalogue.get("reverse-diffusion")
    y, weight = np.linspace(-6, 6, 4001), 12.0 / 4000
    p0 = np.exp(-problem.exact.value(y[:, None], 1.0))
    assert p0.sum() * weight == pytest.approx(1.0, abs=1e-10)
    x = np.array([-2.5, -0.3, 0.9, 2.0])
    for t in (0.0, 0.6):
        s = 1.0 - t
        spread = np.sqrt(1.0 - np.exp(-2.0 * s))
        kernel = norm.pdf(x[:, None], np.exp(-s) * y, spread)
        found = problem.exact.value(x[:, None], t)
        np.testing.assert_allclose(found, -np.log(kernel @ p0 * weight), rtol=1e-9)


@pytest.mark.parametrize("parameters", [{}, PLANE])
def test_exact_value_satisfies_the_hjb_equation(parameters):
    """0 = V_t + l + f . grad V + sigma^2/2 lap V, fourth-order differences."""
    problem = hjb.catalogue.get("reverse-diffusion", **parameters)
    exact, d = problem.exact, problem.dimension
    x = problem.domain.inner(0.7).sample(np.random.default_rng(1), 40)
    t, h = 0.4, 2e-3

    def second(f):
        return (16 * (f(h) + f(-h)) - f(2 * h) - f(-2 * h) - 30 * f(0.0)) / (12 * h**2)

    lap = sum(second(lambda s, e=e: exact.value(x + s * e, t)) for e in np.eye(d))
    in_time = (exact.value(x, t + 1e-4) - exact.value(x, t - 1e-4)) / 2e-4
    a = exact.control(x, t)
    drift = (problem.drift_at(x, a) * exact.gradient(x, t)).sum(-1)
    residual = in_time + problem.cost(x, a) + drift + lap
    assert np.abs(residual).max() < 1e-5 * np.abs(drift).max()
    # The terminal cost, written for any array library, is the exact one.
    np.testing.assert_allclose(problem.terminal(x), exact.value(x, 1.0), rtol=1e-12)


@pytest.mark.parametrize(
    ("parameters", "shape", "bound"),
    [({}, 101, 1e-5), (PLANE, (33, 33), 5e-3)],
)
def test_the_grid_finds_the_scores(parameters, shape, bound):
    problem = hjb.catalogue.get("reverse-diffusion", **parameters)
    method = hjb.Marching(steps=32)
    found = hjb.solve(problem, shape, method, times=[0.0, 0.5])
    assert isinstance(found, hjb.TimedSolution)
    x = found.grid.nodes()
    inner = problem.domain.inner(0.75).contains(x)
    for k, t in enumerate(found.times[:2]):
        exact = problem.exact.value(x, float(t))
        gap = np.abs(found.value[k] - exact)
        assert gap.max() < bound * np.abs(exact).max()
        assert (gap <= found.error_bar[k] + 1e-12)[inner].mean() >= 0.99
        miss = found.control[k] - problem.exact.control(x, float(t))
        size = np.abs(problem.exact.control(x, float(t))).max()
        assert np.abs(miss[inner]).max() < 0.05 * size


def test_mixtures_that_do_not_fit_are_refused():
    for wrong in (
        {"weights": (1.0,)},
        {"variances": (0.1, 0.1, -0.1)},
        {"means": (0.0, 1.0, 2.0)},
        {"sigma": 0.0},
        {"boundary": "nonsense"},
    ):
        with pytest.raises(hjb.ProblemError, match="reverse-diffusion"):
            hjb.catalogue.get("reverse-diffusion", **wrong)
