"""Every catalogue problem satisfies its own HJB equation at its exact answer."""

import numpy as np
import pytest

import hjbpde as hjb


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("lqr", {}),
        ("lqr", {"dimension": 3}),
        ("merton", {}),
        ("merton", {"axis": "wealth"}),
        ("manufactured", {}),
        ("manufactured", {"dimension": 2}),
        ("manufactured", {"dimension": 4}),
    ],
)
def test_exact_value_satisfies_the_hjb_equation(name, parameters):
    problem = hjb.catalogue.get(name, **parameters)
    x = problem.domain.inner(0.9).sample(np.random.default_rng(0), 20)
    a = np.asarray(problem.exact.control(x))
    value, h = problem.exact.value, 1e-3
    sigma = problem.diffusion_at(x, a)
    noise = 0.5 * np.einsum("nik,njk->nij", sigma, sigma)
    lap = np.zeros(len(x))
    for k, e in enumerate(h * np.eye(problem.dimension)):
        bend = (value(x + e) - 2 * value(x) + value(x - e)) / h**2
        lap += noise[:, k, k] * bend
    drift = (problem.exact.gradient(x) * problem.drift_at(x, a)).sum(-1)
    right = problem.payoff_at(x, a) + drift + lap
    left = problem.discount_at(x) * value(x)
    assert np.max(np.abs(left - right)) < 1e-5 * np.max(np.abs(left))


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(hjb.ProblemError, match="merton"):
        hjb.catalogue.get("mertn")
