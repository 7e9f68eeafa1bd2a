"""Shortest and fastest paths: oracles, closed forms, obstacles, refusals."""

import heapq

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.interpolate import RegularGridInterpolator
from scipy.optimize import brentq

import hjbpde as hjb
from hjbpde.kernels.feet import best_on_arc
from hjbpde.kernels.sweeping import eikonal_sweep, upwind_value
from hjbpde.methods import sweeping
from hjbpde.methods.sweeping import ArcTables, sweep_arcs, sweep_eikonal

DEFAULTS = hjb.Sweeping()


def errors(problem, n, method=DEFAULTS):
    """Solution, |error| on finite nodes (0 elsewhere), and the nodes outside."""
    solution = hjb.solve(problem, (n,) * problem.dimension, method)
    x = solution.grid.nodes()
    wanted = problem.exact.value(x)
    finite = np.isfinite(wanted) & np.isfinite(solution.value)
    gap = np.zeros(solution.value.shape)
    gap[finite] = np.abs(solution.value[finite] - wanted[finite])
    return solution, gap, finite & (problem.exit.region(x) > 0)


def fast_marching(slowness, h, source):
    """Textbook fast marching (Sethian 1996): accept the smallest, update neighbours."""
    T, done = np.full(slowness.shape, np.inf), np.zeros(slowness.shape, bool)
    T[source] = 0.0
    heap = [(0.0, source)]
    while heap:
        _, node = heapq.heappop(heap)
        if done[node]:
            continue
        done[node] = True
        for axis in range(T.ndim):
            for side in (-1, 1):
                near = list(node)
                near[axis] += side
                near = tuple(near)
                if not all(0 <= i < n for i, n in zip(near, T.shape, strict=True)):
                    continue
                if done[near] or not np.isfinite(slowness[near]):
                    continue
                T[near] = min(T[near], local_time(T, near, h, slowness[near]))
                heapq.heappush(heap, (T[near], near))
    return T


def local_time(T, node, h, s):
    """The first-order upwind equation at one node, by bisection."""
    lows = []
    for axis in range(T.ndim):
        line = np.pad(np.moveaxis(T, axis, -1)[
            tuple(i for k, i in enumerate(node) if k != axis)
        ], 1, constant_values=np.inf)  # fmt: skip
        lows.append(min(line[node[axis]], line[node[axis] + 2]))
    start = min(lows)

    def equation(t):
        return sum(max(t - u, 0.0) ** 2 for u in lows if np.isfinite(u)) - (s * h) ** 2

    return brentq(equation, start, start + s * h * (1 + 1e-12), xtol=1e-15)


def test_the_upwind_root_solves_its_equation():
    rng = np.random.default_rng(0)
    for d in (1, 2, 3, 4):
        for _ in range(50):
            base, weight = rng.random(d), 1 + rng.random(d)
            s, order = 0.1 + rng.random(), np.zeros(d, np.int64)
            t = upwind_value(base, weight, s, order, d)
            left = np.sum((weight * np.maximum(t - base, 0)) ** 2)
            assert left == pytest.approx(s * s, rel=1e-12)


@pytest.mark.parametrize("shape", [(17, 19), (9, 8, 10)])
def test_first_order_sweeps_agree_with_fast_marching(shape):
    rng = np.random.default_rng(1)
    slowness = 0.5 + rng.random(shape)
    slowness[4, 1:6] = np.inf
    source = (2,) * len(shape)
    known = np.full(shape, np.inf)
    known[source] = 0.0
    swept = sweep_eikonal(
        known,
        slowness,
        np.full(len(shape), 0.1),
        (False,) * len(shape),
        hjb.Sweeping(order=1),
    )
    wanted = fast_marching(slowness, 0.1, source)
    assert swept.converged
    assert np.array_equal(np.isinf(swept.value), np.isinf(wanted))
    free = np.isfinite(wanted)
    assert swept.value[free] == pytest.approx(wanted[free], rel=1e-8, abs=1e-12)


def test_a_periodic_axis_is_crossed_the_short_way():
    known = np.full((20, 5), np.inf)
    known[1] = 0.0
    swept = sweep_eikonal(
        known, np.ones((20, 5)), np.array([0.05, 0.1]), (True, False), DEFAULTS
    )
    i = np.arange(20)
    wanted = 0.05 * np.minimum((i - 1) % 20, (1 - i) % 20)
    assert swept.value == pytest.approx(np.repeat(wanted[:, None], 5, 1), abs=1e-12)


@pytest.mark.parametrize(("order", "expected"), [(1, 1.0), (2, 2.0)])
def test_the_distance_to_a_disc_has_the_order_stated(order, expected):
    problem = hjb.catalogue.get("eikonal")
    found = [errors(problem, n, hjb.Sweeping(order=order)) for n in (101, 201)]
    sizes = [gap.max() for _, gap, _ in found]
    assert abs(np.log2(sizes[0] / sizes[1]) - expected) < 0.2
    assert sizes[1] < (1.6e-4 if order == 2 else 6e-3)
    for solution, gap, outside in found:
        covered = gap[outside] <= solution.error_bar[outside] + 1e-12
        assert np.mean(covered) >= 0.99


@pytest.mark.parametrize("centre", [(-0.5, 0.1), (-0.503, 0.1234)])
def test_a_factored_point_source_in_linear_speed_is_second_order(centre):
    problem = hjb.catalogue.get("eikonal", radius=0.0, slope=0.5, centre=centre)
    found = [errors(problem, n) for n in (101, 201)]
    sizes = [gap.max() for _, gap, _ in found]
    assert abs(np.log2(sizes[0] / sizes[1]) - 2.0) < 0.25
    assert sizes[1] < 2e-5
    solution, gap, outside = found[1]
    assert "factored" in solution.report.method
    assert np.mean(gap[outside] <= solution.error_bar[outside] + 1e-12) >= 0.99


def ball_problem(d, **fields):
    """Distance to a ball in 1 or 3 dimensions; controls are angles (or +-1)."""

    def drift(x, a):
        if d == 1:
            return a
        flat = np.cos(a[..., 1])
        parts = (flat * np.cos(a[..., 0]), flat * np.sin(a[..., 0]), np.sin(a[..., 1]))
        return np.stack(parts, axis=-1)

    angles = hjb.Box([-np.pi, -np.pi / 2], [np.pi, np.pi / 2])
    fields = {"cost": lambda x, a: 1.0 + 0 * x[..., 0], **fields}
    return hjb.ControlProblem(
        drift=drift,
        controls=hjb.Finite([[-1.0], [1.0]]) if d == 1 else angles,
        domain=hjb.Box([-1.0] * d, [1.0] * d),
        exit=hjb.Exit(lambda x: np.sqrt((x**2).sum(-1)) - 0.3, 2.0),
        boundary=hjb.StateConstraint(),
        **fields,
    )


@pytest.mark.parametrize(("d", "n", "bound"), [(1, 41, 1e-9), (3, 41, 4e-3)])
def test_distance_in_one_and_three_dimensions_with_an_exit_value(d, n, bound):
    problem = ball_problem(d)
    solution = hjb.solve(problem, (n,) * d)
    away = np.sqrt((solution.grid.nodes() ** 2).sum(-1))
    wanted = 2.0 + np.maximum(away - 0.3, 0.0)
    assert "eikonal" in solution.report.method
    assert np.abs(solution.value - wanted).max() < bound


def test_reward_and_cost_are_mirrored():
    x = np.array([[0.7]])
    cost = hjb.solve(ball_problem(1), 41)
    reward = hjb.ControlProblem(
        drift=lambda x, a: a,
        reward=lambda x, a: -1.0 + 0 * x[..., 0],
        controls=hjb.Finite([[-1.0], [1.0]]),
        domain=hjb.Box(-1.0, 1.0),
        exit=hjb.Exit(lambda x: np.abs(x[..., 0]) - 0.3, -2.0),
        boundary=hjb.StateConstraint(),
    )
    mirrored = hjb.solve(reward, 41)
    assert mirrored.value == pytest.approx(-cost.value, abs=1e-12)
    assert mirrored.control_at(x) == pytest.approx(cost.control_at(x))
    assert cost.control_at(x)[0, 0] == -1.0


def walled(gap):
    """A wall of infinite cost at |x - .5| < .05, with a door or without."""

    def cost(x, a):
        wall = np.abs(x[..., 0] - 0.5) < 0.05
        door = (x[..., 1] > 0.7) if gap else np.zeros_like(wall)
        return np.where(wall & ~door, np.inf, 1.0)

    return hjb.ControlProblem(
        drift=lambda x, a: np.concatenate([np.cos(a), np.sin(a)], axis=-1),
        cost=cost,
        controls=hjb.Box(-np.pi, np.pi),
        domain=hjb.Box([-1.0, -1.0], [1.0, 1.0]),
        exit=hjb.Exit(lambda x: np.sqrt((x**2).sum(-1)) - 0.2),
        boundary=hjb.StateConstraint(),
    )


def test_an_obstacle_is_walked_around():
    """Straight to the door's corner (.55, .7) and on to (.9, -.5)."""
    solution = hjb.solve(walled(True), (161, 161))
    corners = np.array([[0.45, 0.7], [0.55, 0.7]])
    end = np.array([0.9, -0.5])
    legs = np.linalg.norm(corners[0]) - 0.2 + 0.1 + np.linalg.norm(end - corners[1])
    i = tuple(int(np.argmin(np.abs(x - e))) for x, e in zip(
        solution.grid.axes, end, strict=True))  # fmt: skip
    assert solution.value[i] == pytest.approx(legs, abs=0.03)
    assert solution.value[i] > np.linalg.norm(end) - 0.2 + 0.5


def test_what_cannot_be_reached_is_infinite_and_said_so():
    solution = hjb.solve(walled(False), (41, 41))
    x = solution.grid.nodes()[..., 0]
    assert np.isinf(solution.value[x > 0.46]).all()
    assert np.isfinite(solution.value[x < 0.44]).all()
    assert np.isinf(solution.error_bar[x > 0.46]).all()
    lost = int(np.isinf(solution.value).sum())
    assert f"{lost} of {solution.grid.size} nodes cannot reach" in str(solution.report)


def test_one_arc_agrees_with_an_integrator_and_an_interpolator():
    """x' = (y, u) from one node, W read at every stop; W has no target nearby."""
    n, h, lam = 21, 0.1, 0.7
    axis = np.linspace(-1, 1, n)
    x, y = np.meshgrid(axis, axis, indexing="ij")
    W = np.exp(-0.3 * (x + 2) * (y + 1.5))
    pad = [np.pad(z, 2, mode="edge").ravel() for z in (y, 0 * y + 1, W)]
    strides, shape = np.array([n + 4, 1]), np.array([n, n])
    node, scratch = (4, 6), [np.zeros(2) for _ in range(4)]
    flat = (node[0] + 2) * (n + 4) + node[1] + 2
    one, none = np.ones(pad[2].size), np.zeros(pad[2].size)
    corners = np.array([0, n + 4, 1, n + 5])
    drift = np.stack([pad[0], pad[1]])[None]
    found = best_on_arc(
        flat, 0, 0.0, pad[2], drift, one[None], one, none, none, lam,
        np.array([h, h]), shape, strides, np.zeros(2, bool), corners, 5, *scratch,
        np.zeros(4), np.array(node, float) + 2,
    )  # fmt: skip
    read = RegularGridInterpolator((axis, axis), W)
    path = solve_ivp(
        lambda t, z: [z[1], 1.0], (0, 0.5), [axis[4], axis[6]], dense_output=True,
        rtol=1e-10,
    )  # fmt: skip
    # y' = 1 moves one cell of y per step of h, faster than y moves x here.
    stops = h * np.arange(1, 6)
    wanted = max(np.exp(-lam * t) * float(read(path.sol(t))[0]) for t in stops)
    assert found == pytest.approx(wanted, rel=1e-9)


@pytest.mark.slow
def test_arcs_agree_with_the_eikonal_answer_for_many_headings():
    """Headings every 11 degrees: at most 1 / cos(5.6 deg) too long, plus O(h)."""
    n = 41
    axis = np.linspace(-1, 1, n)
    x, y = np.meshgrid(axis, axis, indexing="ij")
    angles = 2 * np.pi * np.arange(32) / 32
    drift = np.stack([
        np.stack([np.full((n, n), np.cos(a)), np.full((n, n), np.sin(a))])
        for a in angles
    ])  # fmt: skip
    phi = np.hypot(x, y) - 0.25
    tables = ArcTables(drift, np.ones((1, n, n)), phi, np.zeros((n, n)))
    swept = sweep_arcs(
        tables, np.full(2, axis[1] - axis[0]), (False, False), hjb.Sweeping(reach=8), 1
    )
    assert np.abs(swept.value - np.maximum(phi, 0)).max() < 0.02


@pytest.mark.slow
def test_the_double_integrator_is_near_its_closed_form():
    problem = hjb.catalogue.get("double-integrator")
    solution, gap, outside = errors(problem, 101)
    x = solution.grid.nodes()
    band = away_from_curves(x, 2.0 / 100)
    assert np.median(gap[outside & band]) < 0.01
    assert gap[outside & band].max() < 0.02 * 3.0
    assert np.mean(gap[outside] <= solution.error_bar[outside]) >= 0.99
    u = solution.control[..., 0][outside & band]
    right = (x[..., 0] + 0.5 * x[..., 1] * np.abs(x[..., 1]))[outside & band] > 0
    slow = np.abs(x[..., 1])[outside & band] < 0.8  # faster, it cruises at the wall
    assert np.mean(u[slow] == np.where(right, -1.0, 1.0)[slow]) > 0.97


def away_from_curves(x, h, cells=5):
    """Outside bands around the switching curve, the target and the no-return curve."""
    p, v = x[..., 0], x[..., 1]
    steep = np.sqrt(1 + v * v) * cells * h
    switch = np.abs(p + 0.5 * v * np.abs(v)) > steep
    final = 1.0 - np.abs(p + 0.5 * v * np.abs(v)) > steep
    final |= p * v <= 0
    return switch & final & (np.hypot(p, v) > 0.2 + cells * h)


@pytest.mark.slow
def test_the_double_integrator_reaches_its_goal_at_401():
    solution, gap, outside = errors(hjb.catalogue.get("double-integrator"), 401)
    far = outside & away_from_curves(solution.grid.nodes(), 2.0 / 400)
    assert gap[far].max() < 2e-2 * 3.0
    assert np.mean(gap[outside] <= solution.error_bar[outside]) >= 0.99


@pytest.mark.slow
def test_the_eikonal_goals_at_801_and_401():
    _, gap, _ = errors(hjb.catalogue.get("eikonal"), 801)
    assert gap.max() < 1.05e-5
    point = hjb.catalogue.get("eikonal", radius=0.0, slope=0.5, centre=(-0.5, 0.1))
    assert errors(point, 401)[1].max() < 1e-5


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"diffusion": 0.1}, hjb.MethodMismatch, "no noise"),
        ({"discount": 0.1}, hjb.MethodMismatch, "discount=0"),
        ({"cost": lambda x, a: x[..., 0]}, hjb.ProblemError, "needs cost >= 0"),
        ({"cost": lambda x, a: np.nan * x[..., 0]}, hjb.ProblemError, "needs cost"),
    ],
)
def test_what_sweeping_cannot_take_is_refused(fields, error, words):
    with pytest.raises(error, match=words):
        hjb.solve(ball_problem(1, **fields), 21, DEFAULTS)


def test_stretched_grids_empty_regions_and_idle_options_are_refused():
    problem = ball_problem(1)
    stretched = hjb.Grid.from_axes([np.linspace(-1, 1, 21) ** 3], problem.domain)
    with pytest.raises(hjb.MethodMismatch, match="axis 0 is stretched"):
        hjb.solve(problem, stretched, DEFAULTS)
    empty = hjb.ControlProblem(
        drift=lambda x, a: a,
        cost=lambda x, a: 1.0 + 0 * x[..., 0],
        controls=hjb.Box(-1.0, 1.0),
        domain=hjb.Box(-1.0, 1.0),
        exit=hjb.Exit(lambda x: 1.0 + 0 * x[..., 0]),
        boundary=hjb.StateConstraint(),
    )
    with pytest.raises(hjb.ProblemError, match="no node of the grid"):
        hjb.solve(empty, 21, DEFAULTS)
    with pytest.raises(hjb.ProblemError, match="guess= means nothing to hjb.Sweeping"):
        hjb.solve(problem, 21, DEFAULTS, guess=lambda x: x[..., 0])
    for wrong in ({"order": 3}, {"reach": 0}, {"tolerance": 0.0}):
        with pytest.raises(hjb.ProblemError, match="Sweeping"):
            hjb.Sweeping(**wrong)


def test_between_nodes_infinity_stays_infinity_and_nothing_is_nan():
    solution = hjb.solve(walled(False), (41, 41))
    x = np.random.default_rng(0).uniform(-1, 1, (500, 2))
    value, behind = solution.value_at(x), x[:, 0] > 0.5
    assert np.isposinf(value[behind]).all()
    assert np.isfinite(value[x[:, 0] < 0.4]).all()
    assert np.isposinf(solution.error_at(x)[behind]).all()
    assert (solution.gradient_at(x)[behind] == 0).all()
    assert np.isfinite(solution.control_at(x)).all()
    with pytest.raises(hjb.ProblemError, match="infinite on some nodes"):
        solution.as_mdp()


def test_zermelo_crosses_the_current_and_the_bar_knows_the_sampled_headings():
    problem = hjb.catalogue.get("zermelo")
    for headings in (16, 48):
        method = hjb.Sweeping(candidates=headings, reach=4)
        solution, gap, outside = errors(problem, 33, method)
        # A heading off by e loses 1 - cos e of the speed, against the current more.
        slower = (1 - np.cos(np.pi / (headings - 1))) / (1 - np.hypot(0.5, 0.2))
        assert gap.max() < 2.41 * slower + 0.02
        assert np.mean(gap[outside] <= solution.error_bar[outside]) >= 0.99
        assert solution.report.error_parts["controls sampled"] > 0


def test_the_zermelo_answer_satisfies_its_own_definition():
    """|x + w T| = s T + r, checked where it was not solved for."""
    problem = hjb.catalogue.get("zermelo")
    x = np.random.default_rng(2).uniform(-1, 1, (200, 2))
    T = problem.exact.value(x)
    drifted = np.linalg.norm(x + T[:, None] * np.array([0.5, 0.2]), axis=1)
    away = T > 0
    assert drifted[away] == pytest.approx(T[away] + 0.25, abs=1e-12)
    assert (np.linalg.norm(x[~away], axis=1) <= 0.25).all()


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize("factored", [False, True])
def test_passing_over_resting_nodes_changes_no_bit(
    monkeypatch, order, periodic, factored
):
    shape = (31, 36)
    slowness = 0.5 + np.random.default_rng(3).random(shape)
    slowness[5, 2:9] = np.inf
    known = np.full(shape, np.inf)
    known[3, 3] = 0.0
    x = 0.1 * (np.stack(np.indices(shape), dtype=float) - 3)
    radius = np.hypot(*x)
    factor = (radius, x / np.where(radius > 0, radius, 1.0)) if factored else None

    def swept():
        method = hjb.Sweeping(order=order)
        return sweep_eikonal(
            known, slowness, np.full(2, 0.1), (periodic, False), method, factor
        )

    wanted_bits = swept()
    visits = []

    def all_due(T, frozen, due, *rest):
        visits.append(np.count_nonzero(due & ~frozen))
        due[:] = True
        return eikonal_sweep(T, frozen, due, *rest)

    monkeypatch.setattr(sweeping, "eikonal_sweep", all_due)
    every = swept()
    assert np.array_equal(every.value, wanted_bits.value)
    assert every.changes == wanted_bits.changes
    assert every.converged
    assert min(visits) < np.isinf(known).sum() / 2
