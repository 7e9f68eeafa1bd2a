"""Little noise and a horizon: steps of Euler corrected to high order.

Upwinding is of first order where drift outweighs noise. Corrected steps are held
against waves that are carried around and blurred, in closed form, and where drift
steepens V to a kink, against eight times as many nodes.
"""

import numpy as np
import pytest

import hjbpde as hjb

CIRCLE = hjb.Box(-np.pi, np.pi, periodic=True)
PLAIN = hjb.Marching(order=2)
"""The scheme's own solution."""


def carried_around(noise=0.05):
    """dx = dt + noise dW on a circle: cos 2x is carried along and blurred."""
    return hjb.ControlProblem(
        drift=lambda x, a: 1.0 + 0.0 * x,
        cost=lambda x, a: 0.0 * x[..., 0],
        diffusion=noise,
        controls=None,
        domain=CIRCLE,
        horizon=1.0,
        terminal=lambda x: hjb.namespace(x).cos(2 * x[..., 0]),
        exact=hjb.Exact(
            value=lambda x, t: (
                np.exp(-2 * noise**2 * (1 - t)) * np.cos(2 * (x[..., 0] + 1 - t))
            )
        ),
    )


def reverting(noise, dimension=1, pull=1.0, mean=0.3):
    """dx = pull (mean - x) dt + noise dW, faces with exact data, V_T = prod cos 2 x_i.

    cos of a normal variable of mean m and variance v has the mean ``exp(-2 v) cos 2m``.
    """

    def value(x, t):
        left = np.exp(-pull * (1.0 - t))
        variance = noise**2 * (1.0 - left**2) / (2.0 * pull)
        return np.prod(
            np.exp(-2.0 * variance) * np.cos(2.0 * (mean + (x - mean) * left)), axis=-1
        )

    box = hjb.Box([-2.0] * dimension, [2.0] * dimension)
    return hjb.ControlProblem(
        drift=lambda x, a: pull * (mean - x),
        reward=lambda x, a: 0.0 * x[..., 0],
        diffusion=noise,
        controls=None,
        domain=box,
        horizon=1.0,
        terminal=lambda x: value(x, 1.0),
        boundary=hjb.Dirichlet(value),
        exact=hjb.Exact(value=value),
    )


def errors(solution):
    """|V - exact| before the horizon, and the bars there."""
    nodes, exact = solution.grid.nodes(), solution.problem.exact.value
    found = [
        np.abs(V - exact(nodes, t))
        for V, t in zip(solution.value, solution.times, strict=True)
    ]
    return np.array(found)[:-1], solution.error_bar[:-1]


def test_waves_carried_around_have_the_order_of_their_differences():
    """One-sided differences are of order 5; a share of errors is that of the steps."""
    worst = [errors(hjb.solve(carried_around(), n))[0].max() for n in (16, 32)]
    assert 2.0**4 <= worst[0] / worst[1] <= 2.0**5.5


def test_little_noise_costs_little():
    """1e-3 where the scheme's own first order is off by 5e-2 and more."""
    problem = carried_around()
    assert errors(hjb.solve(problem, 64, PLAIN))[0].max() >= 5e-2
    error, bar = errors(hjb.solve(problem, 64))
    assert error.max() <= 1e-3
    assert np.mean(error <= bar) >= 0.99


@pytest.mark.parametrize("noise", [0.02, 0.1, 0.3, 0.5])
@pytest.mark.parametrize("nodes", [33, 64, 97])
def test_bars_cover_beside_faces_with_data(noise, nodes):
    """Drift leads away from the faces, on which data are of the new time."""
    error, bar = errors(hjb.solve(reverting(noise), nodes))
    assert np.mean(error <= bar) >= 0.99
    assert error.max() <= 3e-3


@pytest.mark.slow
def test_two_axes():
    problem = reverting(0.1, 2)
    error, bar = errors(hjb.solve(problem, (33, 41)))
    assert np.mean(error <= bar) >= 0.99
    plain, _ = errors(hjb.solve(problem, (33, 41), PLAIN))
    assert error.max() <= plain.max() / 20.0


def test_stretched_axes():
    """Steps that double over the axis: a tenth of the error of first order, covered."""
    s = np.linspace(0.0, 1.0, 81)
    problem = reverting(0.1)
    grid = hjb.Grid.from_axes([-2.0 + 4.0 * (2.0**s - 1.0)])
    error, bar = errors(hjb.solve(problem, grid))
    assert np.mean(error <= bar) >= 0.99
    plain, _ = errors(hjb.solve(problem, grid, PLAIN))
    assert error.max() <= plain.max() / 10.0


@pytest.mark.slow
def test_drift_that_steepens_v_to_a_kink():
    """Central differences grow there without bound; these stay, and the bar covers.

    Away from the kink, at most nodes, values are far better than uncorrected ones.
    """
    problem = hjb.ControlProblem(
        drift=lambda x, a: 0.3 * np.sin(x + 1.0) + 1.5 * a,
        cost=lambda x, a: 0.5 * a[..., 0] ** 2 + np.cos(2 * x[..., 0]),
        diffusion=0.08,
        controls=hjb.Box(-1.0, 1.0),
        domain=CIRCLE,
        horizon=2.0,
        terminal=lambda x: np.sin(x[..., 0]),
    )
    fine = hjb.solve(problem, 768, times=[0.0])
    for nodes in (64, 96):
        found = [hjb.solve(problem, nodes, m, times=[0.0]) for m in (None, PLAIN)]
        at = fine.value[0][:: 768 // nodes], fine.error_bar[0][:: 768 // nodes]
        error, plain = (np.abs(one.value[0] - at[0]) for one in found)
        assert np.mean(error <= found[0].error_bar[0] + at[1]) >= 0.99
        assert error.max() <= plain.max()
        assert np.median(error) <= np.median(plain) / 20.0


def test_controls_are_those_of_corrected_values():
    """a = -V_x on the circle where the pull is not bounded."""
    problem = hjb.ControlProblem(
        drift=lambda x, a: 1.0 + a,
        cost=lambda x, a: 0.5 * a[..., 0] ** 2,
        diffusion=0.1,
        controls=hjb.Box(-5.0, 5.0),
        domain=CIRCLE,
        horizon=0.2,
        terminal=lambda x: 0.5 * np.cos(x[..., 0]),
    )
    fine = hjb.solve(problem, 512, times=[0.0]).control[0, ::8, 0]
    found, plain = (
        np.abs(hjb.solve(problem, 64, m, times=[0.0]).control[0, :, 0] - fine).max()
        for m in (None, PLAIN)
    )
    assert found <= plain / 10.0


def test_what_was_corrected_is_reported():
    solution = hjb.solve(carried_around(), 32)
    assert solution.report.details["corrected"] == 1.0
    assert "corrected" not in hjb.solve(carried_around(2.0), 32).report.details


@pytest.mark.slow
def test_noise_that_shrinks_before_today_is_not_central_throughout():
    """Whether weights are central is asked at all times, not of the last step alone.

    dx = dt + sigma(t) dW: the same closed form with the integral of sigma^2. Noise is
    ample today and little later; bars took the first order of later for a second.
    """

    def sigma(t):
        return np.where(np.asarray(t) < 0.1, 1.0, 0.02)

    def value(x, t):
        variance = 1.0 * max(0.1 - t, 0.0) + 0.02**2 * min(1.0 - t, 0.9)
        return np.exp(-2 * variance) * np.cos(2 * (x[..., 0] + 1.0 - t))

    problem = hjb.ControlProblem(
        drift=lambda x, a: 1.0 + 0.0 * x,
        cost=lambda x, a: 0.0 * x[..., 0],
        diffusion=lambda x, a, t: (sigma(t) + 0.0 * x[..., 0])[..., None, None],
        controls=None,
        domain=CIRCLE,
        horizon=1.0,
        terminal=lambda x: hjb.namespace(x).cos(2 * x[..., 0]),
        exact=hjb.Exact(value=value),
    )
    for nodes in (48, 64):
        error, bar = errors(hjb.solve(problem, nodes))
        assert np.mean(error <= bar) >= 0.99
        assert error.max() <= 3e-3
