"""Options on one lognormal asset, on the axis y = log S."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.special import ndtr

from ..arrays import namespace
from ..errors import ProblemError
from ..events import Stop
from ..grid import Grid
from ..problem import ControlProblem, Exact
from ..sets import Box, Finite
from .parameters import require_positive


def _domain(strike: float, half_width: float) -> tuple[Box, float]:
    centre = float(np.log(strike))
    return Box(centre - half_width, centre + half_width), centre


def _asset(rate: float, sigma: float) -> dict[str, Any]:
    """dy = (r - sigma^2/2) dt + sigma dW, nothing paid on the way, discount r."""
    return {
        "drift": lambda x, a: 0.0 * x + (rate - 0.5 * sigma**2),
        "diffusion": sigma,
        "reward": lambda x, a: 0.0 * x[..., 0],
        "discount": rate,
    }


def european_call(
    *,
    strike: float = 100.0,
    maturity: float = 1.0,
    rate: float = 0.03,
    sigma: float = 0.15,
    half_width: float = 1.2,
) -> ControlProblem:
    """European call: a linear problem with a kinked end, closed form.

    ``dS = r S dt + sigma S dW``, V(T) = max(S - K, 0); on y = log S the drift is
    ``r - sigma^2/2``. Source: Black and Scholes, J. Polit. Econ. 81 (1973) 637,
    equation 13; default parameters and values of the BENCHOP project (von Sydow et
    al., Int. J. Comput. Math. 92 (2015) 2361, problem 1).
    """
    require_positive("european-call", strike=strike, maturity=maturity, sigma=sigma)
    domain, _ = _domain(strike, half_width)

    def value(x: Any, t: float = 0.0) -> Any:
        left = maturity - t
        S = np.exp(x[..., 0])
        if left <= 0:
            return np.maximum(S - strike, 0.0)
        spread = sigma * np.sqrt(left)
        d1 = (np.log(S / strike) + (rate + 0.5 * sigma**2) * left) / spread
        paid = strike * np.exp(-rate * left) * ndtr(d1 - spread)
        return S * ndtr(d1) - paid

    return ControlProblem(
        **_asset(rate, sigma),
        domain=domain,
        horizon=maturity,
        terminal=lambda x: np.maximum(np.exp(x[..., 0]) - strike, 0.0),
        exact=Exact(value, source="Black and Scholes (1973), equation 13"),
        name="european-call",
        suggested_grid=Grid(domain, 401),
    )


def american_put(
    *,
    strike: float = 100.0,
    maturity: float = 1.0,
    rate: float = 0.05,
    sigma: float = 0.5,
    half_width: float = 3.0,
) -> ControlProblem:
    """American put: the right to sell at K at any time until T.

    The controller may stop and take ``K - S``. With the default parameters V(0, 100)
    = 17.44876443 (Seydel, Tools for Computational Finance, 6th ed., section 4.6);
    K = 100, T = 1, r = .05, sigma = .2 at S = 90, 100, 110, 120 gives 11.4928,
    6.0903, 2.9866 and 1.3672 to four digits.
    """
    require_positive("american-put", strike=strike, maturity=maturity, sigma=sigma)
    domain, _ = _domain(strike, half_width)

    def payoff(x: Any) -> Any:
        return np.maximum(strike - np.exp(x[..., 0]), 0.0)

    return ControlProblem(
        **_asset(rate, sigma),
        domain=domain,
        horizon=maturity,
        terminal=payoff,
        stop=payoff,
        name="american-put",
        suggested_grid=Grid(domain, 801),
    )


def bermudan_put(
    *,
    strike: float = 110.0,
    maturity: float = 1.0,
    rate: float = 0.1,
    sigma: float = 0.2,
    dates: int = 10,
    half_width: float = 1.5,
) -> ControlProblem:
    """Bermudan put: the right to sell at K at equally spaced dates, T the last.

    The controller may stop at ``k T / dates``, k = 1, 2, ... and take ``K - S``; one
    date is the European put. With the default parameters V(0, 100) = 10.479520123
    (Fang and Oosterlee, Numer. Math. 114 (2009) 27, section 5.1).
    """
    require_positive("bermudan-put", strike=strike, maturity=maturity, sigma=sigma)
    if dates != int(dates) or not 1 <= dates <= 1000:
        raise ProblemError(f"bermudan-put: dates = {dates}; give 1 to 1000 of them.")
    domain, _ = _domain(strike, half_width)

    def payoff(x: Any) -> Any:
        return np.maximum(strike - np.exp(x[..., 0]), 0.0)

    when = np.linspace(0.0, maturity, int(dates) + 1)[1:]
    return ControlProblem(
        **_asset(rate, sigma),
        domain=domain,
        horizon=maturity,
        terminal=payoff,
        stop=Stop(payoff, dates=when),
        name="bermudan-put",
        suggested_grid=Grid(domain, 801),
    )


def uncertain_volatility(
    *,
    low_sigma: float = 0.15,
    high_sigma: float = 0.25,
    rate: float = 0.04,
    maturity: float = 0.25,
    strikes: tuple[float, float] = (95.0, 105.0),
    half_width: float = 0.8,
) -> ControlProblem:
    """Uncertain volatility: the dearest price of a butterfly spread.

    The control is the volatility, one of two extremes (the Hamiltonian is linear in
    its square). Source of the problem: Avellaneda, Levy and Paras, Appl. Math.
    Finance 2 (1995) 73; default parameters of Pooley, Forsyth and Vetzal, IMA J.
    Numer. Anal. 23 (2003) 241, section 5. No value is quoted: compare grids.
    """
    require_positive("uncertain-volatility", low_sigma=low_sigma, maturity=maturity)
    one, two = strikes
    middle = 0.5 * (one + two)
    domain, _ = _domain(middle, half_width)

    def butterfly(x: Any) -> Any:
        S = np.exp(x[..., 0])
        wings = np.maximum(S - one, 0.0) + np.maximum(S - two, 0.0)
        return wings - 2.0 * np.maximum(S - middle, 0.0)

    def noise(x: Any, a: Any) -> Any:
        return a[..., None]

    def drift(x: Any, a: Any) -> Any:
        xp = namespace(x)
        return rate - 0.5 * a * a + xp.zeros_like(x)

    return ControlProblem(
        drift=drift,
        diffusion=noise,
        reward=lambda x, a: 0.0 * x[..., 0],
        controls=Finite([low_sigma, high_sigma]),
        domain=domain,
        discount=rate,
        horizon=maturity,
        terminal=butterfly,
        name="uncertain-volatility",
        suggested_grid=Grid(domain, 321),
    )
