"""Whole-space problems on boxes that do not hold what rules V: solved on larger ones.

dX = b dt + s dW paid cos 2X: with lam = rho - 2i b + 2 s^2 the value on the whole line
is Re e^{2ix} / lam without a horizon and Re e^{2ix} (1 - e^{-lam T}) / lam with one;
with modes k that differ in b_k and switch at rates q, Re e^{2ix} v_k with
lam_k v_k - sum_j q_kj v_j = 1 (kind: closed form).
"""

import numpy as np
import pytest

import hjbpde as hjb
from hjbpde import whole_space
from hjbpde.methods.farther_faces import farther

RHO, DRIFT, NOISE = 0.3, 0.5, 0.3
LARGER = "larger box"
METHODS = [None, hjb.SemiLagrangian()]


def paid(x):
    return np.cos(2.0 * x[..., 0])


def carried_out(**changes):
    """Carried out of the box [-1, 1] at half a width a unit of time."""
    fields = {
        "drift": lambda x, a: DRIFT + 0.0 * x,
        "diffusion": NOISE,
        "reward": lambda x, a: paid(x),
        "domain": hjb.Box(-1.0, 1.0),
        "discount": RHO,
    }
    return hjb.ControlProblem(**{**fields, **changes})


def decay(drift=DRIFT):
    return RHO - 2j * drift + 2.0 * NOISE**2


def waves(solution, size):
    return (np.exp(2j * solution.grid.axes[0]) * size).real


def judged(value, bar, exact, share):
    off = np.abs(value - exact)
    assert np.all(off <= bar)
    assert off.max() <= share * np.ptp(exact)
    assert np.median(bar) <= 0.2 * np.ptp(exact)


@pytest.fixture
def alone(monkeypatch):
    """No larger boxes."""
    monkeypatch.setattr(whole_space, "effort", lambda *_: None)


@pytest.mark.parametrize("method", METHODS)
def test_values_that_come_from_beyond_the_box_are_right(method):
    solution = hjb.solve(carried_out(), 65, method)
    exact = waves(solution, 1.0 / decay())
    judged(solution.value, solution.error_bar, exact, 5e-3)
    low, high = solution.report.details[LARGER]
    assert low[0] < -1.0 < 1.0 < high[0]
    assert any("artificial faces ruled" in text for text in solution.report.checks)


@pytest.mark.parametrize("method", METHODS)
def test_without_a_larger_box_they_are_not(alone, method):
    solution = hjb.solve(carried_out(), 65, method)
    exact = waves(solution, 1.0 / decay())
    off = np.abs(solution.value - exact)
    assert np.all(off <= solution.error_bar)
    assert off.max() >= 0.2 * np.ptp(exact)
    assert LARGER not in solution.report.details


@pytest.mark.parametrize("method", METHODS)
def test_with_a_horizon(method):
    problem = carried_out(horizon=2.0, terminal=lambda x: 0.0 * x[..., 0])
    solution = hjb.solve(problem, 65, method, times=[0.0, 1.0, 2.0])
    assert solution.value.shape == solution.error_bar.shape == (3, 65)
    assert LARGER in solution.report.details
    for i, left in enumerate((2.0, 1.0)):
        size = -np.expm1(-decay() * left) / decay()
        exact = waves(solution, size)
        judged(solution.value[i], solution.error_bar[i], exact, 5e-3)


def test_in_every_mode():
    rates = np.array([[-1.0, 1.0], [0.5, -0.5]])
    drifts = np.array([0.5, 0.8])
    problem = carried_out(
        drift=lambda x, a, mode: drifts[mode] + 0.0 * x,
        reward=lambda x, a, mode: paid(x),
        modes=hjb.Modes(rates=rates),
    )
    solution = hjb.solve(problem, 65)
    sizes = np.linalg.solve(np.diag(decay(drifts)) - rates, np.ones(2))
    assert solution.value.shape == (2, 65)
    for k in range(2):
        exact = waves(solution, sizes[k])
        judged(solution.value[k], solution.error_bar[k], exact, 2e-2)


def test_what_is_kept_is_the_domains_own():
    problem = carried_out()
    grid = hjb.Grid(problem.domain, 65)
    solution = hjb.solve(problem, grid)
    assert solution.problem is problem
    assert solution.grid is grid
    assert solution.value.shape == solution.error_bar.shape == grid.shape
    assert solution.control.shape[:-1] == grid.shape
    inner = solution.region.contains(grid.nodes())
    most = solution.error_bar[inner].max()
    assert all(part <= most for part in solution.report.error_parts.values())


def refused_beyond(x, limit=1.0 + 1e-9):
    if np.abs(x).max() > limit:
        raise ValueError("a table that ends with the box")
    return paid(x)


def nothing_beyond(x):
    return np.where(np.abs(x[..., 0]) > 1.0 + 1e-9, np.nan, paid(x))


@pytest.mark.parametrize("reward", [refused_beyond, nothing_beyond])
@pytest.mark.parametrize("method", METHODS)
def test_functions_may_end_with_the_box(reward, method):
    solution = hjb.solve(carried_out(reward=lambda x, a: reward(x)), 65, method)
    assert LARGER not in solution.report.details
    off = np.abs(solution.value - waves(solution, 1.0 / decay()))
    assert np.all(off <= solution.error_bar)


def test_faces_with_rules_stay_where_they_are():
    held = carried_out(reward=lambda x, a: refused_beyond(x), boundary=hjb.Reflecting())
    assert LARGER not in hjb.solve(held, 65).report.details


def test_values_that_do_not_come_from_beyond_are_solved_once():
    problem = carried_out(drift=lambda x, a: -x)
    assert LARGER not in hjb.solve(problem, 65).report.details


def test_values_that_grow_without_end_have_no_bar():
    """At rate 1 against a discount of .3 nothing is finite."""
    problem = carried_out(
        drift=lambda x, a: 0.5 * x, reward=lambda x, a: np.exp(x[..., 0])
    )
    solution = hjb.solve(problem, 65)
    assert np.isfinite(solution.value).all()
    assert np.abs(solution.value).max() <= 1e3
    assert np.isinf(solution.error_bar).any()


def test_the_file_of_a_solve_holds_its_larger_boxes(tmp_path):
    path = tmp_path / "file"
    first = hjb.solve(carried_out(), 65, checkpoint=path)
    again = hjb.solve(carried_out(), 65, checkpoint=path)
    assert LARGER in again.report.details
    np.testing.assert_array_equal(first.value, again.value)
    np.testing.assert_array_equal(first.error_bar, again.error_bar)


@pytest.mark.parametrize("n", [41, 64])
@pytest.mark.parametrize("share", [0.5, 7.5])
def test_steps_grow_and_coarser_grids_keep_the_same_nodes(n, share):
    problem = carried_out()
    grid = hjb.Grid(problem.domain, n)
    wider, wide, own = farther(problem, grid, share, growth=1.1)
    np.testing.assert_array_equal(wide.axes[0][own[0]], grid.axes[0])
    assert np.asarray(wider.domain.low) == pytest.approx(-1.0 - 2.0 * share)
    assert np.asarray(wider.domain.high) == pytest.approx(1.0 + 2.0 * share)
    steps = np.diff(wide.axes[0])
    assert np.all(steps[1:] <= 1.1 * steps[:-1] * (1 + 1e-6))
    assert np.all(steps[:-1] <= 1.1 * steps[1:] * (1 + 1e-6))
    assert (wide.size - 1) % 8 == 0
    assert own[0].start % 8 == 0


def test_prices_stay_positive():
    problem = carried_out(domain=hjb.Box(0.2, 2.0))
    grid = hjb.Grid(problem.domain, 41)
    _, wide, own = farther(problem, grid, 7.5, within_sign=True, growth=1.1)
    assert 0.0 < wide.axes[0][0] < 0.01
    np.testing.assert_array_equal(wide.axes[0][own[0]], grid.axes[0])
