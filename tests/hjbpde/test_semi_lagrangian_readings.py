"""WENO and limited readings: their definition, orders, and jumps carried along."""

import numpy as np
import pytest

import hjbpde as hjb
from hjbpde.semi_lagrangian.lattice import FLAT, Lattice

WENO, LIMITED = hjb.SemiLagrangian("weno"), hjb.SemiLagrangian(limiter=True)
BOTH = hjb.SemiLagrangian("weno", limiter=True)


def slow_weno(t, v, y, scale):
    """Carlini, Ferretti and Russo (2005), section 2, by polynomials, on one axis."""
    cell = int(np.clip(np.searchsorted(t, y, side="right") - 1, 0, len(t) - 2))
    first = int(np.clip(cell - 1, 0, len(t) - 4))
    t, v, cell = t[first : first + 4], v[first : first + 4], cell - first
    a, b = t[cell], t[cell + 1]
    h, share, eps = b - a, (t[3] - y) / (t[3] - t[0]), (FLAT * scale) ** 2
    weights, values = [], []
    for side, part in ((0, share), (1, 1.0 - share)):
        Q = np.poly1d(np.polyfit(t[side : side + 3] - a, v[side : side + 3], 2))
        rough = 0.0
        for k in (1, 2):
            square = np.polyint(np.polyder(Q, k) ** 2)
            rough += h ** (2 * k - 1) * (square(h) - square(0.0))
        weights.append(part / (eps + rough) ** 2)
        values.append(Q(y - a))
    return np.dot(weights, values) / np.sum(weights)


def test_weno_readings_are_those_of_their_definition():
    rng = np.random.default_rng(0)
    axis = np.sort(np.r_[0.0, 2.0, rng.uniform(0.1, 1.9, 11)])
    values = np.where(axis > 1.1, 1.0, 0.2 * np.sin(3 * axis))
    points = rng.uniform(0, 2, (60, 1))
    found = Lattice([axis], [0.0], 4, weno=True).read(values, points)
    scale = np.abs(values).max()
    wanted = [slow_weno(axis, values, y, scale) for y in points[:, 0]]
    assert np.allclose(found, wanted, rtol=0, atol=1e-10)


def test_weno_readings_of_two_states_go_axis_by_axis():
    rng = np.random.default_rng(1)
    axes = [np.linspace(0, 1, 6), np.linspace(0, 2, 8, endpoint=False)]
    values = rng.normal(size=(6, 8))
    x, y = 0.43, 1.9
    found = Lattice(axes, [0.0, 2.0], 4, weno=True).read(values, np.array([[x, y]]))
    # Across the seam the second axis goes on with the values of its other end.
    unrolled = np.r_[axes[1], axes[1] + 2.0]
    scale = np.abs(values).max()
    rows = [slow_weno(unrolled, np.r_[row, row], y, scale) for row in values]
    wanted = slow_weno(axes[0], np.array(rows), x, scale)
    assert np.allclose(found, wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize("d", [1, 2])
def test_weno_readings_are_of_order_four_where_slopes_do_not_vanish(d):
    errors = []
    for n in (41, 81, 161):
        axis = np.linspace(0, 1, n)
        nodes = np.stack(np.meshgrid(*[axis] * d, indexing="ij"), -1)
        points = (nodes[(slice(None, -1),) * d] + 0.37 / (n - 1)).reshape(-1, d)
        lattice = Lattice([axis] * d, [0.0] * d, 4, weno=True)
        found = lattice.read(np.exp(nodes.sum(-1)), points)
        errors.append(np.abs(found - np.exp(points.sum(-1))).max())
    order = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.abs(order - 4).max() < 0.3


def test_limited_readings_stay_within_the_corners_of_their_cell():
    rng = np.random.default_rng(3)
    axes = [np.linspace(0, 1, 7), np.linspace(0, 1, 9)]
    values = rng.normal(size=(7, 9))
    points = rng.uniform(0, 1, (300, 2))
    cubic = Lattice(axes, [0.0, 0.0], 4).read(values, points)
    found = Lattice(axes, [0.0, 0.0], 4, limited=True).read(values, points)
    i, j = ((points * [6, 8]).astype(int)).T
    corners = np.stack([values[i + k, j + m] for k in (0, 1) for m in (0, 1)])
    wanted = np.clip(cubic, corners.min(axis=0), corners.max(axis=0))
    assert np.allclose(found, wanted, rtol=0, atol=1e-12)
    assert (found != cubic).any()


# --- carried along -----------------------------------------------------------------


def carried(terminal, d=1):
    """Moved around a circle, or a torus, at speed 1: V(x, t) = g(x + T - t)."""
    return hjb.ControlProblem(
        drift=lambda x, a: 0.0 * x + 1.0,
        reward=lambda x, a: 0.0 * x[..., 0],
        domain=hjb.Box([-1.0] * d, [1.0] * d, periodic=[True] * d),
        horizon=1.0,
        terminal=terminal,
    )


def plateau(x):
    """1 on a half of the circle, or a quarter of the torus, 0 elsewhere."""
    return np.where(np.abs(x) < 0.5, 1.0, 0.0).min(-1)


@pytest.mark.parametrize("d", [1, 2])
def test_a_jump_is_carried_without_overshoot(d):
    def overshoot(method):
        shape = (101,) if d == 1 else (31, 31)
        V = hjb.solve(carried(plateau, d), shape, method, times=[0.0]).value[0]
        return max(V.max() - 1.0, -V.min())

    assert overshoot(hjb.SemiLagrangian()) > 0.05
    assert overshoot(WENO) < 1e-4
    # The differences of 1e-4 that WENO takes for smooth are cut as well.
    assert overshoot(LIMITED) <= 1e-15
    assert overshoot(BOTH) <= 1e-15


@pytest.mark.parametrize(
    ("method", "order"), [(hjb.SemiLagrangian(), 3), (WENO, 3)], ids=["cubic", "weno"]
)
def test_feet_amid_cells_cost_h4_a_step(method, order):
    """Feet in the middle of every cell, steps ~ h: h^4 / h. Steps are exact here."""
    errors = []
    for n in (40, 80, 160):
        how = hjb.SemiLagrangian(method.interpolation, step=1.0 / n)
        problem = carried(lambda x: np.exp(np.sin(np.pi * x[..., 0])))
        solution = hjb.solve(problem, n, how, times=[0.0])
        wanted = np.exp(np.sin(np.pi * (solution.grid.axes[0] + 1.0)))
        errors.append(np.abs(solution.value[0] - wanted).max())
    seen = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.abs(seen - order).max() < 0.4


def test_limited_readings_keep_the_order_where_v_is_monotone():
    """dx = -x dt on [0, 1]: V = g(x e^-T), which has no maximum inside."""
    errors = []
    for n in (21, 41, 81):
        problem = hjb.ControlProblem(
            drift=lambda x, a: -x,
            reward=lambda x, a: 0.0 * x[..., 0],
            domain=hjb.Box(0.0, 1.0),
            boundary=hjb.Reflecting(),
            horizon=1.0,
            terminal=lambda x: np.exp(x[..., 0]),
        )
        solution = hjb.solve(problem, n, LIMITED, times=[0.0])
        wanted = np.exp(solution.grid.axes[0] * np.exp(-1.0))
        errors.append(np.abs(solution.value[0] - wanted).max())
    seen = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.abs(seen - 2).max() < 0.3


@pytest.mark.parametrize("method", [WENO, LIMITED, BOTH])
def test_the_bar_covers_hopf_and_lax(method):
    problem = hjb.catalogue.get("hamilton-jacobi")
    solution = hjb.solve(problem, 60, method, times=[0.0])
    nodes = solution.grid.nodes()
    error = np.abs(solution.value[0] - problem.exact.value(nodes, t=0.0))
    assert np.mean(error <= solution.error_bar[0]) >= 0.99


def test_noise_is_taken_with_weno():
    problem = hjb.catalogue.get("european-call")
    solution = hjb.solve(problem, 101, WENO, times=[0.0])
    nodes = solution.grid.nodes()
    inside = solution.region.contains(nodes, 1e-12)
    error = np.abs(solution.value[0] - problem.exact.value(nodes, t=0.0))[inside]
    assert np.mean(error <= solution.error_bar[0][inside]) >= 0.99


def test_readings_that_make_no_sense_are_refused():
    stationary, call = hjb.catalogue.get("lqr"), hjb.catalogue.get("european-call")
    for method in (WENO, LIMITED):
        with pytest.raises(hjb.MethodMismatch, match="depend on V itself"):
            hjb.solve(stationary, 41, method)
    with pytest.raises(hjb.MethodMismatch, match="cuts maxima"):
        hjb.solve(call, 41, LIMITED)
    with pytest.raises(hjb.ProblemError, match="never overshoot"):
        hjb.SemiLagrangian("linear", limiter=True)
