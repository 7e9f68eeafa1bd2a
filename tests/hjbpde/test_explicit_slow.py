"""Longer checks of explicit marching: a game on a finer grid, many dimensions."""

from typing import Any

import numpy as np
import pytest

import hjbpde as hjb

pytestmark = pytest.mark.slow


def test_air3d_on_its_own_grid_agrees_with_a_finer_one_within_the_bars():
    problem = hjb.catalogue.get("air3d", horizon=1.0)
    coarse: Any = hjb.solve(problem, (27, 21, 26), times=[0.0])
    fine: Any = hjb.solve(problem, (53, 41, 52), times=[0.0])
    states = coarse.region.sample(np.random.default_rng(0), 2000)
    gap = np.abs(coarse.value_at(states) - fine.value_at(states))
    bars = coarse.error_at(states) + fine.error_at(states)
    assert (gap <= bars).mean() > 0.99
    # A pursuer straight behind never comes closer at equal speed.
    for psi in (0.0, 1.0, np.pi):
        behind = np.array([-5.5, 0.0, psi])
        assert fine.value_at(behind) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("dimension", [4, 5])
def test_hopf_lax_in_many_dimensions(dimension):
    problem = hjb.catalogue.get("hamilton-jacobi", dimension=dimension)
    shape = {4: 16, 5: 12}[dimension]
    method = hjb.ExplicitMarching(hjb.ENO2(), stages=2)
    solution = hjb.solve(problem, (shape,) * dimension, method, times=[0.0])
    nodes = solution.grid.nodes()
    gap = np.abs(solution.value[0] - problem.exact.value(nodes))
    scale = np.abs(problem.exact.value(nodes)).max()
    assert gap.mean() < 2e-2 * scale


def test_six_dimensions_are_marched_and_seven_refused():
    problem = hjb.catalogue.get("hamilton-jacobi", dimension=6)
    method = hjb.ExplicitMarching(hjb.FirstOrder(), stages=1)
    solution = hjb.solve(problem, (8,) * 6, method, times=[0.0])
    assert np.isfinite(solution.value).all()
    one_axis = solution.value[0][:, 4, 4, 4, 4, 4]
    np.testing.assert_allclose(one_axis, solution.value[0][4, 4, 4, 4, 4, :])
    with pytest.raises(hjb.MethodMismatch, match="1 to 6 dimensions"):
        hjb.solve(hjb.catalogue.get("hamilton-jacobi", dimension=7), (4,) * 7, method)
