"""Jumps of the state at random times: a finite measure given by its atoms."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import ProblemError
from .held import held, keywords

Array = NDArray[np.float64]
_PARTS = ("rate", "displacements", "weights")
_NOT_WITH = ("modes", "adversary", "impulse")


@dataclass(frozen=True, eq=False)
class Jumps:
    """At the rate lambda the state jumps from x to ``x + delta_j(x)``, j by chance.

    What is maximised or minimised gains ::

        lambda(x) sum_j w_j(x) [ V(x + delta_j(x)) - V(x) ]

    (Oksendal and Sulem, Applied Stochastic Control of Jump Diffusions, 2nd ed.,
    equation 1.2.6, for a measure of finite mass; nothing is compensated.) Jumps do not
    depend on the control. What a jump that leaves the domain does is said by the rule
    of the face, see `hjbpde.landing`.

    Parameters
    ----------
    rate : float or callable
        lambda >= 0, expected jumps per unit of time, or ``lambda(x) -> (...)``.
    displacements : array (J, d) or callable
        delta, one atom a row, or ``delta(x) -> (..., J, d)``.
    weights : array (J,) or callable
        Probabilities w >= 0 of the atoms, which sum to 1, or ``w(x) -> (..., J)``.

    With a horizon the functions may name t, the calendar time.

    Raises
    ------
    ProblemError
        A negative or infinite rate, wrong shapes, weights that are no probabilities,
        functions that name the control.
    """

    rate: Any
    displacements: Any
    weights: Any

    def __post_init__(self) -> None:
        for name in _PARTS:
            for keyword in {"a", "b", "mode"} & keywords(getattr(self, name)):
                raise ProblemError(
                    f"Jumps: {name} names {keyword}, but jumps depend on state and "
                    "time alone. Control the drift, the noise or the payoff; moves "
                    "that are chosen are hjb.Impulse, switching is hjb.Modes."
                )
        x = np.zeros((1, 1))
        if not callable(self.rate):
            self.rate_at(x)
        for name in ("displacements", "weights"):
            if not callable(getattr(self, name)):
                array = np.array(getattr(self, name), dtype=float)
                array.setflags(write=False)
                object.__setattr__(self, name, array)
        if not callable(self.displacements):
            self._check_constant_displacements()
        if not callable(self.weights):
            self.weights_at(x, np.size(self.weights))

    def _check_constant_displacements(self) -> None:
        shape = self.displacements.shape
        if len(shape) != 2 or not self.displacements.size:
            raise ProblemError(
                f"Jumps: displacements have shape {shape}; expected (J, d), one atom "
                "a row, e.g. [[-0.5]] for one jump of one state."
            )
        if not np.isfinite(self.displacements).all():
            raise ProblemError("Jumps: displacements must be finite.")
        if not callable(self.weights) and self.weights.shape != shape[:1]:
            raise ProblemError(
                f"Jumps: weights have shape {self.weights.shape} for displacements "
                f"{shape}; expected {shape[:1]}, one weight an atom."
            )

    @property
    def depends_on_time(self) -> bool:
        """Whether a function names the keyword t."""
        return any("t" in keywords(getattr(self, name)) for name in _PARTS)

    def held(self, **fixed: Any) -> Jumps:
        """The jumps with those keywords fixed that their functions name."""
        if not self.depends_on_time:
            return self
        return replace(self, **{n: held(getattr(self, n), **fixed) for n in _PARTS})

    def rate_at(self, x: Any) -> Array:
        """lambda at x (n, d), (n,)."""
        out = self._called("rate", x, ())
        self._refuse(~((out >= 0) & np.isfinite(out)), "rate", out, x, "must be >= 0")
        return out

    def displacements_at(self, x: Any) -> Array:
        """delta from x (n, d): (n, J, d), or (1, J, d) where all states share them."""
        if not callable(self.displacements):
            out = np.asarray(self.displacements)[None]
            if out.shape[-1] != x.shape[-1]:
                raise ProblemError(
                    f"Jumps: displacements have {out.shape[-1]} columns for "
                    f"{x.shape[-1]} states."
                )
            return out
        found = np.asarray(self._evaluated("displacements", x), dtype=float)
        shape = found.shape
        if found.ndim != 3 or shape[::2] != x.shape or not found.size:
            raise ProblemError(
                f"Jumps: displacements(x) returned shape {shape} for states of shape "
                f"{x.shape}; expected ({len(x)}, J, {x.shape[-1]})."
            )
        bad = ~np.isfinite(found).all(axis=(1, 2))
        self._refuse(bad, "displacement", found, x, "must be finite")
        return found

    def weights_at(self, x: Any, count: int) -> Array:
        """w at x (n, d): (n, J), J = count."""
        out = self._called("weights", x, (count,))
        self._refuse(~(out >= 0).all(-1), "weights", out, x, "must be >= 0")
        bad = ~(np.abs(out.sum(-1) - 1.0) <= 1e-9)
        self._refuse(bad, "sum of the weights", out.sum(-1), x, "must be 1")
        return out

    def _called(self, name: str, x: Any, tail: tuple[int, ...]) -> Array:
        """A part at x (n, d), broadcast to (n, *tail)."""
        part = getattr(self, name)
        found = np.asarray(self._evaluated(name, x) if callable(part) else part, float)
        wanted = (len(x), *tail)
        if callable(part) and found.shape not in (wanted, tail):
            raise ProblemError(
                f"Jumps: {name}(x) returned shape {found.shape} for states of shape "
                f"{np.shape(x)}; expected {wanted}."
            )
        try:
            return np.broadcast_to(found, wanted)
        except ValueError:
            raise ProblemError(
                f"Jumps: {name} has shape {found.shape}; expected {tail}."
            ) from None

    def _evaluated(self, name: str, x: Any) -> Any:
        try:
            with np.errstate(all="ignore"):
                return getattr(self, name)(x)
        except ProblemError:
            raise
        except Exception as cause:
            raise ProblemError(
                f"Jumps: {name}(x) raised {type(cause).__name__}: {cause} (called with "
                f"x of shape {np.shape(x)}; it must be array code on x (n, d))."
            ) from cause

    def _refuse(self, bad: Any, what: str, out: Any, x: Any, rule: str) -> None:
        if bad.any():
            n = int(np.flatnonzero(bad)[0])
            constant = not any(callable(getattr(self, name)) for name in _PARTS)
            place = "" if constant else f" at x = {x[n]}"
            raise ProblemError(f"Jumps: the {what} is {out[n]}{place}; it {rule}.")


def fault_of_jumps(problem: Any) -> str | None:
    """The first fault in how the jumps of a problem are stated, if any."""
    jumps = problem.jumps
    if jumps is None:
        return None
    if not isinstance(jumps, Jumps):
        return "'jumps' must be hjb.Jumps(rate, displacements, weights)."
    if jumps.depends_on_time and problem.horizon is None:
        return (
            "'jumps' names t, but the problem has no horizon: time-dependent data need "
            "horizon=T and terminal=g."
        )
    for field in _NOT_WITH:
        if getattr(problem, field) is not None:
            return f"no method takes 'jumps' together with '{field}'."
    if problem.average:
        return "no method takes 'jumps' together with 'average'."
    constant = None if callable(jumps.displacements) else jumps.displacements.shape[1]
    if constant is not None and constant != problem.dimension:
        return (
            f"'jumps': the displacements have {constant} columns for "
            f"{problem.dimension} states."
        )
    return None
