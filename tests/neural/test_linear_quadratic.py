"""The baseline without training: exact where it must be, honest elsewhere."""

import dataclasses

import numpy as np
import pytest

import hjbpde as hjb
import neural


@pytest.mark.parametrize("d", [1, 3])
@pytest.mark.parametrize("off_centre", [False, True])
def test_lqr_is_met_exactly_from_any_state(d, off_centre):
    problem = hjb.catalogue.get("lqr", dimension=d)
    at = np.full(d, 0.7) if off_centre else None
    solution = neural.linear_quadratic(problem, at=at)
    x = problem.domain.inner(0.9).sample(np.random.default_rng(0), 50)
    exact = problem.exact
    np.testing.assert_allclose(solution.value_at(x), exact.value(x), rtol=1e-6)
    np.testing.assert_allclose(
        solution.gradient_at(x), exact.gradient(x), rtol=1e-6, atol=1e-8
    )
    np.testing.assert_allclose(
        solution.control_at(x), exact.control(x), rtol=1e-5, atol=1e-7
    )


def test_cost_gives_the_opposite_value():
    gain = hjb.catalogue.get("lqr", dimension=2)
    reward = gain.reward
    loss = dataclasses.replace(gain, reward=None, cost=lambda x, a: -reward(x, a))
    x = gain.domain.sample(np.random.default_rng(0), 20)
    one, other = neural.linear_quadratic(gain), neural.linear_quadratic(loss)
    np.testing.assert_allclose(one.value_at(x), -other.value_at(x), rtol=1e-12)


def test_equilibrium_is_where_the_closed_loop_rests():
    problem = hjb.catalogue.get("manufactured", dimension=2, boundary=None)
    at = neural.equilibrium(problem)
    solution = neural.linear_quadratic(problem, at=at)
    a = solution.control_at(at)
    np.testing.assert_allclose(problem.drift_at(at, a), 0, atol=1e-5)
    assert "not trained" in str(solution.report)


def test_unusable_state_or_problem_is_refused():
    problem = hjb.catalogue.get("lqr", dimension=2)
    with pytest.raises(hjb.ProblemError, match="shape"):
        neural.linear_quadratic(problem, at=[0.0])
    with pytest.raises(hjb.ProblemError, match="outside"):
        neural.linear_quadratic(problem, at=[0.0, 9.0])
    with pytest.raises(hjb.MethodMismatch, match="no such approximation"):
        neural.linear_quadratic(hjb.catalogue.get("merton"))
