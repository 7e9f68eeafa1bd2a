"""Merton's consumption and investment problem with power utility."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import namespace
from ..boundary import Dirichlet, Robin
from ..errors import ProblemError
from ..grid import Grid
from ..problem import ControlProblem, Exact
from ..sets import Box


def merton(
    *,
    rate: float = 0.03,
    mu: float = 0.08,
    sigma: float = 0.2,
    gamma: float = 2.0,
    discount: float = 0.05,
    axis: str = "log-wealth",
    low: float | None = None,
    high: float | None = None,
    boundary: Any = "homogeneous",
    share_bounds: tuple[float, float] = (0.0, 2.0),
    consumption_bounds: tuple[float, float] = (0.005, 0.5),
) -> ControlProblem:
    """Merton: choose the risky share and the consumption rate; power-law answer.

    Controls ``a = (pi, k)``, wealth ``dX = [r + pi (mu - r) - k] X dt + pi sigma X
    dW``, reward ``(k X)^(1-gamma)/(1-gamma)``. With ``M = r + (mu-r)^2/(2 gamma
    sigma^2)``: ``pi* = (mu-r)/(gamma sigma^2)``, ``k* = (rho - (1-gamma) M)/gamma``,
    ``V = k*^-gamma x^(1-gamma)/(1-gamma)``.

    ``axis`` is "log-wealth" (state y = log X) or "wealth". ``boundary`` is
    "homogeneous" (Robin data from V(s x) = s^(1-gamma) V(x)), "exact" (Dirichlet
    data from V, which gives the answer away on the faces), or any rule, or None.

    Source: Merton, Rev. Econ. Stat. 51 (1969), equations 40-43.
    """
    if gamma <= 0 or gamma == 1:
        raise ProblemError(
            f"merton: gamma must be positive and not 1 (log utility), got {gamma:g}."
        )
    if sigma <= 0:
        raise ProblemError(f"merton: sigma must be positive, got {sigma:g}.")
    if axis not in ("log-wealth", "wealth"):
        raise ProblemError(
            f"merton: axis must be 'log-wealth' or 'wealth', got {axis!r}."
        )
    g = 1.0 - gamma
    M = rate + (mu - rate) ** 2 / (2 * gamma * sigma**2)
    k_star = (discount - g * M) / gamma
    if not k_star > 0:
        raise ProblemError(
            f"merton: rho - (1-gamma) M = {gamma * k_star:.4g} is not positive, so the "
            "value is infinite. Raise the discount or lower the market's excess return."
        )
    pi_star = (mu - rate) / (gamma * sigma**2)
    scale = k_star ** (-gamma) / g
    for name, best, (lo, hi) in (
        ("share_bounds", pi_star, share_bounds),
        ("consumption_bounds", k_star, consumption_bounds),
    ):
        if not lo < best < hi:
            raise ProblemError(
                f"merton: the optimal control {best:.4g} lies outside {name} "
                f"({lo:g}, {hi:g}), where the closed form does not hold; widen it."
            )
    if consumption_bounds[0] <= 0:
        raise ProblemError("merton: the lower consumption bound must be positive.")
    log = axis == "log-wealth"
    low = (-2.0 if log else 0.25) if low is None else low
    high = (2.0 if log else 4.0) if high is None else high
    if not log and low <= 0:
        raise ProblemError(f"merton: wealth must stay positive, got low = {low:g}.")

    def drift(x: Any, a: Any) -> Any:
        pi, k = a[..., 0:1], a[..., 1:2]
        growth = rate + pi * (mu - rate) - k
        return growth - 0.5 * sigma**2 * pi * pi if log else growth * x

    def diffusion(x: Any, a: Any) -> Any:
        noise = sigma * a[..., 0:1]
        return (noise if log else noise * x)[..., None]

    def reward(x: Any, a: Any) -> Any:
        xp = namespace(x)
        wealth = xp.exp(x[..., 0]) if log else x[..., 0]
        return (a[..., 1] * wealth) ** g / g

    def best_control(x: Any, p: Any, hess: Any) -> Any:
        xp = namespace(x)
        slope, bend = p[..., 0], hess[..., 0, 0]
        wealth = xp.exp(x[..., 0]) if log else x[..., 0]
        # In y = log x: x V_x = V_y and x^2 V_xx = V_yy - V_y.
        marginal = slope if log else slope * wealth
        curve = (bend - slope) if log else bend * wealth * wealth
        safe_curve = xp.where(curve < 0, curve, -xp.ones_like(curve))
        safe_marginal = xp.where(marginal > 0, marginal, xp.ones_like(marginal))
        pi = -(mu - rate) * safe_marginal / (sigma**2 * safe_curve)
        k = (safe_marginal / wealth**g) ** (-1.0 / gamma)
        pi = xp.where(curve < 0, pi, xp.full_like(pi, share_bounds[1]))
        k = xp.where(marginal > 0, k, xp.full_like(k, consumption_bounds[1]))
        pi = xp.clip(pi, share_bounds[0], share_bounds[1])
        k = xp.clip(k, consumption_bounds[0], consumption_bounds[1])
        return xp.stack((pi, k), axis=-1)

    def value(x: Any) -> Any:
        wealth = np.exp(x[..., 0]) if log else x[..., 0]
        return scale * wealth**g

    def gradient(x: Any) -> Any:
        if log:
            return g * value(x)[..., None]
        return g * value(x)[..., None] / x

    if isinstance(boundary, str):
        if boundary == "homogeneous":
            # dV/dy = (1-gamma) V (log axis), x dV/dx = (1-gamma) V (wealth axis).
            unit = (1.0, 1.0) if log else (low, high)
            boundary = {
                (0, "low"): Robin(g, unit[0], 0.0),
                (0, "high"): Robin(-g, unit[1], 0.0),
            }
        elif boundary == "exact":
            boundary = Dirichlet(value)
        else:
            raise ProblemError(
                "merton: boundary must be 'homogeneous', 'exact', a rule or None; "
                f"got {boundary!r}."
            )
    domain = Box(low, high)
    return ControlProblem(
        drift=drift,
        diffusion=diffusion,
        reward=reward,
        controls=Box(
            [share_bounds[0], consumption_bounds[0]],
            [share_bounds[1], consumption_bounds[1]],
        ),
        domain=domain,
        discount=discount,
        boundary=boundary,
        best_control=best_control,
        exact=Exact(
            value=value,
            gradient=gradient,
            control=lambda x: np.broadcast_to(
                np.array([pi_star, k_star]), (*x.shape[:-1], 2)
            ),
            source="Merton, Rev. Econ. Stat. 51 (1969), equations 40-43",
        ),
        name="merton",
        suggested_grid=Grid(domain, 401),
    )
