"""Sweeping with Dirichlet data on faces: paths may end there, at what is given."""

from dataclasses import replace

import numpy as np
import pytest

import hjbpde as hjb

METHODS = [hjb.Sweeping(), hjb.SemiLagrangian()]


@pytest.mark.parametrize("price", [0.0, 0.3, -0.2])
def test_the_nearer_of_a_disc_and_a_face_with_a_price(price):
    problem = hjb.catalogue.get("eikonal")
    low = problem.domain.low[0]
    rules = {(0, "low"): hjb.Dirichlet(price)}
    solution = hjb.solve(replace(problem, boundary=rules), 81, hjb.Sweeping())
    x = solution.grid.nodes()
    wanted = np.minimum(problem.exact.value(x), price + x[..., 0] - low)
    wanted[0] = np.where(problem.exit.region(x[0]) <= 0.0, wanted[0], price)
    error = np.abs(solution.value - wanted)
    assert "eikonal" in solution.report.method
    assert error.max() < 2e-2
    assert (error <= solution.error_bar + 1e-12).mean() >= 0.99


@pytest.mark.parametrize("method", METHODS, ids=["sweeping", "semi-Lagrangian"])
def test_against_the_current_to_a_face_or_with_it_to_a_region(method):
    # Speed 1 - .4 to the left, where leaving costs .5, and 1 + .4 to the right.
    problem = hjb.ControlProblem(
        drift=lambda x, a: a + np.array([0.4, 0.0]),
        cost=lambda x, a: 1.0 + 0.0 * x[..., 0],
        controls=hjb.Box([-1.0, -1.0], [1.0, 1.0]),
        domain=hjb.Box([-1.0, -1.0], [1.0, 1.0]),
        exit=hjb.Exit(lambda x: 0.7 - x[..., 0], 0.0),
        boundary={(0, "low"): hjb.Dirichlet(0.5)},
    )
    solution = hjb.solve(problem, 41, method)
    x = solution.grid.nodes()[..., 0]
    to_the_face, to_the_region = 0.5 + (x + 1.0) / 0.6, np.maximum(0.7 - x, 0.0) / 1.4
    wanted = np.minimum(to_the_face, to_the_region)
    wanted[0] = 0.5
    error = np.abs(solution.value - wanted)
    assert error.max() < 3e-2
    assert (error <= solution.error_bar + 1e-9).mean() >= 0.99


def test_a_robin_face_is_refused_by_name():
    rules = {(0, "low"): hjb.Robin(1.0, 1.0, 0.0)}
    problem = replace(hjb.catalogue.get("eikonal"), boundary=rules)
    with pytest.raises(hjb.MethodMismatch, match=r"\(0, 'low'\) has a Robin rule"):
        hjb.solve(problem, 41, hjb.Sweeping())
