"""Explicit marching: orders, stability, tubes, games, against closed forms."""

import numpy as np
import pytest
from scipy.optimize import brentq

import hjbpde as hjb
from hjbpde.methods.constraint import Constraint, Tube
from hjbpde.methods.explicit import ExplicitMarching, march_explicit
from hjbpde.methods.hamiltonians import (
    AffineHamiltonian,
    Godunov,
    LaxFriedrichs,
    SampledHamiltonian,
)
from hjbpde.one_sided import ENO2, WENO3, WENO5, End, FirstOrder

REACHES = [
    LaxFriedrichs.GRID,
    LaxFriedrichs.NODE,
    LaxFriedrichs.AXIS,
    LaxFriedrichs.LOCAL,
]


def quadratic(d, bound=np.inf):
    """G = -|p|^2/2 as inf_a {a . p + |a|^2/2}, so V_tau + |grad V|^2/2 = 0."""
    one = np.ones((d, 1))
    return AffineHamiltonian(
        f0=np.zeros((d, 1)),
        B=np.eye(d)[:, :, None],
        r0=np.zeros(1),
        r1=0 * one,
        R=one,
        low=-bound * one,
        high=bound * one,
        sense=-np.ones(d),
    )


def advection(speed):
    """G = speed p, no controls."""
    d = len(speed)
    empty = np.zeros((0, 1))
    return AffineHamiltonian(
        np.reshape(np.asarray(speed, float), (d, 1)),
        np.zeros((d, 0, 1)),
        np.zeros(1),
        empty,
        empty,
        empty,
        empty,
        np.zeros(0),
    )


def circle(n, d=1):
    return hjb.Grid(hjb.Box([-1.0] * d, [1.0] * d, periodic=(True,) * d), n)


def burgers_value(x, t):
    """Hopf-Lax for V_t + V_x^2/2 = 0 from -cos(pi x)/pi, before the shock (t < 1/pi).

    V_x = sin(pi y) at the foot y of the characteristic x = y + t sin(pi y).
    """
    feet = [
        brentq(lambda y, xi=xi: y + t * np.sin(np.pi * y) - xi, xi - 1, xi + 1)
        for xi in x
    ]
    y = np.array(feet)
    return -np.cos(np.pi * y) / np.pi + 0.5 * t * np.sin(np.pi * y) ** 2


def hopf_lax(x, t):
    """Hopf-Lax of the kinked start -|x|, periodic: min_y {-|y| + (x - y)^2/(2t)}."""
    y = np.linspace(-2, 2, 4001)
    start = -np.abs((y + 1) % 2 - 1)
    return (start[None] + (x[:, None] - y[None]) ** 2 / (2 * t)).min(axis=1)


@pytest.mark.slow
def test_weno5_is_of_order_five_on_smooth_data():
    errors, t = [], 0.15
    for n in (80, 160, 320):
        grid = circle(n)
        x = grid.axes[0]
        method = ExplicitMarching(WENO5(1e-6), step=0.3 * (2 / n) ** (5 / 3))
        start = -np.cos(np.pi * x) / np.pi
        got = march_explicit(quadratic(1), grid, start, [0, t], method)
        gap = np.abs(got.values[0] - burgers_value(x, t))
        errors.append([gap.mean(), gap.max()])
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert ((orders[:, 0] > 4.5) & (orders[:, 0] < 5.4)).all()
    assert 4.5 < orders[-1, 1] < 5.5
    assert errors[-1][1] < 4e-10


@pytest.mark.parametrize("numerical", [LaxFriedrichs(), Godunov()])
@pytest.mark.parametrize(
    ("scheme", "stages", "order", "band"),
    [(FirstOrder(), 1, 1, 0.2), (ENO2(), 2, 2, 0.3), (WENO3(), 3, 3, 0.7)],
)
def test_lower_orders_in_the_mean_on_smooth_data(
    scheme, stages, order, band, numerical
):
    errors, t = [], 0.15
    for n in (80, 160, 320):
        grid = circle(n)
        x = grid.axes[0]
        method = ExplicitMarching(scheme, numerical, stages=stages)
        got = march_explicit(
            quadratic(1), grid, -np.cos(np.pi * x) / np.pi, [0, t], method
        )
        errors.append(np.abs(got.values[0] - burgers_value(x, t)).mean())
    assert abs(np.log2(errors[-2] / errors[-1]) - order) < band


@pytest.mark.parametrize("numerical", [LaxFriedrichs(), Godunov()])
@pytest.mark.parametrize("scheme", [FirstOrder(), WENO5()])
def test_the_error_at_a_kink_is_of_order_one(scheme, numerical):
    errors, t = [], 0.3
    for n in (101, 201, 401):
        grid = circle(n)
        x = grid.axes[0]
        method = ExplicitMarching(scheme, numerical)
        got = march_explicit(quadratic(1), grid, np.abs(x) * -1.0, [0, t], method)
        errors.append(np.abs(got.values[0] - hopf_lax(x, t)).max())
    assert errors[-1] < 1e-2
    assert 0.6 < np.log2(errors[0] / errors[-1]) / 2 < 1.6


@pytest.mark.parametrize("stages", [1, 2, 3])
def test_ssp_rules_have_the_order_of_their_stages(stages):
    # V_tau = -V + sin(t): the grid is idle, only the rule in time is seen.
    grid = circle(8)
    rate = lambda t: AffineHamiltonian(  # noqa: E731
        np.zeros((1, 1)),
        np.zeros((1, 0, 1)),
        np.array([np.sin(3 * t)]),
        *[np.zeros((0, 1))] * 4,
        np.zeros(0),
        at_time=lambda s: rate(s),
    )
    errors = []
    for step in (0.1, 0.05):
        method = ExplicitMarching(FirstOrder(), stages=stages, step=step)
        got = march_explicit(rate(1.0), grid, np.ones(8), [0, 1], method, rho=1.0)
        # V(0) = e^-1 + int_0^1 e^-t sin(3t) dt, by parts.
        wanted = np.exp(-1) + (3 - np.exp(-1) * (np.sin(3) + 3 * np.cos(3))) / 10
        errors.append(abs(got.values[0][0] - wanted))
    assert abs(np.log2(errors[0] / errors[1]) - stages) < 0.25


@pytest.mark.parametrize("reach", REACHES)
def test_every_reach_converges_to_the_same_value(reach):
    grid = circle((60, 60), 2)
    x = grid.nodes()
    start = -np.cos(np.pi * x).sum(-1) / np.pi
    method = ExplicitMarching(ENO2(), LaxFriedrichs(reach), stages=2)
    got = march_explicit(quadratic(2), grid, start, [0, 0.15], method)
    one = burgers_value(grid.axes[0], 0.15)
    assert np.abs(got.values[0] - one[:, None] - one[None]).max() < 6e-3


def test_godunov_transports_by_the_upwind_difference_exactly_at_cfl_one():
    grid = circle((20, 4), 2)
    start = np.random.default_rng(0).normal(size=grid.shape)
    method = ExplicitMarching(FirstOrder(), Godunov(), stages=1, cfl=1.0)
    got = march_explicit(advection([1.0, 0.0]), grid, start, [0, 0.5], method)
    # V_tau = V_x moves the graph to the left by 5 of 20 nodes.
    np.testing.assert_allclose(got.values[0], np.roll(start, -5, axis=0), atol=1e-12)


def test_a_step_that_is_too_large_is_refused_with_the_largest():
    grid = circle(50)
    start = np.sin(np.pi * grid.axes[0])
    with pytest.raises(hjb.StabilityError, match=r"largest stable step is 0\.02\b"):
        march_explicit(
            advection([2.0]), grid, start, [0, 1], ExplicitMarching(step=0.03)
        )
    march_explicit(advection([2.0]), grid, start, [0, 0.1], ExplicitMarching(step=0.02))


def test_dissipation_below_the_largest_slope_of_h_is_refused():
    grid = circle(50)
    start = np.sin(np.pi * grid.axes[0])
    method = ExplicitMarching(hamiltonian=LaxFriedrichs(bounds=(1.5,)))
    with pytest.raises(hjb.StabilityError, match=r"below max\|dH/dp\| = 2 "):
        march_explicit(advection([2.0]), grid, start, [0, 1], method)
    with pytest.raises(hjb.StabilityError, match="1 dissipation bounds for 2"):
        march_explicit(
            advection([2.0, 1.0]), circle((8, 8), 2), np.ones((8, 8)), [0, 1], method
        )


def test_godunov_refuses_what_is_not_separable():
    both = AffineHamiltonian(
        np.zeros((2, 1)),
        np.ones((2, 1, 1)),
        np.zeros(1),
        *(np.full((1, 1), v) for v in (0.0, 0.0, -1.0, 1.0)),
        np.ones(1),
    )
    with pytest.raises(hjb.MethodMismatch, match="separable"):
        march_explicit(
            both,
            circle((8, 8), 2),
            np.ones((8, 8)),
            [0, 1],
            ExplicitMarching(hamiltonian=Godunov()),
        )


def test_options_and_inputs_out_of_range_are_refused():
    with pytest.raises(hjb.MethodMismatch, match="stages is 4"):
        ExplicitMarching(stages=4)
    with pytest.raises(hjb.MethodMismatch, match="cfl"):
        ExplicitMarching(cfl=1.5)
    grid = circle(10)
    with pytest.raises(hjb.ProblemError, match="increasing"):
        march_explicit(advection([1.0]), grid, np.ones(10), [0, 0])
    with pytest.raises(hjb.ProblemError, match="terminal value is nan"):
        march_explicit(advection([1.0]), grid, np.full(10, np.nan), [0, 1])
    with pytest.raises(hjb.StabilityError, match="infinite"):
        AffineHamiltonian(
            np.zeros((1, 1)),
            np.ones((1, 1, 1)),
            np.zeros(1),
            *(np.full((1, 1), v) for v in (0.0, 0.0, -np.inf, np.inf)),
            np.ones(1),
        )


@pytest.mark.parametrize("sense", [1.0, -1.0])
def test_sampled_and_closed_form_extrema_agree(sense):
    # |a| <= 1 on a line: the extremum is at an end, which the samples hold.
    grid = hjb.Grid(hjb.Box([-2, -2], [2, 2]), (31, 33))
    x = grid.nodes().reshape(-1, 2).T
    B = np.stack([x[1], -1 - 0 * x[0]])[:, None]
    f0 = np.stack([np.sin(x[1]), 0 * x[0]])
    c = [np.full((1, 1), v) for v in (0.3, 0.0, -1.0, 1.0)]
    closed = AffineHamiltonian(f0, B, x[0] ** 2, *c, np.array([sense]))
    ends = np.array([[-1.0], [1.0]])
    f = np.stack([f0 + B[:, 0] * a for a in (-1, 1)])
    r = np.stack([x[0] ** 2 + 0.3 * a for a in (-1, 1)])
    none = np.zeros((1, 0))
    if sense > 0:
        sampled = SampledHamiltonian(f[:, None], r[:, None], ends, none)
    else:
        sampled = SampledHamiltonian(f[None], r[None], none, ends)
    start = np.hypot(x[0], x[1]).reshape(grid.shape)
    method = ExplicitMarching(hamiltonian=LaxFriedrichs(LaxFriedrichs.CONTROLS))
    one = march_explicit(closed, grid, start, [0, 0.4], method)
    two = march_explicit(sampled, grid, start, [0, 0.4], method)
    np.testing.assert_allclose(one.values, two.values, atol=1e-12)
    p = np.random.default_rng(1).normal(size=x.shape)
    which = 0 if sense > 0 else 1
    np.testing.assert_array_equal(closed.extremal(p)[which], sampled.extremal(p)[which])


def test_a_tube_is_the_least_value_met_and_decreases_in_time():
    grid = hjb.Grid(hjb.Box(-3.0, 3.0), 121)
    x = grid.axes[0]
    method = ExplicitMarching(
        FirstOrder(), Godunov(), stages=1, tube=Tube.LEAST, cfl=1.0
    )
    got = march_explicit(
        advection([1.0]), grid, np.abs(x + 1) - 0.5, [0, 0.5, 1.0], method
    )
    # Moving right at speed 1 for time s <= 1: the least distance to [-1.5, -0.5].
    away = np.maximum(x + 1, 0) + np.maximum(-1 - x - 1.0, 0) - 0.5
    inside = np.abs(x) < 2.4
    assert np.abs(got.values[0] - away)[inside].max() < 1e-12
    assert (np.diff(got.values, axis=0) >= -1e-12).all()


def test_a_moving_obstacle_bounds_the_value():
    grid = circle(100)
    x = grid.axes[0]
    wall = lambda t: 0.5 * np.cos(np.pi * (x - t))  # noqa: E731
    got = march_explicit(
        advection([0.0]),
        grid,
        np.zeros(100),
        np.linspace(0, 1, 5),
        ExplicitMarching(FirstOrder(), step=0.01, stages=1),
        constraint=Constraint(lower=wall),
    )
    # Nothing moves, so V(t) is the highest the wall stands from t on.
    for i, t in enumerate(got.times):
        later = np.linspace(t, 1, round((1 - t) / 0.01) + 1)
        best = np.maximum(max_of(wall, later), 0.0) if i < 4 else np.maximum(wall(1), 0)
        np.testing.assert_allclose(got.values[i] if i < 4 else best, best, atol=1e-9)


def max_of(wall, times):
    return np.max([wall(t) for t in times], axis=0)


def air3d(shape):
    """The game of two cars in the evader's frame, and its table of coefficients."""
    box = hjb.Box([-6, -10, 0], [20, 10, 2 * np.pi], periodic=(False, False, True))
    grid = hjb.Grid(box, shape)
    x, y, psi = grid.nodes().reshape(-1, 3).T
    zero = 0 * x
    f0 = np.stack([-5 + 5 * np.cos(psi), 5 * np.sin(psi), zero])
    evader, pursuer = np.stack([y, -x, zero - 1]), np.stack([zero, zero, zero + 1])
    c = [np.full((2, 1), v) for v in (0.0, 0.0, -1.0, 1.0)]
    game = AffineHamiltonian(
        f0, np.stack([evader, pursuer], 1), np.zeros(1), *c, np.array([1.0, -1.0])
    )
    return game, grid, (np.hypot(x, y) - 5).reshape(grid.shape)


def test_air3d_is_symmetric_and_grows_backward_in_time():
    game, grid, start = air3d((26, 21, 20))
    method = ExplicitMarching(tube=Tube.LEAST, ends=End.AWAY_FROM_ZERO)
    got = march_explicit(game, grid, start, [0, 0.7, 1.4], method)
    V = got.values
    mirrored = V[:, :, ::-1][..., (-np.arange(20)) % 20]
    near = grid.axes[0] < 12
    np.testing.assert_allclose(V[:, near], mirrored[:, near], atol=1e-8)
    # What can be caught within a time can be caught within a longer one.
    assert not ((V[1:] < 0) & ~(V[:-1] < 0)).any()
    assert (V[0] < 0).sum() > (V[1] < 0).sum() > (V[2] < 0).sum()


def test_a_game_of_opposed_speeds_has_its_closed_form():
    # x' = a - b, |a| <= 2, |b| <= 1, terminal |x|, a maximises: V = |x| + T away
    # from the kink, max_a min_b in any order; V(0) = T by the same control held.
    grid = hjb.Grid(hjb.Box(-2.0, 2.0), 81)
    game = AffineHamiltonian(
        np.zeros((1, 1)),
        np.array([[[1.0], [-1.0]]]),
        np.zeros(1),
        np.zeros((2, 1)),
        np.zeros((2, 1)),
        np.array([[-2.0], [-1.0]]),
        np.array([[2.0], [1.0]]),
        np.array([1.0, -1.0]),
    )
    start = np.abs(grid.axes[0])
    got = march_explicit(game, grid, start, [0, 0.5], ExplicitMarching())
    assert np.abs(got.values[0] - start - 0.5).max() < 0.06
    smooth = np.abs(np.abs(grid.axes[0]) - 1.0) < 0.5
    assert np.abs(got.values[0] - start - 0.5)[smooth].max() < 2e-3


def test_two_runs_give_the_same_bits():
    game, grid, start = air3d((14, 13, 12))
    runs = [march_explicit(game, grid, start, [0, 0.3]).values for _ in range(2)]
    np.testing.assert_array_equal(runs[0], runs[1])
