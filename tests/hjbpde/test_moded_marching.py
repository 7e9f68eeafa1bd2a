"""Modes with a horizon: coupled values marched together."""

import numpy as np
import pytest

import hjbpde as hjb

Q = np.array([[-1.0, 1.0], [0.5, -0.5]])


def solved(problem, n, **options):
    """Solved quickly in time, as what it must be."""
    solution = hjb.solve(problem, n, hjb.Marching(steps=8), **options)
    assert isinstance(solution, hjb.TimedModedSolution)
    return solution


@pytest.mark.slow
def test_regime_switching_call_is_exact_at_order_four_and_covered():
    """Lewis's Fourier integral; order 4 by extrapolation, kinked end, both modes.

    At most .6 of the half-width from the strike, so that no face matters.
    """
    problem = hjb.catalogue.get("regime-switching-call")
    off = []
    for n in (101, 201, 401):
        solution = hjb.solve(problem, n, times=[0.0, 0.5, 1.0])
        x = solution.grid.nodes()
        inner = np.abs(x[:, 0] - np.log(100.0)) < 1.2
        exact = np.stack([problem.exact.value(x, 0.0, mode=k) for k in (0, 1)])
        error = np.abs(solution.value[0] - exact)
        off.append(error[:, inner].max())
        assert (error <= solution.error_bar[0]).mean() >= 0.99
        if n > 101:
            ratio = solution.error_bar[0][:, inner] / error[:, inner]
            assert np.median(ratio) <= 10.0
    assert off[-1] <= 1e-7 * 100.0 * np.exp(1.2)
    orders = np.log2(np.array(off[:-1]) / off[1:])
    assert 3.0 <= orders.mean() <= 5.5


def test_regime_switching_call_is_covered_and_close():
    """Lewis's Fourier integral; within 1e-4 of the strike at 101 nodes, both modes."""
    problem = hjb.catalogue.get("regime-switching-call")
    solution = hjb.solve(problem, 101, hjb.Marching(steps=16), times=[0.0])
    x = solution.grid.nodes()
    exact = np.stack([problem.exact.value(x, 0.0, mode=k) for k in (0, 1)])
    error = np.abs(solution.value[0] - exact)
    assert (error <= solution.error_bar[0]).mean() >= 0.99
    inner = np.abs(x[:, 0] - np.log(100.0)) < 1.2
    assert error[:, inner].max() <= 1e-4 * 100.0


def test_exact_call_without_switching_is_that_of_black_and_scholes():
    """Two independent closed forms of the catalogue."""
    call = hjb.catalogue.get("european-call", rate=0.05, sigma=0.35)
    rates = np.zeros((2, 2))
    alone = hjb.catalogue.get("regime-switching-call", switching=rates)
    x = np.log(100.0) + np.linspace(-1.0, 1.0, 21)[:, None]
    gap = alone.exact.value(x, 0.25, mode=1) - call.exact.value(x, 0.25)
    assert np.abs(gap).max() <= 1e-10 * 100.0


def controlled(dimension, rates=Q, points=None):
    """V_k = (1 + k/2) cos(t) sum_i sin(x_i + k), payoff to match.

    Controls |a_i| <= 1, or one of `points`, the same along every axis.
    """
    discount, noise = 0.3, 0.6
    modes = hjb.Modes(rates)

    def value(x, t, mode):
        return (1 + 0.5 * mode) * np.cos(t) * np.sin(x + mode).sum(-1)

    def reward(x, a, t, mode):
        size = (1 + 0.5 * mode) * np.cos(t)
        slope, bend = size * np.cos(x + mode), -size * np.sin(x + mode).sum(-1)
        change = -(1 + 0.5 * mode) * np.sin(t) * np.sin(x + mode).sum(-1)
        best = np.clip(slope, -1.0, 1.0)
        gain = (slope * best - 0.5 * best**2).sum(-1)
        if points is not None:
            each = [(slope * p - 0.5 * p**2).sum(-1) for p in points]
            gain = np.max(each, axis=0)
        q = modes.rates[mode]
        others = sum(q[j] * value(x, t, j) for j in range(modes.n) if j != mode)
        here = value(x, t, mode)
        left = discount * here - change - (others + q[mode] * here)
        return left - gain - 0.5 * noise**2 * bend - 0.5 * (a * a).sum(-1)

    controls = hjb.Box([-1.0] * dimension, [1.0] * dimension)
    if points is not None:
        controls = hjb.Finite(np.repeat(np.array(points)[:, None], dimension, 1))
    problem = hjb.ControlProblem(
        drift=lambda x, a: a,
        diffusion=noise,
        reward=reward,
        controls=controls,
        domain=hjb.Box([0.0] * dimension, [2 * np.pi] * dimension, [True] * dimension),
        discount=discount,
        horizon=0.5,
        terminal=lambda x, mode: value(x, 0.5, mode),
        modes=modes,
    )
    return problem, value


@pytest.mark.parametrize(
    ("dimension", "shapes"),
    [(1, (16, 32)), pytest.param(2, (8, 16, 32), marks=pytest.mark.slow)],
)
def test_controlled_modes_converge_at_second_order(dimension, shapes):
    """A moving value by construction; order 2 in space, with one time error below."""
    problem, value = controlled(dimension)
    method, off = hjb.Marching(order=2, steps=8), []
    for n in shapes:
        solution = hjb.solve(problem, (n,) * dimension, method, times=[0.0, 0.25])
        x = solution.grid.nodes()
        exact = np.stack([[value(x, t, k) for k in (0, 1)] for t in (0.0, 0.25)])
        error = np.abs(solution.value[:2] - exact)
        off.append(error.max())
    assert (error <= solution.error_bar[:2]).mean() >= 0.99
    orders = np.log2(np.array(off[:-1]) / off[1:])
    assert 1.7 <= orders[-1] <= 2.3
    assert solution.value.shape == (3, 2, *solution.grid.shape)
    assert solution.control.shape == (*solution.value.shape, dimension)


def test_controls_of_a_finite_set_are_chosen_in_every_mode():
    """A moving value by construction, with kinks where the best of five changes."""
    problem, value = controlled(1, points=[-1.0, -0.5, 0.0, 0.5, 1.0])
    solution = hjb.solve(problem, 65, hjb.Marching(steps=8), times=[0.0])
    x = solution.grid.nodes()
    exact = np.stack([value(x, 0.0, k) for k in (0, 1)])
    error = np.abs(solution.value[0] - exact)
    assert (error <= solution.error_bar[0]).mean() >= 0.99
    assert error.max() <= 1e-3 * np.abs(exact).max()


def test_rates_that_link_like_modes_change_nothing():
    """The same problem in every mode: each is that of the problem without modes."""
    put = hjb.catalogue.get("american-put")
    alike = hjb.ControlProblem(
        **{f: getattr(put, f) for f in ("drift", "diffusion", "reward", "discount")},
        domain=put.domain,
        horizon=put.horizon,
        terminal=put.terminal,
        stop=put.stop,
        modes=hjb.Modes(Q),
    )
    method = hjb.Marching(steps=16)
    alone = hjb.solve(put, 101, method, times=[0.0])
    both = hjb.solve(alike, 101, method, times=[0.0])
    scale = np.abs(alone.value).max()
    for k in (0, 1):
        assert np.abs(both.value[:, k] - alone.value).max() <= 1e-7 * scale
    assert both.stopping.shape == both.value.shape


def tree_of_regimes(sigmas, rates, strike, discount, maturity, steps):
    """American puts by a trinomial tree, one lattice for all regimes.

    Yuen and Yang, Insurance: Math. and Economics 46 (2010) 180: one lattice of
    log-prices, probabilities by regime, and a switch at the end of every step.
    """
    dt = maturity / steps
    h = 1.5 * max(sigmas) * np.sqrt(dt)
    y = h * np.arange(-steps, steps + 1)
    payoff = np.maximum(strike - strike * np.exp(y), 0.0)
    move = np.linalg.matrix_power(np.eye(2) + rates * dt / 64, 64)
    V = np.stack([payoff, payoff])
    for _ in range(steps):
        mixed, new = move @ V, []
        for k, sigma in enumerate(sigmas):
            drift = discount - 0.5 * sigma**2
            even, odd = (sigma**2 * dt + drift**2 * dt**2) / h**2, drift * dt / h
            up, down = 0.5 * (even + odd), 0.5 * (even - odd)
            on = up * mixed[k, 2:] + down * mixed[k, :-2]
            on = np.exp(-discount * dt) * (on + (1 - up - down) * mixed[k, 1:-1])
            new.append(np.maximum(on, payoff[1:-1]))
        V = np.stack(new)
        payoff = payoff[1:-1]
    return V[:, 0]


def test_american_puts_in_two_regimes_agree_with_a_tree():
    """A trinomial tree of 500 and 1000 steps, extrapolated: an independent method."""
    sigmas, discount, strike = (0.15, 0.35), 0.05, 100.0

    def payoff(x):
        return np.maximum(strike - np.exp(x[..., 0]), 0.0)

    centre = np.log(strike)
    problem = hjb.ControlProblem(
        drift=lambda x, a, mode: 0.0 * x + discount - 0.5 * sigmas[mode] ** 2,
        diffusion=lambda x, a, mode: (0.0 * x + sigmas[mode])[..., None],
        reward=lambda x, a: 0.0 * x[..., 0],
        discount=discount,
        domain=hjb.Box(centre - 2.0, centre + 2.0),
        horizon=1.0,
        terminal=payoff,
        stop=payoff,
        modes=hjb.Modes(Q),
    )
    solution = hjb.solve(problem, 201, hjb.Marching(steps=32), times=[0.0])
    found = [float(solution.value_at([centre], mode=k)) for k in (0, 1)]
    bars = [float(solution.error_at([centre], mode=k)) for k in (0, 1)]
    trees = [tree_of_regimes(sigmas, Q, strike, discount, 1.0, n) for n in (500, 1000)]
    tree, gap = 2 * trees[1] - trees[0], np.abs(trees[1] - trees[0])
    assert np.all(np.abs(found - tree) <= bars + gap)
    assert gap.max() <= 1e-2
    assert max(bars) <= 2e-2


def test_saved_modes_with_a_horizon_come_back(tmp_path):
    problem, _ = controlled(1)
    solution = solved(problem, 16, times=[0.0, 0.25])
    again = hjb.load(solution.save(tmp_path / "run"), problem)
    assert isinstance(again, hjb.TimedModedSolution)
    for field in ("value", "control", "error_bar", "times"):
        assert np.array_equal(getattr(again, field), getattr(solution, field))
    x = np.array([[1.0], [2.0]])
    for mode in (0, 1):
        at = again.value_at(x, t=0.1, mode=mode)
        assert np.array_equal(at, solution.at(0.1).mode(mode).value_at(x))
        assert np.array_equal(at, solution.mode(mode).value_at(x, t=0.1))
    assert again.control_at(x, t=0.1, mode=1).shape == (2, 1)
    assert again.gradient_at(x, mode=1).shape == (2, 1)


def test_equation_of_one_mode_at_one_time_knows_the_others():
    """The chain of mode and state at a time: rows sum to zero off given nodes."""
    problem, _ = controlled(1)
    solution = solved(problem, 32, times=[0.0])
    L = solution.at(0.0).generator()
    assert L.shape == (64, 64)
    assert np.abs(L.sum(axis=1)).max() <= 1e-10 * abs(L).max()


def test_an_unknown_mode_or_a_simulation_is_refused():
    problem, _ = controlled(1)
    solution = solved(problem, 16, times=[0.0])
    with pytest.raises(hjb.ProblemError, match="mode 2 does not exist"):
        solution.value_at([[1.0]], mode=2)
    with pytest.raises(hjb.ProblemError, match="mode -1 does not exist"):
        solution.mode(-1)
    with pytest.raises(hjb.ProblemError, match="switch between modes"):
        solution.simulate([1.0], 0.5, 0.1, 4, seed=0)
