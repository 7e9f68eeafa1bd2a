"""Bang-bang control of a noisy state, where policies switch and values bend.

drift a, |a| <= 1, cost |x|, noise s, rate rho. By symmetry a = -sign x, and for
x > 0 the equation rho V = x - V' + s^2 V''/2 with V'(0) = 0 has the solutions

    V = x/rho - 1/rho^2 + A e^{kx} + B e^{Kx},   k, K = (1 -+ sqrt(1 + 2 s^2 rho))/s^2,

B = 0 on the whole line, V'(L) = 0 with a reflecting wall at L. Without noise
V = |x|/rho - (1 - e^{-rho |x|})/rho^2, whose second derivative is finite but whose
control jumps.
"""

import numpy as np
import pytest

import hjbpde as hjb

RHO, WALL = 0.5, 2.0


def problem_of(noise, boundary=None):
    return hjb.ControlProblem(
        drift=lambda x, a: a,
        diffusion=noise,
        cost=lambda x, a: np.abs(x[..., 0]) + 0 * a[..., 0],
        controls=hjb.Box(-1.0, 1.0),
        domain=hjb.Box(-WALL, WALL),
        discount=RHO,
        boundary=boundary,
    )


def exact(x, noise, walled):
    x = np.abs(x)
    base = x / RHO - 1 / RHO**2
    if noise == 0:
        return base + np.exp(-RHO * x) / RHO**2
    root = np.sqrt(1 + 2 * noise**2 * RHO)
    k, K = (1 - root) / noise**2, (1 + root) / noise**2
    if not walled:
        return base - np.exp(k * x) / (RHO * k)
    # Both conditions scaled by e^{K L}, so that nothing overflows.
    slopes = np.array(
        [[k, K * np.exp(-K * WALL)], [k * np.exp(k * WALL), K]],
    )
    A, B = np.linalg.solve(slopes, [-1 / RHO, -1 / RHO])
    return base + A * np.exp(k * x) + B * np.exp(K * (x - WALL))


def solved(noise, boundary, n, method=None):
    solution = hjb.solve(problem_of(noise, boundary), n, method)
    x = solution.grid.nodes()
    error = np.abs(solution.value - exact(x[..., 0], noise, boundary is not None))
    inner = solution.region.contains(x)
    return error[inner], solution.error_bar[inner], solution


def test_upwind_converges_at_order_one():
    method = hjb.PolicyIteration(hjb.Upwind(), order=1)
    found = [solved(0.5, hjb.Reflecting(), n, method)[0].max() for n in (201, 401)]
    assert abs(np.log2(found[0] / found[1]) - 1) < 0.15


def test_the_hybrid_scheme_converges_at_order_two():
    """The value is twice differentiable: the switch alone does not cost an order."""
    method = hjb.PolicyIteration(order=1)
    found = [solved(0.5, hjb.Reflecting(), n, method)[0].max() for n in (201, 401)]
    assert abs(np.log2(found[0] / found[1]) - 2) < 0.2


@pytest.mark.parametrize("n", [51, 101, 201, 401])
@pytest.mark.parametrize("noise", [0.0, 0.1, 0.3, 1.0])
def test_the_bar_covers_with_reflecting_walls(noise, n):
    if noise == 0.0:
        error, bar, _ = solved(noise, None, n)
    else:
        error, bar, _ = solved(noise, hjb.Reflecting(), n)
    assert np.mean(error <= bar + 1e-14) >= 0.99


@pytest.mark.parametrize("n", [101, 401])
@pytest.mark.parametrize("noise", [0.1, 0.3])
def test_the_bar_covers_with_artificial_faces(noise, n):
    error, bar, _ = solved(noise, None, n)
    assert np.mean(error <= bar + 1e-14) >= 0.99


def test_the_control_switches_at_the_origin():
    """Towards 0 everywhere but at the walls, where V' = 0 makes both sides equal."""
    _, _, solution = solved(0.3, hjb.Reflecting(), 201)
    x = solution.grid.axes[0]
    away = (np.abs(x) > 0.05) & (np.abs(x) < WALL - 0.05)
    assert np.array_equal(solution.control[away, 0], -np.sign(x[away]))
    between = solution.control_at(np.array([[-0.507], [0.513]]))
    assert between[:, 0].tolist() == [1.0, -1.0]


@pytest.mark.parametrize(
    ("noise", "n", "walled", "order"),
    [
        (1.0, 401, False, 2),
        (1.0, 400, True, 2),
        (0.3, 401, True, 4),
        (0.1, 801, False, 4),
    ],
)
def test_the_bar_covers_where_it_once_did_not(noise, n, walled, order):
    """Even counts, order 4 across a switch, faces felt throughout the domain."""
    boundary = hjb.Reflecting() if walled else None
    method = hjb.PolicyIteration(order=order)
    error, bar, _ = solved(noise, boundary, n, method)
    assert np.mean(error <= bar + 1e-14) >= 0.99


def test_the_bar_covers_where_the_state_rests_between_two_nodes():
    """Without noise the chain hops between +-h/2 around the sink at 0."""
    error, bar, _ = solved(0.0, None, 400)
    assert np.mean(error <= bar + 1e-14) >= 0.99


def test_the_bar_covers_in_a_layer_at_a_wall():
    """Noise .1: V turns within s^2/2 = .005 of the wall, a quarter of a step."""
    method = hjb.PolicyIteration(order=4)
    error, bar, _ = solved(0.1, hjb.Reflecting(), 201, method)
    assert np.mean(error <= bar + 1e-14) >= 0.99
