"""Schemes for one time step of a path."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EulerMaruyama:
    """``X += f dt + sigma dW``, payoff by the left rule: weak order 1."""

    order = 1


@dataclass(frozen=True)
class Heun:
    """Drift averaged over a predictor, payoff by the trapezoidal rule.

    Weak order 2 where the noise is constant along a path, else 1.
    """

    order = 2


Stepper = EulerMaruyama | Heun
