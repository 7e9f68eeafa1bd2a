"""When a path without noise arrives: the part of a step that it still takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import ProblemError
from .grid import Grid
from .interpolation import beyond

Array = NDArray[np.float64]
HALVINGS = 53
"""As many as a share of a step has bits."""


def part_of_step(
    has_ended: Callable[[Array], NDArray[np.bool_]], x: Array, move: Array
) -> Array:
    """The least share s in (0, 1] with ``has_ended(x + s move)``, 1 where none, (n,).

    By bisection, so that `has_ended` holds at the share returned, bit for bit. A path
    that ends and goes on within one straight step is not seen.

    Parameters
    ----------
    has_ended : callable
        ``(k, d) -> bool (k,)``.
    x, move : (n, d)
    """
    share = np.ones(len(x))
    hit = np.flatnonzero(has_ended(x + move))
    low, high = np.zeros(hit.size), np.ones(hit.size)
    for _ in range(HALVINGS if hit.size else 0):
        middle = 0.5 * (low + high)
        there = has_ended(x[hit] + middle[:, None] * move[hit])
        low, high = np.where(there, low, middle), np.where(there, middle, high)
    share[hit] = high
    return share


def refuse_lost(grid: Grid, value: Array, x0: Any) -> None:
    """Refuse starts (..., d) from which the exit cannot be reached.

    Raises
    ------
    ProblemError
        A cell with an infinite value at a corner, naming the start.
    """
    x = np.asarray(x0, dtype=float).reshape(-1, grid.dimension)
    lost = beyond(grid, x, value)
    if lost.any():
        raise ProblemError(
            f"simulate: from x0 = {x[np.argmax(lost)]} no control is known to reach "
            "the exit: the value is infinite at a corner of its cell. Start where "
            "solution.value_at(x) is finite, or refine the grid."
        )
