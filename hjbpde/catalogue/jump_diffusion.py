"""A put on an asset that jumps, on the axis y = log S."""

from __future__ import annotations

from math import exp
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, ndtr

from ..errors import ProblemError
from ..grid import Grid
from ..jumps import Jumps
from ..problem import ControlProblem, Exact
from ..sets import Box
from .parameters import require_positive

Array = NDArray[np.float64]
TERMS = 1e-18
"""Poisson weight below which the series ends."""
WIDEST = 6.5
"""Standard deviations beyond which the law is cut: a chance of 8e-11."""
STRETCH = 0.35
"""Log price over which nodes stay dense around the strike."""


def normal_atoms(mean: float, deviation: float, n: int) -> tuple[Array, Array]:
    """Atoms (n, 1) and weights (n,) of a normal law, evenly spaced.

    The trapezoidal rule: exact to any power of the spacing where V is smooth, of order
    2 at kinks. Gauss and Hermite's nodes lie too far apart for those.
    """
    z = np.linspace(-WIDEST, WIDEST, n)
    w = np.exp(-0.5 * z**2)
    return mean + deviation * z[:, None], w / w.sum()


def jump_diffusion_put(
    *,
    strike: float = 100.0,
    maturity: float = 0.25,
    rate: float = 0.05,
    sigma: float = 0.15,
    jump_rate: float = 0.1,
    jump_mean: float = -0.9,
    jump_deviation: float = 0.45,
    atoms: int = 801,
    american: bool = False,
    half_width: float = 6.0,
) -> ControlProblem:
    """Put on an asset with lognormal jumps: Merton's series, or to sell early.

    ``dS / S = (r - lambda kappa) dt + sigma dW + (e^J - 1) dN`` with J normal and
    ``kappa = E[e^J - 1]``, V(T) = max(K - S, 0). Source: Merton, J. Financial Economics
    3 (1976) 125, equation 19 for the European put; default parameters of d'Halluin,
    Forsyth and Labahn, Numer. Math. 97 (2004) 321, table 1. The law of J stands as
    `atoms` of equal distance; the exact value is that of the law itself.

    Raises
    ------
    ProblemError
        Parameters that are not positive, or fewer than two atoms.
    """
    require_positive(
        "jump-diffusion-put", strike=strike, maturity=maturity, sigma=sigma,
        jump_rate=jump_rate, jump_deviation=jump_deviation,
    )  # fmt: skip
    if not (isinstance(atoms, int | np.integer) and atoms >= 2):
        raise ProblemError(f"jump-diffusion-put: atoms = {atoms!r}; give at least 2.")
    centre = float(np.log(strike))
    domain = Box(centre - half_width, centre + half_width)
    kappa = exp(jump_mean + 0.5 * jump_deviation**2) - 1.0
    drift = rate - jump_rate * kappa - 0.5 * sigma**2

    def payoff(x: Any) -> Any:
        return np.maximum(strike - np.exp(x[..., 0]), 0.0)

    def value(x: Any, t: float = 0.0) -> Any:
        if maturity - t <= 0:
            return payoff(x)
        law = (jump_rate, kappa, jump_mean, jump_deviation)
        return merton_put(np.exp(x[..., 0]), strike, maturity - t, rate, sigma, law)

    return ControlProblem(
        drift=lambda x, a: 0.0 * x + drift,
        diffusion=sigma,
        reward=lambda x, a: 0.0 * x[..., 0],
        discount=rate,
        domain=domain,
        horizon=maturity,
        terminal=payoff,
        stop=payoff if american else None,
        jumps=Jumps(jump_rate, *normal_atoms(jump_mean, jump_deviation, atoms)),
        exact=None if american else Exact(value, source="Merton (1976), equation 19"),
        scale=strike,
        name="jump-diffusion-put",
        suggested_grid=Grid.from_axes([_axis(centre, half_width, 401)], domain),
    )


def _axis(centre: float, half_width: float, n: int) -> Array:
    """Nodes dense around the strike: ``centre + STRETCH sinh(u)``, u evenly spaced."""
    end = np.arcsinh(half_width / STRETCH)
    y = centre + STRETCH * np.sinh(np.linspace(-end, end, n))
    y[0], y[-1] = centre - half_width, centre + half_width
    return y


def merton_put(
    S: Array,
    strike: float,
    left: float,
    rate: float,
    sigma: float,
    law: tuple[float, float, float, float],
) -> Array:
    """Merton's series at prices S with a time `left` to maturity.

    Given n jumps S(T) is lognormal: a Poisson sum of Black and Scholes' puts.
    """
    jump_rate, kappa, mean, deviation = law
    expected, total, n = jump_rate * left, np.zeros(np.shape(S)), 0
    while True:
        chance = exp(n * np.log(expected) - expected - gammaln(n + 1))
        spread = np.sqrt(sigma**2 * left + n * deviation**2)
        # log of E[S(T) | n jumps] / S
        growth = (rate - jump_rate * kappa) * left + n * (mean + 0.5 * deviation**2)
        d1 = (np.log(S / strike) + growth + 0.5 * spread**2) / spread
        put = strike * ndtr(spread - d1) - S * np.exp(growth) * ndtr(-d1)
        total = total + chance * put
        n += 1
        if n > expected and chance < TERMS:
            return np.exp(-rate * left) * total
