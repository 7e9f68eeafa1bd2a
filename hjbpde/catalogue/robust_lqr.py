"""The linear-quadratic regulator that distrusts its model: a game against nature."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import namespace
from ..errors import ProblemError
from ..grid import Grid
from ..problem import ControlProblem, Exact
from ..sets import Box


def robust_lqr(
    *,
    theta: float = 4.0,
    alpha: float = -0.5,
    beta: float = 1.0,
    q: float = 1.0,
    r_a: float = 0.5,
    sigma: float = 0.5,
    discount: float = 0.1,
    dimension: int = 1,
    half_width: float = 2.0,
    boundary: Any = None,
) -> ControlProblem:
    """Robust LQR: an adversary bends the drift and pays for its relative entropy.

    ``dX = (alpha X + beta a + sigma b) dt + sigma dW`` and cost
    ``(q |x|^2 + r_a |a|^2 - theta |b|^2)/2``, minimised over a and maximised over b, in
    `dimension` independent states: a drift ``sigma b`` of the noise costs the relative
    entropy |b|^2/2 times theta, the confidence in the model. Then
    ``V = P |x|^2/2 + c`` with

        rho P = q + 2 alpha P - (beta^2/r_a - sigma^2/theta) P^2,
        c = d sigma^2 P / (2 rho),  a* = -beta P x/r_a,  b* = sigma P x/theta.

    Of the two roots P is the one that tends to the regulator's as theta grows. It
    exists while theta is above the breakdown point.

    Source: Hansen and Sargent, American Economic Review 91 (2001) 60 (multiplier
    robust control); the scalar Riccati equation by hand.

    Raises
    ------
    ProblemError
        theta at or below the breakdown point: nature drives the cost to infinity.
    """
    if min(theta, r_a, q, discount) <= 0 or sigma < 0 or dimension < 1:
        raise ProblemError(
            "robust-lqr: theta, r_a, q and discount must be positive, sigma >= 0 and "
            "dimension >= 1."
        )
    gain, slope = beta**2 / r_a - sigma**2 / theta, discount - 2 * alpha
    square = slope**2 + 4 * gain * q
    # Both roots are positive, or none is real, where nature has the greater gain.
    if square < 0 or (gain <= 0 and slope <= 0):
        raise ProblemError(
            f"robust-lqr: theta = {theta:g} is below the breakdown point: the Riccati "
            "equation has no root that is a finite cost. Give a larger theta."
        )
    P = 2 * q / (slope + np.sqrt(square))
    c = dimension * sigma**2 * P / (2 * discount)

    def drift(x: Any, a: Any, b: Any) -> Any:
        return alpha * x + beta * a + sigma * b

    def cost(x: Any, a: Any, b: Any) -> Any:
        xp = namespace(x)
        return 0.5 * xp.sum(q * x * x + r_a * a * a - theta * b * b, axis=-1)

    def value(x: Any) -> Any:
        xp = namespace(x)
        return 0.5 * P * xp.sum(x * x, axis=-1) + c

    domain = Box([-half_width] * dimension, [half_width] * dimension)
    free = Box([-np.inf] * dimension, [np.inf] * dimension)
    nodes = {1: 401, 2: 101, 3: 33, 4: 17}.get(dimension, 9)
    return ControlProblem(
        drift=drift,
        diffusion=sigma,
        cost=cost,
        controls=free,
        adversary=free,
        domain=domain,
        discount=discount,
        boundary=boundary,
        exact=Exact(
            value=value,
            gradient=lambda x: P * x,
            control=lambda x: -beta * P / r_a * x,
            source="scalar Riccati equation of Hansen and Sargent's (2001) game",
        ),
        name="robust-lqr",
        suggested_grid=Grid(domain, (nodes,) * dimension),
    )
