"""Your own problem on the whole plane: heating a room with heavy walls.

States are deviations from the target: air temperature y and wall temperature w. The
heater (or cooler) moves the air by at most one unit of heat:

    dy = (.5 (w - y) + a) dt + .3 dW1,    dw = (.3 (y - w) - .2 w) dt + .1 dW2,

at the running cost y^2 + a^2/4 with |a| <= 1, discounted at rate 0.4. The box is only
where we stop computing: no rule at the faces, so they are artificial, and the
truncation part of the error bar says what that costs.
"""

from pathlib import Path

import numpy as np

import hjbpde as hjb


def drift(x, a):
    xp = hjb.namespace(x)
    y, w = x[..., 0], x[..., 1]
    air = 0.5 * (w - y) + a[..., 0]
    return xp.stack((air, 0.3 * (y - w) - 0.2 * w), axis=-1)


def cost(x, a):
    return x[..., 0] ** 2 + 0.25 * a[..., 0] ** 2


problem = hjb.ControlProblem(
    drift=drift,
    diffusion=np.diag([0.3, 0.1]),
    cost=cost,
    controls=hjb.Box(-1.0, 1.0),
    domain=hjb.Box([-2.0, -2.0], [2.0, 2.0]),
    discount=0.4,
    name="heating",
)
solution = hjb.solve(problem, (129, 129))
cold = np.array([-1.0, -1.0])
value, bar = float(solution.value_at(cold)), float(solution.error_at(cold))
paths = solution.simulate(cold, horizon=20.0, dt=0.02, paths=400, seed=0)

if __name__ == "__main__":
    print(solution.report)
    print(f"cost of a room one unit too cold: {value:.4f} +- {bar:.4f}")
    print("heating there:", solution.control_at(cold))
    print("paths that left the box:", paths.exits)
    folder = Path(__file__).resolve().parents[1] / "docs" / "images"
    folder.mkdir(parents=True, exist_ok=True)
    solution.plot().savefig(folder / "heating.png", dpi=110)
