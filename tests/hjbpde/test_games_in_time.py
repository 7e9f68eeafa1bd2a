"""Games with a horizon and noise: a Riccati flow and a wave built backwards."""

from typing import Any

import numpy as np
import pytest
from scipy.integrate import solve_ivp

import hjbpde as hjb
from hjbpde.methods.game import game_of

T, RHO, SIGMA = 0.5, 0.3, 0.4


def riccati(attenuation=2.0):
    """P and c of V = P x^2 + c, run back from V(T) = x^2/2 by an independent solver.

    Cost x^2 + a^2 - g^2 b^2, dX = (-X/5 + a + b) dt + sigma dW:
    -P' + rho P = 1 - 2 P/5 - (1 - 1/g^2) P^2,  -c' + rho c = sigma^2 P.
    """
    k = 1 - 1 / attenuation**2

    def back(s, y):
        P, c = y
        return [1 - 0.4 * P - k * P**2 - RHO * P, SIGMA**2 * P - RHO * c]

    flow = solve_ivp(
        back, (0, T), [0.5, 0.0], rtol=1e-11, atol=1e-13, dense_output=True
    )

    def value(x, t):
        P, c = flow.sol(T - t)
        return P * x[..., 0] ** 2 + c

    return value


def test_a_linear_quadratic_game_follows_its_riccati_flow():
    value = riccati()
    free = hjb.Box(-np.inf, np.inf)
    problem = hjb.ControlProblem(
        drift=lambda x, a, b: -0.2 * x + a + b,
        diffusion=SIGMA,
        cost=lambda x, a, b: (x**2 + a**2 - 4.0 * b**2)[..., 0],
        controls=free,
        adversary=free,
        domain=hjb.Box(-1.0, 1.0),
        discount=RHO,
        horizon=T,
        terminal=lambda x: 0.5 * x[..., 0] ** 2,
        boundary=hjb.Dirichlet(lambda x, t: value(x, t)),
    )
    grid = hjb.Grid(problem.domain, 21)
    assert isinstance(hjb.default_method(problem, grid), hjb.Marching)
    solution: Any = hjb.solve(problem, grid, hjb.Marching(steps=8), times=[0.0, 0.25])
    assert isinstance(solution, hjb.GameSolution)
    assert solution.isaacs_gap == 0.0
    nodes = grid.nodes()
    for i, t in enumerate(solution.times):
        wanted = value(nodes, t)
        error = np.abs(solution.value[i] - wanted)
        assert (error <= solution.error_bar[i] + 1e-12).all()
        assert error.max() < 1e-4
    # a = -V_x/2 and b = V_x/(2 g^2), hence b = -a/4 at every time.
    np.testing.assert_allclose(
        solution.adversary_control, -solution.control / 4.0, atol=1e-6
    )
    paths = solution.simulate([0.2], horizon=T, dt=0.05, paths=3, seed=0)
    assert paths.controls.shape == (3, 11, 2)


@pytest.mark.parametrize("sense", ["reward", "cost"])
def test_a_moving_wave_with_bounded_players_is_found(sense):
    """V* = sin(x + t): |a| <= 1/2 and |b| <= 1/4 linear in payoff, both switch.

    -V_t + rho V = S + sup_a inf_b {(a + b) V_x} + s^2/2 V_xx fixes S, by hand.
    """
    sign = 1.0 if sense == "reward" else -1.0

    def value(x, t):
        return np.sin(x[..., 0] + t)

    def payoff(x, a, b, t):
        wave, slope = np.sin(x[..., 0] + t), np.cos(x[..., 0] + t)
        rest = sign * 0.25 * np.abs(slope) - 0.5 * SIGMA**2 * wave
        return RHO * wave - slope - rest + 0 * b[..., 0]

    problem = hjb.ControlProblem(
        drift=lambda x, a, b: a + b,
        diffusion=SIGMA,
        **{sense: payoff},
        controls=hjb.Box(-0.5, 0.5),
        adversary=hjb.Box(-0.25, 0.25),
        domain=hjb.Box(0.0, 2 * np.pi, periodic=True),
        discount=RHO,
        horizon=T,
        terminal=lambda x: value(x, T),
    )
    errors = []
    for n in (32, 64):
        # Four time grids: what is left of the step is far below the error in space.
        method = hjb.Marching(steps=8, levels=4, order=2)
        solution: Any = hjb.solve(problem, n, method, times=[0.0])
        error = np.abs(solution.value[0] - value(solution.grid.nodes(), 0.0))
        assert np.mean(error <= solution.error_bar[0]) >= 0.99
        errors.append(error.max())
    assert abs(np.log2(errors[0] / errors[1]) - 2) < 0.3
    assert set(np.unique(np.abs(solution.control[0]))) <= {0.5}


def test_explicit_marching_knows_payoffs_convex_in_b_in_closed_form():
    """sup_a inf_b {(a + b) p - a^2/2 + b^2}: a = p and b = -p/2, by hand."""
    free = hjb.Box(-np.inf, np.inf)
    problem = hjb.ControlProblem(
        drift=lambda x, a, b: a + b,
        reward=lambda x, a, b: (b**2 - 0.5 * a**2)[..., 0],
        controls=free,
        adversary=free,
        domain=hjb.Box(0.0, 1.0, periodic=True),
        horizon=T,
        terminal=0.0,
    )
    game = game_of(problem, hjb.Grid(problem.domain, 9))
    a, b = game.hamiltonian.extremal(np.full((1, 9), 0.6))
    np.testing.assert_allclose(a, 0.6)
    np.testing.assert_allclose(b, -0.3)


def test_a_game_in_time_whose_order_matters_says_so():
    signs = hjb.Finite([-1.0, 1.0])
    problem = hjb.ControlProblem(
        drift=lambda x, a, b: 0 * a * b,
        diffusion=SIGMA,
        reward=lambda x, a, b: 0.3 * (a * b)[..., 0],
        controls=signs,
        adversary=signs,
        domain=hjb.Box(0.0, 1.0),
        boundary=hjb.Reflecting(),
        horizon=T,
        terminal=0.0,
    )
    solution: Any = hjb.solve(problem, 9, hjb.Marching(steps=4), times=[0.0])
    # The adversary replies: -0.3 a unit of time, and 0.6 between the orders.
    np.testing.assert_allclose(solution.value[0], -0.3 * T, atol=1e-9)
    assert solution.isaacs_gap == pytest.approx(0.6)
