"""Controls under which the state rests: where one component of the drift vanishes.

At a face that keeps the state inside, the best admissible control is often the one
that just holds the state there; where the scheme is one-sided, such controls are
corners of the discrete Hamiltonian. Neither is found by a smooth search.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .problem import ControlProblem

Array = NDArray[np.float64]
ROUNDS = 60


def resting_control(drift: Callable[[Array], Array], low: Array, high: Array) -> Array:
    """The a (N,) between low and high (N,) with drift(a) = 0; NaN where none is seen.

    The drift must change sign between the ends. False position with halving
    (Illinois, Dowell and Jarratt, BIT 11 (1971) 168): one step where the drift is
    affine in the control, and never outside the bracket.
    """
    with np.errstate(all="ignore"):
        return _false_position(drift, low, high)


def _false_position(drift: Callable[[Array], Array], low: Array, high: Array) -> Array:
    one, two = low.copy(), high.copy()
    f_one, f_two = drift(one), drift(two)
    crosses = (np.sign(f_one) * np.sign(f_two) <= 0) & np.isfinite(f_one + f_two)
    size = np.maximum(np.abs(f_one), np.abs(f_two))
    a = np.where(f_one == 0, one, two)
    for _ in range(ROUNDS):
        gap = f_two - f_one
        safe = np.where(gap == 0, 1.0, gap)
        a = np.where(gap == 0, one, one - f_one * ((two - one) / safe))
        a = np.clip(a, np.minimum(one, two), np.maximum(one, two))
        f = drift(a)
        left = np.abs(f) / np.maximum(size, 1e-300)
        if np.all(~crosses | (left <= 4e-16) | (one == two)):
            break
        same = np.sign(f) == np.sign(f_two)
        one, f_one = np.where(same, one, two), np.where(same, 0.5 * f_one, f_two)
        two, f_two = a, f
    return np.where(crosses, a, np.nan)


def resting_controls(
    problem: ControlProblem, x: Array, low: Array, high: Array
) -> list[Array]:
    """For every axis the one control (1, N) that stops it at x (N, d).

    Empty where the box is infinite; NaN where no control stops the drift.
    """
    if not np.isfinite(np.r_[low, high]).all():
        return []
    low, high = (np.broadcast_to(end, (len(x),)) for end in (low, high))

    def drift(a: Array, k: int) -> Array:
        return np.asarray(problem.drift_at(x, a[:, None]), float)[:, k]

    return [
        resting_control(lambda a, k=k: drift(a, k), low, high)[None]
        for k in range(x.shape[1])
    ]
