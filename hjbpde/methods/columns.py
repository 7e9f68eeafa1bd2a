"""Tables on the nodes, packed for kernels; see `hjbpde.kernels.columns`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..kernels.columns import WIDTH

Array = NDArray[np.float64]
Columns = tuple[Array, NDArray[np.int64]]
LEAST_REPEAT = 32
"""Shorter runs of one number are stored: spreading them takes longer than reading."""


def pack(tables: Sequence[Array], shape: tuple[int, ...]) -> Columns:
    """Numbers and places of the rows of tables (..., N or 1) on a grid, in order."""
    numbers: list[Array] = []
    places, begin = [], 0
    for table in tables:
        for row in table.reshape(-1, table.shape[-1]):
            kept, repeat, period = _once(row, shape)
            places.append((begin, repeat, period))
            numbers.append(kept)
            begin += kept.size
    return np.concatenate(numbers), np.array(places, np.int64)


def _once(row: Array, shape: tuple[int, ...]) -> tuple[Array, int, int]:
    """A row without leading and trailing axes along which it is constant.

    Returns what is stored, repeat and period.
    """
    size, d = math.prod(shape), len(shape)
    table = row.reshape(shape if row.size > 1 else (1,) * d)
    first = next((k for k in range(d) if _varies(table, k)), d)
    if first == d:
        return row[:1], size, 1
    last = next(k for k in range(d - 1, -1, -1) if _varies(table, k))
    if math.prod(shape[last + 1 :]) < LEAST_REPEAT:
        last = d - 1
    inside = tuple(slice(None) if first <= k <= last else 0 for k in range(d))
    kept = table[inside].ravel()
    repeat = math.prod(shape[last + 1 :])
    if repeat == 1:
        return np.resize(kept, kept.size + WIDTH), 1, kept.size
    return kept, repeat, kept.size


def _varies(table: Array, k: int) -> bool:
    """Whether a table varies along axis k; the middle of the grid is asked first."""
    at = [n // 2 for n in table.shape]
    line = np.moveaxis(table, k, -1)[(*at[:k], *at[k + 1 :])]
    if (line != line[0]).any():
        return True
    return bool((table != table.take([0], axis=k)).any())
