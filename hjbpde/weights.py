"""Weights of derivatives from values at given points."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def finite_difference_weights(x: Array, at: float, derivative: int) -> Array:
    """Weights of a derivative at `at` of the polynomial through points x.

    Fornberg, Math. Comp. 51 (1988) 699, as the solution of the moment equations.
    """
    scale = float(np.max(np.abs(x - at)))
    powers = np.arange(x.size)
    matrix = ((x[None, :] - at) / scale) ** powers[:, None]
    rhs = np.zeros(x.size)
    rhs[derivative] = float(np.prod(np.arange(1, derivative + 1)))
    weights = np.asarray(np.linalg.solve(matrix, rhs), dtype=np.float64)
    return weights / scale**derivative
