"""A high-order step that may leave the monotone one only so far."""

from __future__ import annotations

import math

from numba import njit


@njit(cache=True)
def keep_within(high, monotone, room):
    """high <- monotone + room F((high - monotone) / room); how many of them moved.

    F(s) = s where |s| <= 1, falls to 0 at |s| = 2 and stays there: near the monotone
    value nothing changes, far from it nothing of the high order is left.
    """
    moved = 0
    for n in range(high.size):
        apart = high[n] - monotone[n]
        size = math.fabs(apart)
        if size <= room:
            continue
        moved += 1
        left = max(2.0 * room - size, 0.0)
        high[n] = monotone[n] + math.copysign(left, apart)
    return moved
