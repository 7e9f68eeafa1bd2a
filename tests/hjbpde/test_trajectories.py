"""Paths without noise: arrival times, horizons, and what cannot be followed."""

import numpy as np
import pytest

import hjbpde as hjb


def idle(x):
    return np.zeros((len(x), 0))


def coasting(**changes):
    """x' = 1 on [0, 1], nothing paid on the way."""
    fields = {
        "drift": lambda x, a: np.ones_like(x),
        "cost": lambda x, a: 0.0 * x[..., 0],
        "domain": hjb.Box(0.0, 1.0),
        "discount": 1.0,
        "boundary": hjb.Dirichlet(3.0),
    }
    return hjb.ControlProblem(**{**fields, **changes})


def observed(errors):
    errors = np.abs(errors)
    return np.log2(errors[:-1] / errors[1:])


def test_the_stop_is_found_within_the_step():
    """Speed 1 over 0.5 in steps of 0.3: the data at t = 0.5, e^{-1/2} g(0.5)."""
    problem = coasting(boundary=hjb.Dirichlet(lambda x: 4.0 * x[..., 0]))
    paths = hjb.simulate(problem, idle, [0.5], 1.5, 0.3, 2, seed=0)
    assert paths.ended == pytest.approx([0.5, 0.5], abs=1e-14)
    assert paths.rewards[:, -1] == pytest.approx(4 * np.exp(-0.5), rel=1e-14)
    assert paths.exits[(0, "high")] == 2
    running = hjb.simulate(problem, idle, [0.5], 0.3, 0.3, 1, seed=0)
    assert np.isinf(running.ended).all()


def test_arrival_after_decay_converges_at_order_one():
    """x' = -x from 1 to the exit x <= 1/2, cost 1: T = log 2 (Euler's method)."""
    problem = coasting(
        drift=lambda x, a: -x,
        cost=lambda x, a: 1.0 + 0.0 * x[..., 0],
        discount=0.0,
        exit=hjb.Exit(lambda x: x[..., 0] - 0.5),
    )
    found = [
        hjb.simulate(problem, idle, [1.0], 2.0, dt, 1, seed=0)
        for dt in (1 / 16, 1 / 32, 1 / 64, 1 / 128)
    ]
    times = np.array([paths.ended[0] for paths in found])
    assert times == pytest.approx([p.rewards[0, -1] for p in found], abs=1e-14)
    assert np.abs(observed(times - np.log(2)) - 1).max() < 0.15
    assert abs(times[-1] - np.log(2)) < 3e-3


def test_eikonal_paths_arrive_when_the_value_says():
    """At unit speed no polygon is faster than |x| - r; the policy's is no slower
    than the value by more than its bar and the step."""
    solution = hjb.solve(hjb.catalogue.get("eikonal"), (101, 101))
    x0 = np.array([[0.6, 0.3], [-0.7, 0.65], [0.05, -0.9], [-0.4, 0.0]])
    coarse, fine = (
        solution.simulate(x0, 2.0, dt, len(x0), 0).ended for dt in (0.02, 0.01)
    )
    shortest = np.linalg.norm(x0, axis=1) - 0.25
    assert (fine >= shortest - 1e-12).all()
    allowed = solution.error_at(x0) + 2 * np.abs(coarse - fine)
    assert (fine <= solution.value_at(x0) + allowed).all()
    assert fine == pytest.approx(shortest, rel=1e-3)


def test_double_integrator_paths_come_to_rest_when_the_value_says():
    """Time to the disc and the exact rest from there: not below the closed form, not
    above the value by more than its bar and the step."""
    problem = hjb.catalogue.get("double-integrator")
    solution = hjb.solve(problem, (51, 51), hjb.Sweeping(reach=8))
    x0 = np.array([[0.6, 0.3], [-0.5, 0.0], [0.3, -0.6]])
    coarse, fine = (
        solution.simulate(x0, 6.0, dt, len(x0), 0).rewards[:, -1] for dt in (0.02, 0.01)
    )
    step = 2 * np.abs(coarse - fine)
    assert (fine >= problem.exact.value(x0) - step).all()
    assert (fine <= solution.value_at(x0) + solution.error_at(x0) + step).all()
    assert step.max() < 0.1


def test_starts_without_a_way_out_are_refused():
    """From (0.9, 0.9) the double integrator cannot stop before the wall."""
    solution = hjb.solve(hjb.catalogue.get("double-integrator"), (51, 51))
    with pytest.raises(hjb.ProblemError, match="reach the exit"):
        solution.simulate([0.9, 0.9], 4.0, 0.01, 1, 0)


def test_the_oscillator_follows_its_closed_form_at_order_one():
    """q(t) = q0 cos(t - T) / cos(T), its action V(0, q0) = -tan(T) q0^2 / 2."""
    problem = hjb.catalogue.get("harmonic-oscillator", horizon=1.0)
    solution = hjb.solve(problem, 201)
    paid, places = [], []
    for steps in (16, 32, 64, 128):
        paths = solution.simulate([0.5], 1.0, 1 / steps, 1, 0)
        paid.append(paths.rewards[0, -1] + 0.5 * np.tan(1.0) * 0.25)
        places.append(paths.states[0, -1, 0] - 0.5 / np.cos(1.0))
        assert paths.ended == pytest.approx([1.0])
    assert np.abs(observed(np.array(paid)) - 1).max() < 0.15
    assert np.abs(observed(np.array(places)) - 1).max() < 0.15
    assert abs(places[-1]) < 0.01


def test_free_motion_is_straight_and_costs_the_value_of_hopf_and_lax():
    """Constant controls: Euler is exact, so only the grid is left."""
    problem = hjb.catalogue.get("hamilton-jacobi")
    solution = hjb.solve(problem, 200)
    x0 = np.linspace(-0.9, 0.9, 7)[:, None]
    paths = solution.simulate(x0, 0.2, 0.2 / 40, 7, 0)
    assert np.ptp(paths.controls, axis=1).max() < 1e-3
    assert paths.rewards[:, -1] == pytest.approx(problem.exact.value(x0), abs=1e-5)


def test_simulated_calls_are_worth_what_black_and_scholes_say():
    """Constant coefficients in the log price: Euler steps have the exact law."""
    problem = hjb.catalogue.get("european-call")
    solution = hjb.solve(problem, 65)
    assert isinstance(solution, hjb.TimedSolution)
    x0, T = solution.grid.domain.centre, float(solution.times[-1])
    paid = solution.simulate(x0, T, T / 4, 20_000, seed=2).rewards[:, -1]
    error = 4 * paid.std() / np.sqrt(len(paid))
    wanted = float(problem.exact.value(x0))
    assert abs(paid.mean() - wanted) < error
    assert error < 0.1 * wanted


def test_calendar_time_reaches_every_function_and_the_policy():
    """a = t, x' = a + t, reward t, discount 1/2: Euler's sums in closed form."""
    problem = hjb.ControlProblem(
        drift=lambda x, a, t: a + t,
        reward=lambda x, a, t: t + 0.0 * x[..., 0],
        controls=hjb.Box(-5.0, 5.0),
        domain=hjb.Box(-9.0, 9.0),
        discount=0.5,
        horizon=1.0,
        terminal=lambda x: x[..., 0],
    )
    paths = hjb.simulate(
        problem, lambda x, t: np.full((len(x), 1), t), [0.0], 1.0, 0.1, 3, seed=0
    )
    t = np.arange(10) / 10
    place = 2 * 0.1 * t.sum()
    paid = (np.exp(-0.5 * t) * t).sum() * (1 - np.exp(-0.05)) / 0.5
    assert paths.states[:, -1, 0] == pytest.approx(place, rel=1e-12)
    wanted = paid + np.exp(-0.5) * place
    assert paths.rewards[:, -1] == pytest.approx(wanted, rel=1e-12)
    short = hjb.simulate(
        problem, lambda x: np.zeros((len(x), 1)), [0.0], 0.5, 0.1, 1, seed=0
    )
    assert np.isinf(short.ended).all()


def test_data_of_a_face_are_taken_at_the_time_of_the_stop():
    problem = coasting(
        discount=0.0, horizon=2.0, terminal=0.0,
        boundary=hjb.Dirichlet(lambda x, t=0.0: 10.0 * t + 0.0 * x[..., 0]),
    )  # fmt: skip
    x0 = np.array([[0.5], [0.15]])
    paths = hjb.simulate(problem, idle, x0, 2.0, 0.4, 2, seed=0)
    assert paths.rewards[:, -1] == pytest.approx([5.0, 8.5], rel=1e-13)


def test_horizons_and_rights_that_cannot_be_followed_are_refused():
    solution = hjb.solve(hjb.catalogue.get("hamilton-jacobi"), 100)
    with pytest.raises(hjb.ProblemError, match="ends at T = 0.2"):
        solution.simulate([0.0], 0.3, 0.1, 1, 0)
    with pytest.raises(hjb.ProblemError, match="no multiple of dt"):
        solution.simulate([0.0], 0.2, 0.15, 1, 0)
    put = hjb.solve(hjb.catalogue.get("american-put"), 65)
    with pytest.raises(hjb.MethodMismatch, match="'stop'"):
        put.simulate([0.0], 0.1, 0.05, 1, 0)
