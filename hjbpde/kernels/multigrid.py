"""Line Gauss-Seidel sweeps, transfers and residuals on flat C-order arrays.

Rows are ``(c + sum(lower + upper)) x - lower x_- - upper x_+ = b`` with the faces
folded in: a weight that points out of the grid is 0. Each line along the last axis
is solved exactly, line after line, so noise or drift that is strong along that axis
costs nothing and the others are covered by the order of the lines.
"""

import numpy as np
from numba import njit

from .upwind import HYBRID, strides, unravel


@njit(cache=True, error_model="numpy")
def line_factors(shape, lower, upper, c, inverse, ratio):
    """Elimination factors of every line, carried without cancellation.

    NumPy of one line: the Thomas algorithm of diag(c + sum of all weights).
    """
    d = shape.size
    n = shape[d - 1]
    last = d - 1
    for row in range(c.size // n):
        base = row * n
        for j in range(n):
            ratio[base + j] = c[base + j]
        for k in range(last):
            for j in range(n):
                ratio[base + j] += lower[k, base + j] + upper[k, base + j]
        excess = 1.0
        for j in range(n):
            m = ratio[base + j] + lower[last, base + j] * excess
            up = upper[last, base + j]
            inv = 1.0 / (m + up)
            excess = m * inv
            ratio[base + j] = up * inv
            inverse[base + j] = inv


@njit(cache=True, error_model="numpy")
def line_sweep(shape, periodic, lower, upper, inverse, ratio, b, x, flips, acc):
    """One Gauss-Seidel pass over all lines; bit k of `flips` reverses axis k."""
    d = shape.size
    n = shape[d - 1]
    last = d - 1
    index = np.zeros(d, np.int64)
    stride = strides(shape, 0)
    for row in range(b.size // n):
        unravel(row, shape, index)
        base = 0
        for k in range(last):
            if (flips >> k) & 1:
                index[k] = shape[k] - 1 - index[k]
            base += index[k] * stride[k]
        for j in range(n):
            acc[j] = b[base + j]
        for k in range(last):
            s = stride[k]
            down = base - s if index[k] > 0 else base + (shape[k] - 1) * s
            up = base + s if index[k] < shape[k] - 1 else base - (shape[k] - 1) * s
            if index[k] > 0 or periodic[k]:
                for j in range(n):
                    acc[j] += lower[k, base + j] * x[down + j]
            if index[k] < shape[k] - 1 or periodic[k]:
                for j in range(n):
                    acc[j] += upper[k, base + j] * x[up + j]
        if periodic[last]:
            acc[0] += lower[last, base] * x[base + n - 1]
            acc[n - 1] += upper[last, base + n - 1] * x[base]
        value = 0.0
        for j in range(n):
            value = (acc[j] + lower[last, base + j] * value) * inverse[base + j]
            acc[j] = value
        x[base + n - 1] = acc[n - 1]
        for j in range(n - 2, -1, -1):
            x[base + j] = acc[j] + ratio[base + j] * x[base + j + 1]


@njit(cache=True, error_model="numpy")
def first_sweep(shape, periodic, lower, upper, inverse, ratio, b, x, residual, acc):
    """`line_sweep` from x = 0 in rising order, and the residual that it leaves.

    A line solved exactly is left with what its later neighbours then became, so the
    residual costs one weight a line instead of a pass over the whole operator.
    """
    d = shape.size
    n = shape[d - 1]
    last = d - 1
    index = np.zeros(d, np.int64)
    stride = strides(shape, 0)
    for row in range(b.size // n):
        unravel(row, shape, index)
        base = row * n
        for j in range(n):
            acc[j] = b[base + j]
            residual[base + j] = 0.0
        for k in range(last):
            if index[k] > 0:
                down = base - stride[k]
                for j in range(n):
                    acc[j] += lower[k, base + j] * x[down + j]
            if periodic[k] and index[k] == shape[k] - 1:
                first = base - (shape[k] - 1) * stride[k]
                for j in range(n):
                    acc[j] += upper[k, base + j] * x[first + j]
        value = 0.0
        for j in range(n):
            value = (acc[j] + lower[last, base + j] * value) * inverse[base + j]
            acc[j] = value
        x[base + n - 1] = acc[n - 1]
        for j in range(n - 2, -1, -1):
            x[base + j] = acc[j] + ratio[base + j] * x[base + j + 1]
        if periodic[last]:
            residual[base] += lower[last, base] * x[base + n - 1]
            residual[base + n - 1] += upper[last, base + n - 1] * x[base]
        for k in range(last):
            if index[k] > 0:
                down = base - stride[k]
                for j in range(n):
                    residual[down + j] += upper[k, down + j] * x[base + j]
            if periodic[k] and index[k] == shape[k] - 1:
                first = base - (shape[k] - 1) * stride[k]
                for j in range(n):
                    residual[first + j] += lower[k, first + j] * x[base + j]


@njit(cache=True, error_model="numpy")
def rows_residual(shape, periodic, lower, upper, c, b, x, out):
    """out = b - c x + sum_k lower (x_- - x) + upper (x_+ - x)."""
    d = shape.size
    n = shape[d - 1]
    last = d - 1
    index = np.zeros(d, np.int64)
    stride = strides(shape, 0)
    for row in range(b.size // n):
        unravel(row, shape, index)
        base = row * n
        for j in range(n):
            out[base + j] = b[base + j] - c[base + j] * x[base + j]
        for k in range(last):
            s = stride[k]
            down = base - s if index[k] > 0 else base + (shape[k] - 1) * s
            up = base + s if index[k] < shape[k] - 1 else base - (shape[k] - 1) * s
            if index[k] > 0 or periodic[k]:
                for j in range(n):
                    out[base + j] += lower[k, base + j] * (x[down + j] - x[base + j])
            if index[k] < shape[k] - 1 or periodic[k]:
                for j in range(n):
                    out[base + j] += upper[k, base + j] * (x[up + j] - x[base + j])
        for j in range(1, n):
            out[base + j] += lower[last, base + j] * (x[base + j - 1] - x[base + j])
        for j in range(n - 1):
            out[base + j] += upper[last, base + j] * (x[base + j + 1] - x[base + j])
        if periodic[last]:
            e = base + n - 1
            out[base] += lower[last, base] * (x[e] - x[base])
            out[e] += upper[last, e] * (x[base] - x[e])


@njit(cache=True, error_model="numpy")
def restrict_axis(fine, n_outer, n_fine, n_inner, source, weights, coarse):
    """coarse[c] = sum_q weights[c, q] fine[source[c, q]] along one axis, q < 3."""
    n_coarse = source.shape[0]
    for o in range(n_outer):
        for c in range(n_coarse):
            out = (o * n_coarse + c) * n_inner
            one = (o * n_fine + source[c, 0]) * n_inner
            two = (o * n_fine + source[c, 1]) * n_inner
            three = (o * n_fine + source[c, 2]) * n_inner
            w1, w2, w3 = weights[c, 0], weights[c, 1], weights[c, 2]
            for j in range(n_inner):
                coarse[out + j] = (
                    w1 * fine[one + j] + w2 * fine[two + j] + w3 * fine[three + j]
                )


@njit(cache=True, error_model="numpy")
def prolong_axis(coarse, n_outer, n_coarse, n_inner, source, weight, add, fine):
    """fine[i] (+)= (1 - weight[i]) coarse[source[i, 0]] + weight[i] coarse[.., 1]."""
    n_fine = weight.size
    for o in range(n_outer):
        for i in range(n_fine):
            out = (o * n_fine + i) * n_inner
            one = (o * n_coarse + source[i, 0]) * n_inner
            two = (o * n_coarse + source[i, 1]) * n_inner
            w = weight[i]
            if add:
                for j in range(n_inner):
                    fine[out + j] += (1.0 - w) * coarse[one + j] + w * coarse[two + j]
            else:
                for j in range(n_inner):
                    fine[out + j] = (1.0 - w) * coarse[one + j] + w * coarse[two + j]


@njit(cache=True, error_model="numpy")
def effective_noise(scheme, shape, hm, hp, f, D, out):
    """Noise with the scheme's own: max(D, |f| h/2) or, upwind, D + |f| h/2."""
    d = shape.size
    n = shape[d - 1]
    index = np.zeros(d, np.int64)
    s_D = 1 if D.shape[1] > 1 else 0
    for row in range(f.shape[1] // n):
        unravel(row, shape, index)
        base = row * n
        for k in range(d):
            for j in range(n):
                at = j if k == d - 1 else index[k]
                drift, noise = f[k, base + j], D[k, (base + j) * s_D]
                extra = 0.5 * max(drift * hp[k, at], -drift * hm[k, at])
                if scheme == HYBRID:
                    out[k, base + j] = max(noise, extra)
                else:
                    out[k, base + j] = noise + extra


@njit(cache=True, error_model="numpy")
def dense_factor(A):
    """LU factors of an M-matrix in place, no pivoting; NumPy: scipy.linalg.lu."""
    n = A.shape[0]
    for k in range(n):
        for i in range(k + 1, n):
            if A[i, k] != 0.0:
                A[i, k] /= A[k, k]
                factor = A[i, k]
                upper, mine = A[k, k + 1 :], A[i, k + 1 :]
                for j in range(mine.size):
                    mine[j] -= factor * upper[j]


@njit(cache=True, error_model="numpy")
def dense_solve(LU, b, x):
    """x = A^-1 b from the factors; NumPy: np.linalg.solve."""
    n = b.size
    for i in range(n):
        total = b[i]
        for j in range(i):
            total -= LU[i, j] * x[j]
        x[i] = total
    for i in range(n - 1, -1, -1):
        total = x[i]
        for j in range(i + 1, n):
            total -= LU[i, j] * x[j]
        x[i] = total / LU[i, i]
