"""Shortest and fastest paths with closed forms: eikonal and double integrator."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import namespace
from ..boundary import StateConstraint
from ..errors import ProblemError
from ..events import Exit
from ..grid import Grid
from ..problem import ControlProblem, Exact
from ..sets import Box


def _distance(x: Any, centre: tuple[float, float]) -> Any:
    xp = namespace(x)
    return xp.sqrt((x[..., 0] - centre[0]) ** 2 + (x[..., 1] - centre[1]) ** 2)


def eikonal(
    *,
    radius: float = 0.25,
    centre: tuple[float, float] = (0.0, 0.0),
    slope: float = 0.0,
    half_width: float = 1.0,
) -> ControlProblem:
    """Eikonal: least time to a disc (radius 0: a point) at speed 1 + slope x.

    ``x' = c(x) (cos a, sin a)``, ``c |grad T| = 1``. With c = 1, ``T = |x - centre| -
    radius``. With a slope g the source must be a point x0, and
    ``T = arccosh(1 + g^2 |x - x0|^2 / (2 c(x) c(x0))) / |g|``.

    Source: rays in a linear speed are arcs of circles; Fomel, Luo and Zhao, J. Comput.
    Phys. 228 (2009) 6440, equation 32 (slowness 1 / c).
    """
    if radius < 0 or abs(slope) * half_width >= 1:
        raise ProblemError(
            "eikonal: radius must be >= 0 and the speed 1 + slope x positive."
        )
    if slope != 0 and radius > 0:
        raise ProblemError(
            "eikonal: the closed form with a slope needs a point source; use radius=0."
        )

    def speed(x: Any) -> Any:
        return 1.0 + slope * x[..., 0]

    def drift(x: Any, a: Any) -> Any:
        xp, c = namespace(x), speed(x)
        return xp.stack((c * xp.cos(a[..., 0]), c * xp.sin(a[..., 0])), axis=-1)

    def value(x: Any) -> Any:
        xp, away = namespace(x), _distance(x, centre)
        if slope == 0.0:
            return xp.where(away > radius, away - radius, 0.0 * away)
        here = 1.0 + slope * centre[0]
        u = (slope * away) ** 2 / (2.0 * here * speed(x))
        # arccosh(1 + u) without cancellation near the source.
        return xp.log1p(u + xp.sqrt(u * (2.0 + u))) / abs(slope)

    domain = Box([-half_width] * 2, [half_width] * 2)
    return ControlProblem(
        drift=drift,
        cost=lambda x, a: 1.0 + 0.0 * x[..., 0],
        controls=Box(-np.pi, np.pi),
        domain=domain,
        exit=Exit(lambda x: _distance(x, centre) - radius),
        boundary=StateConstraint(),
        exact=Exact(
            value=value,
            source="straight rays"
            if slope == 0.0
            else "Fomel, Luo and Zhao (2009), equation 32",
        ),
        name="eikonal",
        suggested_grid=Grid(domain, (201, 201)),
    )


def double_integrator(
    *, target_radius: float = 0.2, half_width: float = 1.0, top_speed: float = 1.0
) -> ControlProblem:
    """Double integrator: least time to rest at 0, x' = y, y' = u, |u| <= 1.

    Unconstrained, ``T = y + sqrt(4 x + 2 y^2)`` right of ``x = -y |y| / 2``, ``T = -y +
    sqrt(-4 x + 2 y^2)`` left of it, |y| on it. Here ``|x| <= X`` and ``|y| <= Y`` are
    walls: where the free path would be faster than Y it cruises at Y, which makes the
    time ``2 Y + y + (x + y^2 / 2 - Y^2) / Y``; where it cannot stop before the wall
    (``x + y |y| / 2`` beyond +-X) the time is infinite. The process ends on a small
    disc and takes the exact remaining time there.

    Source: Pontryagin, Boltyanskii, Gamkrelidze and Mishchenko, The Mathematical Theory
    of Optimal Processes (1962), section 1.5, example 1.
    """
    wall, top = half_width, top_speed
    if not 0 < target_radius < min(wall, top):
        raise ProblemError("double-integrator: the target must lie inside the domain.")

    def value(x: Any) -> Any:
        xp = namespace(x)
        p, v = x[..., 0], x[..., 1]
        right = p + 0.5 * v * xp.abs(v) > 0
        p, v = xp.where(right, p, -p), xp.where(right, v, -v)
        ahead = p + 0.5 * v * v
        free = v + 2.0 * xp.sqrt(xp.where(ahead > 0, ahead, 0.0 * ahead))
        cruise = 2.0 * top + v + (ahead - top * top) / top
        time = xp.where(ahead > top * top, cruise, free)
        stops = (v <= 0) | (ahead <= wall * (1 + 1e-12))
        return xp.where(stops, time, xp.full_like(time, xp.inf))

    def drift(x: Any, a: Any) -> Any:
        return namespace(x).stack((x[..., 1], a[..., 0]), axis=-1)

    domain = Box([-wall, -top], [wall, top])
    return ControlProblem(
        drift=drift,
        cost=lambda x, a: 1.0 + 0.0 * x[..., 0],
        controls=Box(-1.0, 1.0),
        domain=domain,
        exit=Exit(lambda x: _distance(x, (0.0, 0.0)) - target_radius, value),
        boundary=StateConstraint(),
        exact=Exact(value=value, source="Pontryagin et al. (1962), section 1.5"),
        name="double-integrator",
        suggested_grid=Grid(domain, (101, 101)),
    )


def zermelo(
    *,
    current: tuple[float, float] = (0.5, 0.2),
    speed: float = 1.0,
    radius: float = 0.25,
    half_width: float = 1.0,
) -> ControlProblem:
    """Zermelo navigation: least time to a disc through a steady uniform current.

    ``x' = w + s (cos a, sin a)`` with |w| < s: ``T`` is the smallest time at which the
    disc of radius ``s T + radius`` around 0 contains ``x + w T``, the positive root of
    ``(s^2 - |w|^2) T^2 - 2 (x . w - s r) T - (|x|^2 - r^2) = 0``. Paths are straight.

    Source: Zermelo, Z. Angew. Math. Mech. 11 (1931) 114, for constant wind.
    """
    u, v = current
    left = speed**2 - u * u - v * v
    if left <= 0 or radius <= 0:
        raise ProblemError("zermelo: needs |current| < speed and radius > 0.")

    def value(x: Any) -> Any:
        xp = namespace(x)
        along = x[..., 0] * u + x[..., 1] * v - speed * radius
        far = x[..., 0] ** 2 + x[..., 1] ** 2 - radius**2
        far = xp.where(far > 0, far, 0.0 * far)
        # The form that does not subtract: along may have either sign.
        root = xp.sqrt(along**2 + left * far)
        low = xp.where(along < 0, root - along, 0.0 * root + 1.0)
        time = xp.where(along < 0, far / low, (along + root) / left)
        return xp.where(far > 0, time, 0.0 * time)

    def drift(x: Any, a: Any) -> Any:
        xp, flat = namespace(x), 0.0 * x[..., 0]
        east = u + speed * xp.cos(a[..., 0]) + flat
        north = v + speed * xp.sin(a[..., 0]) + flat
        return xp.stack((east, north), axis=-1)

    domain = Box([-half_width] * 2, [half_width] * 2)
    return ControlProblem(
        drift=drift,
        cost=lambda x, a: 1.0 + 0.0 * x[..., 0],
        controls=Box(-np.pi, np.pi),
        domain=domain,
        exit=Exit(lambda x: _distance(x, (0.0, 0.0)) - radius),
        boundary=StateConstraint(),
        exact=Exact(value=value, source="Zermelo (1931), constant wind"),
        name="zermelo",
        suggested_grid=Grid(domain, (61, 61)),
    )
