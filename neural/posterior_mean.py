"""E[Y_0 | Y_t = y] over a large pool of draws: what a denoiser should answer."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[np.float64]
PARTS = 64
"""A pool is read in this many parts, until enough of it is seen."""


@njit(cache=True)
def _sums(
    y: Array, own: Array, pool: Array, fade: Array, s: Array, enough: float, most: int
) -> tuple[Array, Array]:
    """Posterior means (n, d) and the share of weight (n,) that `own` carries.

    `pool` (parts, m, d) is sorted by its first coordinate within each part.
    """
    n, d = y.shape
    mean, share = np.empty((n, d)), np.empty(n)
    centre, total = np.empty(d), np.empty(d)
    keys = np.ascontiguousarray(pool[:, :, 0])
    for i in range(n):
        h = s[i] / fade[i]
        square = 0.0
        for k in range(d):
            centre[k] = y[i, k] / fade[i]
            square += (own[i, k] - centre[k]) ** 2
        # Beyond this radius a weight is below e^-8 of the typical one.
        radius = (np.sqrt(d) + 4.0) * h
        mine = np.exp(-0.5 * square / h**2)
        weight, squares = mine, mine**2
        total[:] = mine * own[i]
        seen = 0
        for turn in range(pool.shape[0]):
            part = (turn + i) % pool.shape[0]
            low = np.searchsorted(keys[part], centre[0] - radius)
            high = np.searchsorted(keys[part], centre[0] + radius)
            for j in range(low, high):
                square = 0.0
                for k in range(d):
                    square += (pool[part, j, k] - centre[k]) ** 2
                if square < radius**2:
                    w = np.exp(-0.5 * square / h**2)
                    weight += w
                    squares += w * w
                    for k in range(d):
                        total[k] += w * pool[part, j, k]
            seen += high - low
            if seen > most or weight**2 > enough * squares:
                break
        for k in range(d):
            mean[i, k] = total[k] / weight
        share[i] = mine / weight
    return mean, share


def posterior_mean(
    y: Array,
    own: Array,
    pool: Array,
    fade: Array,
    s: Array,
    enough: float = 5e3,
    most: int = 2_000_000,
) -> tuple[Array, Array]:
    """E[Y_0 | Y_t = y] over the draw that made y and a pool, and the draw's own share.

    Weights ``exp(-|y - fade x_i|^2 / (2 s^2))``. The draw that made y is one among
    equals, which makes the mean unbiased over draws.

    Parameters
    ----------
    y, own : (n, d)
        States, and the draws of p_data that made them.
    pool : (m, d)
        Further draws; without any the mean is `own`.
    fade, s : (n,)
        ``Y_t = fade Y_0 + s xi``.
    enough : float
        Effective number ``(sum w)^2 / sum w^2`` of draws after which to stop.
    most : int
        Draws looked at for one state, over d.

    Source: Xu, Tong and Jaakkola, Stable target field, ICLR 2023, equation 5.
    """
    parts = min(PARTS, max(len(pool), 1))
    each = len(pool) // parts
    apart = pool[: parts * each].reshape(parts, each, y.shape[1])
    order = np.argsort(apart[:, :, 0], axis=1, kind="stable")
    ordered = np.take_along_axis(apart, order[:, :, None], axis=1)
    return _sums(y, own, ordered, fade, s, enough, most // y.shape[1])
