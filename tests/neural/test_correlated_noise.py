"""Noise correlated between axes: the network, the grid and the verdict agree."""

import numpy as np

import hjbpde as hjb
import neural
import verification


def test_least_squares_and_the_grid_agree_on_correlated_noise_within_the_bar():
    problem = hjb.catalogue.get("manufactured", dimension=2, correlation=0.6)
    grid = hjb.solve(problem, 61)
    method = neural.PolicyIteration(evaluation=neural.LeastSquares())
    learned = neural.solve(problem, method)
    x = np.random.default_rng(0).uniform(-1.4, 1.4, (500, 2))
    assert np.abs(learned.value_at(x) - problem.exact.value(x)).max() < 1e-6
    assert (np.abs(learned.value_at(x) - grid.value_at(x)) <= grid.error_at(x)).all()
    verdict = verification.cross_check(learned, grid)
    assert verdict.status == "agree"
    # Without the mixed derivative the residual would be of the size of sigma^2 V_01.
    assert verdict.residual is not None and verdict.residual < 1e-4
