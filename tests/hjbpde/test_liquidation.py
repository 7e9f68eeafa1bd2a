"""Optimal liquidation, against the Riccati equation and the Almgren-Chriss path."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp

import hjbpde as hjb

ETA, RISK, T = 2.5, 0.95**2, 5.0
KAPPA = np.sqrt(RISK / ETA)
ONE = np.ones((1, 1))


def test_the_closed_form_is_the_flow_of_the_riccati_equation():
    """V = h q^2 in -V_t = inf_v {eta v^2 + risk q^2 - v V_q}: h' = h^2/eta - risk."""
    exact = hjb.catalogue.get("liquidation").exact
    flow = solve_ivp(
        lambda s, h: RISK - h * h / ETA,
        (0, T),
        [50.0],
        rtol=1e-11,
        atol=1e-11,
        dense_output=True,
    )
    for t in (0.0, 2.5, 4.9, T):
        h = flow.sol(T - t)[0]
        assert exact.value(ONE, t)[0] == pytest.approx(h, rel=1e-8)
        assert exact.gradient(ONE, t)[0, 0] == pytest.approx(2 * h, rel=1e-8)
        assert exact.control(ONE, t)[0, 0] == pytest.approx(h / ETA, rel=1e-8)


def test_the_penalised_value_tends_to_the_value_of_selling_everything():
    """m coth(kappa T), less a loss of first order in 1/K."""
    limit = ETA * KAPPA / np.tanh(KAPPA * T)
    gaps = [
        limit - hjb.catalogue.get("liquidation", penalty=K).exact.value(ONE)[0]
        for K in (1e2, 1e3, 1e4)
    ]
    assert np.all(np.array(gaps) > 0)
    ratios = np.log10(np.array(gaps[:-1]) / gaps[1:])
    assert np.all(np.abs(ratios - 1) < 0.02)


@pytest.fixture(scope="module")
def solutions():
    """Steps in time and space halved together; the coarsest first."""
    problem = hjb.catalogue.get("liquidation")
    return [
        hjb.solve(problem, n, hjb.Marching(order=2, steps=steps))
        for n, steps in ((101, 32), (201, 64), (401, 128))
    ]


def test_value_and_control_converge_at_first_order(solutions):
    """No noise, so the scheme is upwind: first order, at all times and at t = 0."""
    exact = solutions[0].problem.exact
    errors = []
    for solution in solutions:
        x = solution.grid.nodes()
        # At T itself there is nothing left to choose: no control there.
        values = [
            np.abs(solution.value[i] - exact.value(x, t))
            for i, t in enumerate(solution.times)
        ]
        controls = [
            np.abs(solution.control[i] - exact.control(x, t)).max()
            for i, t in enumerate(solution.times[:-1])
        ]
        assert np.all(np.stack(values) <= solution.error_bar + 1e-12)
        errors.append([np.max(values), values[0].max(), max(controls), controls[0]])
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.all(np.abs(orders - 1) < 0.15)
    # The controls run from 0 to K X / eta = 20.
    assert errors[-1][2] < 5e-3 * 20


def test_corrected_steps_are_far_better(solutions):
    """By default steps are corrected: a tenth of the error of first order, covered."""
    plain, problem = solutions[0], solutions[0].problem
    found = hjb.solve(problem, plain.grid, hjb.Marching(steps=32))
    exact = problem.exact.value(found.grid.nodes())
    gap, before = (np.abs(one.value[0] - exact) for one in (found, plain))
    assert gap.max() < before.max() / 10
    assert np.mean(gap <= found.error_bar[0] + 1e-12) >= 0.99


def test_the_bar_at_the_suggested_grid_is_a_thousandth_of_the_scale():
    problem = hjb.catalogue.get("liquidation")
    solution = hjb.solve(problem)
    x = solution.grid.nodes()
    assert solution.error_bar.max() < 2e-3 * np.abs(solution.value).max()
    gap = np.abs(solution.value[0] - problem.exact.value(x))
    assert np.all(gap <= solution.error_bar[0])


def test_the_policy_sells_along_the_hyperbolic_sine():
    """X sinh kappa (T - t) / sinh kappa T, which no part of the solver knows.

    The path of the penalised problem is (m cosh + K sinh) kappa (T - t), normalised:
    it differs from the limit by less than m / K of X, 0.03, and the computed path
    from it by less still. The computed control is of first order, so this second gap
    halves with the grid.
    """
    m, K = ETA * KAPPA, 50.0
    limit_gap, gaps = 0.0, []
    for n, steps in ((101, 32), (201, 64)):
        problem = hjb.catalogue.get("liquidation")
        times = np.linspace(0, T, 201)
        solution = hjb.solve(
            problem, n, hjb.Marching(order=2, steps=steps), times=times
        )
        q, gap = np.ones((1, 1)), []
        for t, dt in zip(times[:-1], np.diff(times), strict=True):
            half = q - 0.5 * dt * solution.control_at(q, t=t)
            q = q - dt * solution.control_at(half, t=t + 0.5 * dt)
            s = KAPPA * (T - t - dt)
            path = (m * np.cosh(s) + K * np.sinh(s)) / (
                m * np.cosh(KAPPA * T) + K * np.sinh(KAPPA * T)
            )
            gap.append(abs(q[0, 0] - path))
            limit = np.sinh(s) / np.sinh(KAPPA * T)
            limit_gap = max(limit_gap, abs(path - limit))
        gaps.append(max(gap))
    assert max(limit_gap, gaps[1]) < m / K
    assert abs(np.log2(gaps[0] / gaps[1]) - 1) < 0.25


@pytest.mark.parametrize("name", ["inventory", "impact", "penalty", "horizon"])
def test_unusable_parameters_are_refused(name):
    with pytest.raises(hjb.ProblemError, match=f"{name} must be positive"):
        hjb.catalogue.get("liquidation", **{name: 0.0})
