"""Every failure of the library, each naming what, where, why and what to do."""

from __future__ import annotations

from typing import Any


class HJBError(Exception):
    """Base of every error raised on purpose by this project."""


class ProblemError(HJBError):
    """The problem, grid, policy or file given is not usable as stated."""


class MethodMismatch(HJBError):
    """The method cannot take this problem; the message names methods that fit."""


class StabilityError(HJBError):
    """A discretisation would lose monotonicity or stability at a named node."""


class MemoryBudgetError(HJBError):
    """The arrays would not fit; said before any of them is allocated."""


class NotConverged(HJBError):
    """An iteration ended above its tolerance.

    Parameters
    ----------
    message : str
        What stalled, the residual reached and the remedy.
    solution : object, optional
        The last iterate, with its report, so that nothing computed is lost.
    """

    def __init__(self, message: str, solution: Any = None) -> None:
        super().__init__(message)
        self.solution = solution
