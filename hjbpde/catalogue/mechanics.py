"""Mechanical systems to be swung up or brought to rest; no closed forms."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import namespace
from ..boundary import Dirichlet, Reflecting
from ..errors import ProblemError
from ..grid import Grid
from ..problem import ControlProblem
from ..sets import Box
from .parameters import require_positive


def pendulum(
    *,
    gravity: float = 9.8,
    damping: float = 0.01,
    max_torque: float = 5.0,
    noise: float = 1.0,
    discount: float = 0.5,
    rate_weight: float = 0.01,
    effort: float = 0.01,
    top_rate: float = 10.0,
) -> ControlProblem:
    """Pendulum: swing up and hold with a torque too weak to lift it, small noise.

    ``theta' = omega``, ``d omega = (g sin theta - mu omega + u) dt + sigma dW``,
    theta = 0 upright and periodic, ``|u| <= max_torque``; cost ``1 - cos theta +
    c_1 omega^2 + c_2 u^2``. The faces ``|omega| = top_rate`` are artificial: the
    target is the problem with any rate. Where the torque is below g, a pendulum that
    hangs must be swung.

    Source: Doya, Neural Computation 12 (2000) 219, the pendulum with limited torque:
    its mass and length 1, g, mu and torque limit, its reward cos theta as the cost
    1 - cos theta; the small quadratic costs, the noise and the slower discount are
    added here. No closed form: compare grids, schemes and simulated paths.
    """
    numbers = {"noise": noise, "discount": discount, "top_rate": top_rate}
    require_positive("pendulum", gravity=gravity, max_torque=max_torque, **numbers)
    if min(damping, rate_weight, effort) < 0:
        raise ProblemError(
            "pendulum: damping, rate_weight and effort must not be negative."
        )

    def drift(x: Any, a: Any) -> Any:
        xp, omega = namespace(x), x[..., 1]
        turn = gravity * xp.sin(x[..., 0]) - damping * omega + a[..., 0]
        return xp.stack((omega, turn), axis=-1)

    def cost(x: Any, a: Any) -> Any:
        away = 1.0 - namespace(x).cos(x[..., 0])
        return away + rate_weight * x[..., 1] ** 2 + effort * a[..., 0] ** 2

    domain = Box([-np.pi, -top_rate], [np.pi, top_rate], periodic=(True, False))
    return ControlProblem(
        drift=drift,
        diffusion=np.array([[0.0], [noise]]),
        cost=cost,
        controls=Box(-max_torque, max_torque),
        domain=domain,
        discount=discount,
        name="pendulum",
        suggested_grid=Grid(domain, (240, 241)),
    )


def van_der_pol(
    *,
    stiffness: float = 1.0,
    noise: float = 0.5,
    discount: float = 0.5,
    effort: float = 0.5,
    half_widths: tuple[float, float] = (2.5, 3.0),
) -> ControlProblem:
    """Van der Pol oscillator: damp its limit cycle, quadratic costs, small noise.

    ``x' = y``, ``dy = (mu (1 - x^2) y - x + u) dt + sigma dW``, cost ``(x^2 + y^2 +
    c u^2) / 2``, u free. All faces are artificial; without control the state is drawn
    to a cycle of amplitude near 2.

    Source of the oscillator: van der Pol, Phil. Mag. 2 (1926) 978, with unit
    frequency. No closed form: compare grids, schemes and simulated paths.
    """
    require_positive("van-der-pol", noise=noise, discount=discount, effort=effort)
    require_positive("van-der-pol", width=half_widths[0], height=half_widths[1])

    def drift(x: Any, a: Any) -> Any:
        q, v = x[..., 0], x[..., 1]
        force = stiffness * (1.0 - q * q) * v - q + a[..., 0]
        return namespace(x).stack((v, force), axis=-1)

    def cost(x: Any, a: Any) -> Any:
        return 0.5 * (x[..., 0] ** 2 + x[..., 1] ** 2 + effort * a[..., 0] ** 2)

    domain = Box([-h for h in half_widths], list(half_widths))
    return ControlProblem(
        drift=drift,
        diffusion=np.array([[0.0], [noise]]),
        cost=cost,
        controls=Box(-np.inf, np.inf),
        domain=domain,
        discount=discount,
        name="van-der-pol",
        suggested_grid=Grid(domain, (241, 241)),
    )


def mountain_car(
    *,
    power: float = 0.4,
    discount: float = 0.1,
    noise: tuple[float, float] = (0.1, 0.2),
    slip: float = 0.02,
    goal: float = 0.5,
    wall: float = -1.2,
    top_speed: float = 1.4,
) -> ControlProblem:
    """Mountain car: least discounted time to the hilltop, too weak to climb; noise.

    ``dx = v dt + s(v) dW_1``, ``dv = (p u - cos 3x) dt + sigma_2 dW_2``, ``|u| <= 1``,
    ``s^2 = sigma_1^2 + k v^2`` (the wheels slip), cost 1: with the time tau of
    reaching x = goal, ``V = inf E (1 - e^{-rho tau}) / rho``. The goal is a face with
    V = 0; the wall at the left and the greatest speeds reflect. Without noise in the
    position V would jump at the goal where the car moves away from it, and without
    any along the energy that just reaches it.

    Source: Sutton and Barto, Reinforcement Learning, 2nd ed., example 10.1, with 20
    of its steps as unit of time: .001 * 20^2 is p, .0025 * 20^2 the slope, .07 * 20
    the greatest speed; the wall stops the car there, and noise and discount are added
    here. No closed form: compare grids, schemes and simulated paths.
    """
    require_positive(
        "mountain-car", power=power, discount=discount, top_speed=top_speed
    )
    require_positive("mountain-car", noise_position=noise[0], noise_speed=noise[1])
    if not wall < goal or slip < 0:
        raise ProblemError(
            f"mountain-car: the wall must lie left of the goal and slip be >= 0; got "
            f"wall = {wall:g}, goal = {goal:g}, slip = {slip:g}."
        )

    def drift(x: Any, a: Any) -> Any:
        xp = namespace(x)
        push = power * a[..., 0] - xp.cos(3.0 * x[..., 0])
        return xp.stack((x[..., 1], push), axis=-1)

    def diffusion(x: Any, a: Any) -> Any:
        xp, none = namespace(x), 0.0 * x[..., 0]
        slipping = xp.sqrt(noise[0] ** 2 + slip * x[..., 1] ** 2)
        rows = ((slipping, none), (none, none + noise[1]))
        return xp.stack([xp.stack(row, axis=-1) for row in rows], axis=-2)

    domain = Box([wall, -top_speed], [goal, top_speed])
    return ControlProblem(
        drift=drift,
        diffusion=diffusion,
        cost=lambda x, a: 1.0 + 0.0 * x[..., 0],
        controls=Box(-1.0, 1.0),
        domain=domain,
        discount=discount,
        boundary={
            (0, "low"): Reflecting(),
            (0, "high"): Dirichlet(0.0),
            (1, "low"): Reflecting(),
            (1, "high"): Reflecting(),
        },
        name="mountain-car",
        suggested_grid=Grid(domain, (341, 281)),
    )
