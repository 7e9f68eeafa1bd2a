"""Semi-Lagrangian steps of coupled modes: orders, bars, a step by definition.

Problems are built backwards from smooth V_k(x) or V_k(x, t), drawn at random: the
payoff of every mode is chosen so that the coupled equations hold exactly.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.integrate import solve_bvp

import hjbpde as hjb

LINEAR, CUBIC = hjb.SemiLagrangian("linear"), hjb.SemiLagrangian()


def waves(rng, d, periodic, still):
    """A random jet(x, t) of three waves: value, rate, gradient and Laplacian."""
    W = rng.uniform(-1.2, 1.2, size=(3, d))
    if periodic:
        W = rng.integers(1, 3, size=(3, d)) * rng.choice([-1.0, 1.0], (3, d))
    A, P = rng.uniform(0.1, 0.5, 3), rng.uniform(0, 2 * np.pi, 3)
    speed = np.zeros(3) if still else rng.uniform(-2.0, 2.0, 3)

    def jet(x, t=0.0):
        angle = x @ W.T + P + speed * t
        sine, cosine = A * np.sin(angle), A * np.cos(angle)
        bend = -(sine * (W**2).sum(axis=1)).sum(-1)
        return sine.sum(-1), (cosine * speed).sum(-1), cosine @ W, bend

    return jet


def switched(seed, d=1, noise=True, finite=False, horizon=None, periodic=False):
    """A random problem of two or three modes with every V_k known.

    Rates depend on x for every second seed; drift, noise, payoff and data on the mode.
    """
    rng = np.random.default_rng([seed, d, 77])
    K = int(rng.integers(2, 4))
    still = horizon is None
    v = [waves(rng, d, periodic, still) for _ in range(K)]
    pulls = [[waves(rng, d, periodic, True) for _ in range(d)] for _ in range(K)]
    spread, rho = rng.uniform(0.15, 0.5, K), rng.uniform(0.2, 0.8)
    levels = rng.uniform(-1.0, 1.0, K)
    half, points = rng.choice([1.0, np.inf]), rng.uniform(-1, 1, (3, d))
    base = rng.uniform(0.1, 2.5, (K, K)) * (1 - np.eye(K))
    turn = rng.uniform(0.0, 0.5, (K, K)) if seed % 2 else np.zeros((K, K))

    def rates(x):
        wave = np.cos((x.sum(-1) * 2.0)[..., None, None])
        q = base * (1 + turn * wave)
        return q - np.eye(K) * q.sum(-1)[..., None]

    def value(x, t=0.0, mode=0):
        return levels[mode] + v[mode](x, t)[0]

    def drift(x, a, mode):
        return 0.6 * np.stack([f(x)[0] for f in pulls[mode]], -1) + a

    def hamiltonian(x, a, t, mode):
        _, _, p, bend = v[mode](x, t)
        push = (drift(x, a, mode) * p).sum(-1)
        push = push - 0.5 * (a * a).sum(-1)
        return push + 0.5 * spread[mode] ** 2 * bend if noise else push

    def best(x, t, mode):
        if finite:
            every = [
                hamiltonian(x, np.broadcast_to(a, x.shape), t, mode) for a in points
            ]
            return np.max(every, axis=0)
        a = np.clip(v[mode](x, t)[2], -half, half)
        return hamiltonian(x, a, t, mode)

    def reward(x, a, t, mode):
        q, own = rates(x)[..., mode, :], value(x, t, mode)
        fed = sum(q[..., j] * value(x, t, j) for j in range(K))
        known = rho * own - v[mode](x, t)[1] - fed - best(x, t, mode)
        return known - 0.5 * (a * a).sum(-1)

    def still_reward(x, a, mode):
        return reward(x, a, 0.0, mode)

    def still_value(x, mode):
        return value(x, 0.0, mode)

    size = np.pi if periodic else rng.uniform(1.0, 2.0)
    box = hjb.Box([-half] * d, [half] * d)
    problem = hjb.ControlProblem(
        drift=drift,
        diffusion=(lambda x, a, mode: spread[mode] * np.eye(d)) if noise else None,
        reward=still_reward if still else reward,
        controls=hjb.Finite(points) if finite else box,
        domain=hjb.Box([-size] * d, [size] * d, periodic=[periodic] * d),
        discount=rho,
        modes=hjb.Modes(rates, count=K) if seed % 2 else hjb.Modes(rates(np.zeros(d))),
        horizon=horizon,
        terminal=None if still else lambda x, mode: value(x, horizon, mode),
        boundary=None if periodic else hjb.Dirichlet(still_value if still else value),
    )
    return problem, value


def order_of(judge, problem, value, shapes, method=CUBIC):
    """Slope of log error against log h, by least squares."""
    errors = [judge(problem, value, n, method)[2] for n in shapes]
    return -np.polyfit(np.log(np.array(shapes) - 1.0), np.log(errors), 1)[0]


# --- one step by its definition --------------------------------------------------


def test_the_value_is_that_of_one_step_until_the_first_switch(cubic_reading):
    """V_k = max_a phi (r + sum_j q_kj V_j(m)) + e^{-c delta} mean V_k(x_b), by hand.

    phi = (1 - e^{-c delta}) / c with c = rho + sum_j q_kj at the midpoint m.
    """
    problem, _ = switched(5, 1, True, finite=True)
    solution = hjb.solve(problem, 33, hjb.SemiLagrangian(step=0.01, tolerance=1e-12))
    assert solution.report.converged
    points: Any = problem.controls
    axis, V, delta = solution.grid.axes[0], solution.value, 0.01
    for k in range(problem.modes.n):
        alone = problem.in_mode(k)
        for i in (8, 16, 21):
            worth = []
            for a in points.points:
                x = axis[i : i + 1]
                m = x + 0.5 * delta * alone.drift(x, a)
                f, s = alone.drift(m, a)[0], alone.diffusion(m, a)[0, 0]
                q = problem.modes.at(m[None])[0, k]
                c = problem.discount + q.sum()
                fed = sum(q[j] * cubic_reading(axis, V[j], m[0]) for j in range(len(q)))
                paid = -np.expm1(-c * delta) / c * (alone.reward(m, a) + fed)
                ends = [x[0] + delta * f + side * s * delta**0.5 for side in (-1, 1)]
                after = np.mean([cubic_reading(axis, V[k], y) for y in ends])
                worth.append(paid + np.exp(-c * delta) * after)
            assert np.max(worth) == pytest.approx(V[k, i], abs=1e-9)


# --- orders ----------------------------------------------------------------------


@pytest.mark.parametrize(("seed", "noise"), [(0, False), (0, True), (1, False)])
def test_cubic_readings_give_order_two_in_every_mode(judge, seed, noise):
    problem, value = switched(seed, 1, noise)
    assert abs(order_of(judge, problem, value, [49, 97]) - 2) < 0.25


@pytest.mark.parametrize("noise", [False, True])
def test_linear_readings_give_order_one_in_every_mode(judge, noise):
    problem, value = switched(0, 1, noise)
    assert abs(order_of(judge, problem, value, [49, 97, 193], LINEAR) - 1) < 0.35


@pytest.mark.parametrize("noise", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_cubic_readings_give_order_two_in_time(noise):
    """Rates are felt at half the step: at its end alone they would be of order one."""
    problem, value = switched(int(noise), 1, noise, horizon=0.5)
    errors = []
    for n in (25, 49):
        solution = hjb.solve(problem, n, CUBIC, times=[0.0])
        x = solution.grid.nodes()
        wanted = [value(x, 0.0, k) for k in range(problem.modes.n)]
        errors.append(np.abs(solution.value[0] - wanted).max())
    assert abs(np.log2(errors[0] / errors[1]) - 2) < 0.35


# --- error bars ------------------------------------------------------------------


@pytest.mark.parametrize("method", [CUBIC, LINEAR], ids=["cubic", "linear"])
@pytest.mark.parametrize("finite", [False, True])
def test_the_bar_covers_coupled_modes(judge, finite, method):
    problem, value = switched(5 + finite, 1, not finite, finite)
    assert judge(problem, value, 49, method)[0] >= 0.99


def drawn(seed):
    """Noise, finite controls and a circle, each or not, and how V is read."""
    rng = np.random.default_rng(seed)
    flags = [bool(rng.random() < p) for p in (0.5, 0.4, 0.3)]
    return flags, CUBIC if rng.random() < 0.6 else LINEAR


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_the_bar_covers_coupled_modes_drawn_at_random(judge, seed):
    (noise, finite, periodic), method = drawn([seed, 5])
    d = 2 if seed % 6 == 5 else 1
    problem, value = switched(1000 + seed, d, noise, finite, None, periodic)
    n = (16 if d == 2 else 48) + (not periodic)
    assert judge(problem, value, (n,) * d, method)[0] >= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_the_bar_covers_modes_that_move_in_time(judge, seed):
    (noise, finite, periodic), method = drawn([seed, 6])
    problem, value = switched(2000 + seed, 1, noise, finite, 0.3, periodic)
    assert judge(problem, value, 24 + (not periodic), method)[0] >= 0.99


# --- modes beside other fields -----------------------------------------------------


def test_modes_that_are_alike_are_worth_what_one_is_worth():
    """However fast they switch into each other, one faster than the other."""
    one = hjb.catalogue.get("manufactured")
    q = 40.0 * np.array([[-1.0, 1.0], [2.0, -2.0]])
    two = replace(one, modes=hjb.Modes(q), exact=None)
    alone, both = hjb.solve(one, 65, CUBIC), hjb.solve(two, 65, CUBIC)
    apart = np.abs(both.value - alone.value)
    assert np.mean(apart <= both.error_bar + alone.error_bar) >= 0.99


@pytest.mark.parametrize("horizon", [None, pytest.param(0.3, marks=pytest.mark.slow)])
def test_every_mode_ends_on_entering_an_exit(judge, horizon):
    """V itself is paid in the region, so that nothing else changes."""
    problem, value = switched(2, 1, True, horizon=horizon)
    paid = (lambda x, mode: value(x, 0.0, mode)) if horizon is None else value
    left = hjb.Exit(lambda x: x[..., 0] + 0.31, paid)
    shape = 41 if horizon is None else 21
    covered, _, error = judge(replace(problem, exit=left), value, shape, CUBIC)
    assert covered >= 0.99
    assert error <= 0.02


def test_no_mode_is_worth_less_than_stopping():
    """Half of the nodes stop in mode 0 for a payoff above the value without."""
    problem, value = switched(3, 1, True)
    free = hjb.solve(problem, 49, CUBIC).value

    def psi(x, mode):
        return value(x, 0.0, 0) + 0.1 * x[..., 0] - 9.0 * mode

    held = hjb.solve(replace(problem, stop=psi, boundary=hjb.Reflecting()), 49, CUBIC)
    x = held.grid.nodes()
    assert np.all(held.value[0] >= psi(x, 0) - 1e-12)
    assert held.stopping.shape == free.shape
    assert held.stopping[0].any()
    assert not held.stopping[1].any()


def left_earlier(horizon=None):
    """Paid 1 until |x| = 1 in mode 0 and until |x| = .55, for .5, in mode 1."""
    noise, still = (0.4, 0.6), horizon is None
    return hjb.ControlProblem(
        drift=lambda x, a: 0.0 * x,
        diffusion=lambda x, a, mode: np.array([[noise[mode]]]),
        reward=lambda x, a: 1.0 + 0.0 * x[..., 0],
        controls=hjb.Finite([[0.0]]),
        domain=hjb.Box(-1.3, 1.3),
        discount=0.3,
        modes=hjb.Modes([[-1.0, 1.0], [2.0, -2.0]]),
        exit=hjb.Exit(
            lambda x, mode: (1.0, 0.55)[mode] - np.abs(x[..., 0]),
            lambda x, mode: 0.5 * mode + 0.0 * x[..., 0],
        ),
        horizon=horizon,
        terminal=None if still else (lambda x, mode: 0.5 * mode + 0.0 * x[..., 0]),
        boundary=hjb.Reflecting(),
    )


def left_by_collocation(x):
    """Both values of `left_earlier` at x >= 0, from the coupled boundary value problem.

    u and v run together on [0, .55] and u alone on [.55, 1], as w, all on s in [0, 1].
    """

    def field(s, y):
        u, du, v, dv, w, dw = y
        u2 = (0.3 * u - 1.0 - (v - u)) * 2 / 0.4**2
        v2 = (0.3 * v - 1.0 - 2.0 * (u - v)) * 2 / 0.6**2
        w2 = (0.3 * w - 1.0 - (0.5 - w)) * 2 / 0.4**2
        inner = np.stack([du, u2, dv, v2]) * 0.55
        return np.concatenate([inner, np.stack([dw, w2]) * 0.45])

    def ends(a, b):
        joins = [b[0] - a[4], b[1] - a[5]]
        return np.array([a[1], a[3], b[2] - 0.5, *joins, b[4]])

    s = np.linspace(0, 1, 101)
    found = solve_bvp(field, ends, s, np.ones((6, 101)), tol=1e-9)
    assert found.success
    near, far = (
        found.sol(np.minimum(x / 0.55, 1)),
        found.sol(np.clip((x - 0.55) / 0.45, 0, 1)),
    )
    first = np.where(x < 0.55, near[0], np.where(x < 1, far[4], 0.0))
    return np.stack([first, np.where(x < 0.55, near[2], 0.5)])


@pytest.mark.parametrize("method", [LINEAR, None], ids=["steps", "differences"])
def test_modes_may_end_on_surfaces_of_their_own(method):
    errors = []
    for n in (131, 261):
        solution = hjb.solve(left_earlier(), n, method)
        wanted = left_by_collocation(np.abs(solution.grid.axes[0]))
        error = np.abs(solution.value - wanted)
        assert np.mean(error <= solution.error_bar) >= 0.99
        errors.append(error.max())
    assert errors[1] < 0.01 * 2.0


@pytest.mark.slow
def test_both_methods_agree_on_surfaces_of_their_own_in_time():
    problem = left_earlier(0.5)
    steps, differences = (hjb.solve(problem, 131, m) for m in (LINEAR, None))
    x = steps.grid.nodes()
    for k in range(2):
        apart = np.abs(
            steps.value_at(x, t=0.0, mode=k) - differences.value_at(x, t=0.0, mode=k)
        )
        bars = steps.error_at(x, t=0.0, mode=k) + differences.error_at(x, t=0.0, mode=k)
        assert np.mean(apart <= bars) >= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_surfaces_of_every_mode_are_crossed_at_order_one(judge, seed):
    """V itself is paid beyond, so that nothing else changes; linear readings."""
    problem, value = switched(100 + seed, 1, seed % 2 == 0)

    def region(x, mode):
        return x[..., 0] + 0.31 - 0.2 * mode

    left = hjb.Exit(region, lambda x, mode: value(x, 0.0, mode))
    ends = replace(problem, exit=left)
    assert judge(ends, value, 97, LINEAR)[0] >= 0.99
    assert abs(order_of(judge, ends, value, [65, 129, 257, 513], LINEAR) - 1) < 0.4


def test_cubic_readings_across_surfaces_of_other_modes_are_refused():
    with pytest.raises(hjb.MethodMismatch, match="names the mode"):
        hjb.solve(left_earlier(), 33, CUBIC)
