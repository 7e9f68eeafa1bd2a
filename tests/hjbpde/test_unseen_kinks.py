"""Terminal values whose kink lies between nodes, marched explicitly.

``V_t = v |V_x|`` from |x - k|: V = (|x - k| - v (T - t))^+. ``V_t = |V_x|^2 / 2``: V is
the Moreau envelope of |x - k|, Huber's function (kind: closed form, by Hopf and Lax).
"""

import numpy as np
import pytest

import hjbpde as hjb
from hjbpde.methods.unseen_kinks import unseen

METHODS = [None, hjb.WENO3(), hjb.ENO2(), hjb.FirstOrder(), hjb.Filtered()]


def valley(k, T, v):
    """The valley spreads at speed v; its bottom is 0, which no node need see."""
    k = np.atleast_1d(k)
    problem = hjb.ControlProblem(
        drift=lambda x, a: v * a,
        cost=lambda x, a: 0 * x[..., 0],
        controls=hjb.Box(-np.ones_like(k), np.ones_like(k)),
        domain=hjb.Box(-3 * np.ones_like(k), 3 * np.ones_like(k)),
        horizon=T,
        terminal=lambda x: np.abs(x - k).sum(-1),
    )
    return problem, lambda x: np.maximum(np.abs(x - k) - v * T, 0.0).sum(-1)


def huber(k, T):
    problem = hjb.ControlProblem(
        drift=lambda x, a: a,
        cost=lambda x, a: 0.5 * a[..., 0] ** 2,
        controls=hjb.Box(-np.inf, np.inf),
        domain=hjb.Box(-2, 2),
        horizon=T,
        terminal=lambda x: np.abs(x[..., 0] - k),
    )

    def exact(x):
        z = np.abs(x[..., 0] - k)
        return np.where(z > T, z - T / 2, z**2 / (2 * T))

    return problem, exact


def largest(problem, exact, n, scheme):
    """The largest error over its bar, today."""
    method = None if scheme is None else hjb.ExplicitMarching(scheme)
    solution = hjb.solve(problem, n, method, times=[0.0])
    off = np.abs(solution.value[0] - exact(solution.grid.nodes()))
    return np.max(off / (solution.error_bar[0] + 1e-12))


def mostly(found):
    """Of a dozen draws one may fall short of an estimate, and by little.

    Before nodes were told of kinks most did, some of them by ten times.
    """
    assert np.count_nonzero(np.array(found) > 1.0) <= 1
    assert np.max(found) <= 1.5


@pytest.mark.parametrize("scheme", METHODS, ids=str)
def test_bars_know_of_a_valley_between_nodes(scheme):
    rng, found = np.random.default_rng(3), []
    for _ in range(12):
        n, k, T = (
            int(rng.integers(40, 160)),
            rng.uniform(-0.5, 0.5),
            rng.uniform(0.3, 1),
        )
        found.append(largest(*valley(k, T, rng.uniform(0.5, 1.5)), n, scheme))
    mostly(found)


@pytest.mark.parametrize("scheme", METHODS, ids=str)
def test_bars_know_of_a_kink_that_is_rounded_off(scheme):
    rng, found = np.random.default_rng(4), []
    for _ in range(12):
        n, k, T = (
            int(rng.integers(40, 160)),
            rng.uniform(-0.5, 0.5),
            rng.uniform(0.3, 1),
        )
        found.append(largest(*huber(k, T), n, scheme))
    mostly(found)


def test_bars_know_of_valleys_in_two_states():
    rng, found = np.random.default_rng(5), []
    for _ in range(5):
        k, T = rng.uniform(-0.5, 0.5, 2), rng.uniform(0.3, 0.8)
        found.append(largest(*valley(k, T, 1.0), [int(rng.integers(30, 60))] * 2, None))
    assert np.max(found) <= 1.0


def test_what_lines_miss_is_told_at_kinks_alone():
    grid = hjb.Grid(hjb.Box(-1, 1), 41)

    def data(x):
        return np.abs(x[..., 0] - 0.26) + np.cos(2 * x[..., 0])

    shift = unseen(data, grid, data(grid.nodes()))
    x = grid.axes[0]
    # Between the nodes .25 and .30 the valley is deepest of all points looked at at
    # .2625: .0025, where lines from .01 to .04 give .0175.
    order = np.argsort(np.abs(shift))
    assert set(order[-2:]) == {25, 26}
    assert shift[[25, 26]] == pytest.approx(-1.5 * 0.015, rel=0.1)
    assert np.abs(shift[order[-3]]) <= 0.15 * np.abs(shift[25])
    # Far from the kink nothing is missed, nor anywhere of a smooth function.
    assert not shift[np.abs(x - 0.26) > 0.15].any()
    assert unseen(lambda x: np.cos(2 * x[..., 0]), grid, np.cos(2 * x)) is None


def test_kinks_on_the_seam_of_a_circle_are_seen():
    grid = hjb.Grid(hjb.Box(0, 1, periodic=True), 20)

    def data(x):
        return np.abs((x[..., 0] - 0.975 + 0.5) % 1.0 - 0.5)

    shift = unseen(data, grid, data(grid.nodes()))
    assert {0, 19} <= set(np.flatnonzero(shift).tolist())
