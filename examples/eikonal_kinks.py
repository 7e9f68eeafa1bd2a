"""A network that solves the eikonal equation, and one that only seems to.

How long to the nearer end of [-1, 1] at speed at most 1, time discounted at rho = 0.1:

    rho V = min over |a| <= 1 of { 1 + a V' },  so  rho V + |V'| = 1,  V(+-1) = 0,

whose viscosity solution is V = (1 - exp(-rho d)) / rho, d the distance to the ends.
Infinitely many other functions meet the equation almost everywhere, with a kink of
the wrong sign somewhere. A network trained on the residual alone ends in any of them,
and its residual does not tell; with artificial noise that falls step by step it ends
in the right one. The grid's verdict tells them apart.
"""

import numpy as np

import hjbpde as hjb
import neural
import verification

rho = 0.1
problem = hjb.ControlProblem(
    drift=lambda x, a: a,
    cost=lambda x, a: 1.0 + 0.0 * x[..., 0],
    controls=hjb.Box(-1.0, 1.0),
    domain=hjb.Box(-1.0, 1.0),
    discount=rho,
    boundary=hjb.Dirichlet(0.0),
    name="eikonal on an interval",
)


def exact(x):
    """The viscosity solution."""
    return (1 - np.exp(-rho * (1 - np.abs(x[..., 0])))) / rho


def learn(schedule, seed):
    """A small network on the nonlinear residual, from random weights."""
    training = neural.Residual(direct=True, schedule=schedule, adam_steps=200)
    return neural.solve(problem, neural.PolicyIteration(training), seed=seed)


truth = hjb.solve(problem, 401)
plain, careful = learn(None, 3), learn(neural.NoiseSchedule(), 3)
wrong = verification.cross_check(plain, truth, tolerance=2e-2)
right = verification.cross_check(careful, truth, tolerance=2e-2)
x = np.linspace(-1, 1, 401)[:, None]
errors = [float(np.abs(s.value_at(x) - exact(x)).max()) for s in (plain, careful)]

if __name__ == "__main__":
    for name, error, verdict in (
        ("residual alone", errors[0], wrong),
        ("with falling noise", errors[1], right),
    ):
        print(f"{name}: error {error:.1e}, verdict: {verdict.status}")
        print("   " + verdict.reasons[0])
