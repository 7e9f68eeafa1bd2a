"""How drift and noise become non-negative weights of a node's neighbours.

With ``hm, hp`` the distances to the lower and upper neighbour, ``f`` the drift and
``D = sigma^2 / 2``, every scheme replaces ``f V' + D V''`` by
``lower (V_- - V) + upper (V_+ - V)`` with ``lower, upper >= 0``: a Markov chain, so
policy iteration is monotone and converges to the viscosity solution (Barles and
Souganidis, Asymptotic Analysis 4 (1991), theorem 2.1).
"""

from __future__ import annotations

from dataclasses import dataclass

UPWIND = 0
HYBRID = 1


@dataclass(frozen=True)
class Upwind:
    """First order in h; monotone for every drift and every noise along the axes.

    ``upper = 2 D / (hp (hm + hp)) + max(f, 0) / hp``, ``lower`` likewise.
    """

    order: int = 1
    monotone: bool = True

    @property
    def code(self) -> int:
        """What the kernels call it."""
        return UPWIND


@dataclass(frozen=True)
class Hybrid:
    """Central where that is monotone, else just enough numerical noise; monotone.

    The noise used is ``max(D, |f| h / 2)``: second order wherever ``|f| h <= 2 D``,
    first order elsewhere with half the error of `Upwind` or less. The weights are a
    continuous, piecewise linear function of the drift and the maximum over controls
    is taken through it, so the switch is part of the maximum and policies cannot
    cycle: no mask has to be frozen.
    """

    order: int = 2
    monotone: bool = True

    @property
    def code(self) -> int:
        """What the kernels call it."""
        return HYBRID


Scheme = Upwind | Hybrid
