"""Gauss-Seidel sweeps in alternating orders for static first-order equations.

Arrays are flat and padded by two layers on every side, so that reading two neighbours
along an axis needs no case for faces: the layers hold infinity (no path comes from
outside) or, on a periodic axis, copies of the other end. `frozen` marks nodes that
keep their value: the padding, the target and obstacles (whose value is infinite).
`due` marks nodes a neighbour of which has changed since their last update: computing
any other again would give the same bits, so sweeps pass over it.

Letters: T value, s slowness (running cost over speed), h spacing, f drift, l cost.
"""

import numpy as np
from numba import njit

PAD = 2


@njit(cache=True, inline="always")
def row_start(row, shape, strides, flips, index):
    """Flat number of the first interior node of a padded row, axes flipped by bits.

    NumPy: index = np.unravel_index(row, shape[:-1]), flipped to shape - 1 - index
    where the bit is set; then sum((index + 2) * strides[:-1]) + 2 strides[-1].
    """
    rest, place = row, PAD * strides[shape.size - 1]
    for k in range(shape.size - 2, -1, -1):
        index[k] = rest % shape[k]
        rest //= shape[k]
        if (flips >> k) & 1:
            index[k] = shape[k] - 1 - index[k]
        place += (index[k] + PAD) * strides[k]
    return place


@njit(cache=True, inline="always")
def upwind_value(base, weight, s, order, d):
    """The largest root t of sum_k weight_k^2 max(t - base_k, 0)^2 = s^2.

    NumPy: brentq of the left side minus s^2 on [min(base), min(base) + s / weight].
    Axes enter in the order of their base, while the root exceeds the next base.
    """
    for k in range(d):
        order[k] = k
    for k in range(1, d):
        j = k
        while j > 0 and base[order[j]] < base[order[j - 1]]:
            order[j], order[j - 1] = order[j - 1], order[j]
            j -= 1
    first = order[0]
    if base[first] == np.inf:
        return np.inf
    # Sums of differences to the smallest base: no cancellation of large squares.
    origin = base[first]
    a = weight[first] * weight[first]
    b, c = 0.0, -s * s
    t = s / weight[first]
    for n in range(1, d):
        k = order[n]
        gap = base[k] - origin
        if t <= gap:
            break
        w = weight[k] * weight[k]
        a += w
        b += w * gap
        c += w * gap * gap
        t = (b + np.sqrt(max(b * b - a * c, 0.0))) / a
    return origin + t


@njit(cache=True, inline="always")
def one_axis(T, T0, slope, n, step, h, second, factored):
    """Base and weight of one axis: ``(dT/dx)^2 ~ weight^2 max(T - base, 0)^2``.

    The side with the smaller T is used. Second order where the node behind is not
    larger (u2 <= u1): base = (4 u1 - u2)/3, weight = 3/(2h); else u1 and 1/h.
    Factored: T = T0 + tau with grad T0 known, and only tau is differenced, which adds
    T0 - side slope / weight - (the same mean of T0) to the base.
    """
    low, high = T[n - step], T[n + step]
    side = 1.0 if low <= high else -1.0
    u1 = low if low <= high else high
    if u1 == np.inf:
        return u1, 1.0
    near = n - step if low <= high else n + step
    far = near + near - n
    u2 = T[far]
    if second and u2 <= u1:
        base, weight = (4.0 * u1 - u2) / 3.0, 1.5 / h
        if factored:
            known = (4.0 * T0[near] - T0[far]) / 3.0
            base += T0[n] - side * slope / weight - known
        return base, weight
    base, weight = u1, 1.0 / h
    if factored:
        base += T0[n] - side * slope * h - T0[near]
    return base, weight


@njit(cache=True)
def eikonal_sweep(
    T, frozen, due, s, h, shape, strides, flips,
    second, factored, T0, slopes, scratch, order,
):  # fmt: skip
    """One Gauss-Seidel sweep of |grad T| = s; returns the largest change.

    T, frozen, due, s, T0 (padded, flat), slopes (d, padded) = grad T0; with `factored`
    False, T0 and slopes are not read. First-order sweeps only lower T (the scheme is
    monotone); second-order ones replace it. scratch (2, d) floats, order (d) and index
    space (d) integers are working space. NumPy: at every free node in turn,
    T[n] = upwind_value(*[one_axis(k) for k in range(d)], s[n]).

    Zhao, Math. Comp. 74 (2005) 603, equations 2.1 to 2.4; the one-sided second order
    is Sethian's, SIAM Review 41 (1999) 199, section 3.2; passing over nodes whose
    neighbours rest is the locking of Bak, McLaughlin and Renzi, SIAM J. Sci. Comput.
    32 (2010) 2853, section 2.
    """
    d = shape.size
    rows = 1
    for k in range(d - 1):
        rows *= shape[k]
    base, weight = scratch[0], scratch[1]
    step, length = strides[d - 1], shape[d - 1]
    back = (flips >> (d - 1)) & 1
    change = 0.0
    for row in range(rows):
        place = row_start(row, shape, strides, flips, order[1])
        for j in range(length):
            n = place + step * (length - 1 - j if back else j)
            if not due[n] or frozen[n]:
                continue
            due[n] = False
            for k in range(d):
                slope = slopes[k, n] if factored else 0.0
                base[k], weight[k] = one_axis(
                    T, T0, slope, n, strides[k], h[k], second, factored
                )
            t = upwind_value(base, weight, s[n], order[0], d)
            old = T[n]
            if t == np.inf or t == old or (t > old and not second):
                continue
            gap = abs(old - t)
            if gap > change:
                change = gap
            T[n] = t
            # A node below both values does not read this one: paths lead upwards. The
            # factored base is no bound from above, so there everybody reads.
            least = -np.inf if factored else min(old, t)
            for k in range(d):
                for m in range(1, 3 if second else 2):
                    low, high = n - m * strides[k], n + m * strides[k]
                    if T[low] > least:
                        due[low] = True
                    if T[high] > least:
                        due[high] = True
    return change
