"""Long-run averages and relative values."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import quad

import hjbpde as hjb


def regulator(d=1, sigma=0.5, **fields):
    """Cost |x|^2 + |a|^2, drift a: V = |x|^2, average sigma^2 d.

    The Riccati equation 1 - P^2 = 0 has P = 1, and the noise costs sigma^2 P a state
    (Yong and Zhou, Stochastic Controls (1999), chapter 6, without discount).
    """
    return hjb.ControlProblem(
        drift=lambda x, a: a,
        diffusion=sigma,
        cost=lambda x, a: (x * x + a * a).sum(-1),
        controls=hjb.Box([-np.inf] * d, [np.inf] * d),
        domain=hjb.Box([-2.0] * d, [2.0] * d),
        average=True,
        **fields,
    )


def test_the_regulators_average_is_the_noise_times_the_riccati_solution():
    average, value = [], []
    for n in (101, 201, 401):
        solution = hjb.solve(regulator(), n, hjb.PolicyIteration(hjb.Upwind(), order=1))
        assert solution.average is not None
        off = abs(solution.average - 0.25)
        assert off <= solution.report.details["average_error"]
        x = solution.grid.nodes()
        inside = solution.region.contains(x)
        error = np.abs(solution.value - x[:, 0] ** 2)[inside]
        assert np.all(error <= solution.error_bar[inside])
        average.append(off)
        value.append(error.max())
    for errors in (average, value):
        orders = np.log2(np.array(errors[:-1]) / errors[1:])
        assert np.all(np.abs(orders - 1) < 0.15)


@pytest.mark.parametrize(("d", "shape"), [(1, 101), (2, (41, 41))])
def test_central_weights_reproduce_a_quadratic_value(d, shape):
    solution = hjb.solve(regulator(d), shape)
    assert solution.average == pytest.approx(0.25 * d, abs=1e-8)
    x = solution.grid.nodes()
    inside = solution.region.contains(x)
    error = np.abs(solution.value - (x**2).sum(-1))[inside]
    assert error.max() < 1e-8
    a = solution.control_at(np.full((1, d), 0.7))
    np.testing.assert_allclose(a, -0.7, atol=1e-7)


def bounded(sigma=0.6, half_width=3.0, **fields):
    """Cost x^2, drift a in [-1, 1]: bang-bang, by symmetry towards 0.

    The density is Laplace, exp(-2 |x| / sigma^2) / sigma^2, so the average is
    sigma^4 / 2, and V = |x|^3 / 3 + sigma^2 x^2 / 2 solves the equation on x > 0 with
    V'(0) = 0.
    """
    return hjb.ControlProblem(
        drift=lambda x, a: a,
        diffusion=sigma,
        cost=lambda x, a: x[..., 0] ** 2,
        controls=hjb.Box(-1.0, 1.0),
        domain=hjb.Box(-half_width, half_width),
        average=True,
        **fields,
    )


@pytest.mark.parametrize("n", [51, 101, 201])
def test_a_bounded_control_on_the_line(n):
    """The value is a cubic on each side: only cutting the line makes an error."""
    solution = hjb.solve(bounded(), n)
    assert solution.average is not None
    off = abs(solution.average - 0.6**4 / 2)
    assert off < 1e-6
    assert off <= solution.report.details["average_error"]
    x = solution.grid.nodes()
    inside = solution.region.contains(x)
    size = np.abs(x[:, 0])
    error = np.abs(solution.value - size**3 / 3 - 0.18 * size**2)[inside]
    assert np.all(error <= solution.error_bar[inside])
    assert solution.value[n // 2] == 0


def test_reflecting_faces_cut_the_density():
    """E[x^2] under exp(-2 |x| / sigma^2) on [-1, 1]: second order in h."""
    s2 = 0.36
    over = quad(lambda x: x * x * np.exp(-2 * x / s2), 0, 1)[0]
    wanted = over / quad(lambda x: np.exp(-2 * x / s2), 0, 1)[0]
    errors = []
    for n in (101, 201, 401):
        solution = hjb.solve(bounded(half_width=1.0, boundary=hjb.Reflecting()), n)
        assert solution.average is not None
        errors.append(abs(solution.average - wanted))
        assert errors[-1] <= solution.report.details["average_error"]
        density = solution.stationary_density()
        x = solution.grid.axes[0]
        mean = (density * x**2 * solution.node_volumes()).sum()
        # The chain's own average of its payoff is the average found.
        assert mean == pytest.approx(solution.average, rel=1e-8)
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.all(np.abs(orders - 2) < 0.2)


def test_without_controls_on_a_circle():
    """dX = sin X dt + sigma dW on the circle: the density exp(-2 cos x / sigma^2)."""
    problem = hjb.ControlProblem(
        drift=lambda x, a: np.sin(x),
        diffusion=1.0,
        reward=lambda x, a: np.cos(x[..., 0]),
        domain=hjb.Box(0.0, 2 * np.pi, periodic=True),
        average=True,
    )

    def weight(x):
        return np.exp(-2 * np.cos(x))

    total = quad(weight, 0, 2 * np.pi)[0]
    wanted = quad(lambda x: np.cos(x) * weight(x), 0, 2 * np.pi)[0] / total
    errors = []
    for n in (40, 80, 160):
        solution = hjb.solve(problem, n)
        assert solution.average is not None
        errors.append(abs(solution.average - wanted))
        assert errors[-1] <= solution.report.details["average_error"]
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.all(np.abs(orders - 2) < 0.2)


def test_a_vanishing_discount_leads_to_the_average():
    """rho V_rho(0) tends to the average, V_rho - V_rho(0) to the relative value."""
    long_run = hjb.solve(bounded(half_width=2.0, boundary=hjb.Reflecting()), 101)
    gaps = []
    for rho in (0.04, 0.02, 0.01):
        problem = hjb.ControlProblem(
            drift=lambda x, a: a,
            diffusion=0.6,
            cost=lambda x, a: x[..., 0] ** 2,
            controls=hjb.Box(-1.0, 1.0),
            domain=hjb.Box(-2.0, 2.0),
            discount=rho,
            boundary=hjb.Reflecting(),
        )
        V = hjb.solve(problem, 101, hjb.PolicyIteration(order=1)).value
        gaps.append(np.abs(V - V[50] - long_run.value).max())
    orders = np.log2(np.array(gaps[:-1]) / gaps[1:])
    assert np.all(np.abs(orders - 1) < 0.15)


@pytest.mark.parametrize("gain", [-0.3, 0.0, 0.5, 1.0])
def test_a_fixed_policy_has_the_average_of_its_own_density(gain):
    """a = -k x, reflected at +-1: exp(-k x^2 / sigma^2), cost (1 + k^2) x^2."""
    near = {"domain": hjb.Box(-1.0, 1.0), "boundary": hjb.Reflecting()}
    problem = replace(regulator(), **near)

    def weight(x):
        return np.exp(-gain * x**2 / 0.25)

    moment = quad(lambda x: x * x * weight(x), 0, 1)[0] / quad(weight, 0, 1)[0]
    wanted, errors = (1 + gain**2) * moment, []
    for n in (51, 101, 201):
        found = hjb.evaluate(problem, n, lambda x: -gain * x)
        errors.append(abs(found.average - wanted))
        assert errors[-1] <= found.report.details["average_error"]
        np.testing.assert_array_equal(found.control, -gain * found.grid.nodes())
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.all(np.abs(orders - 2) < 0.2)


def test_a_fixed_drift_round_the_plane_sees_every_state_alike():
    """Where the chain's law is uniform its average is the mean of the nodes."""
    problem = hjb.ControlProblem(
        drift=lambda x, a: a,
        diffusion=0.4,
        reward=lambda x, a: np.sin(x[..., 0]) ** 2 + np.cos(x[..., 1]) ** 4,
        controls=hjb.Box([-1.0, -1.0], [1.0, 1.0]),
        domain=hjb.Box([0.0, 0.0], [2 * np.pi] * 2, periodic=True),
        average=True,
    )
    found = hjb.evaluate(problem, (32, 24), lambda x: 0 * x + np.array([0.7, -0.2]))
    assert found.average == pytest.approx(1 / 2 + 3 / 8, abs=1e-8)


def test_a_fixed_policy_that_rests_everywhere_has_no_common_average():
    problem = replace(bounded(boundary=hjb.Reflecting()), diffusion=None)
    with pytest.raises(hjb.NotConverged):
        hjb.evaluate(problem, 41, lambda x: 0 * x)
    corner = hjb.evaluate(problem, 41, lambda x: 0 * x + 1.0)
    assert corner.average is not None
    # What drifts against the face stays there.
    assert corner.average == pytest.approx(9.0, rel=1e-9)


def test_what_the_long_run_cannot_be():
    with pytest.raises(hjb.ProblemError, match="discount=0"):
        bounded(discount=0.1)
    with pytest.raises(hjb.ProblemError, match="'stop'"):
        bounded(stop=lambda x: x[..., 0])
    with pytest.raises(hjb.ProblemError, match="nothing may end"):
        hjb.solve(bounded(boundary=hjb.Dirichlet(0.0)), 33)
    with pytest.raises(hjb.MethodMismatch, match="order=1"):
        hjb.solve(bounded(), 33, hjb.PolicyIteration(order=2))


def test_two_basins_have_no_common_average():
    """Without noise the states left and right of 0 never meet."""
    problem = hjb.ControlProblem(
        drift=lambda x, a: x * (1 - x * x),
        reward=lambda x, a: x[..., 0],
        domain=hjb.Box(-1.5, 1.5),
        boundary=hjb.Reflecting(),
        average=True,
    )
    with pytest.raises(hjb.NotConverged):
        hjb.solve(problem, 41)


def test_the_average_is_saved_with_the_solution(tmp_path):
    problem = regulator()
    solution = hjb.solve(problem, 33)
    loaded = hjb.load(solution.save(tmp_path / "average.npz"), problem)
    assert loaded.average == solution.average
    assert "long-run average" in str(solution.report)
