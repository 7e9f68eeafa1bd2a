"""Reading flat C-order node values at many points, and the weights of such readings.

Axes are packed into one array: ``axes`` (d, longest), ``sizes`` (d,), ``periods`` (d,),
0 where an axis is not periodic. Unlike `interpolate`, nothing is stored per point: a
semi-Lagrangian step reads millions of points once.
"""

import numpy as np
from numba import njit


@njit(cache=True, error_model="numpy", inline="always")
def axis_stencil(x, n, period, y, width, source, weight):
    """Nodes and Lagrange weights of the point y on one axis, `width` (2 or 4) of them.

    The cubic is that of the four nodes around the cell, shifted inwards at the ends;
    points beyond an end are read at the end. NumPy: np.polyfit through those nodes.
    """
    last = x[0] + period if period > 0.0 else x[n - 1]
    if period > 0.0:
        y -= np.floor((y - x[0]) / period) * period
    y = min(max(y, x[0]), last)
    cells = n if period > 0.0 else n - 1
    cell = min(int((y - x[0]) / (last - x[0]) * cells), cells - 1)
    while cell > 0 and y < x[cell]:
        cell -= 1
    while cell < cells - 1 and y >= x[cell + 1]:
        cell += 1
    first = cell
    if width == 4:
        first = cell - 1
        if period == 0.0:
            first = min(max(first, 0), n - 4)
    for s in range(width):
        at = first + s
        turn = 0
        if at < 0:
            turn = -1
        elif at >= n:
            turn = 1
        source[s] = at - turn * n
    for s in range(width):
        own = x[source[s]]
        if first + s < 0:
            own -= period
        elif first + s >= n:
            own += period
        product = 1.0
        for q in range(width):
            if q != s:
                other = x[source[q]]
                if first + q < 0:
                    other -= period
                elif first + q >= n:
                    other += period
                product *= (y - other) / (own - other)
        weight[s] = product


@njit(cache=True, error_model="numpy", inline="always")
def point_stencil(axes, sizes, periods, y, width, source, part):
    """`axis_stencil` of the point y (d,) on every axis: source, part (d, width)."""
    for k in range(sizes.size):
        axis_stencil(axes[k], sizes[k], periods[k], y[k], width, source[k], part[k])


@njit(cache=True, error_model="numpy")
def stencils(axes, sizes, periods, points, width, index, weight):
    """Flat node numbers and weights (n, width^d) of points (n, d).

    NumPy: outer products of `axis_stencil` over the axes, the last axis fastest.
    """
    d = sizes.size
    source = np.empty((d, width), np.int64)
    part = np.empty((d, width))
    for i in range(points.shape[0]):
        point_stencil(axes, sizes, periods, points[i], width, source, part)
        filled = 1
        index[i, 0] = 0
        weight[i, 0] = 1.0
        for k in range(d):
            for c in range(filled - 1, -1, -1):
                base, share = index[i, c] * sizes[k], weight[i, c]
                for s in range(width):
                    index[i, c * width + s] = base + source[k, s]
                    weight[i, c * width + s] = share * part[k, s]
            filled *= width


@njit(cache=True, error_model="numpy")
def readings(values, axes, sizes, periods, points, width, out):
    """out[i] = the interpolant of flat `values` at points[i].

    NumPy: ``(values[index] * weight).sum(1)`` with the `stencils` of the points.
    """
    d = sizes.size
    corners = width**d
    source = np.empty((d, width), np.int64)
    part = np.empty((d, width))
    for i in range(points.shape[0]):
        point_stencil(axes, sizes, periods, points[i], width, source, part)
        total = 0.0
        for corner in range(corners):
            rest, place, share, stride = corner, 0, 1.0, 1
            for k in range(d - 1, -1, -1):
                s = rest % width
                rest //= width
                place += source[k, s] * stride
                stride *= sizes[k]
                share *= part[k, s]
            total += share * values[place]
        out[i] = total


@njit(cache=True, error_model="numpy", inline="always")
def place(x, period, source, y, t):
    """Coordinates t (4,) of stencil nodes in order, y among them, and y's cell in it.

    t grows across the seam of a periodic axis; y beyond an end is moved to it.
    """
    t[0] = x[source[0]]
    for s in range(1, 4):
        t[s] = x[source[s]]
        if t[s] < t[s - 1]:
            t[s] += period
            if t[s] < t[s - 1]:
                t[s] += period
    if period > 0.0:
        y -= np.floor((y - t[0]) / period) * period
    y = min(max(y, t[0]), t[3])
    cell = 0
    while cell < 2 and y >= t[cell + 1]:
        cell += 1
    return y, cell


@njit(cache=True, error_model="numpy", inline="always")
def weno_value(t, v, y, cell, eps):
    """Two parabolas through three of four values v at t, by smoothness weighted, at y.

    Weights C / (eps + S)^2, C those that make the cubic of both and S the sum of h
    int Q'^2 and h^3 int Q''^2 over y's cell (Carlini, Ferretti and Russo, SIAM J. Sci.
    Comput. 27 (2005) 1071, section 2). NumPy: np.polyfit of each and np.polyint.
    """
    a, b = t[cell], t[cell + 1]
    h, share = b - a, (t[3] - y) / (t[3] - t[0])
    total, value = 0.0, 0.0
    for side in range(2):
        t0, t1, t2 = t[side], t[side + 1], t[side + 2]
        slope = (v[side + 1] - v[side]) / (t1 - t0)
        bend = ((v[side + 2] - v[side + 1]) / (t2 - t1) - slope) / (t2 - t0)
        left = slope + bend * (2.0 * a - t0 - t1)
        right = slope + bend * (2.0 * b - t0 - t1)
        rough = h * h * (left * left + left * right + right * right) / 3.0
        rough += 4.0 * h**4 * bend * bend
        weight = (share if side == 0 else 1.0 - share) / (eps + rough) ** 2
        total += weight
        value += weight * (v[side] + (y - t0) * (slope + bend * (y - t1)))
    return value / total


@njit(cache=True, error_model="numpy")
def guarded_readings(values, axes, sizes, periods, points, weno, limited, eps, out):
    """out[i] = a cubic reading at points[i] that overshoots little or not at all.

    weno: `weno_value` axis by axis, the last axis first; otherwise the cubic of
    `readings`. limited: cut to the range of the values at the corners of the cell.
    NumPy: for one axis, the scalar functions above point by point.
    """
    d = sizes.size
    source, part = np.empty((d, 4), np.int64), np.empty((d, 4))
    t, cell, y = np.empty((d, 4)), np.empty(d, np.int64), np.empty(d)
    block = np.empty(4**d)
    for i in range(points.shape[0]):
        point_stencil(axes, sizes, periods, points[i], 4, source, part)
        for k in range(d):
            y[k], cell[k] = place(axes[k], periods[k], source[k], points[i, k], t[k])
        low, high = np.inf, -np.inf
        for corner in range(4**d):
            rest, at, stride, beside = corner, 0, 1, True
            for k in range(d - 1, -1, -1):
                s = rest % 4
                rest //= 4
                at += source[k, s] * stride
                stride *= sizes[k]
                beside = beside and (s == cell[k] or s == cell[k] + 1)
            block[corner] = values[at]
            if beside:
                low, high = min(low, values[at]), max(high, values[at])
        count = 4**d
        for k in range(d - 1, -1, -1):
            count //= 4
            for row in range(count):
                v = block[4 * row : 4 * row + 4]
                if weno:
                    block[row] = weno_value(t[k], v, y[k], cell[k], eps)
                else:
                    block[row] = (part[k] * v).sum()
        out[i] = min(max(block[0], low), high) if limited else block[0]
