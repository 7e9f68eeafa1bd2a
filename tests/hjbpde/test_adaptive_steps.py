"""Implicit marching whose steps are chosen by their local error."""

import numpy as np
import pytest
from scipy.special import erf

import hjbpde as hjb

RHO, SIGMA, TIME, WIDTH = 0.3, 0.5, 0.31, 0.004


def pulsed():
    """cos(x) is paid at the rate 1, and at one of 51 for a moment."""

    def rate(t):
        return 1.0 + 50.0 * np.exp(-(((t - TIME) / WIDTH) ** 2))

    return hjb.ControlProblem(
        drift=lambda x, a: 0.0 * x,
        reward=lambda x, a, t: np.cos(x[..., 0]) * rate(t),
        discount=RHO,
        diffusion=SIGMA,
        domain=hjb.Box(-np.pi, np.pi, periodic=True),
        horizon=1.0,
        terminal=lambda x: np.cos(x[..., 0]),
    )


def exact(x):
    """V(0, x): cos x decays by rho + sigma^2 / 2; the pulse by completing squares."""
    k = RHO + 0.5 * SIGMA**2
    ends = (
        erf((1.0 - TIME) / WIDTH + 0.5 * k * WIDTH),
        erf(-TIME / WIDTH + 0.5 * k * WIDTH),
    )
    pulse = 25.0 * WIDTH * np.sqrt(np.pi) * (ends[0] - ends[1])
    pulse *= np.exp(-k * TIME + 0.25 * (k * WIDTH) ** 2)
    return (np.exp(-k) + (1.0 - np.exp(-k)) / k + pulse) * np.cos(x)


def errors(method):
    solution = hjb.solve(pulsed(), 64, method, times=[0.0])
    error = np.abs(solution.value[0] - exact(solution.grid.axes[0]))
    return error.max(), solution


def test_a_moment_of_fast_data_gets_the_steps():
    graded, other = errors(hjb.Marching())
    adapted, solution = errors(hjb.Marching(local_error=1e-3))
    assert solution.report.details["steps"] <= other.report.details["steps"]
    assert adapted < graded
    assert "local error" in solution.report.method
    # Two halvings are extrapolated: far below the local errors of the first grid.
    assert adapted < 0.1 * 1e-3 * np.abs(solution.value).max()
    assert adapted <= solution.error_bar[0].max()


@pytest.mark.parametrize("local_error", [3e-2, 3e-3, 1e-4])
def test_bars_cover_at_every_local_error(local_error):
    error, solution = errors(hjb.Marching(local_error=local_error))
    assert error <= solution.error_bar[0].max()
    # Global errors are of the order of local ones at worst, times what V is.
    assert error < local_error


def test_steps_are_as_many_as_local_errors_ask_for():
    # dt^2 |V_tt| is the local error, so dt ~ e^(1/2) where e is small.
    counts = [
        errors(hjb.Marching(local_error=e, levels=1))[1].report.details["steps"]
        for e in (1e-4, 1e-5)
    ]
    assert 2.2 < counts[1] / counts[0] < 3.8


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bermudan-put", "regime-switching-call"])
def test_dates_and_modes_keep_their_answers(name):
    problem = hjb.catalogue.get(name)
    graded = hjb.solve(problem, 201, times=[0.0])
    adapted = hjb.solve(problem, 201, hjb.Marching(local_error=1e-3), times=[0.0])
    gap = np.abs(adapted.value - graded.value)
    assert (gap <= adapted.error_bar + graded.error_bar).mean() >= 0.99


def test_a_killed_solve_takes_the_same_steps(tmp_path):
    method, path = hjb.Marching(local_error=1e-2), tmp_path / "kept"
    whole = hjb.solve(pulsed(), 33, method, checkpoint=path)
    again = hjb.solve(pulsed(), 33, method, checkpoint=path)
    np.testing.assert_array_equal(whole.value, again.value)


@pytest.mark.parametrize("wrong", [0.0, -1e-3, 1.0, float("nan")])
def test_a_local_error_out_of_range_is_refused(wrong):
    with pytest.raises(hjb.ProblemError, match="local_error"):
        hjb.Marching(local_error=wrong)
