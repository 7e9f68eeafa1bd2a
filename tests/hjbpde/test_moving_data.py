"""Boundary data, exit values and obstacles that change in time."""

import numpy as np
import pytest

import hjbpde as hjb
from hjbpde.boundary import Dirichlet, Reflecting, Robin

RHO, SIGMA = 0.3, 0.5


def moving_wave(boundary):
    """V = sin(x + t) on [0, 2]: the reward makes rho V = V_t + r + sigma^2 V_xx / 2."""

    def value(x, t=0.0):
        return np.sin(x[..., 0] + t)

    def reward(x, a, t):
        y = x[..., 0] + t
        return (RHO + 0.5 * SIGMA**2) * np.sin(y) - np.cos(y)

    return hjb.ControlProblem(
        drift=lambda x, a: 0.0 * x,
        diffusion=SIGMA,
        reward=reward,
        domain=hjb.Box(0.0, 2.0),
        discount=RHO,
        horizon=1.5,
        terminal=lambda x: value(x, 1.5),
        boundary=boundary(value),
        exact=hjb.Exact(value, source="by construction"),
    )


def timed(problem, shape, method=None, times=(0.0,)) -> hjb.TimedSolution:
    found = hjb.solve(problem, shape, method, times=times)
    assert isinstance(found, hjb.TimedSolution)
    return found


def dirichlet(value):
    return Dirichlet(lambda x, t: value(x, t))


def mixed(value):
    """V on the left; on the right 2 V + dV/dx, the outward slope."""

    def flux(x, t):
        y = x[..., 0] + t
        return 2.0 * np.sin(y) + np.cos(y)

    return {(0, "low"): Dirichlet(value), (0, "high"): Robin(2.0, 1.0, flux)}


@pytest.mark.parametrize(
    "boundary", [dirichlet, pytest.param(mixed, marks=pytest.mark.slow)]
)
def test_moving_face_data_keep_second_order(boundary):
    problem, errors = moving_wave(boundary), []
    for n in (11, 21, 41):
        found = timed(problem, n, hjb.Marching(order=2, levels=3), times=[0.0, 0.7])
        x = found.grid.nodes()
        exact = np.stack([problem.exact.value(x, t) for t in found.times])
        miss = np.abs(found.value - exact)
        assert (miss <= found.error_bar + 1e-14).mean() >= 0.99
        errors.append(miss.max())
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.all(np.abs(orders - 2.0) < 0.15), (errors, orders)


def test_a_moving_exit_value_is_taken_when_the_process_leaves():
    """On the same wave, left at x <= 0 for sin(t): a node, so nothing is cut."""
    wave = moving_wave(mixed)
    problem = hjb.ControlProblem(
        drift=wave.drift,
        diffusion=SIGMA,
        reward=wave.reward,
        domain=wave.domain,
        discount=RHO,
        horizon=1.5,
        terminal=wave.terminal,
        boundary={(0, "high"): wave.faces[0, "high"], (0, "low"): Reflecting()},
        exit=hjb.Exit(lambda x: x[..., 0], lambda x, t: np.sin(x[..., 0] + t)),
    )
    found = timed(problem, 41, times=[0.0])
    miss = np.abs(found.value[0] - np.sin(found.grid.axes[0]))
    assert miss.max() < 1e-5


def test_a_payoff_that_moves_in_time_is_awaited():
    """psi(t) = t (1 - t): V = max over later times, .25 up to t = 1/2, then psi."""
    problem = hjb.ControlProblem(
        drift=lambda x, a: 0.0 * x,
        diffusion=0.4,
        reward=lambda x, a: 0.0 * x[..., 0],
        domain=hjb.Box(-1.0, 1.0),
        horizon=1.0,
        terminal=0.0,
        boundary=Reflecting(),
        stop=lambda x, t: t * (1.0 - t) + 0.0 * x[..., 0],
    )
    found = timed(problem, 21, times=[0.0, 0.25, 0.5, 0.75])
    assert found.value[:2] == pytest.approx(0.25, abs=2e-4)
    t = found.times[2:, None]
    assert found.value[2:] == pytest.approx(np.tile(t * (1 - t), 21), abs=1e-12)
    assert not found.stopping[1].any()
    assert found.stopping[3].all()


def test_a_moving_target_is_met_by_the_explicit_scheme():
    """|x'| <= 1 after a target at t/2: least distance max(0, x - 3T/2) or |x| - T/2.

    To the right of it both move towards each other at 3/2 together, to the left the
    pursuer gains 1/2.
    """
    T = 0.8
    problem = hjb.ControlProblem(
        drift=lambda x, a: a,
        cost=lambda x, a: 0.0 * x[..., 0],
        controls=hjb.Box(-1.0, 1.0),
        domain=hjb.Box(-2.0, 3.0),
        horizon=T,
        terminal=lambda x: np.abs(x[..., 0] - 0.5 * T),
        stop=lambda x, t: np.abs(x[..., 0] - 0.5 * t),
    )
    x = np.linspace(-1.5, 2.5, 401)
    exact = np.maximum(np.where(x > 0, x - 1.5 * T, -x - 0.5 * T), 0.0)
    errors = []
    for n in (101, 201, 401):
        found = timed(problem, n, times=[0.0])
        errors.append(np.abs(found.value_at(x[:, None], t=0.0) - exact).max())
    # First order at the two kinks.
    assert errors[-1] < 5.0 / 400
    assert errors[-1] < 0.7 * errors[0]


def test_data_that_move_without_a_horizon_are_refused():
    def stationary(**fields):
        return hjb.ControlProblem(
            drift=lambda x, a: 0.0 * x,
            diffusion=1.0,
            reward=lambda x, a: x[..., 0],
            domain=hjb.Box(0.0, 1.0),
            discount=0.1,
            **fields,
        )

    for fields in (
        {"boundary": Dirichlet(lambda x, t: t)},
        {"stop": lambda x, t: x[..., 0] * t},
        {"exit": hjb.Exit(lambda x: x[..., 0], lambda x, t: t)},
    ):
        with pytest.raises(hjb.ProblemError, match="horizon"):
            stationary(**fields)
    with pytest.raises(hjb.ProblemError, match="moves in time"):
        stationary(horizon=1.0, terminal=0.0, exit=hjb.Exit(lambda x, t: x[..., 0] - t))


def test_controls_are_greedy_on_data_faces_and_at_the_horizon():
    """Reverse diffusion: a = sigma grad log p_(T-t), by one-sided slopes at faces."""
    problem = hjb.catalogue.get("reverse-diffusion")
    found = timed(problem, 201, times=[0.0, 0.5])
    x = found.grid.nodes()
    for a, t in zip(found.control, found.times, strict=True):
        exact = problem.exact.control(x, float(t))
        # Half a cell of slope is 2 % of the largest control at the horizon.
        assert np.abs(a - exact).max() < 0.03 * np.abs(exact).max()
