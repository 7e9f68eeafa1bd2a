"""Several values coupled at every node of a line, without cancellation.

Small matrices are kept as their negative off-diagonal part and their row sums, both
>= 0; every number of the elimination is then a sum of products of such numbers, so
it is right to round-off however large the weights (Alfa, Xue and Ye, Math. Comp. 71
(2002) 217, algorithm 1, here by blocks).
"""

import numpy as np
from numba import njit


@njit(cache=True)
def solve_excess(off, excess, rhs, scale):
    """Solve ``(diag(excess + sum_j off) - off) X = rhs``, all arrays overwritten.

    off (K, K) >= 0 (its diagonal is not read), excess (K) >= 0, rhs (K, q), scale
    (K) scratch. NumPy: np.linalg.solve(np.diag(excess + off.sum(1)) - off, rhs) with
    a zero diagonal in off.
    """
    K, q = rhs.shape
    for p in range(K):
        pivot = excess[p]
        for j in range(p + 1, K):
            pivot += off[p, j]
        scale[p] = 1.0 / pivot
        for i in range(p + 1, K):
            factor = off[i, p] * scale[p]
            if factor == 0.0:
                continue
            excess[i] += factor * excess[p]
            for j in range(p + 1, K):
                off[i, j] += factor * off[p, j]
            for c in range(q):
                rhs[i, c] += factor * rhs[p, c]
    for p in range(K - 1, -1, -1):
        for c in range(q):
            total = rhs[p, c]
            for j in range(p + 1, K):
                total += off[p, j] * rhs[j, c]
            rhs[p, c] = total * scale[p]


@njit(cache=True)
def block_thomas(c, lower, upper, rates, rhs, ahead, out):
    """Solve K tridiagonal systems coupled by rates, all arguments (K, N).

    ``(c + lower + upper)_k V_k - lower_k V_k- - upper_k V_k+ - sum_j q_kj (V_j -
    V_k) = rhs_k`` with c, lower, upper, q >= 0; rates (N, K, K) or (1, K, K), zero
    diagonal; ahead (N, K, K) scratch. NumPy: np.linalg.solve of the (K N, K N)
    matrix with those entries.
    """
    K, n = rhs.shape
    s = 1 if rates.shape[0] > 1 else 0
    off, excess = np.empty((K, K)), np.empty(K)
    both, scale = np.zeros((K, K + 2)), np.empty(K)
    for i in range(n):
        q = rates[i * s]
        for k in range(K):
            # Columns of `both`: weights ahead, mass lost, right-hand side; on entry
            # to the loop they hold the solved ones of the node before.
            from_below = lower[k, i] if i > 0 else 0.0
            excess[k] = c[k, i] + upper[k, i] + from_below * both[k, K]
            for j in range(K):
                off[k, j] = q[k, j] + from_below * both[k, j]
        for k in range(K):
            from_below = lower[k, i] if i > 0 else 0.0
            both[k, K + 1] = rhs[k, i] + from_below * both[k, K + 1]
            both[k, K] = c[k, i] + from_below * both[k, K]
            for j in range(K):
                both[k, j] = 0.0
            both[k, k] = upper[k, i]
        solve_excess(off, excess, both, scale)
        for k in range(K):
            out[k, i] = both[k, K + 1]
            for j in range(K):
                ahead[i, k, j] = both[k, j]
    for i in range(n - 2, -1, -1):
        for k in range(K):
            for j in range(K):
                out[k, i] += ahead[i, k, j] * out[j, i + 1]
