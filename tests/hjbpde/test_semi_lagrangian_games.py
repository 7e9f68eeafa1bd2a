"""Semi-Lagrangian steps of two players: order of play, orders, bars, one step by hand.

Games are built backwards from smooth V(x) or V(x, t), drawn at random: the payoff is
chosen so that Isaacs' equation holds exactly in the order written.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import hjbpde as hjb
from hjbpde.semi_lagrangian.nested import Nested
from hjbpde.semi_lagrangian.system import climb

LINEAR, CUBIC = hjb.SemiLagrangian("linear"), hjb.SemiLagrangian()


def played(seed, d=1, noise=True, finite=False, horizon=None):
    """A random game with V known; of finite sets a'K b couples the players.

    Every second seed is one of costs, inf_a sup_b.
    """
    rng = np.random.default_rng([seed, d, 31])
    W, P = rng.uniform(0.4, 1.3, (3, d)), rng.uniform(0, 6, 3)
    A, speed = rng.uniform(0.2, 0.6, 3), rng.uniform(-1.5, 1.5, 3)
    sigma, rho = rng.uniform(0.2, 0.6, d), rng.uniform(0.2, 1.0)
    speed, sign = speed * (horizon is not None), 1.0 - 2.0 * (seed % 2)
    gain, pull = rng.uniform(0.5, 1.5, d), rng.uniform(0.2, 0.8, d)
    K, points = rng.uniform(-1, 1, (d, d)), rng.uniform(-1, 1, (2, 3, d))
    half = rng.uniform(0.3, 1.5)

    def jet(x, t):
        z = x @ W.T + P + speed * t
        sine, cosine = A * np.sin(z), A * np.cos(z)
        return sine.sum(-1), (cosine * speed).sum(-1), cosine @ W, -sine @ W**2

    def free(x):
        return 0.5 * np.sin(np.roll(x, 1, -1) + 1.0) - 0.3 * x

    def controlled(p, a, b):
        both = ((a @ K) * b).sum(-1) if finite else 0.0
        own = (p * gain * a - 0.5 * a**2).sum(-1)
        return own + (p * pull * b + 0.7 * b**2).sum(-1) + both

    def extremised(p):
        if finite:
            table = [[controlled(p, a, b) for b in points[1]] for a in points[0]]
            return np.array(table).min(axis=1).max(axis=0)
        a, b = np.clip(p * gain, -half, half), np.clip(-p * pull / 1.4, -0.5, 0.5)
        return controlled(p, a, b)

    def payoff(x, a, b, t=0.0):
        v, v_t, p, q = jet(x, t)
        spread = (0.5 * sigma**2 * q).sum(-1) if noise else 0.0
        source = rho * v - v_t - (free(x) * p).sum(-1) - spread - extremised(p)
        return sign * (source + controlled(0.0 * x, a, b))

    def value(x, t=0.0, mode=0):
        return sign * jet(x, t)[0]

    still = horizon is None
    paid = (lambda x, a, b: payoff(x, a, b)) if still else payoff
    sets = [hjb.Finite(p) for p in points]
    boxes = [hjb.Box([-one] * d, [one] * d) for one in (half, 0.5)]
    first, second = sets if finite else boxes
    return hjb.ControlProblem(
        drift=lambda x, a, b: free(x) + gain * a + pull * b,
        diffusion=np.diag(sigma) if noise else None,
        **{"reward" if sign > 0 else "cost": paid},
        controls=first,
        adversary=second,
        domain=hjb.Box([-1.5] * d, [1.5] * d),
        discount=rho,
        horizon=horizon,
        terminal=None if still else lambda x: value(x, horizon),
        boundary=hjb.Dirichlet((lambda x: value(x)) if still else value),
        exact=hjb.Exact(value=value),
    )


def solved(problem, shape, method=CUBIC, **options) -> Any:
    """hjb.solve, whatever kind of solution comes back."""
    return hjb.solve(problem, shape, method, **options)


# --- one step by its definition ----------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1])
def test_the_value_is_that_of_one_step_in_the_order_written(seed, cubic_reading):
    """V = max_a min_b {...} of a reward, min_a max_b of a cost, over all pairs."""
    problem: Any = played(seed, finite=True)
    payoff = problem.reward or problem.cost
    method = hjb.SemiLagrangian(step=0.01, tolerance=1e-12)
    solution = solved(problem, 33, method)
    axis, V, delta, rho = solution.grid.axes[0], solution.value, 0.01, problem.discount
    sigma = problem.diffusion[0, 0]
    for i in (8, 16, 21):
        worth = np.empty((3, 3))
        for n, a in enumerate(problem.controls.points):
            for k, b in enumerate(problem.adversary.points):
                x = axis[i : i + 1]
                m = x + 0.5 * delta * problem.drift(x, a, b)
                end = x[0] + delta * problem.drift(m, a, b)[0]
                arms = end + np.array([-1, 1]) * sigma * delta**0.5
                after = np.mean([cubic_reading(axis, V, y) for y in arms])
                paid = -np.expm1(-rho * delta) / rho * payoff(m, a, b)
                worth[n, k] = paid + np.exp(-rho * delta) * after
        if problem.sign > 0:
            wanted = worth.min(axis=1).max()
        else:
            wanted = worth.max(axis=1).min()
        assert wanted == pytest.approx(V[i], abs=1e-9)


# --- orders ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seed", "noise", "finite"), [(0, True, False), (1, True, True), (2, False, False)]
)
def test_cubic_readings_of_a_game_are_of_order_two(judge, seed, noise, finite):
    problem: Any = played(seed, 1, noise, finite)
    errors = [judge(problem, problem.exact.value, n, CUBIC)[2] for n in (33, 65)]
    assert abs(np.log2(errors[0] / errors[1]) - 2) < 0.3


@pytest.mark.slow
def test_linear_readings_of_a_game_are_of_order_one(judge):
    problem: Any = played(0)
    value, shapes = problem.exact.value, (33, 65, 129)
    errors = [judge(problem, value, n, LINEAR)[2] for n in shapes]
    order = -np.polyfit(np.log([32, 64, 128]), np.log(errors), 1)[0]
    assert abs(order - 1) < 0.35


@pytest.mark.slow
def test_cubic_readings_of_a_game_in_time_are_of_order_two(judge):
    problem: Any = played(1, 1, True, True, horizon=0.3)
    value, options = problem.exact.value, {"times": [0.0]}
    errors = [judge(problem, value, n, CUBIC, **options)[2] for n in (33, 65)]
    assert abs(np.log2(errors[0] / errors[1]) - 2) < 0.35


# --- error bars ----------------------------------------------------------------------


@pytest.mark.parametrize("finite", [False, True])
@pytest.mark.parametrize("noise", [False, True])
def test_the_bar_covers_games(judge, finite, noise):
    problem: Any = played(4 + finite, 1, noise, finite)
    assert judge(problem, problem.exact.value, 33, CUBIC)[0] >= 0.99


def test_the_bar_covers_a_game_that_moves(judge):
    problem: Any = played(3, 1, True, True, horizon=0.1)
    times = np.linspace(0, 0.1, 4)
    assert judge(problem, problem.exact.value, 17, CUBIC, times=times)[0] >= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_the_bar_covers_games_drawn_at_random(judge, seed):
    rng = np.random.default_rng([seed, 8])
    noise, finite = bool(rng.random() < 0.6), bool(rng.random() < 0.6)
    d = 2 if seed % 6 == 5 else 1
    problem: Any = played(100 + seed, d, noise, finite or d == 2)
    shape = (17, 17) if d == 2 else 33
    assert judge(problem, problem.exact.value, shape, CUBIC)[0] >= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_the_bar_covers_moving_games_drawn_at_random(judge, seed):
    rng = np.random.default_rng([seed, 9])
    noise, finite = bool(rng.random() < 0.5), bool(rng.random() < 0.7)
    problem: Any = played(200 + seed, 1, noise, finite, horizon=0.2)
    times = np.linspace(0, 0.2, 5)
    assert judge(problem, problem.exact.value, 17, CUBIC, times=times)[0] >= 0.99


# --- what comes back ---------------------------------------------------------------


def test_both_players_are_those_of_the_riccati_equation(assert_agreement):
    """Robust regulator of the catalogue, boxes infinite: agreement, both controls."""
    problem = hjb.catalogue.get("robust-lqr")
    assert_agreement(problem, 65, CUBIC)
    ours, theirs = solved(problem, 65), hjb.solve(problem, 65)
    middle = slice(8, -8)
    for name in ("control", "adversary_control"):
        one, two = getattr(ours, name)[middle], getattr(theirs, name)[middle]
        assert np.abs(one - two).max() <= 0.05 * np.abs(two).max()
    assert ours.isaacs_gap == 0.0
    assert ours.swapped_value is None


def test_where_the_order_of_play_matters_the_swapped_value_is_told():
    """Choices 1 and -1 matched against each other: V is -2 or 2 (discount 1/2)."""
    pennies = hjb.ControlProblem(
        drift=lambda x, a, b: 0.0 * x + 0.0 * (a + b),
        reward=lambda x, a, b: (a * b)[..., 0],
        controls=hjb.Finite([[-1.0], [1.0]]),
        adversary=hjb.Finite([[-1.0], [1.0]]),
        domain=hjb.Box(0.0, 1.0),
        discount=0.5,
        boundary=hjb.Reflecting(),
    )
    solution = solved(pennies, 17)
    assert solution.value == pytest.approx(-2.0, abs=1e-9)
    assert solution.swapped_value == pytest.approx(2.0, abs=1e-9)
    assert solution.isaacs_gap == pytest.approx(2.0, abs=1e-9)
    assert solution.control.shape == solution.adversary_control.shape == (17, 1)


def test_replies_inside_choices_alone_find_the_same_value():
    """What is fallen back on where both policies together go round in circles."""
    problem = played(1, finite=True)
    grid = hjb.Grid(problem.domain, 17)
    system = Nested(problem, grid, CUBIC).solve()[-1]
    wanted = system.V
    system.V = 0.0 * wanted
    system.levels[0].a[:] = system.levels[0].search.start()
    climb(system, 1e-10, 50, 0)
    assert system.status == "converged"
    assert np.abs(system.V - wanted).max() <= 1e-8 * system.scale


def test_a_game_ends_on_entering_an_exit(judge):
    """V itself is paid in the region, so that nothing else changes."""
    problem: Any = played(6, finite=True)
    value = problem.exact.value
    left = hjb.Exit(lambda x: x[..., 0] + 0.31, lambda x: value(x))
    covered, _, error = judge(replace(problem, exit=left), value, 33, CUBIC)
    assert covered >= 0.99
    assert error <= 0.01


def test_faces_that_limit_the_drift_of_two_players_are_refused():
    game = replace(played(0), boundary=hjb.StateConstraint())
    with pytest.raises(hjb.MethodMismatch, match="inward drift"):
        hjb.solve(game, 17, CUBIC)
