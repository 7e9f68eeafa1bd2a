"""Forward (noising) processes dY = f(Y, t) dt + sigma(t) dB, and their marginals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hjbpde.errors import ProblemError

from .options import check_number

Array = NDArray[np.float64]


@dataclass(frozen=True)
class OrnsteinUhlenbeck:
    """``dY = -theta Y dt + sigma dB``: Y_t = e^(-theta t) Y_0 + s(t) xi.

    Parameters
    ----------
    theta, sigma : float
        > 0; the law at infinity is N(0, sigma^2 / (2 theta)).

    Source: s^2 = sigma^2 (1 - e^(-2 theta t)) / (2 theta); Song et al., Score-based
    generative modeling through SDEs, ICLR 2021, equation 29 and appendix B.
    """

    theta: float = 1.0
    sigma: float = 2.0**0.5
    has_marginals = True

    def __post_init__(self) -> None:
        _positive("OrnsteinUhlenbeck", theta=self.theta, sigma=self.sigma)

    def rate(self, t: Any) -> Any:
        """theta with ``f = -theta Y``, the shape of t."""
        return self.theta + 0.0 * t

    def noise(self, t: Any) -> Any:
        """sigma(t)."""
        return self.sigma + 0.0 * t

    def drift(self, y: Any, t: Any) -> Any:
        """f(y, t) at y (..., d), t a number or (..., 1)."""
        return -self.rate(t) * y

    def divergence(self, y: Any, t: Any) -> Any:
        """div f at y (..., d), shape (...)."""
        return 0.0 * y[..., 0] - y.shape[-1] * self.theta

    def fade(self, t: Any) -> Any:
        """The factor of Y_0 in Y_t."""
        return np.exp(-self.theta * np.asarray(t))

    def spread(self, t: Any) -> Any:
        """s(t), the deviation of Y_t given Y_0."""
        gone = -np.expm1(-2.0 * self.theta * np.asarray(t))
        return self.sigma * np.sqrt(gone / (2.0 * self.theta))


@dataclass(frozen=True)
class VariancePreserving:
    """``dY = -beta(t)/2 Y dt + sqrt(beta(t)) dB``, beta linear in t up to `horizon`.

    Parameters
    ----------
    low, high : float
        beta at 0 and at `horizon`; > 0.
    horizon : float

    Source: Song et al., ICLR 2021, equations 11 and 33 (there on [0, 1]).
    """

    low: float = 0.1
    high: float = 20.0
    horizon: float = 1.0
    has_marginals = True

    def __post_init__(self) -> None:
        _positive(
            "VariancePreserving", low=self.low, high=self.high, horizon=self.horizon
        )

    def rate(self, t: Any) -> Any:
        """beta(t) / 2."""
        return 0.5 * (self.low + (self.high - self.low) * t / self.horizon)

    def noise(self, t: Any) -> Any:
        """sqrt(beta(t))."""
        return (2.0 * self.rate(t)) ** 0.5

    def drift(self, y: Any, t: Any) -> Any:
        """f(y, t) at y (..., d), t a number or (..., 1)."""
        return -self.rate(t) * y

    def divergence(self, y: Any, t: Any) -> Any:
        """div f at y (..., d), shape (...)."""
        return 0.0 * y[..., 0] - y.shape[-1] * self.rate(t)

    def _clock(self, t: Any) -> Any:
        t = np.asarray(t)
        slope = (self.high - self.low) / self.horizon
        return 0.5 * (self.low * t + 0.5 * slope * t**2)

    def fade(self, t: Any) -> Any:
        """The factor of Y_0 in Y_t."""
        return np.exp(-self._clock(t))

    def spread(self, t: Any) -> Any:
        """The deviation of Y_t given Y_0."""
        return np.sqrt(-np.expm1(-2.0 * self._clock(t)))


@dataclass(frozen=True)
class GeneralForward:
    """``dY = f(Y, t) dt + sigma(t) dB`` without a closed form for its marginals.

    The Fokker-Planck grid takes it; exact scores and denoising score matching, which
    need the law of Y_t given Y_0, refuse it.

    Parameters
    ----------
    field : callable, (y (..., d), t) -> (..., d)
    noise : callable, t -> number
    field_divergence : callable, (y, t) -> (...)
    """

    field: Callable[[Any, Any], Any]
    noise: Callable[[Any], Any]
    field_divergence: Callable[[Any, Any], Any]
    has_marginals = False

    def __post_init__(self) -> None:
        for name in ("field", "noise", "field_divergence"):
            if not callable(getattr(self, name)):
                raise ProblemError(f"GeneralForward: {name} must be a function.")

    def drift(self, y: Any, t: Any) -> Any:
        """f(y, t)."""
        return self.field(y, t)

    def divergence(self, y: Any, t: Any) -> Any:
        """div f(y, t)."""
        return self.field_divergence(y, t)


ForwardProcess = OrnsteinUhlenbeck | VariancePreserving | GeneralForward
LinearForward = OrnsteinUhlenbeck | VariancePreserving


def linear(process: ForwardProcess, purpose: str) -> LinearForward:
    """`process`, if its marginals are known.

    Raises
    ------
    ProblemError
        They are not; `purpose` says what needed them.
    """
    if isinstance(process, OrnsteinUhlenbeck | VariancePreserving):
        return process
    raise ProblemError(
        f"{purpose} needs the law of Y_t given Y_0, and {type(process).__name__} has "
        "no exact marginals. Use neural.OrnsteinUhlenbeck or "
        "neural.VariancePreserving, or compare with neural.fokker_planck."
    )


def _positive(name: str, **numbers: float) -> None:
    for field, value in numbers.items():
        check_number(name, field, value)
