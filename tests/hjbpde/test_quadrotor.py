"""Planar quadrotor: what it can reach, by paths and on a four-dimensional grid."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp

import hjbpde as hjb


def flown(x0, control, T):
    """x(T) under control(t), by an adaptive Runge-Kutta rule."""

    def move(t, y):
        return [y[1], 9.81 * np.tan(y[2]), y[3], control(t)]

    path = solve_ivp(move, (0.0, T), x0, rtol=1e-10, atol=1e-12, max_step=T / 40)
    return path.y[0, -1]


def test_no_control_beats_the_exact_value_and_an_end_attains_it():
    problem = hjb.catalogue.get("quadrotor")
    rng = np.random.default_rng(3)
    starts = problem.domain.sample(rng, 6)
    least = problem.exact.value(starts)
    for x0, V in zip(starts, least, strict=True):
        ends = [flown(x0, lambda t, a=a: a, 0.5) for a in (-2.0, 2.0)]
        low, high = min(ends), max(ends)
        attained = 0.0 if low < 0 < high else min(0.5 * e**2 for e in ends)
        assert attained == pytest.approx(V, abs=1e-9)
        for _ in range(4):
            parts = rng.uniform(-2.0, 2.0, 5)
            miss = flown(x0, lambda t, p=parts: p[min(int(t / 0.1), 4)], 0.5)
            assert 0.5 * miss**2 >= V - 1e-9


def test_a_path_between_the_ends_arrives_exactly():
    """Where V = 0 some constant control meets the spot: by bisection."""
    problem = hjb.catalogue.get("quadrotor")
    x0 = np.array([0.03, -0.1, 0.02, -0.05])
    assert problem.exact.value(x0) == 0.0
    low, high = -2.0, 2.0
    for _ in range(40):
        middle = 0.5 * (low + high)
        if flown(x0, lambda t, a=middle: a, 0.5) < 0:
            low = middle
        else:
            high = middle
    assert flown(x0, lambda t: high, 0.5) == pytest.approx(0.0, abs=1e-9)


def test_the_grid_converges_and_its_bar_covers():
    problem, errors = hjb.catalogue.get("quadrotor"), []
    for shape in ((11, 11, 9, 9), (21, 21, 17, 17)):
        found = hjb.solve(problem, shape, times=[0.0])
        x = found.grid.nodes()
        gap = np.abs(found.value[0] - problem.exact.value(x))
        assert (gap <= found.error_bar[0] + 1e-12).mean() >= 0.99
        errors.append(gap.mean())
    # V'' jumps where the reachable interval begins to miss: between 1 and 2.
    assert 1.0 < np.log2(errors[0] / errors[1]) < 3.0
    assert errors[1] < 1e-3 * np.abs(problem.exact.value(x)).max()


@pytest.mark.parametrize(
    "wrong",
    [
        {"horizon": 1.0},
        {"max_pitch_acceleration": -1.0},
        {"half_widths": (1.0, 1.0, 0.3)},
    ],
)
def test_boxes_in_which_it_tips_over_are_refused(wrong):
    with pytest.raises(hjb.ProblemError, match="quadrotor"):
        hjb.catalogue.get("quadrotor", **wrong)
