"""A planar quadrotor that holds its height: four states, a reachable interval."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import namespace
from ..boundary import Dirichlet
from ..errors import ProblemError
from ..grid import Grid
from ..problem import ControlProblem, Exact
from ..sets import Box

GRAVITY = 9.81
QUADRATURE = 24
"""Gauss points in time: the tangent along a path is smooth well below pi/2."""


def quadrotor(
    *,
    max_pitch_acceleration: float = 2.0,
    horizon: float = 0.5,
    half_widths: tuple[float, float, float, float] = (1.0, 1.5, 0.35, 1.0),
) -> ControlProblem:
    """Planar quadrotor at constant height: how near can it be to a spot at time T.

    States: place x (m), speed v (m/s), tilt theta (rad), tilt rate omega (rad/s); the
    control is the pitch acceleration, ``|a| <= A`` (rad/s^2). Rotors give thrust
    ``m g / cos theta``, which holds the height, so that

        x' = v,  v' = g tan theta,  theta' = omega,  omega' = a.

    V is half the squared least |x(T)| (m^2): {V <= R^2 / 2} are the states from which
    the disc of radius R can be reached at T. x(T) grows with a at every instant, so
    what can be reached is the interval between the ends of the paths with a = -A and
    a = A throughout, and V half its squared distance from 0. Paths leave the box, so
    the faces carry this value.

    Source: dynamics of the planar quadrotor with the thrust chosen so that z'' = 0,
    Gillula, Hoffmann, Huang, Vitus and Tomlin, Int. J. Robot. Res. 30 (2011) 335,
    section 2; the interval by the comparison above.

    Raises
    ------
    ProblemError
        Numbers that are not positive, or a box and horizon in which it may tip over.
    """
    numbers = (max_pitch_acceleration, horizon, *half_widths)
    if len(half_widths) != 4 or not all(np.isfinite(n) and n > 0 for n in numbers):
        raise ProblemError(
            "quadrotor: max_pitch_acceleration, horizon and the four half_widths must "
            f"be positive, got {numbers}."
        )
    _, _, tilt, rate = half_widths
    most = tilt + rate * horizon + 0.5 * max_pitch_acceleration * horizon**2
    if most >= 0.45 * np.pi:
        raise ProblemError(
            f"quadrotor: from the box it may tilt to {most:.3g} rad by the horizon; "
            "beyond 81 degrees no thrust holds the height. Shorten the horizon or "
            "narrow half_widths[2:]."
        )

    nodes, weights = np.polynomial.legendre.leggauss(QUADRATURE)

    def ends(x: Any, t: float) -> tuple[Any, Any]:
        """The least and largest x(T) from x (..., 4) at t."""
        left = horizon - t
        passed = 0.5 * left * (nodes + 1.0)
        kept = 0.5 * left * weights * (left - passed)
        free = x[..., 0] + left * x[..., 1]
        turn = x[..., 2, None] + x[..., 3, None] * passed
        bend = 0.5 * max_pitch_acceleration * passed**2
        low = free + GRAVITY * (np.tan(turn - bend) * kept).sum(-1)
        return low, free + GRAVITY * (np.tan(turn + bend) * kept).sum(-1)

    def value(x: Any, t: float = 0.0) -> Any:
        low, high = ends(np.asarray(x, float), t)
        return 0.5 * np.maximum(np.maximum(low, -high), 0.0) ** 2

    def drift(x: Any, a: Any) -> Any:
        xp = namespace(x)
        fall = GRAVITY * xp.tan(x[..., 2])
        return xp.stack((x[..., 1], fall, x[..., 3], a[..., 0]), axis=-1)

    domain = Box([-w for w in half_widths], list(half_widths))
    return ControlProblem(
        drift=drift,
        cost=lambda x, a: 0.0 * x[..., 0],
        controls=Box(-max_pitch_acceleration, max_pitch_acceleration),
        domain=domain,
        horizon=horizon,
        terminal=lambda x: 0.5 * x[..., 0] ** 2,
        boundary=Dirichlet(value),
        exact=Exact(value, source="reachable interval of x(T), by comparison"),
        name="quadrotor",
        suggested_grid=Grid(domain, (21, 21, 17, 17)),
    )
