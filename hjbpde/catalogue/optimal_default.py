"""When the owners of a company should stop paying its debt."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import namespace
from ..boundary import Reflecting, Robin
from ..errors import ProblemError
from ..grid import Grid
from ..problem import ControlProblem, Exact
from ..sets import Box
from .parameters import require_positive


def optimal_default(
    *,
    rate: float = 0.06,
    payout: float = 0.03,
    sigma: float = 0.25,
    coupon: float = 4.0,
    tax: float = 0.35,
    half_width: float = 2.5,
) -> ControlProblem:
    """Optimal default (Leland): owners serve a debt until their claim is worthless.

    Assets ``dA = (r - delta) A dt + sigma A dW`` pay delta A; the owners keep what is
    left of it after the coupon, net of tax, ``c = (1 - tax) C``, and may walk away
    with nothing. With -g < 0 the negative root of ``sigma^2 y^2 / 2 + (r - delta -
    sigma^2 / 2) y = r`` and ``A* = g / (1 + g) c / r``,

        V(A) = A - c / r + (c / r - A*) (A / A*)^-g   above A*,   0 below.

    The axis is x = log A, around log A*. The high face carries the Robin rule that
    the three terms satisfy there, ``V' + g V = (1 + g) A - g c / r``; at the low
    face the owners have long walked away.

    Source: Leland, J. Finance 49 (1994) 1213, equation 14 (the payout is 0 there, and
    g = 2 r / sigma^2); g with a payout: Leland and Toft, J. Finance 51 (1996) 987.
    """
    numbers = {
        "rate": rate,
        "payout": payout,
        "sigma": sigma,
        "coupon": coupon,
        "half_width": half_width,
    }
    require_positive("optimal-default", **numbers)
    if not 0 <= tax < 1:
        raise ProblemError(f"optimal-default: tax must lie in [0, 1), got {tax!r}.")
    drift = rate - payout - 0.5 * sigma**2
    decay = (drift + float(np.hypot(drift, sigma * np.sqrt(2.0 * rate)))) / sigma**2
    debt = (1.0 - tax) * coupon / rate
    barrier = decay / (1.0 + decay) * debt

    centre = float(np.log(barrier))

    def value(x: Any) -> Any:
        y = np.maximum(x[..., 0], centre)
        option = (debt - barrier) * np.exp(-decay * (y - centre))
        return np.exp(y) - debt + option

    def gradient(x: Any) -> Any:
        y = np.maximum(x, centre)
        return np.exp(y) - decay * (debt - barrier) * np.exp(-decay * (y - centre))

    domain = Box(centre - 0.5 * half_width, centre + half_width)
    top = float(np.exp(centre + half_width))
    return ControlProblem(
        drift=lambda x, a: 0.0 * x + drift,
        diffusion=sigma,
        reward=lambda x, a: payout * namespace(x).exp(x[..., 0]) - rate * debt,
        domain=domain,
        discount=rate,
        stop=lambda x: 0.0 * x[..., 0],
        boundary={
            (0, "low"): Reflecting(),
            (0, "high"): Robin(decay, 1.0, (1.0 + decay) * top - decay * debt),
        },
        exact=Exact(
            value,
            gradient,
            source="Leland (1994), equation 14; with a payout Leland and Toft (1996)",
        ),
        name="optimal-default",
        suggested_grid=Grid(domain, 401),
    )
