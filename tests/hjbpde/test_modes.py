"""Problems that switch between modes."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import solve_bvp

import hjbpde as hjb
from hjbpde.kernels.block_tridiagonal import block_thomas, solve_excess
from hjbpde.resting import resting_control

RATES = np.array([[-0.3, 0.3], [0.8, -0.8]])


def dense_blocks(c, lower, upper, rates):
    K, n = c.shape
    A = np.zeros((K, n, K, n))
    for k in range(K):
        for i in range(n):
            q = rates[i % len(rates), k]
            A[k, i, k, i] = c[k, i] + lower[k, i] + upper[k, i] + q.sum()
            if i > 0:
                A[k, i, k, i - 1] -= lower[k, i]
            if i < n - 1:
                A[k, i, k, i + 1] -= upper[k, i]
            for j in range(K):
                A[k, i, j, i] -= q[j]
    return A.reshape(K * n, K * n)


@pytest.mark.parametrize("K", [1, 2, 4])
@pytest.mark.parametrize("varying", [False, True])
def test_block_elimination_equals_a_dense_solve(K, varying):
    rng = np.random.default_rng(K)
    n = 9
    c, lower, upper = (rng.random((K, n)) for _ in range(3))
    lower[:, 0] = upper[:, -1] = 0.0
    rates = rng.random((n if varying else 1, K, K)) * (1 - np.eye(K))
    rhs, out = rng.standard_normal((K, n)), np.empty((K, n))
    block_thomas(c, lower, upper, rates, rhs, np.empty((n, K, K)), out)
    wanted = np.linalg.solve(dense_blocks(c, lower, upper, rates), rhs.ravel())
    np.testing.assert_allclose(out.ravel(), wanted, rtol=1e-10, atol=1e-12)


def test_block_elimination_keeps_every_digit_of_a_nearly_singular_system():
    """Discount 1e-12 beside weights 1e8: a dense solve has no digit left."""
    K, n = 3, 400
    rng = np.random.default_rng(0)
    lower, upper = 1e8 * rng.random((K, n)), 1e8 * rng.random((K, n))
    lower[:, 0] = upper[:, -1] = 0.0
    rates = rng.random((1, K, K)) * (1 - np.eye(K))
    c, out = np.full((K, n), 1e-12), np.empty((K, n))
    block_thomas(c, lower, upper, rates, c.copy(), np.empty((n, K, K)), out)
    np.testing.assert_allclose(out, 1.0, rtol=1e-11)


def test_a_small_system_given_by_its_excess():
    rng = np.random.default_rng(3)
    off = rng.random((4, 4)) * (1 - np.eye(4))
    excess, rhs = rng.random(4), rng.random((4, 2))
    A = np.diag(excess + off.sum(1)) - off
    out = rhs.copy()
    solve_excess(off.copy(), excess.copy(), out, np.empty(4))
    np.testing.assert_allclose(out, np.linalg.solve(A, rhs), rtol=1e-13)


def regulators(d=1, q=(1.0, 3.0), **fields):
    """Two regulators that switch into each other: cost q_k |x|^2 + |a|^2."""
    return hjb.ControlProblem(
        drift=lambda x, a: a,
        diffusion=0.4,
        cost=lambda x, a, mode: (q[mode] * x * x + a * a).sum(-1),
        controls=hjb.Box([-np.inf] * d, [np.inf] * d),
        domain=hjb.Box([-1.0] * d, [1.0] * d),
        discount=0.2,
        modes=hjb.Modes(RATES),
        **fields,
    )


def coupled_riccati(q=(1.0, 3.0), rho=0.2, sigma=0.4):
    """V_k = P_k x^2 + c_k per state: rho P_k = q_k - P_k^2 + sum_j q_kj (P_j - P_k).

    By Newton's iteration; c solves (rho - Q) c = sigma^2 P.
    """
    P = np.ones(2)
    for _ in range(50):
        F = np.array(q) - P**2 + RATES @ P - rho * P
        P = P - np.linalg.solve(-2 * np.diag(P) + RATES - rho * np.eye(2), F)
    return P, np.linalg.solve(rho * np.eye(2) - RATES, sigma**2 * P)


def exact_rule(P, c):
    def g(x, mode):
        return (P[mode] * x**2 + c[mode]).sum(-1)

    return hjb.Dirichlet(g)


def test_coupled_regulators_solve_coupled_riccati_equations():
    """First order upwind, and the bar covers the error in every mode."""
    P, c = coupled_riccati()
    problem = regulators(boundary=exact_rule(P, c))
    errors = []
    for n in (101, 201, 401):
        method = hjb.PolicyIteration(hjb.Upwind(), order=1)
        solution = hjb.solve(problem, n, method)
        x = solution.grid.axes[0]
        error = np.abs(solution.value - (P[:, None] * x**2 + c[:, None]))
        assert np.all(error <= solution.error_bar + 1e-12)
        errors.append(error.max())
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.all(np.abs(orders - 1) < 0.15)


def test_where_central_weights_are_monotone_the_value_is_second_order():
    P, c = coupled_riccati()
    solution = hjb.solve(regulators(boundary=exact_rule(P, c)), 101)
    assert isinstance(solution, hjb.ModedSolution)
    x = solution.grid.axes[0]
    wanted = P[:, None] * x**2 + c[:, None]
    # Quadratic values: central differences make no error at all.
    assert np.abs(solution.value - wanted).max() < 1e-8
    at = solution.control_at(np.array([[0.3]]), mode=1)
    assert at[0, 0] == pytest.approx(-0.3 * P[1], abs=1e-6)
    assert solution.mode(1).value_at(np.array([0.3])) == pytest.approx(
        P[1] * 0.09 + c[1], abs=1e-7
    )


def test_artificial_faces_are_closed_in_every_mode():
    P, c = coupled_riccati()
    solution = hjb.solve(regulators(), 161)
    x = solution.grid.nodes()
    error = np.abs(solution.value - (P[:, None] * x[:, 0] ** 2 + c[:, None]))
    inside = solution.region.contains(x)
    assert np.all(error[:, inside] <= solution.error_bar[:, inside] + 1e-12)
    assert error[:, inside].max() < 1e-2


def test_two_states_are_evaluated_by_gauss_seidel_over_the_modes():
    P, c = coupled_riccati()
    solution = hjb.solve(regulators(d=2, boundary=exact_rule(P, c)), (41, 33))
    x = solution.grid.nodes()
    wanted = np.stack([(P[k] * x**2 + c[k]).sum(-1) for k in range(2)])
    assert solution.report.converged
    assert np.abs(solution.value - wanted).max() < 1e-6


def test_a_mode_that_nobody_leaves_is_the_problem_without_modes():
    alone = hjb.ControlProblem(
        drift=lambda x, a: a,
        diffusion=0.4,
        cost=lambda x, a: (x * x + a * a).sum(-1),
        controls=hjb.Box(-2.0, 2.0),
        domain=hjb.Box(-1.0, 1.0),
        discount=0.2,
        boundary=hjb.Reflecting(),
    )
    both = hjb.ControlProblem(
        drift=lambda x, a: a,
        diffusion=0.4,
        cost=lambda x, a, mode: (1 + mode) * (x * x + a * a).sum(-1),
        controls=hjb.Box(-2.0, 2.0),
        domain=hjb.Box(-1.0, 1.0),
        discount=0.2,
        boundary=hjb.Reflecting(),
        modes=hjb.Modes(np.zeros((2, 2))),
    )
    one = hjb.solve(alone, 101, hjb.PolicyIteration(order=1)).value
    two = hjb.solve(both, 101).value
    np.testing.assert_allclose(two[0], one, rtol=1e-9)
    np.testing.assert_allclose(two[1], 2 * one, rtol=1e-9)


def test_rates_that_depend_on_the_state_and_equal_rates():
    """With equal payoffs modes do not matter, whatever the rates."""

    def q(x):
        up = 1 + x[..., 0] ** 2
        down = np.exp(x[..., 0])
        rows = np.stack([-up, up, down, -down], -1)
        return rows.reshape(*x.shape[:-1], 2, 2)

    problem = hjb.ControlProblem(
        drift=lambda x, a: -x,
        diffusion=0.5,
        reward=lambda x, a: np.cos(x[..., 0]),
        domain=hjb.Box(-1.0, 1.0),
        discount=0.1,
        boundary=hjb.Reflecting(),
        modes=hjb.Modes(q, count=2),
    )
    solution = hjb.solve(problem, 65)
    np.testing.assert_allclose(solution.value[0], solution.value[1], rtol=1e-12)
    L = solution.generator().toarray()
    np.testing.assert_allclose(L.sum(1), 0, atol=1e-9)
    assert (L - np.diag(np.diag(L))).min() >= 0
    density = solution.stationary_density()
    mass = (density * solution.node_volumes()).sum(1)
    # On average as many jumps up as down.
    x = solution.grid.nodes()
    rates = q(x) * (solution.node_volumes() * density[0])[:, None, None]
    back = q(x) * (solution.node_volumes() * density[1])[:, None, None]
    assert mass.sum() == pytest.approx(1)
    assert rates[:, 0, 1].sum() == pytest.approx(back[:, 1, 0].sum(), rel=1e-9)


def test_a_moded_solution_is_saved_and_loaded(tmp_path):
    P, c = coupled_riccati()
    problem = regulators(boundary=exact_rule(P, c))
    solution = hjb.solve(problem, 33)
    loaded = hjb.load(solution.save(tmp_path / "modes.npz"), problem)
    assert isinstance(loaded, hjb.ModedSolution)
    np.testing.assert_array_equal(loaded.value, solution.value)
    x = np.array([[0.2]])
    assert loaded.value_at(x, mode=1) == solution.value_at(x, mode=1)


@pytest.mark.parametrize(
    ("rates", "text"),
    [
        ([[-1.0, 1.0], [-2.0, 2.0]], "from mode 1 to 0 is -2"),
        ([[-1.0, 1.0], [2.0, -1.0]], "row 1 of the rates sums to 1"),
        ([[-1.0, 1.0]], "square array"),
        ([[np.nan, 1.0], [1.0, -1.0]], "from mode 0 to 0 is nan"),
        (lambda x: x, "how many modes"),
    ],
)
def test_rates_that_make_no_sense(rates, text):
    with pytest.raises(hjb.ProblemError, match=text):
        hjb.Modes(rates)


def test_modes_that_are_missing_or_do_not_exist():
    with pytest.raises(hjb.ProblemError, match="names mode"):
        hjb.ControlProblem(
            drift=lambda x, a, mode: -x,
            reward=lambda x, a: x[..., 0],
            domain=hjb.Box(-1.0, 1.0),
            discount=1.0,
        )
    solution = hjb.solve(regulators(), 33)
    assert isinstance(solution, hjb.ModedSolution)
    with pytest.raises(hjb.ProblemError, match="modes are 0 to 1"):
        solution.mode(2)
    with pytest.raises(hjb.MethodMismatch, match="order=1"):
        hjb.solve(regulators(), 33, hjb.PolicyIteration(order=2))


def test_resting_controls_are_found_where_the_drift_changes_sign():
    low, high = np.full(3, -1.0), np.full(3, 2.0)
    straight = resting_control(lambda a: 0.3 - a, low, high)
    np.testing.assert_allclose(straight, 0.3, rtol=1e-15)
    bent = resting_control(lambda a: np.array([0.5, 0.0, 9.0]) - a**3, low, high)
    np.testing.assert_allclose(bent[:2] ** 3, [0.5, 0.0], atol=1e-14)
    assert np.isnan(bent[2])


def test_a_closed_form_on_an_infinite_box_needs_no_resting_control():
    """Cost a^4 + x^2: not quadratic, unbounded, with its maximiser given."""
    problem = hjb.ControlProblem(
        drift=lambda x, a: a,
        diffusion=0.4,
        cost=lambda x, a: x[..., 0] ** 2 + a[..., 0] ** 4,
        controls=hjb.Box(-np.inf, np.inf),
        domain=hjb.Box(-1.0, 1.0),
        discount=0.3,
        boundary=hjb.Reflecting(),
        best_control=lambda x, p, hess: -np.cbrt(p / 4),
        modes=hjb.Modes([[-1.0, 1.0], [1.0, -1.0]]),
    )
    solution = hjb.solve(problem, 65)
    np.testing.assert_allclose(solution.value[0], solution.value[1], rtol=1e-12)
    slope = solution.gradient_at(np.array([[0.5]]))[0, 0]
    assert solution.control[0, 48, 0] == pytest.approx(-np.cbrt(slope / 4), rel=1e-2)


def put(**fields):
    """A perpetual put on y = log S (McKean, 1965), the asset alike in all modes."""
    return hjb.ControlProblem(
        drift=lambda x, a: 0 * x + 0.005,
        diffusion=0.3,
        reward=lambda x, a: 0 * x[..., 0],
        domain=hjb.Box(-2.0, 2.0),
        discount=0.05,
        stop=lambda x: np.maximum(1 - np.exp(x[..., 0]), 0),
        boundary=hjb.Reflecting(),
        **fields,
    )


def test_stopping_in_modes_that_do_not_matter_is_stopping():
    alone = hjb.solve(put(), 201)
    both = hjb.solve(put(modes=hjb.Modes(RATES)), 201)
    np.testing.assert_allclose(both.value[0], alone.value, atol=1e-10)
    np.testing.assert_allclose(both.value[1], alone.value, atol=1e-10)
    assert both.stopping is not None
    np.testing.assert_array_equal(both.stopping[1], alone.stopping)


def test_a_right_to_stop_in_one_mode_only_is_worth_less():
    """The right costs value where it is missing, and is kept where it is there."""
    problem = put(modes=hjb.Modes(RATES))
    payoff = problem.stop

    def only_first(x, mode):
        return payoff(x) if mode == 0 else payoff(x) - 10.0

    some = hjb.solve(replace(problem, stop=only_first), 201)
    both = hjb.solve(problem, 201)
    psi = payoff(some.grid.nodes())
    assert (some.value[0] >= psi - 1e-12).all()
    assert (some.value <= both.value + 1e-10).all()
    assert some.value[1].max() < both.value[1].max()
    assert some.stopping is not None
    assert not some.stopping[1].any()


def test_leaving_a_ball_from_modes_with_two_noises():
    """Mean exit times: 1 + s_k^2/2 T_k'' + sum_j q_kj (T_j - T_k) = 0, T(+-1) = 0.

    The reference is a two-point boundary value problem solved by collocation.
    """
    noise = np.array([0.5, 1.2])

    def rhs(x, y):
        T, slope = y[:2], y[2:]
        return np.vstack([slope, -(1 + RATES @ T) * 2 / noise[:, None] ** 2])

    x = np.linspace(-1, 1, 41)
    wanted = solve_bvp(
        rhs,
        lambda a, b: np.r_[a[:2], b[:2]],
        x,
        np.zeros((4, x.size)),
        tol=1e-9,
        max_nodes=10**5,
    )
    problem = hjb.ControlProblem(
        drift=lambda x, a: 0 * x,
        diffusion=lambda x, a, mode: noise[mode] + 0 * x[..., None],
        cost=lambda x, a: 1 + 0 * x[..., 0],
        domain=hjb.Box(-1.0, 1.0),
        discount=1e-9,
        boundary=hjb.Dirichlet(0.0),
        modes=hjb.Modes(RATES),
    )
    errors = []
    for n in (51, 101, 201):
        solution = hjb.solve(problem, n)
        exact = wanted.sol(solution.grid.axes[0])[:2]
        errors.append(np.abs(solution.value - exact).max())
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.all(np.abs(orders - 2) < 0.15)
