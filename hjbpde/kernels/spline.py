"""Cubic B-spline weights: smoothing interpolation with weights that are never negative.

A B-spline curve through the control points (x_i, V_i) reproduces linear functions. It
is off by ``h^2 V'' / 6`` wherever in its cell a point lies, where linear interpolation
is off by ``t (1 - t) h^2 V'' / 2``: less, but with a factor that changes with the grid
and has no limit, so that nested grids could not be compared.
"""

import numpy as np
from numba import njit


@njit(cache=True, error_model="numpy")
def place(x, period, i):
    """The control point of number i, periodic or continued linearly at the ends."""
    n = x.size
    if period > 0.0:
        turn = i // n
        return x[i - turn * n] + turn * period
    if i < 0:
        return 2.0 * x[0] - x[1]
    if i > n - 1:
        return 2.0 * x[n - 1] - x[n - 2]
    return x[i]


@njit(cache=True, error_model="numpy")
def basis(t, out):
    """The four cubic B-splines at t in [0, 1]."""
    u = 1.0 - t
    out[0] = u * u * u / 6.0
    out[1] = (4.0 + t * t * (3.0 * t - 6.0)) / 6.0
    out[2] = (4.0 + u * u * (3.0 * u - 6.0)) / 6.0
    out[3] = t * t * t / 6.0


@njit(cache=True, error_model="numpy")
def spline_weights(x, period, y, source, weight):
    """Nodes and weights (n, 4) of points y (n,) on one axis x; period 0: none.

    The parameter s of a point is where the curve's own abscissa ``sum_i B(s - i) x_i``
    is y, so that stretched axes keep linear functions. Ends are natural: the point
    beyond continues the line through the last two.
    NumPy: scipy.interpolate.BSpline(knots, x, 3) solved for y, then its basis.
    """
    n = x.size
    p, b = np.empty(4), np.empty(4)
    for i in range(y.size):
        cell = np.searchsorted(x, y[i], side="right") - 1
        if period == 0.0:
            cell = min(max(cell, 0), n - 2)
        # Where steps differ the curve passes nodes beside themselves.
        first = last = 0.0
        for _ in range(2):
            for s in range(4):
                p[s] = place(x, period, cell - 1 + s)
            first = (p[0] + 4.0 * p[1] + p[2]) / 6.0
            last = (p[1] + 4.0 * p[2] + p[3]) / 6.0
            if y[i] < first and (period > 0.0 or cell > 0):
                cell -= 1
            elif y[i] > last and (period > 0.0 or cell < n - 2):
                cell += 1
            else:
                break
        low, high = 0.0, 1.0
        t = min(max((y[i] - first) / (last - first), 0.0), 1.0)
        for _ in range(60):
            basis(t, b)
            miss = b[0] * p[0] + b[1] * p[1] + b[2] * p[2] + b[3] * p[3] - y[i]
            if abs(miss) <= 1e-15 * (abs(y[i]) + last - first):
                break
            if miss > 0.0:
                high = t
            else:
                low = t
            u = 1.0 - t
            slope = 0.5 * (
                u * u * (p[1] - p[0])
                + (1.0 + 2.0 * t * u) * (p[2] - p[1])
                + t * t * (p[3] - p[2])
            )
            t -= miss / slope
            if t <= low or t >= high:
                t = 0.5 * (low + high)
            if high - low < 1e-16:
                break
        if period == 0.0 and y[i] <= x[0]:
            t = 0.0
        if period == 0.0 and y[i] >= x[n - 1]:
            t = 1.0
        basis(t, b)
        for s in range(4):
            at = cell - 1 + s
            if period > 0.0:
                source[i, s] = at % n
            else:
                source[i, s] = min(max(at, 0), n - 1)
            weight[i, s] = b[s]
        if period == 0.0 and cell == 0:
            weight[i, 1] += 2.0 * b[0]
            weight[i, 2] -= b[0]
            weight[i, 0] = 0.0
        if period == 0.0 and cell == n - 2:
            weight[i, 2] += 2.0 * b[3]
            weight[i, 1] -= b[3]
            weight[i, 3] = 0.0
