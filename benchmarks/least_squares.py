"""Learned by least squares: manufactured problems in one, two and four states."""

import time

import numpy as np

import neural

from .measuring import Measured, twins


def measure() -> list[Measured]:
    """Error on random points of the learned region, and seconds of CPU time."""
    out = []
    for d, goal, limit in ((1, 1e-10, 2.0), (2, 1e-7, 2.0), (4, 2e-5, 8.0)):
        for faces, _, problem in twins("manufactured", dimension=d):
            assert problem.exact is not None
            method = neural.PolicyIteration(neural.LeastSquares())
            start = time.process_time()
            learned = neural.solve(problem, method, seed=0)
            spent = time.process_time() - start
            x = learned.region.sample(np.random.default_rng(1), 20_000)
            wanted = np.asarray(problem.exact.value(x))
            gap = np.abs(learned.value_at(x) - wanted).max()
            error = float(gap / np.abs(wanted).max())
            out.append(Measured(f"error, d = {d}, {faces}", error, goal))
            out.append(Measured(f"time, d = {d}, {faces}", spent, limit, unit="s"))
    return out
