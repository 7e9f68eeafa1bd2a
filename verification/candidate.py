"""What a user hands in to be judged: a value, a policy, or both, as functions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hjbpde import ProblemError
from hjbpde.held import held

Function = Callable[..., Any]
NAMES = ("value", "control", "gradient", "stop", "adversary", "move")


@dataclass(frozen=True)
class Candidate:
    """An answer given as plain functions; with a horizon they name t as well.

    With modes they name mode, a number from 0 on.

    Parameters
    ----------
    value : callable, x (..., d) -> (...), optional
        In the problem's own sense: with ``cost=`` it is a cost. Without a value the
        policy alone is judged.
    control : callable, x (..., d) -> (..., m), optional
        The policy. Without one the greedy control of the value is judged.
    gradient : callable, x (..., d) -> (..., d), optional
        grad V; without one, fourth-order differences of the value.
    stop : callable, x (..., d) -> bool (...), optional
        Where the controller uses the right to stop. Without one, where the value is
        within half the tolerance of what stopping pays.
    adversary : callable, x (..., d) -> (..., mb), or x and a -> (..., mb), optional
        The second player's strategy. One that names a answers the controller's choice,
        as the order of play allows; one that does not forgoes that. Without one, the
        best reply for the value's gradient; without a value, the reference's, and the
        controller alone is judged.
    move : callable, x (..., d) -> (..., d), optional
        Where the state is moved to at once, NaN where it is left alone; the nearest of
        the problem's targets is taken. Without one, greedy moves of the value.
    average : float, optional
        The long-run average of a problem with ``average=True``, whose value is judged
        up to a constant.

    Raises
    ------
    ProblemError
        Neither value nor control, or something that is not a function.
    """

    value: Function | None = None
    control: Function | None = None
    gradient: Function | None = None
    stop: Function | None = None
    adversary: Function | None = None
    move: Function | None = None
    average: float | None = None

    def __post_init__(self) -> None:
        if self.value is None and self.control is None and self.move is None:
            raise ProblemError(
                "Candidate: neither value= nor control= is given, so there is nothing "
                "to judge. Give the value, the policy, or both."
            )
        for name in NAMES:
            function = getattr(self, name)
            if function is not None and not callable(function):
                raise ProblemError(
                    f"Candidate: {name}= must be a function of points (..., d), got "
                    f"{type(function).__name__}. Wrap arrays in an interpolation."
                )
        if self.average is not None and not math.isfinite(self.average):
            raise ProblemError(
                f"Candidate: average = {self.average} must be a finite number."
            )
        if self.gradient is not None and self.value is None:
            raise ProblemError("Candidate: gradient= without value= judges nothing.")

    def at(self, t: float) -> Candidate:
        """The functions at calendar time t; those that do not name t stay."""
        return self._held(t=t)

    def in_mode(self, mode: int) -> Candidate:
        """The functions in one mode; those that do not name mode stay."""
        return self._held(mode=mode)

    def _held(self, **fixed: Any) -> Candidate:
        functions = {n: held(getattr(self, n), **fixed) for n in NAMES}
        return Candidate(**functions, average=self.average)
