"""Derivatives of functions known only by their values."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from hjbpde import Box

Array = NDArray[np.float64]

_OFFSETS = np.arange(-2.0, 3.0)
_TO_POWERS = np.linalg.inv(np.vander(_OFFSETS, increasing=True))
"""Node values of the five-point stencil -> coefficients of its quartic."""


def first_derivatives(
    function: Callable[[Array], Array],
    x: Array,
    box: Box,
    step: float,
    axes: Sequence[int] | None = None,
) -> Array:
    """d function / dx_k at x (n, d) for every k in `axes`, shape (n, len(axes)).

    The derivative of the quartic through five points ``step * width_k`` apart:
    fourth order; near a face of `box` the stencil is shifted inwards, not the point.
    """
    axes = range(x.shape[1]) if axes is None else axes
    parts = []
    for k in axes:
        c, t, h = _quartic(function, x, box, step, k)
        parts.append((c[1] + t * (2 * c[2] + t * (3 * c[3] + t * 4 * c[4]))) / h)
    return np.stack(parts, axis=1)


def second_derivatives(
    function: Callable[[Array], Array], x: Array, box: Box, step: float
) -> Array:
    """d2 function / dx_k^2 at x (n, d), shape (n, d), by the same stencils."""
    parts = []
    for k in range(x.shape[1]):
        c, t, h = _quartic(function, x, box, step, k)
        parts.append((2 * c[2] + t * (6 * c[3] + t * 12 * c[4])) / h**2)
    return np.stack(parts, axis=1)


def _quartic(
    function: Callable[[Array], Array], x: Array, box: Box, step: float, axis: int
) -> tuple[Array, Array, float]:
    low, high = float(np.asarray(box.low)[axis]), float(np.asarray(box.high)[axis])
    h = step * (high - low)
    centre = x[:, axis]
    if not (box.periodic and tuple(box.periodic)[axis]):  # type: ignore[arg-type]
        centre = np.clip(centre, low + 2 * h, high - 2 * h)
    stencil = np.repeat(x[None], len(_OFFSETS), axis=0)
    stencil[:, :, axis] = centre + h * _OFFSETS[:, None]
    values = function(stencil.reshape(-1, x.shape[1])).reshape(len(_OFFSETS), -1)
    return _TO_POWERS @ values, (x[:, axis] - centre) / h, h
