"""Memory that a solve will need, and what there is of it."""

from __future__ import annotations

import os

import numpy as np

from .errors import MemoryBudgetError
from .grid import Grid
from .problem import ControlProblem


def bytes_needed(grid: Grid, problem: ControlProblem) -> float:
    """Memory of tables, rows, hierarchy and mixing, an upper estimate."""
    d, m = problem.dimension, problem.n_controls
    m += 0 if problem.adversary is None else problem.adversary.dimension
    tables = 2 * d + d * m + 3 * m + 4
    rows = 4 * d + 8
    work = 2 * d + 18
    pairs = 0
    if problem.impulse is not None:
        y = problem.impulse.targets_from(grid.nodes_of(np.zeros(1, np.intp)))
        # Costs; where targets differ from node to node also they and their weights.
        pairs = y.shape[1] * (
            2 + (2 * d + 3 * 2**d) * callable(problem.impulse.targets)
        )
    moves = 0.0
    if problem.jumps is not None:
        middle = grid.nodes_of(np.array([grid.size // 2]))
        count = problem.jumps.displacements_at(middle).shape[1]
        # Rates to the corners of the landing cells, of both interpolations.
        moves = count * d + 2 * 1.5 * min(count * 4**d, grid.size)
    return 8.0 * grid.size * (tables + 2 * rows + work + pairs + moves)


def check_memory(grid: Grid, problem: ControlProblem) -> None:
    """Refuse, before allocating, a grid that would not fit in memory."""
    need, have = bytes_needed(grid, problem), available_memory()
    if need > 0.9 * have:
        raise MemoryBudgetError(
            f"a grid of shape {grid.shape} ({grid.size:.3g} nodes) needs about "
            f"{need / 1e9:.1f} GB, {have / 1e9:.1f} GB are free. Use a coarser grid: "
            "accuracy comes cheaper from order=4 than from nodes."
        )


def available_memory() -> float:
    """Bytes of memory that are free now."""
    try:
        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        return 8e9
