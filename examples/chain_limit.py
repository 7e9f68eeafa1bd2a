"""From a Markov decision problem to the HJB equation: dt -> 0 and h -> 0 by study.

Problem: dX = a dt + sigma dW on [-1, 1], a in {-1, 0, 1}, cost x^2 + |a| / 2, discount
rho, the state reflected at both ends. A controlled random walk on n nodes jumps to a
neighbour with the probabilities of the upwind scheme; its discrete Bellman equation

    V(x) = min_a { l(x, a) dt + e^{-rho dt} E V(x') }

is solved by policy iteration on the finite problem, without the HJB solver. Two limits:

- one grid, dt -> 0: the distance to the value of the scheme falls like dt, because
  e^{-rho dt} and l dt agree with the scheme's own (1 + rho dt)^{-1} to order dt;
- dt the largest step of each grid (of order h^2), h -> 0: the distance to the value of
  the HJB equation falls like h, the order of the upwind scheme.
"""

import numpy as np
import scipy.sparse as sp

import hjbpde as hjb
from hjbpde.mdp import MDP, policy_iteration

RHO, SIGMA = 1.0, 0.4
CONTROLS = np.array([-1.0, 0.0, 1.0])

problem = hjb.ControlProblem(
    drift=lambda x, a: a,
    diffusion=SIGMA,
    cost=lambda x, a: x[..., 0] ** 2 + 0.5 * abs(a[..., 0]),
    controls=hjb.Finite(CONTROLS[:, None]),
    domain=hjb.Box(-1.0, 1.0),
    discount=RHO,
    boundary=hjb.Reflecting(),
    name="random walk",
)


def walk(n: int, dt: float) -> MDP:
    """The article's chain: jump up or down with chance dt (sigma^2/2h^2 + a+-/h)."""
    x, h = np.linspace(-1.0, 1.0, n), 2.0 / (n - 1)
    chains, rewards = [], []
    for a in CONTROLS:
        up = np.full(n, dt * (0.5 * SIGMA**2 / h**2 + max(a, 0.0) / h))
        down = np.full(n, dt * (0.5 * SIGMA**2 / h**2 + max(-a, 0.0) / h))
        # A reflected walker that steps outside is found one node inside.
        up[0], down[-1] = up[0] + down[0], down[-1] + up[-1]
        up[-1] = down[0] = 0.0
        stay = 1.0 - up - down
        chains.append(sp.diags([down[1:], stay, up[:-1]], [-1, 0, 1]))
        rewards.append(-dt * (x**2 + 0.5 * abs(a)))
    return MDP(chains, np.stack(rewards, axis=1), np.exp(-RHO * dt), dt)


def longest_step(n: int) -> float:
    """A dt just below the largest without a negative probability."""
    h = 2.0 / (n - 1)
    return 0.99 / (SIGMA**2 / h**2 + 1.0 / h)


def value_of(n: int, dt: float) -> np.ndarray:
    """Value of the walk, as a cost."""
    return -policy_iteration(walk(n, dt)).value


FIXED = 41
scheme = hjb.solve(problem, FIXED, hjb.PolicyIteration(hjb.Upwind(), order=1))
steps = [longest_step(FIXED) / 2**k for k in range(4)]
time_errors = [float(np.abs(value_of(FIXED, dt) - scheme.value).max()) for dt in steps]
time_order = float(np.log2(time_errors[-2] / time_errors[-1]))

truth = hjb.solve(problem, 1601)
counts = (26, 51, 101, 201)
space_errors = []
for n in counts:
    nodes = np.linspace(-1.0, 1.0, n)
    gap = value_of(n, longest_step(n)) - truth.value_at(nodes[:, None])
    space_errors.append(float(np.abs(gap).max()))
space_order = float(np.log2(space_errors[-2] / space_errors[-1]))

own = scheme.as_mdp(controls=3)
own_gap = float(np.abs(-policy_iteration(own).value - scheme.value).max())

if __name__ == "__main__":
    for dt, error in zip(steps, time_errors, strict=True):
        print(f"n = {FIXED}, dt = {dt:.2e}: {error:.2e} from the scheme")
    print(f"order in dt: {time_order:.2f}")
    for n, error in zip(counts, space_errors, strict=True):
        print(f"n = {n}, dt = {longest_step(n):.2e}: {error:.2e} from the HJB equation")
    print(f"order in h: {space_order:.2f}")
    print(f"as_mdp() of the scheme, any dt: {own_gap:.1e} from the scheme")
