"""Newton steps for many small concave maximisations at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def newton_moves(g: Array, H: Array, a: Array, low: Array, high: Array) -> list[Array]:
    """Joint and coordinate Newton steps; uphill along g where not concave."""
    m = len(g)
    diagonal = np.stack([H[i, i] for i in range(m)])
    reach = np.where(np.isfinite(high - low), 0.25 * (high - low), 1.0)
    single = np.where(
        diagonal < 0, -g / np.where(diagonal < 0, diagonal, -1.0), np.sign(g) * reach
    )
    moves = [single]
    if m == 1:
        return moves
    for i in range(m):
        alone = np.zeros_like(single)
        alone[i] = single[i]
        moves.append(alone)
    free = ~(((a <= low) & (g < 0)) | ((a >= high) & (g > 0)))
    A = -H.transpose(2, 0, 1) * (free.T[:, :, None] & free.T[:, None, :])
    ridge = np.where(free, 1e-12 * np.abs(diagonal) + 1e-300, 1.0)
    A[:, np.arange(m), np.arange(m)] += ridge.T
    try:
        joint = np.linalg.solve(A, np.where(free, g, 0.0).T[..., None])[..., 0].T
    except np.linalg.LinAlgError:
        return moves
    moves.insert(0, np.where(np.isfinite(joint), joint, 0.0))
    return moves
