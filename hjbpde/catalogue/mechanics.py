"""Mechanical systems to be swung up or brought to rest; no closed forms."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import namespace
from ..errors import ProblemError
from ..grid import Grid
from ..problem import ControlProblem
from ..sets import Box


def _positive(name: str, **numbers: float) -> None:
    for label, number in numbers.items():
        if not (np.isfinite(number) and number > 0):
            raise ProblemError(f"{name}: {label} must be positive, got {number!r}.")


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
    _positive("pendulum", gravity=gravity, max_torque=max_torque, **numbers)
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
