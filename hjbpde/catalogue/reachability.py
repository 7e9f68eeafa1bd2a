"""First-order problems: Hopf-Lax, the harmonic oscillator, two cars, one car."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import namespace
from ..boundary import Dirichlet
from ..errors import ProblemError
from ..events import Stop
from ..grid import Grid
from ..problem import ControlProblem, Exact
from ..sets import Box

NEWTON_STEPS = 60


def _fastest_wave(x: Any, left: float) -> Any:
    """min_y {-cos(pi y)/pi + (x - y)^2 / (2 left)} over one axis, array x.

    Feet y solve x = y + left sin(pi y); on [0, 1], where x is folded by symmetry and
    period, the least value sits at the root nearest to 0, found by bisection.
    """
    folded = np.abs((np.asarray(x, float) + 1.0) % 2.0 - 1.0)
    if left <= 0.0:
        return -np.cos(np.pi * folded) / np.pi
    # The left side rises up to the first critical point of the characteristics.
    turn = 1.0
    if left * np.pi > 1.0:
        turn = float(np.arccos(-1.0 / (left * np.pi)) / np.pi)
    low, high = np.zeros_like(folded), np.full_like(folded, turn)
    for _ in range(NEWTON_STEPS):
        middle = 0.5 * (low + high)
        beyond = middle + left * np.sin(np.pi * middle) > folded
        low, high = np.where(beyond, low, middle), np.where(beyond, middle, high)
    y = 0.5 * (low + high)
    return -np.cos(np.pi * y) / np.pi + 0.5 * (folded - y) ** 2 / left


def hamilton_jacobi(
    *, dimension: int = 1, horizon: float = 0.2, half_width: float = 1.0
) -> ControlProblem:
    """V_t = |grad V|^2 / 2 backward from a cosine: smooth, then kinked; Hopf-Lax.

    ``x' = a``, cost ``|a|^2 / 2``, terminal ``-sum cos(pi x_i)/pi``, periodic on
    [-1, 1]. Characteristics cross a time 1/pi before the end: a longer horizon has
    kinks at x_i = +-1. Source: Evans, Partial Differential Equations, 2nd ed.,
    section 3.3.2, theorem 4 (Hopf-Lax), minimised axis by axis.
    """
    if horizon <= 0 or half_width != 1.0:
        raise ProblemError(
            "hamilton-jacobi: horizon must be positive; the period is 2, so "
            "half_width is 1."
        )

    def terminal(x: Any) -> Any:
        xp = namespace(x)
        return -xp.sum(xp.cos(np.pi * x), axis=-1) / np.pi

    def value(x: Any, t: float = 0.0) -> Any:
        return np.sum(_fastest_wave(x, horizon - t), axis=-1)

    domain = Box([-1.0] * dimension, [1.0] * dimension, periodic=(True,) * dimension)
    nodes = {1: 400, 2: 100, 3: 40}.get(dimension, 16)
    return ControlProblem(
        drift=lambda x, a: a,
        cost=lambda x, a: 0.5 * namespace(a).sum(a * a, axis=-1),
        controls=Box([-np.inf] * dimension, [np.inf] * dimension),
        domain=domain,
        horizon=horizon,
        terminal=terminal,
        exact=Exact(value, source="Hopf-Lax formula, Evans, section 3.3.2"),
        name="hamilton-jacobi",
        suggested_grid=Grid(domain, (nodes,) * dimension),
    )


def harmonic_oscillator(
    *, horizon: float = 1.0, stiffness: float = 0.0, half_width: float = 2.0
) -> ControlProblem:
    """Least action of a harmonic oscillator, H = (p^2 + q^2)/2: closed form.

    ``q' = a``, cost ``(a^2 - q^2)/2``, terminal ``stiffness q^2 / 2``. Then
    ``V = k(t) q^2 / 2`` with ``k' = 1 + k^2``, ``k = tan(atan(stiffness) - (T - t))``,
    up to the focal point where k falls to minus infinity; paths leave the box, so the
    faces carry the exact value. Source: Arnold, Mathematical
    Methods of Classical Mechanics, 2nd ed., section 46 (action function).
    """
    phase = float(np.arctan(stiffness))
    if not 0 < horizon < phase + 0.5 * np.pi:
        raise ProblemError(
            f"harmonic-oscillator: the horizon must lie in (0, "
            f"{phase + 0.5 * np.pi:.4g}), before the first focal point."
        )

    def bend(t: float) -> float:
        return float(np.tan(phase - (horizon - t)))

    def value(x: Any, t: float = 0.0) -> Any:
        return 0.5 * bend(t) * x[..., 0] ** 2

    domain = Box(-half_width, half_width)
    return ControlProblem(
        drift=lambda x, a: a,
        cost=lambda x, a: 0.5 * (a[..., 0] ** 2 - x[..., 0] ** 2),
        controls=Box(-np.inf, np.inf),
        domain=domain,
        horizon=horizon,
        terminal=lambda x: 0.5 * stiffness * x[..., 0] ** 2,
        boundary=Dirichlet(value),
        exact=Exact(
            value=value,
            gradient=lambda x, t=0.0: bend(t) * x,
            control=lambda x, t=0.0: -bend(t) * x,
            source="Riccati equation of the action, Arnold, section 46",
        ),
        name="harmonic-oscillator",
        suggested_grid=Grid(domain, 201),
    )


def _range(x: Any) -> Any:
    xp = namespace(x)
    # Softened by 1e-12 so that gradients exist at the centre.
    return xp.sqrt(x[..., 0] ** 2 + x[..., 1] ** 2 + 1e-24)


def air3d(
    *,
    evader_speed: float = 5.0,
    pursuer_speed: float = 5.0,
    turn_rate: float = 1.0,
    radius: float = 5.0,
    horizon: float = 2.8,
) -> ControlProblem:
    """Air3D, the game of two cars: the least distance an evader can keep.

    In the evader's frame ``x' = -v_e + v_p cos psi + a y``, ``y' = v_p sin psi - a x``,
    ``psi' = b - a``; V is the least distance met minus the radius, and {V <= 0} the
    states from which the pursuer b catches the evader a within the horizon.

    Source: Merz, J. Optim. Theory Appl. 9 (1972) 324; Mitchell, Bayen and Tomlin,
    IEEE Trans. Automat. Control 50 (2005) 947, section V (equations 25 to 27 there
    give the same dynamics). No closed form of V; checked against a second code.
    """

    def drift(x: Any, a: Any, b: Any) -> Any:
        xp, turn = namespace(x), a[..., 0]
        ahead = -evader_speed + pursuer_speed * xp.cos(x[..., 2]) + turn * x[..., 1]
        aside = pursuer_speed * xp.sin(x[..., 2]) - turn * x[..., 0]
        return xp.stack((ahead, aside, b[..., 0] - turn), axis=-1)

    def miss(x: Any) -> Any:
        return _range(x) - radius

    domain = Box([-6, -10, 0], [20, 10, 2 * np.pi], periodic=(False, False, True))
    return ControlProblem(
        drift=drift,
        reward=lambda x, a: 0.0 * x[..., 0],
        controls=Box(-turn_rate, turn_rate),
        adversary=Box(-turn_rate, turn_rate),
        domain=domain,
        horizon=horizon,
        terminal=miss,
        stop=Stop(miss, by="adversary"),
        name="air3d",
        suggested_grid=Grid(domain, (51, 40, 50)),
    )


def _reach_avoid(miss: Any, obstacle: tuple[float, float, float] | None) -> Any:
    """Terminal and stopping payoffs of reaching, with an obstacle if there is one."""
    if obstacle is None:
        return miss, miss

    def depth(x: Any) -> Any:
        away = (x[..., 0] - obstacle[0]) ** 2 + (x[..., 1] - obstacle[1]) ** 2
        return obstacle[2] - namespace(x).sqrt(away + 1e-24)

    def worse(x: Any) -> Any:
        return namespace(x).maximum(miss(x), depth(x))

    return worse, (Stop(worse, by="controller"), Stop(depth, by="adversary"))


def dubins_car(
    *,
    speed: float = 1.0,
    turn_rate: float = 1.0,
    radius: float = 0.5,
    horizon: float = 2.0,
    half_width: float = 3.0,
    obstacle: tuple[float, float, float] | None = None,
) -> ControlProblem:
    """Dubins car: least distance to a disc within the horizon; reach, or reach-avoid.

    ``x' = v cos theta``, ``y' = v sin theta``, ``theta' = a``, ``|a| <= w``. V is the
    least distance to the disc around the origin met on the way, minus its radius. With
    ``obstacle`` (x, y, radius) a path that has been inside it by then has failed: V is
    then never below minus the distance to it.

    Source: Dubins, Amer. J. Math. 79 (1957) 497 (shortest paths); Cockayne and Hall,
    SIAM J. Control 13 (1975) 197 (reachable sets, from an arc and a segment, or two
    arcs); reach-avoid: Margellos and Lygeros, IEEE Trans. Automat. Control 56 (2011)
    1849, theorem 2.
    """

    def drift(x: Any, a: Any) -> Any:
        xp, theta = namespace(x), x[..., 2]
        go = (speed * xp.cos(theta), speed * xp.sin(theta), a[..., 0])
        return xp.stack(go, axis=-1)

    def miss(x: Any) -> Any:
        return _range(x) - radius

    terminal, stop = _reach_avoid(miss, obstacle)
    domain = Box(
        [-half_width, -half_width, 0],
        [half_width, half_width, 2 * np.pi],
        periodic=(False, False, True),
    )
    return ControlProblem(
        drift=drift,
        cost=lambda x, a: 0.0 * x[..., 0],
        controls=Box(-turn_rate, turn_rate),
        domain=domain,
        horizon=horizon,
        terminal=terminal,
        stop=stop,
        name="dubins-car",
        suggested_grid=Grid(domain, (61, 61, 60)),
    )
