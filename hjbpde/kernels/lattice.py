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


@njit(cache=True, error_model="numpy")
def stencils(axes, sizes, periods, points, width, index, weight):
    """Flat node numbers and weights (n, width^d) of points (n, d).

    NumPy: outer products of `axis_stencil` over the axes, the last axis fastest.
    """
    d = sizes.size
    source = np.empty((d, width), np.int64)
    part = np.empty((d, width))
    for i in range(points.shape[0]):
        for k in range(d):
            axis_stencil(
                axes[k], sizes[k], periods[k], points[i, k], width, source[k], part[k]
            )
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
        for k in range(d):
            axis_stencil(
                axes[k], sizes[k], periods[k], points[i, k], width, source[k], part[k]
            )
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
