"""Values in closed form, one a boundary rule; errors bounded and orders two-sided."""

import numpy as np
import pytest
from scipy.integrate import quad

import hjbpde as hjb

MONOTONE = hjb.PolicyIteration(order=1)
UPWIND = hjb.PolicyIteration(hjb.Upwind(), order=1)
FOURTH = hjb.PolicyIteration(order=4)


def uncontrolled(drift, noise, reward, domain, rho, boundary):
    return hjb.ControlProblem(
        drift=lambda x, a: drift(x),
        diffusion=noise,
        reward=lambda x, a: reward(x[..., 0]),
        domain=domain,
        discount=rho,
        boundary=boundary,
    )


def errors(problem, exact, counts, method=None):
    out = []
    for n in counts:
        solution = hjb.solve(problem, n, method)
        out.append(np.abs(solution.value - exact(solution.grid.axes[0])).max())
    return np.array(out)


def order(found):
    return float(np.log2(found[-2] / found[-1]))


def brownian_reflected():
    """rho V = cos(pi x) + s^2 V''/2, V' = 0 at 0 and 1: V = cos(pi x) / (rho + ...)."""
    s, rho = 0.6, 0.4
    problem = uncontrolled(
        np.zeros_like, s, lambda y: np.cos(np.pi * y), hjb.Box(0.0, 1.0), rho,
        hjb.Reflecting(),
    )  # fmt: skip
    return problem, lambda y: np.cos(np.pi * y) / (rho + 0.5 * (s * np.pi) ** 2)


def test_reflected_brownian_motion_converges_at_order_two():
    found = errors(*brownian_reflected(), (51, 101, 201), MONOTONE)
    assert abs(order(found) - 2) < 0.1
    assert found[-1] < 1e-5


def test_defect_correction_reaches_order_four_at_reflecting_faces():
    found = errors(*brownian_reflected(), (41, 81), FOURTH)
    assert 3.5 < order(found) < 5.5
    assert found[-1] < 1e-7


def exit_payoff(boundary):
    """Brownian motion paid 1 at +-1: V = cosh(k x)/cosh k, k = sqrt(2 rho)/s."""
    s, rho = 0.7, 0.5
    k = np.sqrt(2 * rho) / s
    problem = uncontrolled(
        np.zeros_like, s, np.zeros_like, hjb.Box(-1.0, 1.0), rho, boundary(k)
    )
    return problem, lambda y: np.cosh(k * y) / np.cosh(k)


@pytest.mark.parametrize(
    "boundary",
    [
        lambda k: hjb.Dirichlet(1.0),
        lambda k: hjb.Dirichlet(lambda x: x[..., 0] ** 2),
        lambda k: hjb.Robin(1.0, 2.0, 1 + 2 * k * np.tanh(k)),
        lambda k: hjb.Robin(0.0, 1.0, lambda x: k * np.tanh(k) * x[..., 0] ** 2),
        lambda k: {
            (0, "low"): hjb.Dirichlet(1.0),
            (0, "high"): hjb.Robin(3.0, 1.0, 3 + k * np.tanh(k)),
        },
    ],
    ids=["dirichlet", "dirichlet-g(x)", "robin", "neumann-g(x)", "mixed"],
)
def test_exit_payoff_converges_at_order_two(boundary):
    found = errors(*exit_payoff(boundary), (51, 101, 201), MONOTONE)
    assert abs(order(found) - 2) < 0.1
    assert found[-1] < 5e-5


def travelling_wave():
    """Constant drift c on a circle: V = Re e^{iwx}/(rho + s^2 w^2/2 - i c w)."""
    s, rho, c, w = 0.5, 0.3, 0.8, 2 * np.pi
    problem = uncontrolled(
        lambda x: c + 0 * x, s, lambda y: np.cos(w * y),
        hjb.Box(0.0, 1.0, periodic=True), rho, None,
    )  # fmt: skip
    wave = 1 / (rho + 0.5 * (s * w) ** 2 - 1j * c * w)
    return problem, lambda y: (np.exp(1j * w * y) * wave).real


@pytest.mark.parametrize(("method", "wanted"), [(MONOTONE, 2), (UPWIND, 1)])
def test_a_wave_on_a_circle_converges_at_the_order_of_the_scheme(method, wanted):
    found = errors(*travelling_wave(), (100, 200, 400), method)
    assert abs(order(found) - wanted) < 0.1
    assert found[-1] < (1e-2 if wanted == 1 else 1e-4)


def test_the_error_bar_covers_on_a_circle_with_little_slack():
    problem, exact = travelling_wave()
    solution = hjb.solve(problem, 128)
    error = np.abs(solution.value - exact(solution.grid.axes[0]))
    assert np.mean(error <= solution.error_bar) >= 0.99
    assert np.median(solution.error_bar) < 10 * error.max()


def feynman_kac():
    """dX = -X dt + s dW paid cos X: a Gaussian average under an integral."""
    s, rho = 0.5, 0.5

    def value(y):
        def paid(t, x):
            bend = np.exp(-(s**2) * (1 - np.exp(-2 * t)) / 4)
            return np.exp(-rho * t) * np.cos(x * np.exp(-t)) * bend

        return np.array([quad(paid, 0, 60, args=(x,), epsabs=1e-11)[0] for x in y])

    problem = uncontrolled(lambda x: -x, s, np.cos, hjb.Box(-2.5, 2.5), rho, None)
    return problem, value


def test_ornstein_uhlenbeck_on_the_whole_line_agrees_with_feynman_kac():
    problem, exact = feynman_kac()
    solution = hjb.solve(problem, 201)
    error = np.abs(solution.value - exact(solution.grid.axes[0]))
    inner = solution.region.contains(solution.grid.nodes())
    assert error[inner].max() < 5e-5
    assert np.mean((error <= solution.error_bar)[inner]) >= 0.99


def test_a_stretched_grid_converges_at_order_two():
    problem, exact = brownian_reflected()
    found = []
    for n in (51, 101, 201):
        u = np.linspace(0, 1, n)
        grid = hjb.Grid.from_axes([u + 0.1 * np.sin(2 * np.pi * u)], problem.domain)
        value = hjb.solve(problem, grid, MONOTONE).value
        found.append(np.abs(value - exact(grid.axes[0])).max())
    assert abs(order(np.array(found)) - 2) < 0.1
    assert found[-1] < 3e-5


def test_a_linear_value_is_exact_under_extrapolation():
    """dX = -X dt + s dW paid x: V = x / (rho + 1), linear, so no scheme errs."""
    problem = uncontrolled(
        lambda x: -x, 0.4, lambda y: y, hjb.Box(-1.0, 2.0), 0.3, hjb.Extrapolate()
    )
    solution = hjb.solve(problem, 33)
    assert np.allclose(solution.value, solution.grid.axes[0] / 1.3, atol=1e-10)


@pytest.mark.parametrize("method", [MONOTONE, UPWIND])
def test_a_state_constraint_holds_the_state_at_the_wall(method):
    """Run right at speed 1 and stay: V = int e^{-rho t}(2 - x - t) dt + rest/rho."""
    rho = 0.5
    problem = hjb.ControlProblem(
        drift=lambda x, a: a,
        cost=lambda x, a: 2 - x[..., 0] + 0 * a[..., 0],
        controls=hjb.Box(-1.0, 1.0),
        domain=hjb.Box(0.0, 1.0),
        discount=rho,
        boundary=hjb.StateConstraint(),
    )

    def exact(x):
        T = 1 - x
        decay = np.exp(-rho * T)
        moving = (2 - x) * (1 - decay) / rho
        slowing = (1 - decay * (1 + rho * T)) / rho**2
        return moving - slowing + decay / rho

    found = errors(problem, exact, (51, 101, 201), method)
    assert abs(order(found) - 1) < 0.15
    assert found[-1] < 5e-3
    solution = hjb.solve(problem, 101, method)
    assert solution.control[-1, 0] <= 0
    assert (solution.control[:-1] == 1).all()


def test_the_value_of_a_fixed_policy_has_a_closed_form():
    """a = -x on dX = a dt + s dW paid -x^2 - a^2: V = -2 x^2/(rho+2) - c."""
    s, rho = 0.4, 0.5
    problem = hjb.ControlProblem(
        drift=lambda x, a: a,
        diffusion=s,
        reward=lambda x, a: -(x[..., 0] ** 2) - a[..., 0] ** 2,
        controls=hjb.Box(-9.0, 9.0),
        domain=hjb.Box(-2.0, 2.0),
        discount=rho,
        boundary=hjb.Dirichlet(lambda x: exact(x[..., 0])),
    )

    def exact(y):
        return -2 * y**2 / (rho + 2) - 2 * s**2 / (rho * (rho + 2))

    solution = hjb.evaluate(problem, 201, lambda x: -x)
    y = solution.grid.axes[0]
    assert np.abs(solution.value - exact(y)).max() < 1e-9
    upwind = hjb.evaluate(problem, 201, lambda x: -x, UPWIND)
    error = np.abs(upwind.value - exact(y)).max()
    assert 1e-4 < error < 5e-2
    assert np.array_equal(solution.control[:, 0], -y)


def test_evaluate_names_the_node_of_a_policy_that_is_not_finite():
    problem = hjb.catalogue.get("manufactured")
    with pytest.raises(hjb.ProblemError, match=r"x = \[0\.?\]"):
        hjb.evaluate(problem, 5, lambda x: np.where(np.abs(x) < 0.1, np.nan, x))
    with pytest.raises(hjb.ProblemError, match="the policy has shape"):
        hjb.evaluate(problem, 5, lambda x: x[..., 0])
