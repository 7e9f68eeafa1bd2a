"""Where a jump ends: periodic axes wrap, and the rule of a face says what lies beyond.

- `Reflecting` mirrors the landing point back into the domain, as often as needed.
- `Dirichlet` ends the process at the nearest point of the domain with the value there.
- `Robin` is continued beyond the face: ``dV/dn = p - kappa V`` along the overshoot s,
  ``V(s) = e^(-kappa s) V(0) + p (1 - e^(-kappa s)) / kappa``.
- An artificial face continues V by its slope: ``V(s) = V(0) + p s``.
- `Extrapolate` (the weight of an inner node would be negative) and `StateConstraint`
  (nothing lies beyond) admit no jump across them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .boundary import Dirichlet, Extrapolate, Face, Reflecting, StateConstraint
from .errors import ProblemError

Array = NDArray[np.float64]
TOUCH = 1e-12
"""Overshoot, in widths of the axis, that counts as landing on the face."""


@dataclass(frozen=True, eq=False)
class Landing:
    """Landing points x (n, d) in the domain.

    over : {face: (n,)}, how far beyond the faces they would lie, only faces overshot
    ended : (n,), beyond a Dirichlet face: x is then the point whose value is taken
    """

    x: Array
    over: dict[Face, Array]
    ended: NDArray[np.bool_]

    def check(self, problem: Any, x: Array, y: Array) -> None:
        """Refuse jumps from x (n, d) to y (n, d) across a face that admits none.

        Raises
        ------
        ProblemError
            Naming the face and one such jump.
        """
        for face, depth in self.over.items():
            rule = problem.faces[face]
            if isinstance(rule, Extrapolate | StateConstraint):
                at = int(np.argmax((depth > 0) & ~self.ended))
                raise ProblemError(
                    f"'jumps': from x = {x[at]} one lands at {y[at]}, beyond face "
                    f"{face}, whose rule {rule!r} says nothing of what lies "
                    "there. Let displacements end inside, enlarge the domain, or use "
                    "Dirichlet, Reflecting, Robin or no rule."
                )


def landing(problem: Any, y: Array) -> Landing:
    """Where jumps to y (n, d), inside the domain or not, end."""
    domain = problem.domain
    low, high = np.asarray(domain.low), np.asarray(domain.high)
    y, over = np.array(domain.wrap(y)), {}
    for axis in range(y.shape[1]):
        _mirror(problem, axis, y)
    ended = np.zeros(len(y), bool)
    for face, rule in problem.faces.items():
        axis, is_low = face[0], face[1] == "low"
        depth = low[axis] - y[:, axis] if is_low else y[:, axis] - high[axis]
        depth = np.where(depth > TOUCH * domain.width[axis], depth, 0.0)
        if depth.any():
            over[face] = depth
            ended |= isinstance(rule, Dirichlet) & (depth > 0)
    return Landing(np.clip(y, low, high), over, ended)


def beyond(kappa: float, depth: Array) -> tuple[Array, Array]:
    """Weights of V on the face and of p in V(s), s = `depth` (n,) beyond the face."""
    if kappa == 0:
        return np.ones_like(depth), depth
    return np.exp(-kappa * depth), -np.expm1(-kappa * depth) / kappa


def _mirror(problem: Any, axis: int, y: Array) -> None:
    """Fold y (n, d) at the reflecting faces of an axis, in place."""
    domain, line = problem.domain, y[:, axis]
    low, high = np.asarray(domain.low)[axis], np.asarray(domain.high)[axis]
    ends = [
        isinstance(problem.faces.get((axis, s)), Reflecting) for s in ("low", "high")
    ]
    if all(ends):
        width = high - low
        turn = np.mod(line - low, 2.0 * width)
        outside = (line < low) | (line > high)
        y[:, axis] = np.where(outside, low + np.minimum(turn, 2 * width - turn), line)
    elif ends[0]:
        y[:, axis] = np.where(line < low, 2.0 * low - line, line)
    elif ends[1]:
        y[:, axis] = np.where(line > high, 2.0 * high - line, line)
