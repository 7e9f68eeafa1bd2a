"""A known answer that travels with a problem."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Exact:
    """A known answer, for tests and pictures; no solver, bar or verdict reads it.

    Parameters
    ----------
    value : callable, x (..., d) -> (...)
        With a horizon also of ``t=``, with modes of ``mode=``.
    gradient : callable, x (..., d) -> (..., d), optional
    control : callable, x (..., d) -> (..., m), optional
    source : str
        Where the closed form comes from.
    average : float, optional
        The long-run average, with ``average=True``; the value is then relative.
    """

    value: Callable[[Any], Any]
    gradient: Callable[[Any], Any] | None = None
    control: Callable[[Any], Any] | None = None
    source: str = ""
    average: float | None = None
