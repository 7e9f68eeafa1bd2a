"""Optimal dividends of a company that may be ruined, paid at a bounded rate."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..boundary import Dirichlet, Robin
from ..errors import ProblemError
from ..grid import Grid
from ..problem import ControlProblem, Exact
from ..sets import Box
from .parameters import require_positive


def _roots(drift: float, sigma: float, discount: float) -> tuple[float, float]:
    """Both roots r of sigma^2 r^2 / 2 + drift r - rho = 0, the positive one first.

    The product of the roots is ``-2 rho / sigma^2``: the smaller one follows from
    the larger without cancellation.
    """
    root = float(np.hypot(drift, sigma * np.sqrt(2.0 * discount)))
    if drift >= 0:
        falling = -(drift + root) / sigma**2
        return -2.0 * discount / (sigma**2 * falling), falling
    rising = (root - drift) / sigma**2
    return rising, -2.0 * discount / (sigma**2 * rising)


def _threshold(level: float, rising: float, falling: float) -> float:
    """x* with ``C (e^{r+ x*} - e^{r- x*}) = level`` and slope 1 there, or 0.

    Both conditions give ``e^{(r+ - r-) x*} = (1 - level r-) / (1 - level r+)``;
    ``level r+ < 1`` always holds. A level below 0 means that paying at once is best.
    """
    if level <= 0.0:
        return 0.0
    odds = np.log1p(-level * falling) - np.log1p(-level * rising)
    return float(odds) / (rising - falling)


def _answer(
    mu: float, sigma: float, discount: float, max_rate: float
) -> tuple[float, float, Exact]:
    """The threshold x*, the decay s above it, and the closed form."""
    rising, falling = _roots(mu, sigma, discount)
    decay = _roots(mu - max_rate, sigma, discount)[1]
    ceiling = max_rate / discount
    threshold = _threshold(ceiling + 1.0 / decay, rising, falling)
    below = rising * np.exp(rising * threshold) - falling * np.exp(falling * threshold)
    # V' = 1 at x* where it is a choice; where x* = 0, V(0) = 0 decides.
    above = 1.0 / decay if threshold > 0 else -ceiling

    def value(x: Any) -> Any:
        y = x[..., 0]
        low, far = np.minimum(y, threshold), np.maximum(y, threshold)
        poor = (np.exp(rising * low) - np.exp(falling * low)) / below
        rich = ceiling + above * np.exp(decay * (far - threshold))
        return np.where(y < threshold, poor, rich)

    def gradient(x: Any) -> Any:
        low, far = np.minimum(x, threshold), np.maximum(x, threshold)
        poor = rising * np.exp(rising * low) - falling * np.exp(falling * low)
        rich = above * decay * np.exp(decay * (far - threshold))
        return np.where(x < threshold, poor / below, rich)

    def control(x: Any) -> Any:
        return np.where(x > threshold, max_rate, 0.0)

    source = "Asmussen and Taksar (1997); Jeanblanc-Picque and Shiryaev (1995)"
    return threshold, decay, Exact(value, gradient, control, source)


def optimal_dividends(
    *,
    mu: float = 0.5,
    sigma: float = 1.0,
    discount: float = 0.1,
    max_rate: float = 1.0,
    high: float = 8.0,
    boundary: Any = "decay",
) -> ControlProblem:
    """Optimal dividends at a bounded rate until ruin: threshold policy, closed form.

    Surplus ``dX = (mu - a) dt + sigma dW``, dividends ``0 <= a <= A``, ruin at 0. Paid
    at the full rate above x*, not at all below. With r+ > 0 > r- the roots of
    ``sigma^2 r^2 / 2 + mu r = rho`` and s < 0 the one with ``mu - A`` for mu,
    ``V = C (e^{r+ x} - e^{r- x})`` below x*, ``A / rho + e^{s (x - x*)} / s`` above,
    and V and V' = 1 are continuous at x*; V'' then is too. If ``A / rho + 1 / s <= 0``
    then x* = 0 and ``V = A (1 - e^{s x}) / rho``.

    ``boundary`` at `high` is "decay" (Robin data ``V' = s (V - A / rho)``, which the
    bounded solutions above x* satisfy: the face must lie there), or any rule, or None
    (artificial).

    Source: Asmussen and Taksar, Insurance Math. Econom. 20 (1997) 1, and
    Jeanblanc-Picque and Shiryaev, Russian Math. Surveys 50 (1995) 257, both for
    bounded rates.
    """
    numbers = {"mu": mu, "sigma": sigma, "discount": discount, "max_rate": max_rate}
    require_positive("optimal-dividends", **numbers)
    threshold, decay, exact = _answer(mu, sigma, discount, max_rate)
    if not high > threshold:
        raise ProblemError(
            f"optimal-dividends: the domain must reach beyond the threshold x* = "
            f"{threshold:.4g}, where the full rate is paid; got high = {high:g}."
        )
    if isinstance(boundary, str):
        if boundary != "decay":
            raise ProblemError(
                "optimal-dividends: boundary must be 'decay', a rule or None; got "
                f"{boundary!r}."
            )
        boundary = Robin(-decay, 1.0, -decay * max_rate / discount)
    domain = Box(0.0, high)
    return ControlProblem(
        drift=lambda x, a: mu - a + 0.0 * x,
        diffusion=sigma,
        reward=lambda x, a: a[..., 0],
        controls=Box(0.0, max_rate),
        domain=domain,
        discount=discount,
        boundary={(0, "low"): Dirichlet(0.0), (0, "high"): boundary},
        exact=exact,
        name="optimal-dividends",
        suggested_grid=Grid(domain, 401),
    )
