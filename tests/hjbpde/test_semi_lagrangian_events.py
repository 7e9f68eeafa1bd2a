"""Semi-Lagrangian steps that end on the surface of an exit region or by stopping.

Problems are built backwards from V = sin(w . x + p + o t), the region an ellipse off
the middle of the grid, whose surface cuts cells anywhere. Stopping pays V itself on one
side of a hyperplane s(x) = 0 and less on the other; there, running on costs extra.
"""

from dataclasses import replace

import numpy as np
import pytest

import hjbpde as hjb
from hjbpde.semi_lagrangian.exits import Surface
from hjbpde.timed_solution import TimedSolution

LINEAR, CUBIC = hjb.SemiLagrangian("linear"), hjb.SemiLagrangian()


def leaving(seed, d, noise=True, timed=False, hole=False, by=None):
    """A random problem that ends outside an ellipse, or with `hole` inside one.

    Or instead of that by a right to stop of `by`.
    """
    rng = np.random.default_rng([seed, d])
    w, p = rng.uniform(0.5, 1.3, d), rng.uniform(0, 2 * np.pi)
    o, rho = rng.uniform(0.5, 1.5) * timed, rng.uniform(0.1, 0.6)
    root = rng.uniform(0.25, 0.5) * np.eye(d)
    if d > 1:
        root[1, 0] = rng.uniform(-0.8, 0.8) * root[0, 0]
    size, spread = rng.uniform(1.0, 1.6), root.T @ w
    centre, axes = rng.uniform(-0.2, 0.2, d), rng.uniform(0.8, 1.2, d)
    radius = size * rng.uniform(0.6, 0.75) * (0.5 if hole else 1.0)

    def phase(x, t):
        return x @ w + p + o * t

    def value(x, t=0.0):
        return np.sin(phase(x, t))

    def drift(x, a):
        return 0.5 * np.cos(x) + a

    def reward(x, a, t=0.0):
        slope = np.cos(phase(x, t))
        g = slope[..., None] * w
        best = np.clip(g, -1.5, 1.5)
        push = (drift(x, best) * g).sum(-1) - 0.5 * (best * best).sum(-1)
        bend = -0.5 * (spread @ spread) * value(x, t) if noise else 0.0
        own = rho * value(x, t) - o * slope - push - bend
        if by is not None:
            own = own - side * np.maximum(-beyond(x), 0.0)
        return own - 0.5 * (a * a).sum(-1)

    side = {None: 0.0, "controller": 1.0, "adversary": -1.0}[by]

    def beyond(x):
        return (x - centre).sum(-1)

    def payoff(x, t=0.0):
        return value(x, t) - 0.5 * side * np.maximum(beyond(x), 0.0) ** 2

    def region(x):
        distance = (((x - centre) / axes) ** 2).sum(-1) ** 0.5 - radius
        return distance if hole else -distance

    moving = {"horizon": 0.5, "terminal": lambda x: value(x, 0.5)}
    data = value if timed else lambda x: value(x)
    psi = payoff if timed else lambda x: payoff(x)
    ends = {"exit": hjb.Exit(region, data)} if by is None else {}
    ends |= {} if by is None else {"stop": hjb.Stop(psi, by=by)}
    return hjb.ControlProblem(
        drift=drift,
        diffusion=root if noise else None,
        reward=reward if timed else lambda x, a: reward(x, a),
        controls=hjb.Box([-1.5] * d, [1.5] * d),
        domain=hjb.Box([-size] * d, [size] * d),
        discount=rho,
        boundary=hjb.Dirichlet(data),
        exact=hjb.Exact(value=value, source="by construction"),
        **ends,
        **(moving if timed else {}),
    )


def judged(problem, shape, method=CUBIC):
    """Coverage, median bar/error and largest error on running nodes."""
    timed = problem.horizon is not None
    times = np.linspace(0.0, 0.4, 3) if timed else None
    solution = hjb.solve(problem, shape, method, times=times)
    nodes = solution.grid.nodes()
    run = np.ones(nodes.shape[:-1], bool)
    if problem.exit is not None:
        run = np.asarray(problem.exit.region(nodes)) > 0
    if isinstance(solution, TimedSolution):
        every = [problem.exact.value(nodes, t) for t in solution.times]
        error = np.abs(solution.value - np.stack(every))[:-1, run]
        bar = solution.error_bar[:-1, run]
    else:
        error = np.abs(solution.value - problem.exact.value(nodes))[run]
        bar = solution.error_bar[run]
    seen = error > 1e-12
    covered = np.mean(error <= bar + 1e-12)
    ratio = np.median(bar[seen] / error[seen]) if seen.any() else 1.0
    return covered, ratio, error.max()


def order_of(problem, shapes, method=CUBIC):
    """Slope of log error against log h, by least squares."""
    errors = [judged(problem, shape, method)[2] for shape in shapes]
    cells = [np.log(1.0 / (np.max(shape) - 1)) for shape in shapes]
    return np.polyfit(cells, np.log(errors), 1)[0]


# --- the surface -----------------------------------------------------------------


@pytest.mark.parametrize(("width", "degree"), [(2, 1), (4, 2)])
def test_values_are_continued_by_the_polynomial_through_the_surface(width, degree):
    """Lines and parabolas go on as they are beyond an ellipse's surface."""
    problem = leaving(3, 2)
    grid = hjb.Grid(problem.domain, (23, 26))
    C = np.random.default_rng(1).normal(size=(degree + 1, degree + 1))
    C *= np.add.outer(np.arange(degree + 1), np.arange(degree + 1)) <= degree

    def polynomial(x):
        return np.polynomial.polynomial.polyval2d(x[..., 0], x[..., 1], C)

    data = replace(problem, exit=hjb.Exit(problem.exit.region, polynomial))
    surface = Surface.of(data, grid, width)
    wanted = polynomial(grid.nodes())
    V = np.where(surface.running, wanted, 99.0)
    found = surface.continued(V, surface.beyond(data))
    ghosts = np.unravel_index(surface.ghosts, grid.shape)
    assert len(surface.ghosts) > 40
    assert np.allclose(found[ghosts], wanted[ghosts], rtol=0, atol=1e-9)
    kept = np.ones(grid.shape, bool)
    kept[ghosts] = False
    assert np.array_equal(found[kept], V[kept])


def test_a_long_branch_does_not_step_over_a_thin_region():
    problem = leaving(3, 1, hole=True)
    surface = Surface.of(problem, hjb.Grid(problem.domain, 41), 2)
    where = np.flatnonzero(~surface.running)
    x = surface.grid.axes[0]

    def path(share, rows):
        return np.full((len(rows), 1), x[0]) + share[:, None] * (x[-1] - x[0])

    met = surface.met(path, 1, 16)[0] * (x[-1] - x[0]) + x[0]
    assert x[where[0] - 1] < met <= x[where[0]]
    assert np.asarray(problem.exit.region(np.array([[met]]))) <= 0


# --- orders and bars -----------------------------------------------------------


@pytest.mark.parametrize(
    "timed",
    [False, pytest.param(True, marks=pytest.mark.slow)],
    ids=["stationary", "horizon"],
)
def test_the_order_is_not_lost_at_the_surface(timed):
    shapes = [25, 49] if timed else [33, 65, 129]
    assert abs(order_of(leaving(1, 1, timed=timed), shapes) - 2) < 0.35


@pytest.mark.slow
def test_linear_readings_keep_order_one_at_the_surface():
    shapes = [65, 97, 129, 193, 257]
    assert abs(order_of(leaving(1, 1), shapes, LINEAR) - 1) < 0.4


@pytest.mark.parametrize("hole", [False, True], ids=["inside", "outside"])
@pytest.mark.parametrize(
    "noise",
    [False, pytest.param(True, marks=pytest.mark.slow)],
    ids=["still", "noise"],
)
def test_the_bar_covers_up_to_the_surface(noise, hole):
    assert judged(leaving(2, 2, noise, hole=hole), (25, 27))[0] >= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_the_bar_covers_with_exits_drawn_at_random(seed):
    rng = np.random.default_rng([seed, 5])
    d = 2 if seed % 3 == 0 else 1
    noise, timed, hole = rng.random(3) < (0.7, 0.5, 0.4)
    shape = rng.integers(40, 70, 1) if d == 1 else rng.integers(20, 28, 2)
    method = CUBIC if rng.random() < 0.65 else LINEAR
    problem = leaving(100 + seed, d, bool(noise), bool(timed), bool(hole))
    assert judged(problem, tuple(shape.tolist()), method)[0] >= 0.99


@pytest.mark.slow
def test_the_unit_ball_is_left_at_order_two():
    """Zhou, Han and Lu (2021), section 5.1."""
    problem = hjb.catalogue.get("unit-ball")
    shapes = [(21, 21), (31, 31), (41, 41)]
    assert abs(order_of(problem, shapes) - 2) < 0.25
    coverage, ratio, _ = judged(problem, (41, 41))
    assert coverage >= 0.99
    assert ratio <= 10
    ours, other = (hjb.solve(problem, (41, 41), how) for how in (None, CUBIC))
    room = ours.error_bar + other.error_bar
    assert np.mean(np.abs(ours.value - other.value) <= room) >= 0.99


def test_expected_exit_times_need_no_discount():
    """Brownian motion leaves (-R, R) after (R^2 - x^2) / sigma^2 on average."""
    R, sigma = 0.737, 0.5
    problem = hjb.ControlProblem(
        drift=lambda x, a: 0.0 * x,
        diffusion=sigma,
        reward=lambda x, a: 1.0 + 0.0 * x[..., 0],
        domain=hjb.Box(-1.0, 1.0),
        boundary=hjb.Reflecting(),
        exit=hjb.Exit(lambda x: R - np.abs(x[..., 0])),
        exact=hjb.Exact(
            value=lambda x: np.maximum(R**2 - x[..., 0] ** 2, 0.0) / sigma**2,
            source="Dynkin's formula",
        ),
    )
    coverage, _, error = judged(problem, 41)
    assert coverage >= 0.99
    # Parabolas are read and continued exactly, and the step is exact for them.
    assert error <= 1e-9


def test_nodes_in_the_region_take_its_value():
    problem = leaving(4, 1)
    solution = hjb.solve(problem, 41, CUBIC)
    nodes = solution.grid.nodes()
    inside = np.asarray(problem.exit.region(nodes)) <= 0
    assert np.array_equal(solution.value[inside], problem.exact.value(nodes)[inside])
    assert not solution.error_bar[inside].max() > 1e-10


# --- rights to stop --------------------------------------------------------------


@pytest.mark.parametrize("timed", [False, True], ids=["stationary", "horizon"])
@pytest.mark.parametrize("by", ["controller", "adversary"])
def test_the_order_is_not_lost_at_a_free_boundary(by, timed):
    shapes = [25, 49] if timed else [33, 65, 129]
    assert abs(order_of(leaving(2, 1, timed=timed, by=by), shapes) - 2) < 0.4


@pytest.mark.parametrize("method", [CUBIC, LINEAR], ids=["cubic", "linear"])
@pytest.mark.parametrize("by", ["controller", "adversary"])
def test_stopping_is_best_on_its_own_side(by, method):
    problem = leaving(3, 1, by=by)
    solution = hjb.solve(problem, 65, method)
    assert judged(problem, 65, method)[0] >= 0.99
    nodes = solution.grid.nodes()
    (stop,) = problem.stops
    better = solution.value - stop.payoff(nodes)
    settled = np.abs(problem.exact.value(nodes) - stop.payoff(nodes)) <= 1e-14
    assert solution.stopping is not None
    # Faces carry data of their own.
    differ = (solution.stopping != settled)[1:-1]
    assert differ.sum() <= 3
    assert ((better if by == "controller" else -better)[1:-1] >= -1e-12).all()


def test_two_rights_to_stop_agree_with_finite_differences():
    """Both bind: the band between the payoffs is narrower than V without them."""
    problem = leaving(5, 1, by="controller")
    (stop,) = problem.stops
    upper = hjb.Stop(lambda x: stop.payoff(x) + 0.02, by="adversary")
    both = replace(problem, stop=(stop, upper), boundary=hjb.Reflecting(), exact=None)
    ours, other = (hjb.solve(both, 65, how) for how in (None, CUBIC))
    lower = stop.payoff(ours.grid.nodes())
    for solution in (ours, other):
        assert np.isclose(solution.value, lower, rtol=0, atol=1e-12).any()
        assert np.isclose(solution.value, lower + 0.02, rtol=0, atol=1e-12).any()
    room = ours.error_bar + other.error_bar
    assert np.mean(np.abs(ours.value - other.value) <= room) >= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_the_bar_covers_with_rights_to_stop_drawn_at_random(seed):
    rng = np.random.default_rng([seed, 6])
    d = 2 if seed % 4 == 0 else 1
    noise, timed = rng.random(2) < (0.7, 0.5)
    by = rng.choice(["controller", "adversary"])
    shape = rng.integers(40, 70, 1) if d == 1 else rng.integers(20, 28, 2)
    method = CUBIC if rng.random() < 0.65 else LINEAR
    problem = leaving(200 + seed, d, bool(noise), bool(timed), by=str(by))
    assert judged(problem, tuple(shape.tolist()), method)[0] >= 0.99


@pytest.mark.parametrize("method", [CUBIC, LINEAR], ids=["cubic", "linear"])
def test_the_american_put_lies_within_its_bar(method):
    """17.44876443: Seydel, Tools for Computational Finance, 6th ed., section 4.6."""
    solution = hjb.solve(hjb.catalogue.get("american-put"), 101, method, times=[0.0])
    at = np.log([[100.0]])
    error = abs(solution.value_at(at)[0] - 17.44876443)
    assert error <= solution.error_at(at)[0]
    assert error <= (0.1 if method is CUBIC else 1.0)


def test_the_bermudan_put_jumps_at_its_dates_only():
    """10.479520123: Fang and Oosterlee, Numer. Math. 114 (2009) 27, section 5.1."""
    problem = hjb.catalogue.get("bermudan-put")
    solution = hjb.solve(problem, 101, CUBIC)
    at = np.log([[100.0]])
    error = abs(solution.value_at(at)[0] - 10.479520123)
    assert error <= solution.error_at(at)[0]
    assert error <= 0.1
    assert isinstance(solution, TimedSolution)
    dates = np.asarray(problem.dates)
    near = np.abs(solution.times[:, None] - dates).min(axis=1) < 1e-9
    assert solution.stopping is not None
    assert near.any()
    assert (solution.stopping.any(axis=1) <= near).all()


@pytest.mark.parametrize(
    "name",
    [
        "american-put",
        pytest.param("bermudan-put", marks=pytest.mark.slow),
        "optimal-default",
    ],
)
def test_free_boundaries_agree_with_finite_differences(name):
    problem = hjb.catalogue.get(name)
    ours, other = (hjb.solve(problem, 81, how) for how in (None, CUBIC))
    inside = ours.region.contains(ours.grid.nodes(), 1e-12)
    apart = np.abs(ours.value - other.value)[..., inside]
    room = (ours.error_bar + other.error_bar)[..., inside]
    assert np.mean(apart <= room) >= 0.99


def test_stopping_that_beats_the_terminal_value_is_refused():
    put = hjb.catalogue.get("american-put")
    problem = replace(put, terminal=lambda x: 0.0 * x[..., 0])
    with pytest.raises(hjb.ProblemError, match="at the horizon stopping beats"):
        hjb.solve(problem, 41, CUBIC)


def to_the_exit_or_not(controls, numbers, boundary=None):
    """min int c + q (x - y)^2 + a^2 / 2 under x' = alpha x + b + s a, g at an edge."""
    alpha, b, c, q, y, s, rho, edge, g = numbers
    return hjb.ControlProblem(
        drift=lambda x, a: alpha * x + b + s * a,
        cost=lambda x, a: (c + q * (x - y) ** 2 + 0.5 * a**2).sum(-1),
        controls=controls,
        domain=hjb.Box(-1.0, 1.0),
        boundary=boundary,
        discount=rho,
        exit=hjb.Exit(lambda x: edge - x[..., 0], lambda x: g + 0.0 * x[..., 0]),
    )


@pytest.mark.parametrize("method", [CUBIC, LINEAR])
def test_switches_that_move_by_one_step_a_policy_arrive(method):
    """V was 4.2 for 1.3 at two thirds of the nodes: no word of the exit came there."""
    numbers = (-0.353, -0.0256, 0.414, 0.888, 0.234, 0.798, 0.1, 0.52, 0.85)
    problem = to_the_exit_or_not(hjb.Box(-1.0, 1.0), numbers, hjb.Reflecting())
    ours, theirs = hjb.solve(problem, 801, method), hjb.solve(problem, 801)
    apart = np.abs(ours.value - theirs.value)
    assert (apart <= ours.error_bar + theirs.error_bar).all()
    assert ours.error_bar.max() < 1e-3


def test_linear_readings_take_over_where_cubic_ones_go_in_circles():
    """Drift leads away from the exit, and three controls turn it back or do not."""
    numbers = (0.2559, -0.0775, 0.2035, 0.9309, 0.3881, 0.4581, 0.3, 0.3206, 0.1082)
    problem = to_the_exit_or_not(hjb.Finite([[-1.0], [0.0], [1.0]]), numbers)
    ours, theirs = hjb.solve(problem, 51, CUBIC), hjb.solve(problem, 51)
    assert "linear ones" in ours.report.fallbacks[0]
    assert "linear readings" in ours.report.method
    apart = np.abs(ours.value - theirs.value)
    assert (apart <= ours.error_bar + theirs.error_bar).all()
    assert ours.error_bar.max() < 0.05 * np.ptp(ours.value)
