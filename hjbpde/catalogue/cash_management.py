"""Cash management: a balance that is corrected now and then, at a fixed cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.optimize import brentq

from ..arrays import namespace
from ..errors import ProblemError
from ..events import Impulse
from ..grid import Grid
from ..problem import ControlProblem, Exact
from ..sets import Box


def _root(function: Callable[[float], float], low: float, high: float) -> float:
    found: Any = brentq(function, low, high, xtol=1e-15 * high)
    return float(found)


def _edges(
    discount: float, sigma: float, fixed: float, proportional: float
) -> tuple[float, float, float]:
    """q, b and A of the closed form, by smooth fit.

    For every A the roots q < b of V' = k; the A sought makes the area between V' and k
    from q to b equal to K.
    """
    lam = np.sqrt(2 * discount) / sigma

    def excess(x: float, A: float) -> float:
        return 2 * x / discount - A * lam * np.sinh(lam * x) - proportional

    def top(A: float) -> float:
        return float(np.arccosh(max(2 / (discount * A * lam**2), 1.0)) / lam)

    def roots(A: float) -> tuple[float, float]:
        far = 2 * top(A) + 1 / lam
        while excess(far, A) > 0:
            far *= 2
        low = _root(lambda x: excess(x, A), 0.0, top(A))
        return low, _root(lambda x: excess(x, A), top(A), far)

    def area(A: float) -> float:
        q, b = roots(A)
        bend = A * (np.cosh(lam * b) - np.cosh(lam * q))
        return (b * b - q * q) / discount - bend - proportional * (b - q) - fixed

    largest = 2 / (discount * lam**2)
    most = _root(lambda A: excess(top(A), A), 1e-12 * largest, largest)
    # As A falls to 0 the two roots, and the area between them, grow without bound.
    least = 0.5 * most
    while area(least) < 0:
        least *= 0.5
    A = _root(area, least, (1 - 1e-12) * most)
    return *roots(A), A


def cash_management(
    *,
    discount: float = 0.5,
    sigma: float = 1.0,
    fixed: float = 1.0,
    proportional: float = 0.5,
    half_width: float = 4.0,
    levels: int = 161,
) -> ControlProblem:
    """Cash management: a balance dX = sigma dW, x^2 a unit of time, costly transfers.

    A transfer from x to y costs ``K + k |x - y|``. Nothing is done while |x| < b; at
    +-b the balance is brought to +-q, where (lam = sqrt(2 rho) / sigma) ::

        V = x^2 / rho + sigma^2 / rho^2 - A cosh(lam x)         for |x| <= b
        V = V(b) + k (|x| - b)                                  beyond
        V'(q) = V'(b) = k,    V(b) - V(q) = K + k (b - q)

    One may transfer to `levels` equally spaced balances and to +-q, with which the
    value is that of transfers to anywhere.

    Source: the band policy of Harrison, Sellke and Taylor, Math. Oper. Res. 8 (1983)
    454, and Constantinides and Richard, Oper. Res. 26 (1978) 620, with quadratic
    holding costs; the equations are smooth fit, solved by root finding.
    """
    positive = discount > 0 and sigma > 0 and fixed > 0 and half_width > 0
    if not positive or proportional < 0 or levels < 1:
        raise ProblemError(
            "cash-management: discount, sigma, fixed and half_width must be > 0, "
            "proportional >= 0 and levels >= 1."
        )
    q, b, A = _edges(discount, sigma, fixed, proportional)
    if b >= half_width:
        raise ProblemError(
            f"cash-management: the balance is left alone up to {b:g}, beyond the "
            f"domain; make half_width larger than {half_width:g}."
        )
    lam = float(np.sqrt(2 * discount)) / sigma

    def value(x: Any) -> Any:
        xp = namespace(x)
        away = xp.abs(x[..., 0])
        inner = xp.where(away < b, away, 0.0 * away + b)
        waiting = inner**2 / discount + (sigma / discount) ** 2
        return waiting - A * xp.cosh(lam * inner) + proportional * (away - inner)

    def cost(x: Any, y: Any) -> Any:
        return fixed + proportional * namespace(x).abs(x[..., 0] - y[..., 0])

    domain = Box(-half_width, half_width)
    targets = np.unique(np.r_[np.linspace(-half_width, half_width, levels), -q, q])
    return ControlProblem(
        drift=lambda x, a: 0.0 * x,
        diffusion=sigma,
        cost=lambda x, a: x[..., 0] ** 2,
        domain=domain,
        discount=discount,
        impulse=Impulse(targets[:, None], cost),
        exact=Exact(value, source="smooth fit; Harrison, Sellke and Taylor (1983)"),
        name="cash-management",
        suggested_grid=Grid(domain, 401),
    )
