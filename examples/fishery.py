"""A consumption problem: spend a stock that grows on its own, under a hard floor.

A fishery's stock x grows logistically and is harvested at rate a in [0, 1]:

    dx = (x (1 - x) - a) dt + .2 x (1 - x) dW,    reward sqrt(a) (strictly concave),

discounted at rate 0.3. The stock can neither be negative nor exceed 1: both faces are
state constraints, and the noise vanishes there, as it must. At the empty stock only
a = 0 is admissible, so V(0) = 0; the value lies between that and eating at the best
sustainable rate for ever.
"""

import numpy as np

import hjbpde as hjb


def drift(x, a):
    return x * (1 - x) - a


def diffusion(x, a):
    return 0.2 * (x * (1 - x))[..., None]


def reward(x, a):
    return hjb.namespace(x).sqrt(a[..., 0])


problem = hjb.ControlProblem(
    drift=drift,
    diffusion=diffusion,
    reward=reward,
    controls=hjb.Box(0.0, 1.0),
    domain=hjb.Box(0.0, 1.0),
    discount=0.3,
    boundary=hjb.StateConstraint(),
    name="fishery",
)
solution = hjb.solve(problem, 401)
sustainable = 0.25  # the largest growth x (1 - x), at x = 1/2
at_half = float(solution.value_at(np.array([0.5])))
harvest = float(solution.control_at(np.array([0.5]))[0])

if __name__ == "__main__":
    print(solution.report)
    print(f"V(1/2) = {at_half:.3f} +- {float(solution.error_at(np.array([0.5]))):.3f}")
    print(f"harvest at 1/2: {harvest:.3f} (sustainable: {sustainable})")
