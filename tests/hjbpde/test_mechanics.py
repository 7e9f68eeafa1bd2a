"""Pendulum and other mechanical systems, which have no closed form.

Two references. *Schemes*: `Upwind` of first order, extrapolated from two grids,
against the hybrid scheme corrected to second order: different weights, the same
kernels. *Paths*: Euler paths of the computed policy, extrapolated in the time step:
they share the policy with the solution and nothing of its equation, weights, faces or
bar. The martingale part of Ito's formula, of mean 0 whatever its slope, is taken off
the sums to make them less scattered.
"""

import functools

import numpy as np
import pytest

import hjbpde as hjb
from hjbpde.simulate import Noise, simulate

NAMES = ["pendulum"]


@functools.cache
def solved(name):
    return hjb.solve(hjb.catalogue.get(name))


def inner(solution):
    """Nodes of the region that the bar answers for, (n, d), and the scale."""
    nodes = solution.grid.nodes()
    inside = solution.region.contains(nodes, 1e-12)
    return nodes[inside], float(np.abs(solution.value[inside]).max())


def paid_on_paths(solution, starts, horizon, dt, noise):
    """Discounted payoff of every path, (paths,), less its martingale part.

    What is left to pay at the end is V there, discounted: rho * horizon is large.
    """
    problem = solution.problem
    run = simulate(
        problem, solution.control_at, starts, horizon, dt, noise.paths, 0, noise=noise
    )
    assert sum(run.exits.values()) == 0
    x, factor = run.states[:, :-1], np.exp(-problem.discount * run.times)
    slope = solution.gradient_at(x.reshape(-1, x.shape[-1])).reshape(x.shape)
    dW = noise.increments(dt)
    swing = np.einsum("pnd,dk,npk->pn", slope, problem.diffusion, dW)
    rest = factor[-1] * solution.value_at(run.states[:, -1])
    return run.rewards[:, -1] - (factor[:-1] * swing).sum(1) + rest


def check_paths(solution, starts, horizon=8.0, dt=0.005, copies=80):
    """The mean over paths is V within the bar and four standard errors, both small.

    The steps dt and 2 dt see the same noise and are extrapolated to 0.
    """
    starts = np.asarray(starts, float)
    x0 = np.repeat(starts, copies, axis=0)
    noise = Noise(5, len(x0), 1, horizon, dt)
    coarse = paid_on_paths(solution, x0, horizon, 2 * dt, noise)
    fine = paid_on_paths(solution, x0, horizon, dt, noise)
    found = (2 * fine - coarse).reshape(len(starts), copies)
    spread = found.std(1) / np.sqrt(copies)
    _, scale = inner(solution)
    allowed = solution.error_at(starts) + 4 * spread
    assert np.all(np.abs(found.mean(1) - solution.value_at(starts)) <= allowed)
    # Sharp enough to notice an error of 1 % of the scale.
    assert allowed.max() < 0.01 * scale


def check_schemes(solution, shapes):
    """Upwind values extrapolated from h and h/2 to 0, with their own uncertainty.

    That uncertainty is what the last extrapolation changed: the one from the two
    finer grids against the one from the two coarser.
    """
    problem = solution.problem
    method = hjb.PolicyIteration(hjb.Upwind(), order=1)
    x, scale = inner(solution)
    V = [hjb.solve(problem, shape, method).value_at(x) for shape in shapes]
    before, best = 2 * V[1] - V[0], 2 * V[2] - V[1]
    own = np.abs(best - before).max()
    assert own < 0.02 * scale
    assert np.all(np.abs(best - solution.value_at(x)) <= solution.error_at(x) + own)


def check_bar(solution):
    x, scale = inner(solution)
    assert solution.error_at(x).max() < 1e-2 * scale


def check_cover(solution, shape):
    x, _ = inner(solution)
    finer = hjb.solve(solution.problem, shape)
    gap = np.abs(solution.value_at(x) - finer.value_at(x))
    assert (gap <= solution.error_at(x)).mean() >= 0.99


@pytest.mark.parametrize("name", NAMES)
def test_the_bar_at_the_suggested_grid_is_below_a_hundredth(name):
    check_bar(solved(name))


@pytest.mark.slow
def test_the_pendulum_bar_covers_a_finer_grid():
    check_cover(solved("pendulum"), (480, 481))


@pytest.mark.slow
def test_the_pendulum_agrees_with_upwind_values_extrapolated():
    check_schemes(solved("pendulum"), ((120, 121), (240, 241), (480, 481)))


@pytest.mark.slow
def test_the_pendulum_costs_its_value_on_paths():
    starts = [[-np.pi, 0.0], [0.0, 0.0], [2.0, 1.0]]
    check_paths(solved("pendulum"), starts)


def test_the_pendulum_is_symmetric_and_swings_before_it_holds():
    """V(theta, omega) = V(-theta, -omega); hanging at rest no torque wins at once."""
    solution = solved("pendulum")
    problem, V = solution.problem, solution.value
    mirrored = np.roll(V[::-1, ::-1], 1, axis=0)
    assert np.abs(V - mirrored).max() <= 2 * solution.error_bar.max()
    # Left to hang it would cost 2 / rho; held upright almost nothing.
    hanging, upright = V[0, 120], V[120, 120]
    assert upright < 0.1 * hanging
    assert hanging < 0.75 * 2 / problem.discount
    # Swinging: near the bottom the torque goes with the motion.
    low = np.array([[-3.0, 1.0], [3.0, -1.0], [3.0, 2.0], [-3.0, -2.0]])
    assert np.all(solution.control_at(low)[:, 0] * low[:, 1] > 0)


@pytest.mark.parametrize(
    ("name", "parameter"), [("pendulum", "noise"), ("pendulum", "max_torque")]
)
def test_unusable_parameters_are_refused(name, parameter):
    with pytest.raises(hjb.ProblemError, match=f"{parameter} must be positive"):
        hjb.catalogue.get(name, **{parameter: 0.0})
