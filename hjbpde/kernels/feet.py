"""Semi-Lagrangian sweeps for controlled drift along arcs of constant control.

From a node the arc dx/dt = f(x, a) is followed cell by cell, at most `reach` of them,
and the value is read at every stop: T = min over a and stops of cost + T(stop). The
weights are those of multilinear interpolation, so the scheme is monotone; because few
interpolations meet on one path, the numerical diffusion of the one-cell scheme, which
smears the singular side of a switching curve over the whole plane, almost vanishes.

The unknown is w = exp(-lam T) (Kruzkov): 0 where the target cannot be reached, so
infinite values take part in means without a special case. Padding, flips and tables
are flat and padded as in `sweeping`: f (A, d, M), cost (A or 1, M), phi, gain (M).

Letters: q position in index units, h spacing, phi <= 0 the target, gain = exp(-lam g).
"""

import numpy as np
from numba import njit

from .sweeping import PAD, row_start


@njit(cache=True, inline="always")
def cell_of(q, shape, strides, weights):
    """Flat number of the lowest corner of the cell of q; its 2^d weights are written.

    NumPy: np.floor(q), and np.prod of fractions or their complements by corner bit.
    """
    d = q.size
    place = 0
    weights[0] = 1.0
    filled = 1
    for k in range(d):
        low = min(max(int(q[k]), PAD), PAD + shape[k] - 2)
        part = q[k] - low
        place += low * strides[k]
        for c in range(filled):
            weights[c + filled] = weights[c] * part
            weights[c] *= 1.0 - part
        filled *= 2
    return place


@njit(cache=True, inline="always")
def mean_at(table, place, corners, weights):
    """sum_c weights_c table[place + corners_c]; no product with a weight of 0."""
    total = 0.0
    for c in range(corners.size):
        if weights[c] != 0.0:
            total += weights[c] * table[place + corners[c]]
    return total


@njit(cache=True, inline="always")
def live_mean(W, place, corners, weights):
    """`mean_at`, but 0 where corners that cannot reach the target (W = 0) outweigh.

    Else states beyond recovery would be kept alive by a thin share of good neighbours.
    """
    total, alive = 0.0, 0.0
    for c in range(corners.size):
        w = W[place + corners[c]]
        if w > 0.0:
            alive += weights[c]
            total += weights[c] * w
    return total if alive > 0.5 else 0.0


@njit(cache=True, inline="always")
def move(q, f, t, h, shape, periodic, out):
    """out = q + t f / h, wrapped on periodic axes and held inside on the others."""
    for k in range(q.size):
        x = q[k] + t * f[k] / h[k]
        if periodic[k]:
            # The copies in the padding close the seam, so [PAD, PAD + n] is inside.
            if x < PAD:
                x += shape[k]
            elif x > PAD + shape[k]:
                x -= shape[k]
        else:
            x = min(max(x, float(PAD)), float(PAD + shape[k] - 1))
        out[k] = x


@njit(cache=True, inline="always")
def cell_time(q, f, h, shape, periodic):
    """Time to cross one cell, or to the face of the domain; 0 where it is left."""
    rate = 0.0
    for k in range(q.size):
        rate = max(rate, abs(f[k]) / h[k])
    if rate == 0.0:
        return 0.0
    t = 1.0 / rate
    for k in range(q.size):
        if periodic[k] or f[k] == 0.0:
            continue
        room = PAD + shape[k] - 1 - q[k] if f[k] > 0.0 else q[k] - PAD
        t = min(t, room * h[k] / abs(f[k]))
    return t if t * rate > 1e-6 else 0.0


@njit(cache=True, inline="always")
def mean_drift(f, a, place, corners, weights, out):
    """out = f[a] at the point of the weights; without views, which cost more."""
    for k in range(out.size):
        total = 0.0
        for c in range(corners.size):
            if weights[c] != 0.0:
                total += weights[c] * f[a, k, place + corners[c]]
        out[k] = total


@njit(cache=True)
def best_on_arc(
    n, a, least, W, f, cost, phi, gain, blocked, lam, h, shape, strides, periodic,
    corners, reach, q, drift, middle, after, weights, start,
):  # fmt: skip
    """Largest exp(-lam cost) W over the stops of one arc from the node n (at start).

    Midpoint rule, one cell a step; the crossing of phi = 0 is found on the chord. q,
    drift, middle, after (d) and weights (2^d) are scratch. As W <= 1, the arc ends
    where exp(-lam cost) falls to `least`, known already. NumPy: integrate with scipy's
    solve_ivp, read W with RegularGridInterpolator at every stop.
    """
    most, spent, before = 0.0, 0.0, phi[n]
    priced = a if cost.shape[0] > 1 else 0
    for k in range(q.size):
        q[k] = start[k]
        drift[k] = f[a, k, n]
    for _ in range(reach):
        t = cell_time(q, drift, h, shape, periodic)
        if t == 0.0:
            break
        move(q, drift, 0.5 * t, h, shape, periodic, middle)
        place = cell_of(middle, shape, strides, weights)
        mean_drift(f, a, place, corners, weights, drift)
        running = 0.0
        for c in range(corners.size):
            running += weights[c] * cost[priced, place + corners[c]]
        move(q, drift, t, h, shape, periodic, after)
        place = cell_of(after, shape, strides, weights)
        level = mean_at(phi, place, corners, weights)
        if level <= 0.0:
            share = before / (before - level) if before > level else 0.0
            reward = mean_at(gain, place, corners, weights)
            most = max(most, np.exp(-lam * (spent + share * t * running)) * reward)
            break
        spent += t * running
        paid = np.exp(-lam * spent)
        if paid <= least:
            break
        most = max(most, paid * live_mean(W, place, corners, weights))
        if mean_at(blocked, place, corners, weights) > 0.0:
            break
        mean_drift(f, a, place, corners, weights, drift)
        for k in range(q.size):
            q[k] = after[k]
        before = level
    return most


@njit(cache=True)
def controlled_sweep(
    W, frozen, f, cost, phi, gain, blocked, lam, h, sizes, periodic, corners, reach,
    flips, best, work, weights, index,
):  # fmt: skip
    """One Gauss-Seidel sweep of w = max over controls and stops of an arc.

    best (padded) holds the number of the control, -1 where none reaches the target.
    Values only rise. Returns the largest relative change. NumPy: at every free node in
    turn W[n] = max(W[n], max_a best_on_arc(n, a)).

    Falcone and Ferretti, Semi-Lagrangian Approximation Schemes (SIAM 2013), section
    8.4, for one cell; the longer arcs are those of a multi-step Bellman operator.
    """
    shape, strides = sizes[0], sizes[1]
    d, rows, change = shape.size, 1, 0.0
    for k in range(d - 1):
        rows *= shape[k]
    length = shape[d - 1]
    flipped = (flips >> (d - 1)) & 1
    q, drift, middle, after, start = work[0], work[1], work[2], work[3], work[4]
    for row in range(rows):
        place = row_start(row, shape, strides, flips, index)
        for k in range(d - 1):
            start[k] = index[k] + PAD
        for column in range(length):
            j = length - 1 - column if flipped else column
            n = place + j
            if frozen[n]:
                continue
            start[d - 1] = j + PAD
            most, chosen = W[n], best[n]
            for a in range(f.shape[0]):
                value = best_on_arc(
                    n, a, most, W, f, cost, phi, gain, blocked, lam, h, shape,
                    strides, periodic, corners, reach, q, drift, middle, after,
                    weights, start,
                )  # fmt: skip
                if value > most:
                    most, chosen = value, a
            if most > W[n]:
                change = max(change, (most - W[n]) / most)
                W[n], best[n] = most, chosen
    return change
