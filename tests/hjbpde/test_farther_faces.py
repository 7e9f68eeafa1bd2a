"""Artificial faces without noise: V along paths that leave the box, in closed form.

x' = B x is left alone, so that ``V(x) = int_0^T e^{-rho s} L(e^{Bs} x) ds + e^{-rho T}
g(e^{BT} x)`` on the whole space, whatever lies beyond the box.
"""

from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import quad_vec
from scipy.linalg import expm

import hjbpde as hjb
from hjbpde.methods.farther_faces import farther

HORIZON = 1.2


def left_alone(B, rho, running, final, d):
    """The problem on the box [-1, 1]^d, and V at t = 0 (kind: closed form)."""
    problem = hjb.ControlProblem(
        drift=lambda x, a: x @ B.T,
        reward=lambda x, a: running(x),
        domain=hjb.Box([-1.0] * d, [1.0] * d),
        discount=rho,
        horizon=HORIZON,
        terminal=final,
    )

    def value(x):
        def paid(s):
            return np.exp(-rho * s) * running(x @ expm(B * s).T)

        ended = np.exp(-rho * HORIZON) * final(x @ expm(B * HORIZON).T)
        return quad_vec(paid, 0.0, HORIZON, epsabs=1e-11, epsrel=1e-11)[0] + ended

    return problem, value


def quartic(x):
    return (x**2).sum(-1) ** 2 / 4


def wave(x):
    return np.sin(2.0 * x.sum(-1) + 0.3)


OUT = np.array([[1.1]])
SPIRAL = np.array([[0.8, 1.5], [-1.0, 0.6]])
SADDLE = np.array([[1.2, 0.3], [0.0, -0.7]])


@pytest.mark.parametrize(
    ("B", "running", "final"),
    [
        (OUT, quartic, wave),
        (OUT, wave, quartic),
        (SPIRAL, quartic, wave),
        (SPIRAL, wave, quartic),
        (SADDLE, quartic, quartic),
        (SADDLE, wave, wave),
    ],
)
def test_bars_cover_what_paths_meet_beyond_the_box(B, running, final):
    problem, value = left_alone(B, 0.2, running, final, len(B))
    solution = hjb.solve(problem, (41,) * len(B), hjb.ExplicitMarching(), times=[0.0])
    x = solution.grid.nodes()
    inside = solution.region.contains(x, 1e-12)
    error = np.abs(solution.value[0] - value(x))[inside]
    assert np.all(error <= solution.error_bar[0][inside])
    # It is what lies outside that is missed, and not the cells.
    assert error.max() > solution.report.error_parts["discretisation"]


def test_where_paths_come_inward_nothing_is_missed():
    problem, value = left_alone(-np.eye(2), 0.2, quartic, wave, 2)
    solution = hjb.solve(problem, (41, 41), hjb.ExplicitMarching(), times=[0.0])
    x = solution.grid.nodes()
    inside = solution.region.contains(x, 1e-12)
    error = np.abs(solution.value[0] - value(x))[inside]
    assert np.all(error <= solution.error_bar[0][inside])
    assert solution.report.error_parts["truncation"] < 1e-3


def only_in_the_box(x):
    return np.sqrt(1.0 - x[..., 0])


def refused_elsewhere(x):
    if np.abs(x).max() > 1.0:
        raise ValueError("a table that ends with the box")
    return wave(x)


@pytest.mark.parametrize("running", [only_in_the_box, refused_elsewhere])
def test_functions_may_end_with_the_box(running):
    """Then the bar says what another closure of the faces gives."""
    problem, _ = left_alone(0.5 * OUT, 0.2, running, wave, 1)
    solution = hjb.solve(problem, 41, hjb.ExplicitMarching(), times=[0.0])
    assert np.isfinite(solution.error_bar).all()
    assert solution.report.error_parts["truncation"] > 1e-3


def test_only_artificial_faces_are_moved():
    problem, _ = left_alone(SADDLE, 0.2, wave, wave, 2)
    held = replace(problem, boundary={(0, "low"): hjb.Reflecting()})
    grid = hjb.Grid(held.domain, (9, 5))
    wider, wide, own = farther(held, grid, 0.5)
    assert wider.domain is not None
    np.testing.assert_allclose(np.asarray(wider.domain.low), [-1.0, -2.0])
    np.testing.assert_allclose(np.asarray(wider.domain.high), [2.0, 2.0])
    for mine, theirs, part in zip(grid.axes, wide.axes, own, strict=True):
        np.testing.assert_array_equal(mine, theirs[part])


@pytest.mark.parametrize("rate", [0.6, 1.1, 1.6])
def test_bars_of_implicit_steps_cover_noise_that_drift_carries_out(rate):
    """dX = rate X dt + .4 dW: E[X_s^4] = m^4 + 6 m^2 v + 3 v^2 with the mean
    m = e^{rate s} x and the variance v = .4^2 (e^{2 rate s} - 1) / (2 rate).
    """
    problem = hjb.ControlProblem(
        drift=lambda x, a: rate * x,
        diffusion=0.4,
        reward=lambda x, a: quartic(x),
        domain=hjb.Box(-1.0, 1.0),
        horizon=HORIZON,
        terminal=lambda x: 0.0 * x[..., 0],
    )

    def paid(s, x):
        mean, v = np.exp(rate * s) * x, 0.08 / rate * np.expm1(2 * rate * s)
        return (mean**4 + 6 * mean**2 * v + 3 * v**2) / 4

    solution = hjb.solve(problem, 61, hjb.Marching(), times=[0.0])
    x = solution.grid.nodes()
    inside = solution.region.contains(x, 1e-12)
    value = quad_vec(lambda s: paid(s, x[..., 0]), 0.0, HORIZON, epsrel=1e-11)[0]
    error = np.abs(solution.value[0] - value)[inside]
    assert np.all(error <= solution.error_bar[0][inside])
