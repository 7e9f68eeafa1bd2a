"""An option whose volatility jumps between regimes: modes with a horizon."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.linalg import expm

from ..errors import ProblemError
from ..events import Modes
from ..grid import Grid
from ..problem import ControlProblem, Exact
from ..sets import Box
from .parameters import require_positive

STEP = 0.05
"""Of the integral over frequencies: its error is about exp(-pi / STEP)."""


def regime_switching_call(
    *,
    strike: float = 100.0,
    maturity: float = 1.0,
    rate: float = 0.05,
    sigmas: tuple[float, ...] = (0.15, 0.35),
    switching: Any = ((-1.0, 1.0), (0.5, -0.5)),
    half_width: float = 2.0,
) -> ControlProblem:
    """European call on an asset whose volatility switches, exact by Fourier integral.

    ``dS = r S dt + sigma_k S dW`` where the mode k is a Markov chain with the rates
    `switching`; V_k(T) = max(S - K, 0). With ``A(u) = Q - 1/2 (u^2 + 1/4) diag
    (sigma^2)``, tau = T - t and ``z = log(S / K) + r tau``,

        V_k = S - sqrt(S K) e^{-r tau / 2} / pi
                  int_0^inf cos(u z) [exp(tau A(u)) 1]_k / (u^2 + 1/4) du.

    Source of the model: Buffington and Elliott, Int. J. Theor. Appl. Finance 5 (2002)
    497; of the integral: Lewis, Option Valuation under Stochastic Volatility (2000),
    section 2.2, with the characteristic function of a diffusion whose variance is
    driven by a Markov chain.

    Raises
    ------
    ProblemError
        Volatilities that are not positive, or not one a mode.
    """
    require_positive("regime-switching-call", strike=strike, maturity=maturity)
    named = {f"sigmas[{k}]": sigma for k, sigma in enumerate(sigmas)}
    require_positive("regime-switching-call", **named)
    modes, variance = Modes(switching), np.square(np.asarray(sigmas, float))
    if modes.n != len(sigmas):
        raise ProblemError(
            f"regime-switching-call: {len(sigmas)} volatilities for {modes.n} modes."
        )
    centre = float(np.log(strike))
    domain = Box(centre - half_width, centre + half_width)

    def value(x: Any, t: float = 0.0, mode: int = 0) -> Any:
        left, y = maturity - t, np.asarray(x)[..., 0] - centre
        S = strike * np.exp(y)
        if left <= 0:
            return np.maximum(S - strike, 0.0)
        most = 9.0 / np.sqrt(variance.min() * left)
        u = np.arange(0.0, most, STEP)
        A = modes.rates - 0.5 * (u**2 + 0.25)[:, None, None] * np.diag(variance)
        weight = expm(left * A)[:, mode].sum(-1) / (u**2 + 0.25) * STEP
        weight[0] *= 0.5
        waves = np.cos(np.multiply.outer(y + rate * left, u)) @ weight
        return S - np.sqrt(S * strike) * np.exp(-0.5 * rate * left) / np.pi * waves

    return ControlProblem(
        drift=lambda x, a, mode: 0.0 * x + (rate - 0.5 * variance[mode]),
        diffusion=lambda x, a, mode: (0.0 * x + sigmas[mode])[..., None],
        reward=lambda x, a: 0.0 * x[..., 0],
        discount=rate,
        domain=domain,
        horizon=maturity,
        terminal=lambda x: np.maximum(np.exp(x[..., 0]) - strike, 0.0),
        modes=modes,
        exact=Exact(value, source="Lewis (2000), section 2.2, for a Markov chain"),
        name="regime-switching-call",
        suggested_grid=Grid(domain, 401),
    )
