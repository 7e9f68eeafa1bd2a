"""No discount and no exit region: noise carries the process to faces with data."""

import numpy as np
import pytest

import hjbpde as hjb
import verification

ENDS = {(0, "low"): hjb.Dirichlet(1.0), (0, "high"): hjb.Dirichlet(0.0)}


def steered(dimension):
    """min E int |a|^2/2 + d/2 until a face: ``exp(-V)`` is the product of cosh x_i."""

    def value(x):
        return -np.log(np.cosh(x)).sum(axis=-1)

    sides = [1.0] * dimension
    return hjb.ControlProblem(
        drift=lambda x, a: a,
        cost=lambda x, a: 0.5 * (a**2).sum(-1) + 0.5 * dimension,
        diffusion=1.0,
        controls=hjb.Box([-10.0] * dimension, [10.0] * dimension),
        domain=hjb.Box([-1.0] * dimension, sides),
        boundary=hjb.Dirichlet(value),
        exact=hjb.Exact(value=value, control=np.tanh),
    )


def drifting(mean, noise, **more):
    """dx = mean dt + noise dW, nothing paid on the way."""
    return hjb.ControlProblem(
        drift=lambda x, a: mean + 0.0 * x,
        reward=lambda x, a: 0.0 * x[..., 0],
        diffusion=noise,
        **more,
    )


@pytest.mark.parametrize("nodes", [41, 64])
def test_the_probability_of_leaving_below(nodes):
    """``(exp(-k x) - exp(-k)) / (1 - exp(-k))`` with k = 2 mean / noise^2."""
    problem = drifting(0.5, 0.6, domain=hjb.Box(0.0, 1.0), boundary=ENDS)
    solution, k = hjb.solve(problem, nodes), 1.0 / 0.36
    x = solution.grid.axes[0]
    error = np.abs(solution.value - (np.exp(-k * x) - np.exp(-k)) / (1 - np.exp(-k)))
    assert np.mean(error <= solution.error_bar) >= 0.99
    assert error.max() <= 1e-3


@pytest.mark.parametrize("dimension", [1, 2])
def test_steering_out_of_a_box(dimension):
    """Hopf and Cole: order 2 by default, and within the bars."""
    problem, worst = steered(dimension), []
    for nodes in (17, 33):
        solution = hjb.solve(problem, (nodes,) * dimension)
        error = np.abs(solution.value - problem.exact.value(solution.grid.nodes()))
        assert np.mean(error <= solution.error_bar + 1e-14) >= 0.99
        worst.append(error.max())
    assert 2.0**1.7 <= worst[0] / worst[1] <= 2.0**2.3


def test_a_second_method_and_a_verdict():
    problem = steered(1)
    other = hjb.solve(problem, 41, hjb.SemiLagrangian())
    verdict = verification.cross_check(other, hjb.solve(problem, 41))
    assert verdict.status == "agree"
    assert np.isfinite(verdict.residual)


def test_who_leaves_by_an_artificial_face_may_never_come_back():
    """Ruin before a drift: ``exp(-2 mean x / noise^2)``; the closure takes it that all
    come back, so that V is 1 and its bar has to say so."""
    problem = drifting(
        0.5,
        1.0,
        domain=hjb.Box(0.0, 4.0),
        boundary={(0, "low"): hjb.Dirichlet(1.0), (0, "high"): None},
    )
    solution = hjb.solve(problem, 81)
    error = np.abs(solution.value - np.exp(-solution.grid.axes[0]))
    assert np.mean(error <= solution.error_bar) >= 0.99


def test_without_noise_nothing_is_sure():
    with pytest.raises(hjb.ProblemError, match="no noise that carries it"):
        drifting(0.5, None, domain=hjb.Box(0.0, 1.0), boundary=ENDS)
