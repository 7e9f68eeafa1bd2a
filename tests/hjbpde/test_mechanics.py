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

NAMES = ["pendulum", "van-der-pol", "mountain-car"]


@functools.cache
def solved(name):
    return hjb.solve(hjb.catalogue.get(name))


def inner(solution):
    """Nodes of the region that the bar answers for, (n, d), V and the bar there."""
    nodes = solution.grid.nodes()
    inside = solution.region.contains(nodes, 1e-12)
    return nodes[inside], solution.value[inside], solution.error_bar[inside]


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
    allowed = solution.error_at(starts) + 4 * spread
    assert np.all(np.abs(found.mean(1) - solution.value_at(starts)) <= allowed)
    # Sharp enough to notice an error of 1 % of the scale.
    assert allowed.max() < 0.01 * inner(solution)[1].max()


def check_schemes(solution, shapes):
    """Upwind values extrapolated from h and h/2 to 0, with their own uncertainty.

    That uncertainty is what the last extrapolation changed: the one from the two
    finer grids against the one from the two coarser.
    """
    problem = solution.problem
    method = hjb.PolicyIteration(hjb.Upwind(), order=1)
    x, found, bar = inner(solution)
    V = [hjb.solve(problem, shape, method).value_at(x) for shape in shapes]
    before, best = 2 * V[1] - V[0], 2 * V[2] - V[1]
    own = np.abs(best - before).max()
    assert own < 0.02 * found.max()
    assert np.all(np.abs(best - found) <= bar + own)


def check_cover(solution, shape):
    """The bar answers for the limit; a grid of half the step must lie inside it."""
    x, found, bar = inner(solution)
    gap = np.abs(found - hjb.solve(solution.problem, shape).value_at(x))
    assert (gap <= bar).mean() >= 0.99


@pytest.mark.parametrize("name", NAMES)
def test_the_bar_at_the_suggested_grid_is_below_a_hundredth(name):
    _, found, bar = inner(solved(name))
    assert bar.max() < 1e-2 * found.max()


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
    # Each is within its bar of one and the same limit.
    assert np.abs(V - mirrored).max() <= 2 * inner(solution)[2].max()
    # Left to hang it would cost 2 / rho; held upright almost nothing.
    hanging, upright = V[0, 120], V[120, 120]
    assert upright < 0.1 * hanging
    assert hanging < 0.75 * 2 / problem.discount
    # Swinging: near the bottom the torque goes with the motion.
    low = np.array([[-3.0, 1.0], [3.0, -1.0], [3.0, 2.0], [-3.0, -2.0]])
    assert np.all(solution.control_at(low)[:, 0] * low[:, 1] > 0)


@pytest.mark.slow
def test_the_van_der_pol_bar_covers_finer_and_wider_grids():
    solution = solved("van-der-pol")
    check_cover(solution, (481, 481))
    x, found, bar = inner(solution)
    # Of the same step: what the artificial faces do, apart from the step.
    wider = hjb.catalogue.get("van-der-pol", half_widths=(3.125, 3.75))
    gap = np.abs(found - hjb.solve(wider, (301, 301)).value_at(x))
    assert np.all(gap <= bar)


@pytest.mark.slow
def test_the_van_der_pol_oscillator_agrees_with_upwind_values_extrapolated():
    check_schemes(solved("van-der-pol"), ((121, 121), (241, 241), (481, 481)))


def test_the_van_der_pol_oscillator_costs_its_value_on_paths():
    starts = [[0.0, 0.0], [1.5, 0.0], [-1.0, 1.0]]
    check_paths(solved("van-der-pol"), starts, dt=0.01)


def test_the_van_der_pol_value_is_symmetric_and_its_control_follows_the_slope():
    """V(x, y) = V(-x, -y) and u = -V_y / c, from the quadratic cost c u^2 / 2."""
    solution = solved("van-der-pol")
    V = solution.value
    assert np.abs(V - V[::-1, ::-1]).max() <= 1e-6 * V.max()
    x = inner(solution)[0]
    slope = solution.gradient_at(x)[:, 1]
    u = solution.control_at(x)[:, 0]
    # One-sided against centred slopes: an error of first order in h = 1/40.
    assert np.abs(u + slope / 0.5).max() < 0.05 * np.abs(u).max()


def paid_in_the_valley(solution, starts, dt, noise):
    """As `paid_on_paths`, for the mountain car; a simulator of its own.

    Between two steps a path may have been at the goal: its Brownian bridge was, with
    probability ``exp(-2 (g - x)(g - y) / (s^2 dt))``, and killing it then makes Euler
    steps of weak order 1 (Gobet, Stochastic Process. Appl. 87 (2000) 167). The
    crossing is put in the middle of the step; the walls reflect symmetrically.
    """
    rho, domain = solution.problem.discount, solution.problem.domain
    low, high = np.asarray(domain.low), np.asarray(domain.high)
    rng = np.random.default_rng(7)
    x, total, alive = starts.copy(), np.zeros(len(starts)), np.arange(len(starts))
    for n, increments in enumerate(noise.increments(dt)):
        dW, factor = increments[alive], np.exp(-rho * n * dt)
        slip = np.sqrt(0.1**2 + 0.02 * x[:, 1] ** 2)
        kick = np.stack([slip * dW[:, 0], 0.2 * dW[:, 1]], axis=-1)
        push = 0.4 * solution.control_at(x)[:, 0] - np.cos(3 * x[:, 0])
        y = x + dt * np.stack([x[:, 1], push], axis=-1) + kick
        total[alive] -= factor * (solution.gradient_at(x) * kick).sum(1)
        room = (high[0] - x[:, 0]) * np.maximum(high[0] - y[:, 0], 0.0)
        crossed = rng.random(len(x)) < np.exp(-2 * room / (slip**2 * dt))
        spent = np.where(crossed, 0.5, 1.0) * dt
        total[alive] += factor * -np.expm1(-rho * spent) / rho
        y = np.where(y < low, 2 * low - y, y)
        y[:, 1] = np.minimum(y[:, 1], 2 * high[1] - y[:, 1])
        x, alive = y[~crossed], alive[~crossed]
    total[alive] += np.exp(-rho * noise.horizon) * solution.value_at(x)
    return total


@pytest.mark.slow
def test_the_mountain_car_needs_its_value_on_paths():
    """Steps dt and 2 dt, extrapolated to 0; V within the bar and four deviations."""
    solution, copies, dt = solved("mountain-car"), 200, 0.01
    starts = np.array([[-0.52, 0.0], [-1.0, 0.5], [0.3, 0.2]])
    x0 = np.repeat(starts, copies, axis=0)
    noise = Noise(5, len(x0), 2, 16.0, dt)
    coarse, fine = (paid_in_the_valley(solution, x0, k * dt, noise) for k in (2, 1))
    found = (2 * fine - coarse).reshape(len(starts), copies)
    allowed = solution.error_at(starts) + 4 * found.std(1) / np.sqrt(copies)
    assert np.all(np.abs(found.mean(1) - solution.value_at(starts)) <= allowed)
    assert allowed.max() < 0.02 * inner(solution)[1].max()


@pytest.mark.slow
def test_the_mountain_car_bar_covers_a_finer_grid():
    check_cover(solved("mountain-car"), (681, 561))


@pytest.mark.slow
def test_the_mountain_car_agrees_with_upwind_values_extrapolated():
    check_schemes(solved("mountain-car"), ((171, 141), (341, 281), (681, 561)))


def test_the_mountain_car_backs_off_before_it_climbs():
    """p < 1: from rest right of the valley, -pi/6, back; from the left, forward."""
    solution = solved("mountain-car")
    assert np.all(np.isin(solution.control[1:-1, 1:-1], [-1.0, 1.0]))
    at = np.array([[-np.pi / 6, 0.01], [-0.9, 0.0], [0.0, 1.0], [0.0, 0.0]])
    assert solution.control_at(at)[:, 0].tolist() == [-1.0, 1.0, 1.0, -1.0]
    # Never to arrive would cost 1 / rho; at the goal nothing is left.
    assert 0 < solution.value_at(at).max() < 1 / solution.problem.discount
    assert np.all(solution.value[-1] == 0)


@pytest.mark.parametrize(
    ("name", "parameter"),
    [
        ("pendulum", "noise"),
        ("pendulum", "max_torque"),
        ("van-der-pol", "effort"),
        ("mountain-car", "power"),
    ],
)
def test_unusable_parameters_are_refused(name, parameter):
    with pytest.raises(hjb.ProblemError, match=f"{parameter} must be positive"):
        hjb.catalogue.get(name, **{parameter: 0.0})


def test_a_mountain_car_with_the_wall_beyond_the_goal_is_refused():
    with pytest.raises(hjb.ProblemError, match="left of the goal"):
        hjb.catalogue.get("mountain-car", wall=0.6)
