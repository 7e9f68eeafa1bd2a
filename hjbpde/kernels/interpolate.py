"""Tensor-product interpolation from flat C-order node values.

Every axis offers four consecutive nodes and weights for a point; the kernel only
multiplies and adds. One kernel serves linear and cubic interpolation, derivatives
and error estimates: they differ in the weights.
"""

import numpy as np
from numba import njit


@njit(cache=True, error_model="numpy")
def tensor(values, stride, source, weight, out):
    """out[i] = sum over the 4^d corners of prod_k weight[k, i, s_k] values[...].

    source, weight: (d, n, 4). NumPy: nested sums of ``weight * values[source]``.
    """
    d, n = source.shape[0], source.shape[1]
    corners = 4**d
    for i in range(n):
        total = 0.0
        for corner in range(corners):
            rest = corner
            w, at = 1.0, 0
            for k in range(d):
                s = rest % 4
                rest //= 4
                w *= weight[k, i, s]
                if w == 0.0:
                    break
                at += source[k, i, s] * stride[k]
            if w != 0.0:
                total += w * values[at]
        out[i] = total


@njit(cache=True, error_model="numpy")
def axis_weights(x, period, y, source, linear, cubic, slope, skew):
    """Nodes and weights of points y (n,) on one axis x; period 0: not periodic.

    ``cubic`` is the Lagrange cubic through four nodes (biased at the ends),
    ``slope`` its derivative, ``skew`` the difference QL - QR of the quadratics
    through the first and last three nodes, of which the cubic is a blend.
    NumPy: np.polyfit through the four nodes.
    """
    n = x.size
    t, L = np.empty(4), np.empty(4)
    for i in range(y.size):
        cell = np.searchsorted(x, y[i], side="right") - 1
        first = cell - 1
        if period == 0.0:
            cell = min(max(cell, 0), n - 2)
            first = min(max(cell - 1, 0), max(n - 4, 0))
        for s in range(4):
            at = first + s
            if period == 0.0 and at > n - 1:
                at = n - 1
            turn = at // n
            source[i, s] = at - turn * n
            t[s] = x[at - turn * n] + turn * period
            linear[i, s] = 0.0
            cubic[i, s] = 0.0
            slope[i, s] = 0.0
            skew[i, s] = 0.0
        c = cell - first
        step = t[c + 1] - t[c]
        linear[i, c] = (t[c + 1] - y[i]) / step
        linear[i, c + 1] = (y[i] - t[c]) / step
        used = 4 if n >= 4 else 3
        for s in range(used):
            value, derivative = 1.0, 0.0
            for q in range(used):
                if q != s:
                    gap = t[s] - t[q]
                    derivative = (derivative * (y[i] - t[q]) + value) / gap
                    value *= (y[i] - t[q]) / gap
            cubic[i, s] = value
            slope[i, s] = derivative
        if used < 4:
            continue
        for side in range(2):
            for s in range(3):
                w = 1.0
                for q in range(3):
                    if q != s:
                        a, b = t[side + s], t[side + q]
                        w *= (y[i] - b) / (a - b)
                L[s] = w
            sign = 1.0 if side == 0 else -1.0
            for s in range(3):
                skew[i, side + s] += sign * L[s]
