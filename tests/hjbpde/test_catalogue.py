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
        ("optimal-dividends", {}),
        ("optimal-dividends", {"max_rate": 0.1, "discount": 0.3}),
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


def test_names_are_listed_and_every_one_can_be_built():
    names = hjb.catalogue.names()
    assert {"lqr", "merton", "manufactured", "robust-lqr"} <= set(names)
    for name in names:
        problem = hjb.catalogue.get(name)
        assert problem.name == name
        assert problem.suggested_grid is not None
        assert problem.exact is None or problem.exact.source


def test_lqr_has_the_numbers_of_the_article():
    """P = .26618..., the positive root of 10 P^2 + 1.1 P - 1 = 0, by hand."""
    problem = hjb.catalogue.get("lqr")
    P = (-1.1 + np.sqrt(1.1**2 + 40)) / 20
    one = np.ones((1, 1))
    wanted = -0.5 * P - 0.09 * P / 0.2
    assert problem.exact.value(one)[0] == pytest.approx(wanted, rel=1e-12)
    assert problem.exact.control(one)[0, 0] == pytest.approx(-10 * P, rel=1e-12)


def test_lqr_in_two_states_agrees_with_the_riccati_flow():
    """The differential Riccati equation, run until it rests, from P = 0."""
    from scipy.integrate import solve_ivp

    A, B = np.array([[0.1, 1.0], [-0.5, -0.2]]), np.array([[0.0], [1.0]])
    Q, R, rho = np.diag([1.0, 0.3]), np.array([[0.2]]), 0.15

    def flow(t, p):
        P = p.reshape(2, 2)
        gain = P @ B @ np.linalg.solve(R, B.T @ P)
        return (Q + A.T @ P + P @ A - gain - rho * P).ravel()

    P = solve_ivp(flow, (0, 300), np.zeros(4), rtol=1e-10, atol=1e-12).y[:, -1]
    problem = hjb.catalogue.get("lqr", A=A, B=B, Q=Q, R=R, D=np.eye(2), discount=rho)
    x = np.array([[0.3, -0.7], [1.0, 0.5]])
    slope = problem.exact.gradient(x)
    assert np.allclose(slope, -x @ P.reshape(2, 2), rtol=1e-6)


def test_merton_has_the_numbers_of_the_article():
    """pi* = (mu - r)/(gamma sigma^2) = .625; k* = (rho + M)/2 with gamma = 2."""
    exact = hjb.catalogue.get("merton").exact
    M = 0.03 + 0.05**2 / (2 * 2 * 0.2**2)
    share, rate = exact.control(np.zeros((1, 1)))[0]
    assert share == pytest.approx(0.625)
    assert rate == pytest.approx((0.05 + M) / 2)


def test_merton_refuses_parameters_of_infinite_value():
    """gamma = .5: k* = (rho - .5 M)/.5 < 0 when rho < M/2 = .0306."""
    with pytest.raises(hjb.ProblemError, match="infinite"):
        hjb.catalogue.get("merton", gamma=0.5, discount=0.02)


def test_manufactured_takes_a_value_of_your_own():
    """V = cos(x) with f0 = -x; the solver finds it without being told."""
    problem = hjb.catalogue.get(
        "manufactured",
        value=lambda x: np.cos(x[..., 0]),
        gradient=lambda x: -np.sin(x),
        laplacian=lambda x: -np.cos(x[..., 0]),
        free_drift=lambda x: -x,
    )
    solution = hjb.solve(problem, 201)
    gap = np.abs(solution.value - np.cos(solution.grid.axes[0]))
    assert gap.max() < 1e-4
    assert (gap <= solution.error_bar + 1e-14).mean() >= 0.99


@pytest.mark.parametrize("name", ["lqr", "manufactured", "merton"])
def test_an_unknown_parameter_or_boundary_is_refused(name):
    with pytest.raises((hjb.ProblemError, TypeError)):
        hjb.catalogue.get(name, nonsense=1)
    with pytest.raises(hjb.ProblemError):
        hjb.catalogue.get(name, boundary="nonsense")
