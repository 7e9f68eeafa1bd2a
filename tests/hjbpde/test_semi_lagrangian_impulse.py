"""Moves at a fixed cost by semi-Lagrangian steps."""

import numpy as np
import pytest

import hjbpde as hjb
from hjbpde.semi_lagrangian.impulse import Impulses, ImpulseSystem

CUBIC, LINEAR = hjb.SemiLagrangian(), hjb.SemiLagrangian("linear")


def solved(problem, shape, method=CUBIC) -> hjb.ImpulseSolution:
    solution = hjb.solve(problem, shape, method)
    assert isinstance(solution, hjb.ImpulseSolution)
    assert np.array_equal(solution.stopping, np.isfinite(solution.target[..., 0]))
    return solution


def judged(problem, shape, method):
    """Errors and bars in the region, against the smooth-fit solution."""
    solution = solved(problem, shape, method)
    x = solution.grid.nodes()
    inside = solution.region.contains(x)
    error = np.abs(solution.value - problem.exact.value(x))
    return error[inside], solution.error_bar[inside]


@pytest.mark.parametrize("method", [CUBIC, LINEAR], ids=["cubic", "linear"])
@pytest.mark.parametrize("n", [65, 101, 161])
@pytest.mark.parametrize("proportional", [0.5, 0.0])
def test_the_bar_covers_the_smooth_fit_solutions(proportional, n, method):
    problem = hjb.catalogue.get("cash-management", proportional=proportional)
    error, bar = judged(problem, n, method)
    assert np.mean(error <= bar) >= 0.99


@pytest.mark.parametrize(("method", "order"), [(CUBIC, 2), (LINEAR, 1)])
def test_the_value_converges_at_the_order_of_the_readings(method, order):
    """Edges and targets lie anywhere in their cells: a fit to many grids.

    The bar is no more than a grid or two behind, as for finite differences.
    """
    problem = hjb.catalogue.get("cash-management")
    counts = np.unique(np.geomspace(65, 801, 20).astype(int))
    found = [judged(problem, n, method) for n in counts]
    worst = np.array([error.max() for error, _ in found])
    seen = -np.polyfit(np.log(counts), np.log(worst), 1)[0]
    assert abs(seen - order) < 0.35
    widest = np.array([bar.max() for _, bar in found])
    assert np.median(widest / worst) < 16


def test_it_moves_where_smooth_fit_says_and_to_the_best_level():
    problem = hjb.catalogue.get("cash-management")
    solution = solved(problem, 401)
    x, y = solution.grid.axes[0], solution.target[:, 0]
    waits, h = ~np.isfinite(y), 8.0 / 400
    other = solved(problem, 1601, hjb.PolicyIteration(order=1))
    assert other.stopping is not None
    edge = other.grid.axes[0][~other.stopping].max()
    assert abs(x[waits].max() - edge) <= 1.5 * h
    assert (np.sign(y) == np.sign(x))[~waits].all()


def drawn(seed):
    """A random cost, drift, noise and set of targets between reflecting faces."""
    rng = np.random.default_rng([seed, 41])
    size, phase, wave = rng.normal(size=3), rng.uniform(0, 6, 3), rng.uniform(0.5, 2, 3)
    pull, wind = rng.uniform(-0.5, 0.8), 0.4 * rng.normal()
    fixed, slope = rng.uniform(0.05, 0.6), rng.choice([0.0, 0.3])
    targets = rng.uniform(-1.9, 1.9, (int(rng.integers(1, 6)), 1))

    def cost(x, a):
        paid = 0.5 * (size * np.cos(wave * x + phase)).sum(-1)
        return x[..., 0] ** 2 + paid + 0.5 * a[..., 0] ** 2

    problem = hjb.ControlProblem(
        drift=lambda x, a: wind - pull * x + a,
        diffusion=rng.uniform(0.4, 1.0),
        cost=cost,
        controls=hjb.Box(-0.5, 0.5),
        domain=hjb.Box(-2.0, 2.0),
        boundary=hjb.Reflecting(),
        discount=rng.uniform(0.2, 1.0),
        impulse=hjb.Impulse(
            targets, lambda x, y: fixed + slope * np.abs(x - y)[..., 0]
        ),
    )
    return problem, int(rng.integers(50, 110))


def beside_finer(problem, n, method):
    """Share of the nodes within the bars beside finite differences on finer grids."""
    solution = solved(problem, n, method)
    finer = hjb.solve(problem, 8 * (n - 1) + 1)
    room = solution.error_bar + finer.error_bar[::8]
    return np.mean(np.abs(solution.value - finer.value[::8]) <= room)


@pytest.mark.parametrize("seed", range(4))
def test_the_bar_covers_moves_drawn_at_random(seed):
    for method in (CUBIC, LINEAR):
        assert beside_finer(*drawn(seed), method) >= 0.99


@pytest.mark.slow
def test_the_bar_covers_the_nodes_of_many_problems():
    """Where errors change sign beside a face a node or two may lie beyond."""
    shares = [
        beside_finer(*drawn(k), how) for k in range(60) for how in (CUBIC, LINEAR)
    ]
    assert np.mean(shares) >= 0.995
    assert np.min(shares) >= 0.95


def test_a_set_to_move_in_that_recedes_node_by_node_settles():
    """Moves pay almost everywhere at first; every policy takes back a few nodes."""
    assert beside_finer(*drawn(45), CUBIC) >= 0.99


def plane(**fields):
    """Two states, three drifts, and moves; correlated noise."""
    return hjb.ControlProblem(
        **{
            "drift": lambda x, a: a - 0.2 * x,
            "diffusion": np.array([[0.8, 0.0], [0.3, 0.5]]),
            "cost": lambda x, a: (
                x[..., 0] ** 2 + 2 * x[..., 1] ** 2 + 0.1 * a[..., 0] ** 2
            ),
            "controls": hjb.Finite([[0.0, 0.0], [1.0, -1.0], [-1.0, 0.5]]),
            "domain": hjb.Box([-2.0, -2.0], [2.0, 2.0]),
            "boundary": hjb.Reflecting(),
            "discount": 0.6,
            "impulse": hjb.Impulse(
                [[0.0, 0.0], [0.13, -0.4], [1.6, 1.7]],
                lambda x, y: 0.3 + 0.2 * np.abs(x - y).sum(-1),
            ),
            **fields,
        }
    )


@pytest.mark.parametrize("method", [CUBIC, LINEAR], ids=["cubic", "linear"])
def test_moves_in_the_plane_agree_with_finite_differences(method, assert_agreement):
    assert_agreement(plane(), (25, 25), method)


@pytest.mark.parametrize("method", [CUBIC, LINEAR], ids=["cubic", "linear"])
def test_moves_beside_and_into_an_exit_agree(method, assert_agreement):
    """A target in the region ends the process there and then, at its value."""
    away = hjb.Exit(lambda x: np.abs(x - 2).max(-1) - 0.71, 1.0)
    assert_agreement(plane(exit=away), (25, 25), method)
    solution = solved(plane(exit=away), (25, 25), method)
    ended = np.abs(solution.grid.nodes() - 2).max(-1) <= 0.71
    assert not solution.stopping[ended].any()


def test_the_value_solves_the_inequality_on_every_node(cubic_reading):
    """V is the better of the step and of moving, both from their definitions."""
    problem, n = drawn(2)
    system = Impulses(problem, hjb.Grid(problem.domain, n), CUBIC).solve()[-1]
    assert isinstance(system, ImpulseSystem)
    level, (axis,) = system.level, system.grid.axes
    V, step = system.V[0], level.look.step(level.a)
    waited = step.value(system.read(), level.look.lattice)
    targets = problem.impulse.targets
    x = system.grid.nodes()
    reached = np.array([cubic_reading(axis, V, y[0]) for y in targets])
    cost = np.stack([problem.impulse.cost(x, y) for y in targets], -1)
    best = np.maximum(waited, (reached - cost).max(-1))
    assert np.abs(V - best).max() <= 1e-8 * np.abs(V).max()
    assert 0 < system.acts.sum() < n


def test_a_discount_that_vanishes_somewhere_is_refused():
    problem = plane(discount=lambda x: np.maximum(x[..., 0], 0.0))
    with pytest.raises(hjb.ProblemError, match="discount > 0"):
        hjb.solve(problem, (13, 13), CUBIC)
