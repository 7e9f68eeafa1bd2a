"""Kinks that drift carries along, and bars that know how far schemes smear them."""

import numpy as np
import pytest

import hjbpde as hjb

MOTIONS = [(0.7, 0.8, 0.1), (-0.5, 1.0, 0.03), (1.3, 0.3, -0.2)]
METHODS = {
    "implicit": hjb.Marching(),
    "first order": hjb.ExplicitMarching(hjb.FirstOrder()),
    "ENO": hjb.ExplicitMarching(hjb.ENO2(), stages=2),
    "WENO": hjb.ExplicitMarching(),
}


def kink_after(motion, n, method):
    """The error of V(0, x) = |x + c T - k| in |x| < 1.5, and its bar."""
    speed, horizon, kink = motion
    problem = hjb.ControlProblem(
        drift=lambda x, a: speed + 0.0 * x,
        reward=lambda x, a: 0.0 * x[..., 0],
        domain=hjb.Box(-2.0, 2.0),
        horizon=horizon,
        terminal=lambda x: np.abs(x[..., 0] - kink),
    )
    solution = hjb.solve(problem, n, method, times=[0.0])
    x = solution.grid.axes[0]
    inside = np.abs(x) < 1.5
    error = np.abs(solution.value[0] - np.abs(x + speed * horizon - kink))
    return error[inside], solution.error_bar[0, inside]


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize("motion", MOTIONS)
def test_bars_cover_a_kink_that_drift_carries_along(motion, method):
    for n in (101, 201, 401):
        error, bar = kink_after(motion, n, method)
        # Away from the kink V is linear, and found but for rounding.
        assert (error <= bar + 1e-12).mean() >= 0.99
        assert bar.max() < 5.0 * error.max()


@pytest.mark.parametrize("method", ["implicit", "first order"])
def test_differences_of_first_order_smear_a_kink_over_the_root_of_h(method):
    for motion in MOTIONS:
        coarse, fine = (
            kink_after(motion, n, METHODS[method])[0].max() for n in (51, 401)
        )
        assert 0.35 < np.log(coarse / fine) / np.log(8.0) < 0.65
