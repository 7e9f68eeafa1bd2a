"""solve() by explicit marching: catalogue answers, bars, games, refusals."""

from typing import Any

import numpy as np
import pytest

import hjbpde as hjb


def solved(*arguments, **options) -> Any:
    """hjb.solve, whatever kind of solution comes back."""
    return hjb.solve(*arguments, **options)


def errors(solution, i=0):
    exact, t = solution.problem.exact, solution.times[i]
    return np.abs(solution.value[i] - exact.value(solution.grid.nodes(), t))


@pytest.mark.parametrize(
    ("name", "parameters", "shape", "largest"),
    [
        ("hamilton-jacobi", {}, 400, 3e-8),
        ("hamilton-jacobi", {"horizon": 0.6}, 400, 2e-3),
        ("hamilton-jacobi", {"dimension": 2}, 60, 1e-5),
        ("harmonic-oscillator", {}, 101, 2e-3),
        ("harmonic-oscillator", {"stiffness": 1.0}, 101, 2e-3),
    ],
)
def test_catalogue_values_and_their_bars(name, parameters, shape, largest):
    problem = hjb.catalogue.get(name, **parameters)
    solution = solved(problem, shape, times=[0.0, 0.5 * problem.horizon])
    for i in (0, 1):
        gap = errors(solution, i)
        assert gap.max() < largest
        assert (gap <= solution.error_bar[i]).mean() > 0.99
    assert solution.report.error_parts["truncation"] == 0.0


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("hamilton-jacobi", {}),
        ("harmonic-oscillator", {}),
        ("harmonic-oscillator", {"stiffness": 0.5}),
    ],
)
def test_bars_see_errors_of_time_at_every_output(name, parameters):
    """Where outputs cut the steps, nested grids took the same ones: bars of 1e-14."""
    problem = hjb.catalogue.get(name, **parameters)
    solution = solved(problem, problem.suggested_grid)
    assert len(solution.times) == 33
    for i in range(32):
        assert (errors(solution, i) <= solution.error_bar[i]).mean() > 0.99, i


def test_a_given_step_is_seen_by_the_bar():
    # V is a quadratic in x, exact in space away from the faces: time errs alone.
    problem = hjb.catalogue.get("harmonic-oscillator", stiffness=0.5, half_width=1.0)
    middle = np.abs(problem.suggested_grid.axes[0]) < 0.3
    for stages in (2, 3):
        method = hjb.ExplicitMarching(stages=stages, step=0.004)
        solution = solved(problem, problem.suggested_grid, method, times=[0.0])
        gap, bar = errors(solution)[middle], solution.error_bar[0][middle]
        assert gap.max() > 1e-11
        assert np.all(gap <= bar)
        assert bar.max() < 20 * gap.max()


def test_a_given_step_is_taken_on_axes_that_do_not_halve_evenly():
    """An odd periodic axis: coarser grids have equal steps too, so none is short."""
    problem = hjb.ControlProblem(
        drift=lambda x, a: a,
        reward=lambda x, a: -0.5 * a[..., 0] ** 2,
        controls=hjb.Box([-1.0], [1.0]),
        domain=hjb.Box([-1.0], [1.0], periodic=(True,)),
        horizon=0.2,
        terminal=lambda x: abs(x[..., 0]),
    )
    # The largest stable step is h / 1 = 2 / 81.
    method = hjb.ExplicitMarching(hjb.FirstOrder(), stages=1, step=0.99 * 2 / 81)
    solution = solved(problem, 81, method, times=[0.0, 0.2])
    assert solution.report.details["steps"] == 9  # eight, and what is left of .2


def test_exact_values_of_the_catalogue_satisfy_their_equations():
    for name in ("hamilton-jacobi", "harmonic-oscillator"):
        problem = hjb.catalogue.get(name)
        x = np.linspace(-0.8, 0.8, 9)[:, None]
        value, t, h = problem.exact.value, 0.1, 1e-4
        p = (value(x + h, t) - value(x - h, t)) / (2 * h)
        rate = (value(x, t + h) - value(x, t - h)) / (2 * h)
        potential = 0.5 * x[:, 0] ** 2 if name == "harmonic-oscillator" else 0.0
        # -V_t = inf_a {a p + a^2/2 - potential}
        np.testing.assert_allclose(rate, 0.5 * p**2 + potential, atol=1e-6)


def test_the_default_method_is_explicit_without_noise_only():
    free = hjb.catalogue.get("hamilton-jacobi")
    noisy = hjb.catalogue.get("european-call")
    grid = free.suggested_grid
    assert isinstance(hjb.default_method(free, grid), hjb.ExplicitMarching)
    assert isinstance(hjb.default_method(noisy, noisy.suggested_grid), hjb.Marching)
    with pytest.raises(hjb.MethodMismatch, match="without noise"):
        solved(noisy, 51, hjb.ExplicitMarching())
    with pytest.raises(hjb.MethodMismatch, match="does not fit"):
        solved(hjb.catalogue.get("lqr"), 51, hjb.ExplicitMarching())


def test_explicit_and_implicit_marching_agree_within_their_bars():
    problem = hjb.ControlProblem(
        drift=lambda x, a: a - 0.5 * x,
        cost=lambda x, a: 0.5 * a[..., 0] ** 2 + x[..., 0] ** 2,
        controls=hjb.Box(-1.0, 1.0),
        domain=hjb.Box(-1.0, 1.0),
        discount=0.3,
        horizon=1.0,
        terminal=lambda x: np.cos(x[..., 0]),
    )
    one = solved(problem, 101, hjb.ExplicitMarching(), times=[0.0])
    two = solved(problem, 101, hjb.Marching(), times=[0.0])
    gap = np.abs(one.value[0] - two.value[0])
    assert (gap <= one.error_bar[0] + two.error_bar[0] + 1e-12).mean() > 0.99
    assert gap.max() < 2e-2
    # The policy drives to the origin at the same rate.
    x = np.array([[-0.4], [0.3]])
    assert np.abs(one.control_at(x) - two.control_at(x)).max() < 2e-2


def test_time_dependent_data_reach_the_hamiltonian_at_their_time():
    # V_t = -t^2 with no motion: V(t) = (1 - t^3) / 3, and cubes are exact in RK3.
    problem = hjb.ControlProblem(
        drift=lambda x, a: 0.0 * x,
        reward=lambda x, a, t: 0.0 * x[..., 0] + t * t,
        domain=hjb.Box(-1.0, 1.0),
        horizon=1.0,
        terminal=0.0,
    )
    method = hjb.ExplicitMarching(step=0.1)
    solution = solved(problem, 21, method, times=[0.0, 0.5])
    wanted = (1 - solution.times**3) / 3
    np.testing.assert_allclose(solution.value[:, 10], wanted, atol=1e-12)


def test_a_reflecting_face_and_a_right_to_stop():
    # x' = a in [0, 1], |a| <= 1, cost 1 a unit of time, stop at cost 2 x: stop at once
    # costs 2 x, running to 0 costs x; from t only 1 - t are left.
    problem = hjb.ControlProblem(
        drift=lambda x, a: a,
        cost=lambda x, a: 1.0 + 0.0 * x[..., 0],
        controls=hjb.Box(-1.0, 1.0),
        domain=hjb.Box(0.0, 1.0),
        boundary=hjb.Reflecting(),
        horizon=2.0,
        terminal=5.0,
        stop=lambda x: 2.0 * x[..., 0],
    )
    solution = solved(problem, 101, times=[0.0])
    x = solution.grid.axes[0]
    assert np.abs(solution.value[0] - x).max() < 2e-2
    assert solution.stopping[0, 0]
    assert not solution.stopping[0, 50:].any()


def test_the_order_of_the_players_matters_without_the_isaacs_condition():
    # Drift a b with a, b in {-1, 1}: sup inf is -|p|, inf sup is +|p|.
    def problem(**sense):
        return hjb.ControlProblem(
            drift=lambda x, a, b: a * b,
            controls=hjb.Finite([-1.0, 1.0]),
            adversary=hjb.Finite([-1.0, 1.0]),
            domain=hjb.Box(-2.0, 2.0),
            horizon=0.5,
            terminal=lambda x: np.abs(x[..., 0]),
            **sense,
        )

    zero = lambda x, a: 0.0 * x[..., 0]  # noqa: E731
    first = solved(problem(reward=zero), 81, times=[0.0])
    second = solved(problem(cost=zero), 81, times=[0.0])
    x = first.grid.axes[0]
    inside = np.abs(x) < 1.4
    low = np.maximum(np.abs(x) - 0.5, 0.0)
    assert np.abs(first.value[0] - low)[inside].max() < 3e-2
    assert np.abs(second.value[0] - np.abs(x) - 0.5)[inside].max() < 6e-2
    assert first.isaacs_gap == pytest.approx(2.0, rel=0.05)
    assert first.adversary_control.shape == (2, 81, 1)


def dubins_least_distance(states, horizon):
    """Least distance to the origin over an arc followed by a segment or an arc.

    A dense search over Cockayne and Hall's two-parameter family; speed and turn
    rate are 1. The whole path counts, not its end.
    """
    best = np.hypot(states[:, 0], states[:, 1])
    times = np.linspace(0, horizon, 81)
    for x, y, theta, i in zip(*states.T, range(len(states)), strict=True):
        for turn in (-1.0, 1.0):
            # Position and heading after arcs of every length.
            heading = theta + turn * times
            px = x + turn * (np.sin(heading) - np.sin(theta))
            py = y - turn * (np.cos(heading) - np.cos(theta))
            s = np.maximum(times[None, :] - times[:, None], 0.0)
            for second in (-turn, 0.0):
                after = heading[:, None] + second * s
                if second == 0.0:
                    qx = px[:, None] + s * np.cos(after)
                    qy = py[:, None] + s * np.sin(after)
                else:
                    qx = px[:, None] + second * (
                        np.sin(after) - np.sin(heading)[:, None]
                    )
                    qy = py[:, None] - second * (
                        np.cos(after) - np.cos(heading)[:, None]
                    )
                best[i] = min(best[i], np.hypot(qx, qy).min())
    return best


def test_dubins_car_against_a_search_over_its_optimal_paths():
    problem = hjb.catalogue.get("dubins-car", horizon=1.5)
    solution = solved(problem, (41, 41, 40), times=[0.0])
    rng = np.random.default_rng(5)
    states = rng.uniform([-1.4, -1.4, 0], [1.4, 1.4, 2 * np.pi], size=(60, 3))
    wanted = dubins_least_distance(states, 1.5) - 0.5
    gap = np.abs(solution.at(0.0).value_at(states) - wanted)
    assert gap.mean() < 0.02
    assert gap.max() < 0.1
    assert (gap <= solution.error_at(states)).mean() > 0.98


def test_reach_avoid_is_never_better_than_reaching():
    shape = (25, 25, 24)
    free = solved(hjb.catalogue.get("dubins-car"), shape, times=[0.0])
    blocked = hjb.catalogue.get("dubins-car", obstacle=(1.0, 0.0, 0.4))
    kept = solved(blocked, shape, times=[0.0])
    bars = kept.error_bar[0] + free.error_bar[0]
    assert (kept.value[0] >= free.value[0] - bars).all()
    depth = blocked.stops[1].payoff(kept.grid.nodes())
    assert (kept.value[0] >= depth).all()
    # Behind the obstacle, heading for the target straight through it.
    state = np.array([1.9, 0.0, np.pi])
    assert free.value_at(state) < -0.2 < kept.value_at(state) - 0.05


def test_a_game_survives_saving(tmp_path):
    problem = hjb.catalogue.get("air3d", horizon=0.2)
    solution = solved(problem, (14, 13, 12), times=[0.0])
    again: Any = hjb.load(solution.save(tmp_path / "game.npz"), problem)
    assert isinstance(again, hjb.GameSolution)
    np.testing.assert_array_equal(again.adversary_control, solution.adversary_control)
    assert again.isaacs_gap == solution.isaacs_gap


def test_air3d_solves_and_both_players_turn_where_the_gradient_says():
    problem = hjb.catalogue.get("air3d", horizon=1.0)
    solution = solved(problem, (27, 20, 20), times=[0.0])
    assert isinstance(solution, hjb.GameSolution)
    assert solution.isaacs_gap == 0.0
    assert set(np.unique(solution.adversary_control)) <= {-1.0, 0.0, 1.0}
    assert (solution.value[0] <= solution.value[-1]).all()
    # At rest relative to each other inside the capture radius V stays the distance.
    nodes = solution.grid.nodes()
    inside = np.hypot(nodes[..., 0], nodes[..., 1]) < 5
    assert (solution.value[0][inside] <= 0).all()


def test_a_face_with_a_rule_that_does_not_fit_is_refused():
    problem = hjb.ControlProblem(
        drift=lambda x, a: a,
        reward=lambda x, a: 0.0 * x[..., 0],
        controls=hjb.Box(-1.0, 1.0),
        domain=hjb.Box(-1.0, 1.0),
        boundary=hjb.StateConstraint(),
        horizon=1.0,
        terminal=0.0,
    )
    with pytest.raises(hjb.MethodMismatch, match="StateConstraint"):
        solved(problem, 21, hjb.ExplicitMarching())


def test_a_sampled_box_says_so_and_matches_the_closed_form():
    def problem(payoff):
        return hjb.ControlProblem(
            drift=lambda x, a: a,
            cost=payoff,
            controls=hjb.Box(-1.0, 1.0),
            domain=hjb.Box(-1.0, 1.0, periodic=True),
            horizon=0.3,
            terminal=lambda x: np.cos(np.pi * x[..., 0]) / np.pi,
        )

    closed = problem(lambda x, a: 0.5 * a[..., 0] ** 2)
    # The same cost, disguised: |a|^2 as exp(2 log |a|) is no polynomial to a probe.
    odd = problem(lambda x, a: 0.5 * a[..., 0] ** 2 + 1e-9 * np.abs(a[..., 0]))
    one, two = (solved(p, 64, times=[0.0]) for p in (closed, odd))
    assert "65 x 1 samples" in two.report.checks[0]
    assert np.abs(one.value - two.value).max() < 3e-3


def test_memory_for_samples_is_refused_before_allocation():
    problem = hjb.ControlProblem(
        drift=lambda x, a: np.sin(a),
        cost=lambda x, a: np.cos(a).sum(-1),
        controls=hjb.Box([-1.0] * 3, [1.0] * 3),
        domain=hjb.Box([-1.0] * 3, [1.0] * 3),
        horizon=0.3,
        terminal=0.0,
    )
    with pytest.raises(hjb.MemoryBudgetError, match="729 x 1 samples"):
        solved(problem, (60, 60, 60))
