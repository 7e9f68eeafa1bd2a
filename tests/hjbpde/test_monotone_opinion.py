"""Bars of high-order schemes where the Hamiltonian is neither convex nor concave."""

import numpy as np
import pytest

import hjbpde as hjb
from hjbpde.methods.game import game_of
from hjbpde.methods.monotone_opinion import OPINION, bends_both_ways, distance


def riemann(g, terminal, lowest, highest, speed, horizon):
    """V_t + max_a min_b {g(a) + speed b (p - a)} = 0, |b| <= 1; and V at t = 0.

    The Hamiltonian is G(p) = max_a {g(a) - speed |p - a|}, g itself where it is
    steep by less than `speed`. From convex data max_p {p x - g*(p)} the value is
    max_p {p x - g*(p) + T G(p)} (Hopf's second formula; Bardi and Evans, Nonlinear
    Anal. 8 (1984)), here with g* = 0 between the two slopes of a kink at 0.
    """
    a = np.linspace(lowest, highest, 257)
    G = (g(a) - speed * np.abs(a[:, None] - a)).max(axis=1)

    def value(x):
        return (a * x + horizon * G).max(axis=-1)

    problem = hjb.ControlProblem(
        drift=lambda x, a, b: speed * b,
        reward=lambda x, a, b: g(a[..., 0]) - speed * a[..., 0] * b[..., 0],
        controls=hjb.Finite(a[:, None]),
        adversary=hjb.Finite([[-1.0], [1.0]]),
        domain=hjb.Box([-3.0], [3.0]),
        horizon=horizon,
        terminal=terminal,
    )
    return problem, value


def drawn(seed):
    """A payoff g drawn at random, two slopes, and the speed that g asks for."""
    rng = np.random.default_rng(seed)
    waves = rng.normal(size=(rng.integers(1, 5), 2))
    lowest, highest = -rng.uniform(1, 3), rng.uniform(1, 3)

    def g(a):
        space = hjb.namespace(a)
        return sum(
            c * space.sin((k + 1) * a) + d * space.cos((k + 1) * a)
            for k, (c, d) in enumerate(waves)
        )

    a = np.linspace(lowest, highest, 4001)
    return g, lowest, highest, 1.2 * np.abs(np.gradient(g(a), a)).max()


def kink(lowest, highest):
    def terminal(x):
        where = hjb.namespace(x).where
        return where(x[..., 0] < 0, lowest * x[..., 0], highest * x[..., 0])

    return terminal


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("scheme", [hjb.ENO2(), hjb.WENO5(), hjb.Filtered()])
def test_bars_cover_values_that_converge_to_something_else(seed, scheme):
    g, lowest, highest, speed = drawn(seed)
    problem, value = riemann(
        g, kink(lowest, highest), lowest, highest, speed, 1.0 / speed
    )
    method = hjb.ExplicitMarching(scheme)
    solution = hjb.solve(problem, 121, method, times=[0.0, problem.horizon])
    x = solution.grid.nodes()
    near = np.abs(x[:, 0]) < 1.5
    error = np.abs(solution.value[0] - value(x))[near]
    covered = error <= solution.error_bar[0][near] + 1e-12
    assert covered.mean() >= 0.99
    assert OPINION in solution.report.checks


def test_smooth_values_keep_their_own_bars():
    g, _, _, speed = drawn(1)

    def wave(x):
        return 0.5 * hjb.namespace(x).sin(np.pi * x[..., 0] / 3.0)

    problem, _ = riemann(g, wave, -1.0, 1.0, speed, 0.1 / speed)
    method = hjb.ExplicitMarching(hjb.WENO5())
    # Sampled controls make G a polygon; the slopes of V do not jump by it.
    solution = hjb.solve(problem, 121, method, times=[0.0, problem.horizon])
    assert OPINION not in solution.report.checks


@pytest.mark.parametrize(
    ("own", "other", "both"),
    [
        (1.0, 0.0, False),  # |p_1 + p_2|
        (0.0, 1.0, False),  # -|p_1 - p_2|
        (1.0, 0.5, True),  # the first, and half the second
    ],
)
@pytest.mark.parametrize("sampled", [False, True])
def test_a_hamiltonian_that_bends_both_ways_is_seen(own, other, both, sampled):
    whole = hjb.Finite([[-1.0], [1.0]]) if sampled else hjb.Box([-1.0], [1.0])

    def drift(x, a, b):
        one, two = own * a[..., 0], other * b[..., 0]
        return hjb.namespace(a).stack([one + two, one - two], -1)

    problem = hjb.ControlProblem(
        drift=drift,
        reward=lambda x, a, b: 0.0 * x[..., 0],
        controls=whole,
        adversary=whole,
        domain=hjb.Box([-1.0, -1.0], [1.0, 1.0]),
        horizon=0.1,
        terminal=lambda x: x[..., 0],
    )
    grid = hjb.Grid(problem.domain, 11)
    box = np.array([[-1.0, 1.0], [-1.0, 1.0]])
    assert bends_both_ways(game_of(problem, grid).hamiltonian, box, grid.size) is both


def test_the_distance_of_first_order_values_is_that_to_their_limit():
    limit, slope = np.array([[1.0, 2.0, 4.0]]), np.array([[1.0, -1.0, 3.0]])
    monotone = [limit + h * slope for h in (0.4, 0.2, 0.1)]
    far = distance(limit + 0.5, monotone, lambda gap: gap)
    assert np.allclose(far, 0.5, rtol=1e-12)
