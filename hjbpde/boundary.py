"""Boundary rules, one a face.

A face without a rule (``None``) is *artificial*: the target is the problem on the
whole space, the library closes the face and the error bar answers for it. Any
rule below is part of the problem. ``n`` is the outward normal.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .errors import ProblemError

Side = str
"""``"low"`` or ``"high"``."""
Face = tuple[int, Side]
FaceData = float | Callable[..., Any]


@dataclass(frozen=True)
class Dirichlet:
    """V = g on the face; g a number or ``g(x) -> (...)``, in the units of V."""

    g: FaceData = 0.0


@dataclass(frozen=True)
class Reflecting:
    """dV/dn = 0: the state is reflected at the face."""


@dataclass(frozen=True)
class Robin:
    """alpha V + beta dV/dn = g on the face, n outward; beta must not be 0."""

    alpha: float
    beta: float
    g: FaceData = 0.0

    def __post_init__(self) -> None:
        if self.beta == 0:
            raise ProblemError(
                "Robin: beta is 0, which makes the rule V = g/alpha. "
                "Use Dirichlet(g / alpha)."
            )


@dataclass(frozen=True)
class Extrapolate:
    """d2V/dn2 = 0: V continues linearly. Needs drift that does not point outward."""


@dataclass(frozen=True)
class StateConstraint:
    """Only controls with f.n <= 0 and no noise across the face are admissible."""


BoundaryRule = Dirichlet | Reflecting | Robin | Extrapolate | StateConstraint
