"""Optimal liquidation of a position against impact and price risk."""

from __future__ import annotations

import numpy as np

from ..boundary import StateConstraint
from ..grid import Grid
from ..problem import ControlProblem, Exact
from ..sets import Box
from .parameters import require_positive


def liquidation(
    *,
    inventory: float = 1.0,
    horizon: float = 5.0,
    impact: float = 2.5,
    volatility: float = 0.95,
    risk_aversion: float = 1.0,
    penalty: float = 50.0,
) -> ControlProblem:
    """Liquidation (Almgren-Chriss): sell a position by T; impact against price risk.

    ``q' = -v``, cost ``eta v^2 + lambda sigma^2 q^2`` (temporary impact, and lambda
    times the growth of the variance of the proceeds), terminal ``K q^2``. With
    ``kappa = sqrt(lambda sigma^2 / eta)``, ``m = eta kappa`` and ``s = T - t``,
    ``V = h q^2``, ``h = m (K + m tanh kappa s) / (m + K tanh kappa s)``, from the
    Riccati equation ``h' = h^2 / eta - lambda sigma^2``, ``h(T) = K``; ``v = h q /
    eta``. As K grows h tends to ``m coth kappa s``, and the position from X at 0 to
    ``X sinh kappa (T - t) / sinh kappa T``. The domain is [0, X] with ``v >= 0``; its
    ends are state constraints that do not bind. The optimal price-independent
    strategy: the price itself is not a state.

    Source: Almgren and Chriss, J. Risk 3 (2000) 5, section 2.2, in continuous time;
    the defaults are its table 1, in millions of shares and of dollars, and days
    (lambda = 1e-6 per dollar), and K in place of q(T) = 0.
    """
    numbers = {
        "inventory": inventory,
        "horizon": horizon,
        "impact": impact,
        "volatility": volatility,
        "risk_aversion": risk_aversion,
        "penalty": penalty,
    }
    require_positive("liquidation", **numbers)
    risk = risk_aversion * volatility**2
    kappa = float(np.sqrt(risk / impact))
    rest = impact * kappa

    def bend(t: float) -> float:
        passed = np.tanh(kappa * (horizon - t))
        return rest * (penalty + rest * passed) / (rest + penalty * passed)

    domain = Box(0.0, inventory)
    return ControlProblem(
        drift=lambda x, a: -a,
        cost=lambda x, a: impact * a[..., 0] ** 2 + risk * x[..., 0] ** 2,
        controls=Box(0.0, np.inf),
        domain=domain,
        horizon=horizon,
        terminal=lambda x: penalty * x[..., 0] ** 2,
        boundary=StateConstraint(),
        exact=Exact(
            value=lambda x, t=0.0: bend(t) * x[..., 0] ** 2,
            gradient=lambda x, t=0.0: 2.0 * bend(t) * x,
            control=lambda x, t=0.0: bend(t) / impact * x,
            source="Almgren and Chriss (2000), section 2.2, with a final penalty",
        ),
        name="liquidation",
        suggested_grid=Grid(domain, 401),
    )
