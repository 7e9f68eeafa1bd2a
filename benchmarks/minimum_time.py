"""Sweeping against closed forms: eikonal equations and the double integrator."""

import numpy as np
from numpy.typing import NDArray

import hjbpde as hjb

from .measuring import Measured, seconds

Mask = NDArray[np.bool_]


def error(problem: hjb.ControlProblem, n: int, judged: Mask | None = None) -> float:
    """Largest |T - T*| where both are finite, over the largest T*."""
    solution = hjb.solve(problem, (n, n), hjb.Sweeping())
    assert problem.exact is not None
    wanted = np.asarray(problem.exact.value(solution.grid.nodes()))
    finite = np.isfinite(wanted) & np.isfinite(solution.value)
    gap = np.abs(np.where(finite, solution.value - np.where(finite, wanted, 0), 0.0))
    counted = finite if judged is None else finite & judged
    return float(np.max(gap[counted]) / np.max(wanted[finite]))


def outside_bands(problem: hjb.ControlProblem, n: int, cells: int = 5) -> Mask:
    """Nodes `cells` cells off the curves where T of the double integrator bends.

    x = -y |y|/2 where the control switches, the arcs that touch the corners of the
    target's ball, and the ball itself.
    """
    assert problem.domain is not None
    x = hjb.Grid(problem.domain, (n, n)).nodes()
    p, v = x[..., 0], x[..., 1]
    width = np.sqrt(1 + v * v) * cells * 2.0 / (n - 1)
    arc = p + 0.5 * v * np.abs(v)
    clear = (np.abs(arc) > width) & ((1.0 - np.abs(arc) > width) | (p * v <= 0))
    return np.asarray(clear & (np.hypot(p, v) > 0.2 + width))


def measure() -> list[Measured]:
    """The circle at 801^2, a point source at 401^2, the double integrator at 401^2."""
    circle = hjb.catalogue.get("eikonal")
    point = hjb.catalogue.get("eikonal", radius=0.0, slope=0.5, centre=(-0.5, 0.1))
    double = hjb.catalogue.get("double-integrator")
    solve = seconds(lambda: hjb.solve(circle, (801, 801), hjb.Sweeping()))
    halved = [error(circle, n) for n in (401, 801)]
    return [
        Measured("circle, 801^2, error", halved[1], 1e-5),
        Measured(
            "circle, order from 401 to 801", np.log2(halved[0] / halved[1]), 1.75, False
        ),
        Measured("circle, 801^2, whole solve", solve, 0.8, unit="s"),
        Measured("point source, linear speed, 401^2, error", error(point, 401), 1e-5),
        Measured(
            "double integrator, 401^2, error outside bands",
            error(double, 401, outside_bands(double, 401)),
            2e-2,
        ),
    ]
