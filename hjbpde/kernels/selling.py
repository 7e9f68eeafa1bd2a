"""Symmetric matrices as sums of rank-one terms along integer offsets.

``M = sum_k w_k e_k e_k'`` with ``w_k >= 0``: then ``tr(M hess V)`` on a grid of unit
steps is ``sum_k w_k (V(x + e_k) - 2 V(x) + V(x - e_k))``, a monotone scheme. Where M is
diagonally dominant the offsets are the axes and the diagonals between two of them (the
7-point stencil in two dimensions: Kushner and Dupuis, Numerical Methods for Stochastic
Control Problems in Continuous Time, 2nd ed., section 5.3.1). Elsewhere Selling's
reduction finds them in two and three dimensions (Selling, J. reine angew. Math. 77
(1874) 143; as a scheme: Fehrenbach and Mirebeau, J. Math. Imaging Vis. 49 (2014) 123).
"""

import numpy as np
from numba import njit

MOST_STEPS = 400
"""Reductions of one matrix; the offsets grow by one at least every few."""
NOTHING = 1e-14
"""Share of the trace below which a product counts as 0."""
STEPS_BACK = 9
"""Correlations are lowered by 4^-9 first, then by four times as much."""


@njit(cache=True, error_model="numpy")
def dominant(M, offsets, weights):
    """Axes and diagonals; False where a weight of an axis would be negative.

    M (d, d); writes offsets (d (d + 1) / 2, d) and weights, the axes first. NumPy:
    ``w_i = M_ii - sum_j |M_ij|`` and ``w_ij = |M_ij|`` along ``e_i + sign(M_ij) e_j``.
    """
    d = M.shape[0]
    offsets[:] = 0
    for i in range(d):
        left = M[i, i]
        for j in range(d):
            if j != i:
                left -= abs(M[i, j])
        if left < -NOTHING * M[i, i]:
            return False
        offsets[i, i] = 1
        weights[i] = max(left, 0.0)
    k = d
    for i in range(d):
        for j in range(i + 1, d):
            offsets[k, i] = 1
            offsets[k, j] = 1 if M[i, j] >= 0.0 else -1
            weights[k] = abs(M[i, j])
            k += 1
    return True


@njit(cache=True, error_model="numpy")
def product(M, a, b):
    """a' M b of two integer vectors."""
    total = 0.0
    for i in range(M.shape[0]):
        for j in range(M.shape[0]):
            total += a[i] * M[i, j] * b[j]
    return total


@njit(cache=True, error_model="numpy")
def reduce_superbase(M, base):
    """Make the superbase (d + 1, d) obtuse in place; False if that takes too long.

    A superbase sums to 0; it is obtuse when ``b_i' M b_j <= 0`` for all i < j. A pair
    with a positive product becomes (-b_i, b_j), and b_i is added to the others (twice
    in two dimensions): the sum of all ``b' M b`` falls.
    """
    d = M.shape[0]
    trace = 0.0
    for i in range(d):
        trace += M[i, i]
    for _ in range(MOST_STEPS):
        worst, one, two = NOTHING * trace, -1, -1
        for i in range(d + 1):
            for j in range(i + 1, d + 1):
                found = product(M, base[i], base[j])
                # Rounding of long vectors' products must not count as positive.
                slack = (
                    NOTHING * trace * (np.abs(base[i]).sum() + np.abs(base[j]).sum())
                )
                if found > worst and found > slack:
                    worst, one, two = found, i, j
        if one < 0:
            return True
        for k in range(d + 1):
            if k != one and k != two:
                for c in range(d):
                    base[k, c] += base[one, c] * (2 if d == 2 else 1)
        for c in range(d):
            base[one, c] = -base[one, c]
    return False


@njit(cache=True, error_model="numpy")
def selling(M, longest, base, scratch, offsets, weights):
    """Selling's decomposition of M (d, d), d = 2 or 3; False where it is too long.

    Offsets are the vectors orthogonal to all of the superbase but the pair (i, j),
    their weights ``-b_i' M b_j``. `longest` bounds the entries of the offsets.
    """
    d = M.shape[0]
    base[:] = 0
    for i in range(d):
        base[i, i], base[d, i] = 1, -1
    if not reduce_superbase(M, base):
        return False
    trace, k = 0.0, 0
    for i in range(d):
        trace += M[i, i]
    for i in range(d + 1):
        for j in range(i + 1, d + 1):
            weights[k] = -product(M, base[i], base[j])
            if d == 2:
                other = base[3 - i - j]
                offsets[k, 0], offsets[k, 1] = -other[1], other[0]
            else:
                p = 0
                while p in (i, j):
                    p += 1
                q = 6 - i - j - p
                a, b = base[p], base[q]
                for c in range(3):
                    e, f = (c + 1) % 3, (c + 2) % 3
                    offsets[k, c] = a[e] * b[f] - a[f] * b[e]
            k += 1
    refine(M, base, offsets, weights, scratch)
    for k in range(d * (d + 1) // 2):
        reach = np.abs(offsets[k]).max()
        if weights[k] * reach * reach <= 10.0 * NOTHING * trace:
            weights[k] = 0.0
        elif reach > longest:
            return False
    return True


@njit(cache=True, error_model="numpy")
def refine(M, base, offsets, weights, rest):
    """Add to the weights what rounding of long products left of M."""
    d = M.shape[0]
    for a in range(d):
        for b in range(d):
            rest[a, b] = M[a, b]
            for k in range(d * (d + 1) // 2):
                rest[a, b] -= weights[k] * (offsets[k, a] * offsets[k, b])
    k = 0
    for i in range(d + 1):
        for j in range(i + 1, d + 1):
            weights[k] -= product(rest, base[i], base[j])
            k += 1


@njit(cache=True, error_model="numpy")
def lowered(M, share, out):
    """M with its off-diagonal entries taken (1 - share) times."""
    for i in range(M.shape[0]):
        for j in range(M.shape[0]):
            out[i, j] = M[i, j] if i == j else (1.0 - share) * M[i, j]


@njit(cache=True, error_model="numpy")
def decompose(M, longest, base, scratch, offsets, weights):
    """Non-negative weights along offsets no longer than `longest`; returns the share
    by which the correlations were lowered for that (0 mostly), -1 where none will do.

    The least share, to a tenth of itself: of 0 and 4^-9 to 1. At 1 there are only
    axes left, so the search ends in two and three dimensions; beyond them the
    stencil must be dominant.
    """
    if dominant(M, offsets, weights):
        return 0.0
    if M.shape[0] > 3:
        return -1.0
    if selling(M, longest, base, scratch[1], offsets, weights):
        return 0.0
    share, low = 1.0, scratch[0]
    for back in range(STEPS_BACK, -1, -1):
        share = 0.25**back
        lowered(M, share, low)
        if dominant(low, offsets, weights):
            break
        if selling(low, longest, base, scratch[1], offsets, weights):
            break
    below = 0.25 * share
    for _ in range(4):
        middle = 0.5 * (below + share)
        lowered(M, middle, low)
        if selling(low, longest, base, scratch[1], offsets, weights):
            share = middle
        else:
            below = middle
    lowered(M, share, low)
    if not dominant(low, offsets, weights):
        selling(low, longest, base, scratch[1], offsets, weights)
    return share


@njit(cache=True, error_model="numpy")
def decompose_nodes(D, cross, longest, axis, offsets, weights, share):
    """`decompose` at every node, on the axes that are correlated there.

    D (d, n), cross (d (d - 1) / 2, n): diagonal and pairs (0, 1), (0, 2), ..., (1, 2)
    of the scaled matrix. Writes axis (d, n), the weights of the axes; offsets
    (K, d, n) and weights (K, n) of the others, K = d (d + 1) / 2; share (n). Returns
    the first node without a decomposition, or -1.
    """
    d, n_nodes = D.shape
    pairs = np.zeros((d, d))
    active = np.empty(d, np.int64)
    most = d * (d + 1) // 2
    own = np.zeros((most, d), np.int64)
    own_weights = np.zeros(most)
    for n in range(n_nodes):
        k = 0
        for i in range(d):
            pairs[i, i] = D[i, n]
            for j in range(i + 1, d):
                pairs[i, j] = cross[k, n]
                pairs[j, i] = cross[k, n]
                k += 1
        m = 0
        for i in range(d):
            axis[i, n] = D[i, n]
            for j in range(d):
                if j != i and pairs[i, j] != 0.0:
                    active[m] = i
                    m += 1
                    break
        for k in range(most):
            weights[k, n] = 0.0
        share[n] = 0.0
        if m == 0:
            continue
        M = np.empty((m, m))
        for i in range(m):
            axis[active[i], n] = 0.0
            for j in range(m):
                M[i, j] = pairs[active[i], active[j]]
        K = m * (m + 1) // 2
        part, part_weights = own[:K, :m], own_weights[:K]
        base = np.zeros((m + 1, m), np.int64)
        share[n] = decompose(M, longest, base, np.empty((2, m, m)), part, part_weights)
        if share[n] < 0.0:
            return n
        for k in range(K):
            size, last = 0, 0
            for i in range(m):
                if part[k, i] != 0:
                    size += abs(part[k, i])
                    last = i
            if size == 1:
                axis[active[last], n] += part_weights[k]
                continue
            weights[k, n] = part_weights[k]
            for i in range(d):
                offsets[k, i, n] = 0
            for i in range(m):
                offsets[k, active[i], n] = part[k, i]
    return -1


@njit(cache=True, error_model="numpy")
def add_rates(start, column, rate, x, out):
    """out[n] += sum over row n of rate (x[column] - x[n]); rows as in scipy's CSR."""
    for n in range(out.size):
        total = 0.0
        here = x[n]
        for k in range(start[n], start[n + 1]):
            total += rate[k] * (x[column[k]] - here)
        out[n] += total
