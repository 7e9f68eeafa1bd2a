"""The residual evaluation: kinks from 8 seeds, horizons and exits from 5.

Goals: the viscosity solution from every seed, where the artificial noise left in may
round off its kink, and 1e-4 of sup|V*| at default options elsewhere.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

import hjbpde as hjb
import neural

from .measuring import Measured

Array = NDArray[np.float64]
Gap = Callable[[Any], float]
ANY = 1e9
"""For numbers that are shown and not judged."""
EIGHT, FIVE = range(8), range(5)
RATE = 0.1


def measure() -> list[Measured]:
    """Median and worst errors over seeds, and how often it fails without noise."""
    schedule = neural.NoiseSchedule()
    coarse = neural.NoiseSchedule(last=0.01, levels=10)
    edge = hjb.Dirichlet(0.0)
    line, plane = arrival(1, boundary=edge), arrival(2, boundary=edge)
    ball = arrival(2, exit=hjb.Exit(lambda x: 1.0 - radius(x), 0.0))
    kinks = {
        "eikonal, interval": (line, schedule, 1e-2, to_faces),
        "eikonal, square": (plane, coarse, 4e-2, to_faces),
        "eikonal, disc by an exit": (ball, coarse, 8e-2, lambda x: 1.0 - radius(x)),
    }
    out = []
    for name, (problem, noise, goal, way) in kinks.items():
        method = neural.Residual(direct=True, schedule=noise)
        out += spread(
            name, problem, method, gap_of(problem, way), seeds=EIGHT, goal=goal
        )
    out += plain(line)
    smooth = {
        "moving V, horizon, 1-D": (moving(), over_time),
        "unit ball 1-D": (hjb.catalogue.get("unit-ball", dimension=1), inside),
        "unit ball 2-D": (hjb.catalogue.get("unit-ball", dimension=2), inside),
        "harmonic in a disc": (harmonic(), inside),
    }
    for name, (problem, gap) in smooth.items():
        method = neural.Residual()
        out += spread(name, problem, method, gap, seeds=FIVE, goal=1e-4)
    return out


def spread(
    name: str,
    problem: hjb.ControlProblem,
    evaluation: neural.Residual,
    gap: Gap,
    *,
    seeds: range,
    goal: float,
) -> list[Measured]:
    """One problem from several seeds."""
    method = neural.PolicyIteration(evaluation)
    found = [gap(neural.solve(problem, method, seed=seed)) for seed in seeds]
    return [
        Measured(f"{name}: V, median", float(np.median(found)), goal),
        Measured(f"{name}: V, worst of {len(seeds)}", max(found), goal),
    ]


def plain(problem: hjb.ControlProblem) -> list[Measured]:
    """Without noise: seeds that end wrong, and residuals that do not tell."""
    method = neural.PolicyIteration(neural.Residual(direct=True, adam_steps=500))
    gap, right, wrong = gap_of(problem, to_faces), [], []
    for seed in EIGHT:
        learned = neural.solve(problem, method, seed=seed)
        residual = min(h["residual"] for h in learned.report.details["history"])
        (wrong if gap(learned) > 0.1 else right).append(residual)
    name = "eikonal, interval, no noise"
    return [
        Measured(f"{name}: wrong of 8", len(wrong), ANY),
        Measured(f"{name}: least residual of a wrong one", least(wrong), ANY),
        Measured(f"{name}: least residual of a right one", least(right), ANY),
    ]


def least(values: list[float]) -> float:
    """The smallest, not a number where there is none."""
    return min(values, default=math.nan)


def arrival(dimension: int, **ends: Any) -> hjb.ControlProblem:
    """Discounted time to the rim at speed 1, in any direction."""

    def drift(x: Any, a: Any) -> Any:
        xp = hjb.namespace(a)
        size = xp.sqrt(xp.sum(a * a, axis=-1))[..., None]
        return a / xp.where(size > 1, size, xp.ones_like(size))

    def best_control(x: Any, p: Any, hess: Any) -> Any:
        xp = hjb.namespace(p)
        return -p / xp.sqrt(xp.sum(p * p, axis=-1) + 1e-300)[..., None]

    wide = 1.2 if "exit" in ends else 1.0
    return hjb.ControlProblem(
        drift=drift,
        cost=lambda x, a: 1.0 + 0.0 * x[..., 0],
        controls=hjb.Box([-1.0] * dimension, [1.0] * dimension),
        domain=hjb.Box([-wide] * dimension, [wide] * dimension),
        discount=RATE,
        best_control=best_control,
        **ends,
    )


def to_faces(x: Array) -> Array:
    """Distance to the faces of [-1, 1]^d."""
    return 1.0 - np.abs(x).max(-1)


def radius(x: Any) -> Any:
    """|x|."""
    return hjb.namespace(x).sum(x * x, axis=-1) ** 0.5


def gap_of(problem: hjb.ControlProblem, distance: Callable[[Array], Array]) -> Gap:
    """Sup of |V - (1 - e^(-rho D)) / rho|, D the distance to go."""
    assert problem.domain is not None
    x = problem.domain.sample(np.random.default_rng(1), 2000)
    x = x[distance(x) > 0]
    wanted = (1.0 - np.exp(-RATE * distance(x))) / RATE
    return lambda learned: float(np.abs(learned.value_at(x) - wanted).max())


def moving() -> hjb.ControlProblem:
    """``V* = sin(x + t)/5 - k(t) x^2``, k = 1/2 + cos(2 t)/4, artificial faces."""

    def free(z: Any, t: float) -> Any:
        return 0.3 * hjb.namespace(z).sin(z) - 0.5 * math.cos(t) * z

    def reward(x: Any, a: Any, t: float) -> Any:
        xp, z = hjb.namespace(x), x[..., 0]
        k, pace = 0.5 + 0.25 * math.cos(2 * t), 0.5 * math.sin(2 * t)
        slope = 0.2 * xp.cos(z + t) - 2 * k * z
        second = -2 * k - 0.2 * xp.sin(z + t)
        dt = pace * z * z + 0.2 * xp.cos(z + t)
        paid = (free(z, t) + slope) * slope + 0.25 * a[..., 0] ** 2
        return 0.2 * wave(x, t) - dt - 0.045 * (1 + 0.5 * t) ** 2 * second - paid

    return hjb.ControlProblem(
        drift=lambda x, a, t: free(x, t) + a,
        diffusion=lambda x, a, t: 0.3 * (1 + 0.5 * t) + 0.0 * x[..., None],
        reward=reward,
        controls=hjb.Box([-np.inf], [np.inf]),
        domain=hjb.Box([-2.0], [2.0]),
        discount=0.2,
        horizon=1.0,
        terminal=lambda x: wave(x, 1.0),
    )


def wave(x: Any, t: float) -> Any:
    """V*(x, t)."""
    z = x[..., 0]
    return 0.2 * hjb.namespace(x).sin(z + t) - (0.5 + 0.25 * math.cos(2 * t)) * z * z


def over_time(learned: Any) -> float:
    """Sup error of V over all times, on the inner 75 %, relative."""
    x, off, size = np.linspace(-1.5, 1.5, 101)[:, None], 0.0, 0.0
    for t in np.linspace(0.0, 1.0, 9):
        wanted = wave(x, t)
        off = max(off, float(np.abs(learned.value_at(x, t=t) - wanted).max()))
        size = max(size, float(np.abs(wanted).max()))
    return off / size


def harmonic() -> hjb.ControlProblem:
    """Brownian motion in the unit disc that takes e^x cos y where it leaves."""

    def value(x: Any) -> Any:
        xp = hjb.namespace(x)
        return xp.exp(x[..., 0]) * xp.cos(x[..., 1])

    return hjb.ControlProblem(
        drift=lambda x, a: 0.0 * x,
        diffusion=1.0,
        reward=lambda x, a: 0.0 * x[..., 0],
        domain=hjb.Box([-1.2] * 2, [1.2] * 2),
        exit=hjb.Exit(lambda x: 1.0 - radius(x), value),
        boundary=hjb.Reflecting(),
        exact=hjb.Exact(value),
    )


def inside(learned: Any) -> float:
    """Sup error of V where the process runs, relative."""
    problem = learned.problem
    x = learned.region.sample(np.random.default_rng(7), 3000)
    x = x[np.asarray(problem.exit.region(x)) > 0]
    wanted = np.asarray(problem.exact.value(x))
    return float(np.abs(learned.value_at(x) - wanted).max() / np.abs(wanted).max())
