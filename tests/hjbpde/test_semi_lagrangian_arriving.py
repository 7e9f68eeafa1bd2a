"""Least time and cost to an exit by semi-Lagrangian steps, through exp(-lam V).

Held against closed forms, and against fast sweeping on finer grids over fields, speeds,
costs, targets and obstacles drawn at random.
"""

from dataclasses import replace

import numpy as np
import pytest

import hjbpde as hjb
from hjbpde.semi_lagrangian.kruzkov import Kruzkov

LINEAR, CUBIC = hjb.SemiLagrangian("linear"), hjb.SemiLagrangian()


def line(**fields):
    """Least time to |x| <= .3 in one state, velocity a in [-1, 1]."""
    given = {
        "drift": lambda x, a: a,
        "cost": lambda x, a: 1.0 + 0.0 * x[..., 0],
        "controls": hjb.Box(-1.0, 1.0),
        "domain": hjb.Box(-1.0, 1.0),
        "exit": hjb.Exit(lambda x: np.abs(x[..., 0]) - 0.3),
        "boundary": hjb.StateConstraint(),
    }
    return hjb.ControlProblem(**{**given, **fields})


def walled(door):
    """Least time to a disc past a wall of infinite cost, with a door or without."""

    def cost(x, a):
        wall = np.abs(x[..., 0] - 0.5) < 0.08
        return np.where(wall & ~(door & (x[..., 1] > 0.6)), np.inf, 1.0)

    return hjb.ControlProblem(
        drift=lambda x, a: np.concatenate([np.cos(a), np.sin(a)], axis=-1),
        cost=cost,
        controls=hjb.Box(-np.pi, np.pi),
        domain=hjb.Box([-1.0, -1.0], [1.0, 1.0]),
        exit=hjb.Exit(lambda x: np.sqrt((x**2).sum(-1)) - 0.25),
        boundary=hjb.StateConstraint(),
    )


def judged(problem, shape, method):
    """Solution, errors and bars on running nodes from which the exit is reached."""
    solution = hjb.solve(problem, shape, method)
    nodes = solution.grid.nodes()
    wanted = problem.exact.value(nodes)
    known = np.isfinite(wanted) & (np.asarray(problem.exit.region(nodes)) > 0)
    found = solution.value[known]
    error = np.full(found.shape, np.inf)
    there = np.isfinite(found)
    error[there] = np.abs(found[there] - wanted[known][there])
    return solution, error, solution.error_bar[known]


def assert_near(ours, other, problem):
    """Both within the sum of their bars at 99 % of running nodes that both reach."""
    running = np.asarray(problem.exit.region(ours.grid.nodes())) > 0
    both = np.isfinite(ours.value) & np.isfinite(other.value) & running
    apart = np.abs(ours.value[both] - other.value[both])
    assert np.mean(apart <= ours.error_bar[both] + other.error_bar[both]) >= 0.99
    return both


# --- the transform -----------------------------------------------------------------


def test_the_bar_of_v_is_the_farther_end_of_what_u_may_be():
    kruzkov = Kruzkov(line(), rate=0.7, shift=0.2)
    V, b = np.array([0.2, 1.0, 3.0]), np.array([1e-3, 0.1, 0.5])
    u = kruzkov.of_cost(V)
    assert kruzkov.cost_of(u) == pytest.approx(V, abs=1e-14)
    bar = kruzkov.bar_of(u, b)
    assert kruzkov.cost_of(u - b)[:2] - V[:2] == pytest.approx(bar[:2], abs=1e-14)
    assert (V - kruzkov.cost_of(u + b) <= bar).all()
    assert np.isposinf(bar[2])
    assert np.isposinf(kruzkov.cost_of(np.array([0.0, -0.1]))).all()


# --- closed forms ----------------------------------------------------------------


@pytest.mark.parametrize(
    "method",
    [CUBIC, pytest.param(LINEAR, marks=pytest.mark.slow)],
    ids=["cubic", "linear"],
)
def test_the_distance_to_a_disc_lies_within_the_bar(method):
    problem = hjb.catalogue.get("eikonal")
    solution, error, bar = judged(problem, (33, 33), method)
    assert np.mean(error <= bar) >= 0.99
    assert np.isfinite(bar).all()
    assert solution.value.shape == (33, 33)
    assert solution.problem is problem
    assert (solution.value[np.hypot(*solution.grid.nodes().T) <= 0.25] == 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("method", [CUBIC, LINEAR], ids=["cubic", "linear"])
def test_a_current_is_crossed_within_the_bar(method):
    _, error, bar = judged(hjb.catalogue.get("zermelo"), (41, 41), method)
    assert np.mean(error <= bar) >= 0.99
    assert np.isfinite(bar).all()


def test_cubic_readings_are_of_order_two_where_the_speed_changes():
    """At the speed 1 + x / 2 midpoints are off: V is a logarithm."""
    problem = line(drift=lambda x, a: (1.0 + 0.5 * x) * a)
    errors = []
    for n in (33, 65, 129, 257):
        solution = hjb.solve(problem, n, CUBIC)
        x = solution.grid.axes[0]
        wanted = 2.0 * np.sign(x) * np.log((2.0 + x) / (2.0 + 0.3 * np.sign(x)))
        error = np.where(np.abs(x) > 0.3, np.abs(solution.value - wanted), 0.0)
        assert (error <= solution.error_bar + 1e-12).all()
        errors.append(error.max())
    order = np.log2(errors[0] / errors[-1]) / 3.0
    assert abs(order - 2.0) < 0.3


@pytest.mark.slow
def test_linear_readings_are_of_order_one():
    problem = hjb.catalogue.get("eikonal")
    sizes = [33, 49, 65, 97]
    errors = [np.mean(judged(problem, (n, n), LINEAR)[1]) for n in sizes]
    order = -np.polyfit(np.log(np.array(sizes) - 1.0), np.log(errors), 1)[0]
    assert abs(order - 1) < 0.35


@pytest.mark.parametrize("method", [CUBIC, LINEAR], ids=["cubic", "linear"])
def test_the_control_may_change_what_time_costs(method):
    """min_a (1 + a^2) / a = 2 at a = 1: V = 2 (|x| - .3) + 1/2."""
    problem = line(
        cost=lambda x, a: 1.0 + a[..., 0] ** 2,
        controls=hjb.Box(-2.0, 2.0),
        exit=hjb.Exit(lambda x: np.abs(x[..., 0]) - 0.3, 0.5),
    )
    solution = hjb.solve(problem, 65, method)
    x = solution.grid.axes[0]
    away = np.abs(x) > 0.3
    wanted = 2.0 * np.maximum(np.abs(x) - 0.3, 0.0) + 0.5
    error = np.abs(solution.value - wanted)
    assert (error <= solution.error_bar + 1e-12).all()
    assert error.max() < (1e-4 if method is CUBIC else 1e-2)
    u = solution.control[:, 0]
    assert u[away] == pytest.approx(-np.sign(x[away]), abs=0.05)


def test_rewards_are_mirrored():
    exit_ = hjb.Exit(lambda x: np.abs(x[..., 0]) - 0.3, 0.4)
    cost = hjb.solve(line(exit=exit_), 33, CUBIC)
    mirror = line(
        cost=None,
        reward=lambda x, a: -1.0 + 0.0 * x[..., 0],
        exit=replace(exit_, value=-0.4),
    )
    reward = hjb.solve(mirror, 33, CUBIC)
    assert np.array_equal(reward.value, -cost.value)
    assert np.array_equal(reward.error_bar, cost.error_bar)
    assert np.array_equal(reward.control, cost.control)


def test_stopping_and_dirichlet_faces_end_the_process_as_well():
    """V = min(|x| - .3, psi) and, with g at x = 1, min(|x| - .3, g + 1 - x)."""
    x = np.linspace(-1.0, 1.0, 65)
    far = np.maximum(np.abs(x) - 0.3, 0.0)
    stop = hjb.solve(line(stop=lambda x: 0.45 + 0.0 * x[..., 0]), 65, CUBIC)
    faces = {(0, "high"): hjb.Dirichlet(0.1), (0, "low"): hjb.StateConstraint()}
    face = hjb.solve(line(boundary=faces), 65, CUBIC)
    cases = ((stop, np.minimum(far, 0.45)), (face, np.minimum(far, 1.1 - x)))
    for solution, wanted in cases:
        error = np.abs(solution.value - wanted)
        assert np.mean(error <= solution.error_bar + 1e-12) >= 0.99
        assert error.max() < 0.02
    assert stop.stopping is not None
    settled = np.abs(stop.value - 0.45) < 1e-12
    assert np.array_equal(stop.stopping[settled], np.ones(settled.sum(), bool))
    assert face.value[-1] == 0.1


@pytest.mark.slow
def test_pushing_against_a_robin_face_costs_its_slope():
    """Velocity (1, 1) until y = .8, dV/dn = p at x = 1: V = s + p max(s - (1 - x), 0)
    with s = .8 - y.
    """
    p = 0.5
    problem = hjb.ControlProblem(
        drift=lambda x, a: np.ones(x.shape),
        cost=lambda x, a: 1.0 + 0.0 * x[..., 0],
        domain=hjb.Box([0.0, 0.0], [1.0, 1.0]),
        exit=hjb.Exit(lambda x: 0.8 - x[..., 1]),
        boundary={(0, "high"): hjb.Robin(0.0, 2.0, 2.0 * p)},
    )
    solution = hjb.solve(problem, (33, 41), LINEAR)
    x, y = np.moveaxis(solution.grid.nodes(), -1, 0)
    s = np.maximum(0.8 - y, 0.0)
    wanted = s + p * np.maximum(s - (1.0 - x), 0.0)
    error = np.abs(solution.value - wanted)
    assert np.mean(error <= solution.error_bar + 1e-12) >= 0.99
    assert error.max() < 0.1


# --- out of reach ------------------------------------------------------------------


def test_what_cannot_be_reached_is_infinite_and_said_so():
    problem = walled(door=False)
    ours, other = (hjb.solve(problem, (41, 41), how) for how in (LINEAR, None))
    assert np.array_equal(np.isposinf(ours.value), np.isposinf(other.value))
    lost = int(np.isinf(ours.value).sum())
    assert np.isposinf(ours.error_bar[np.isinf(ours.value)]).all()
    assert f"{lost} of {ours.grid.size} nodes: no path" in str(ours.report)
    assert "Kruzkov" in str(ours.report)
    assert_near(ours, other, problem)


@pytest.mark.slow
def test_a_wall_is_walked_around():
    problem = walled(door=True)
    ours = hjb.solve(problem, (61, 61), CUBIC)
    other = hjb.solve(problem, (121, 121))
    fine = replace(
        other,
        grid=ours.grid,
        value=other.value[::2, ::2],
        error_bar=other.error_bar[::2, ::2],
    )
    both = assert_near(ours, fine, problem)
    assert np.isfinite(ours.error_bar[both]).mean() > 0.95
    behind = (ours.grid.nodes()[..., 0] > 0.6) & both
    assert behind.sum() > 100
    assert ours.report.fallbacks


@pytest.mark.slow
def test_the_double_integrator_agrees_with_its_closed_form_and_with_sweeping():
    problem = hjb.catalogue.get("double-integrator")
    ours, error, bar = judged(problem, (61, 61), CUBIC)
    assert np.mean(error <= bar) >= 0.99
    assert np.isfinite(bar).mean() > 0.8
    other = hjb.solve(problem, (61, 61))
    assert_near(ours, other, problem)
    p, v = np.moveaxis(ours.grid.nodes(), -1, 0)
    brakes = 1.0 - np.sign(v) * (p + 0.5 * v * np.abs(v))
    h = 2.0 / 60
    band = np.abs(brakes) <= 4 * h * np.sqrt(1 + v * v)
    lost = np.isinf(problem.exact.value(ours.grid.nodes()))
    assert np.array_equal(np.isinf(ours.value)[~band], lost[~band])


# --- drawn at random ---------------------------------------------------------------


def drawn(seed):
    """A current, a speed, a cost, an ellipse and sometimes an obstacle, at random.

    Half of the currents outrun the boat somewhere; costs depend on the state, on the
    heading or on neither; some problems are rewards, some headings a few.
    """
    rng = np.random.default_rng([seed, 77])
    K, phase = rng.normal(size=(2, 2)) * 1.5, rng.uniform(0, 2 * np.pi, 2)
    strength, speed = rng.uniform(0.0, 1.2), rng.uniform(0.6, 1.2)
    tilt, w, slope = rng.normal(size=(3, 2)) * [[0.12], [2.0], [0.3]]
    centre, axes = rng.uniform(-0.6, 0.6, 2), rng.uniform(0.2, 0.4, 2)
    place, radius = rng.uniform(-0.8, 0.8, 2), rng.uniform(0.15, 0.3)
    walls, varied, headed, few, paid = rng.random(5) < (0.4, 0.5, 0.3, 0.35, 0.3)

    def drift(x, a):
        boat = speed * np.exp(x @ tilt)[..., None]
        heading = np.concatenate([np.cos(a), np.sin(a)], axis=-1)
        return strength * np.sin(x @ K.T + phase) + boat * heading

    def cost(x, a):
        g = 1.0 + varied * 0.6 * np.sin(x @ w)
        g = g * (1.3 + headed * 0.6 * np.cos(a[..., 0] - 1.0))
        far = ((x - place) ** 2).sum(-1) >= radius**2
        return np.where(far | ~walls, g, np.inf)

    def region(x):
        return (np.sqrt((((x - centre) / axes) ** 2).sum(-1)) - 1.0) * axes.min()

    sign = -1.0 if paid else 1.0
    sense = "reward" if paid else "cost"
    return hjb.ControlProblem(
        drift=drift,
        controls=hjb.Finite(2 * np.pi * np.arange(12)[:, None] / 12)
        if few
        else hjb.Box(-np.pi, np.pi),
        domain=hjb.Box([-1.0, -1.0], [1.0, 1.0]),
        exit=hjb.Exit(region, lambda x: sign * (0.2 + x @ slope)),
        boundary=hjb.StateConstraint(),
        **{sense: lambda x, a: sign * cost(x, a)},
    )


@pytest.mark.slow
@pytest.mark.parametrize("method", [CUBIC, LINEAR], ids=["cubic", "linear"])
@pytest.mark.parametrize("seed", range(1, 5))
def test_random_navigation_agrees_with_sweeping_on_a_finer_grid(seed, method):
    problem = drawn(seed)
    ours = hjb.solve(problem, (33, 33), method, strict=False)
    other = hjb.solve(problem, (65, 65), hjb.Sweeping(candidates=48))
    fine = replace(
        other,
        grid=ours.grid,
        value=other.value[::2, ::2],
        error_bar=other.error_bar[::2, ::2],
    )
    both = assert_near(ours, fine, problem)
    assert both.sum() > 100
    # Where no path is seen there may be one, but none is made up.
    assert np.mean(np.isinf(fine.value) & np.isfinite(ours.value)) < 0.02


# --- refusals ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"cost": lambda x, a: x[..., 0] ** 2 - 0.5}, hjb.ProblemError, "costs > 0"),
        (
            {"cost": None, "reward": lambda x, a: 0.0 * a[..., 0]},
            hjb.ProblemError,
            "rewards < 0",
        ),
        (
            {"discount": lambda x: x[..., 0] ** 2},
            hjb.MethodMismatch,
            "0 in some states",
        ),
        ({"jumps": hjb.Jumps(0.5, [[0.1]], [1.0])}, hjb.MethodMismatch, "'jumps'"),
        (
            {"controls": hjb.Box(-np.inf, np.inf)},
            hjb.MethodMismatch,
            "control box is infinite",
        ),
        ({"boundary": hjb.Robin(1.0, 1.0, 0.5)}, hjb.MethodMismatch, "Robin on face"),
        ({"boundary": hjb.Robin(0.0, 1.0, -0.5)}, hjb.MethodMismatch, "Robin on face"),
    ],
)
def test_what_the_transform_cannot_take_is_refused(fields, error, words):
    with pytest.raises(error, match=words):
        hjb.solve(line(**fields), 33, CUBIC)


def test_a_checkpoint_ends_with_the_same_bits(tmp_path):
    path = tmp_path / "arriving.npz"
    once = hjb.solve(line(), 33, CUBIC, checkpoint=path)
    again = hjb.solve(line(), 33, CUBIC, checkpoint=path)
    assert np.array_equal(once.value, again.value)
    assert np.array_equal(once.error_bar, again.error_bar)
