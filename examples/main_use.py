"""The main job: a grid truth with an error bar, a learned answer, and a verdict.

The problem is the stochastic linear-quadratic regulator with the catalogue's default
parameters; its value is quadratic and known from a Riccati equation.
"""

import hjbpde as hjb
import neural
import verification

problem = hjb.catalogue.get("lqr")
truth = hjb.solve(problem, 401)
method = neural.PolicyIteration(evaluation=neural.LeastSquares())
learned = neural.solve(problem, method, seed=0)
verdict = verification.cross_check(learned, truth, tolerance=1e-2)

if __name__ == "__main__":
    print(truth.report)
    print(verdict.status, "-", "; ".join(verdict.reasons))
