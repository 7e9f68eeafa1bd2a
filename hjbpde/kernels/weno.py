"""One-sided first derivatives along one axis: first order, ENO2, WENO3, WENO5.

An axis of an array is seen as ``(outer, n, inner)``. Divided differences of a block
of lines go to a small scratch first, rows `WIDTH` apart, so that every loop runs
over unit strides at offsets the compiler knows, and vectorises.

Sources: Osher and Shu, SIAM J. Numer. Anal. 28 (1991), section 3 (ENO);
Jiang and Peng, SIAM J. Sci. Comput. 21 (2000), equations 2.8 to 2.13 (WENO5) and
the two-stencil case of the same construction (WENO3).
"""

import numpy as np
from numba import njit

FIRST = 1
ENO2 = 2
WENO3 = 3
WENO5 = 5

PERIODIC = 0
LINEAR = 1
AWAY_FROM_ZERO = 2
MIRROR = 3

WIDTH = 64
GHOSTS = 3
BATCH = 1024
"""Nodes of contiguous lines worked on at once: they stay in the first-level cache."""
THIRD, SIXTH = 1.0 / 3.0, 1.0 / 6.0
FLAGS = {"contract", "reassoc", "nsz"}
"""What may be reordered; NaN and infinity keep their meaning. The error model of the
reconstructions is NumPy's: a check for division by zero would forbid vectors."""


def scratch_size(shape: tuple[int, ...]) -> int:
    """Doubles of scratch for every axis of an array of this shape."""
    return (max(shape) + 2 * GHOSTS) * WIDTH


@njit(cache=True)
def _ghost_differences(D, n, stride, w, ghosts, low_end, high_end):
    """Fill the differences beyond both ends; row k holds interval k - GHOSTS.

    ghosts: the two codes. low_end, high_end: the end values of the w lines, read by
    AWAY_FROM_ZERO only.
    """
    low, high = GHOSTS * stride, (GHOSTS + n - 2) * stride
    for g in range(GHOSTS):
        left, right = low - (1 + g) * stride, high + (1 + g) * stride
        for j in range(w):
            if ghosts[0] == LINEAR:
                D[left + j] = D[low + j]
            elif ghosts[0] == MIRROR:
                D[left + j] = -D[low + g * stride + j]
            else:
                D[left + j] = -np.sign(low_end[j]) * abs(D[low + j])
            if ghosts[1] == LINEAR:
                D[right + j] = D[high + j]
            elif ghosts[1] == MIRROR:
                D[right + j] = -D[high - g * stride + j]
            else:
                D[right + j] = np.sign(high_end[j]) * abs(D[high + j])


@njit(cache=True)
def _periodic_differences(D, n, stride, w):
    """Fill the ghost differences from the other end; the seam is there already."""
    for g in range(GHOSTS):
        left, source = g * stride, (g + n) * stride
        for j in range(w):
            D[left + j] = D[source + j]
    for g in range(GHOSTS - 1):
        right, source = (GHOSTS + n + g) * stride, (GHOSTS + g) * stride
        for j in range(w):
            D[right + j] = D[source + j]


@njit(cache=True, inline="always")
def _weno5_cell(a, b, c, d, e, eps):
    """Jiang-Peng at both ends of the cell with difference c, from its neighbours'.

    Smoothness is three quarters of equation 2.12, expanded in second differences f_k:
    a positive definite form, so nothing cancels. The stencils of one end are those of
    the other mirrored: indicators s, their products and one division serve both, and
    weights count what an outer stencil adds to the central one.
    """
    f0, f1, f2, f3 = b - a, c - b, d - c, e - d
    q1, q2 = f1 * f1, f2 * f2
    s0 = f0 * (f0 - 2.75 * f1) + (2.5 * q1 + eps)
    s1 = f1 * (f1 - 1.25 * f2) + (q2 + eps)
    s2 = f3 * (f3 - 2.75 * f2) + (2.5 * q2 + eps)
    w0, w1, w2 = (s1 * s2) ** 2, (s0 * s2) ** 2, (s0 * s1) ** 2
    both = 6.0 * w1 + w0 + w2
    lower_sum, upper_sum = both + 2.0 * w0, both + 2.0 * w2
    below, above = w0 * (f0 - 2.0 * f1 + f2), w2 * (f1 - 2.0 * f2 + f3)
    twice = 2.0 * (below + above)
    inverse = SIXTH / (lower_sum * upper_sum)
    lower = (c - THIRD * f1 - SIXTH * f2) + (twice + below) * upper_sum * inverse
    upper = (c + SIXTH * f1 + THIRD * f2) - (twice + above) * lower_sum * inverse
    return lower, upper


@njit(cache=True, inline="always")
def _weno3_cell(b, c, d, eps):
    """Two stencils an end, weights 1/3 and 2/3, the flatter one favoured."""
    below, above = c - b, d - c
    w0, w1 = (above * above + eps) ** 2, (below * below + eps) ** 2
    lower = (w1 * above + 2.0 * w0 * below) / (w1 + 2.0 * w0)
    upper = (w0 * below + 2.0 * w1 * above) / (w0 + 2.0 * w1)
    return c - 0.5 * lower, c + 0.5 * upper


@njit(cache=True, inline="always")
def _eno2_cell(b, c, d):
    """Osher-Shu: the smaller neighbouring second difference, the left one on ties."""
    below, above = c - b, d - c
    half = 0.5 * (above if abs(above) < abs(below) else below)
    return c - half, c + half


@njit(cache=True, inline="always")
def _cells(D, s, scheme, eps, lower, upper):
    """Slopes at both ends of cells; cell j has the differences j, j + s, ..., j + 4 s.

    lower, upper: at the nodes below and above, seen from within the cell, so the plus
    derivative of the one and the minus derivative of the other.
    """
    if scheme == WENO5:
        for j in range(lower.size):
            a, b, c = D[j], D[s + j], D[2 * s + j]
            d, e = D[3 * s + j], D[4 * s + j]
            lower[j], upper[j] = _weno5_cell(a, b, c, d, e, 0.75 * eps)
    elif scheme == WENO3:
        for j in range(lower.size):
            b, c, d = D[s + j], D[2 * s + j], D[3 * s + j]
            lower[j], upper[j] = _weno3_cell(b, c, d, eps)
    elif scheme == ENO2:
        for j in range(lower.size):
            b, c, d = D[s + j], D[2 * s + j], D[3 * s + j]
            lower[j], upper[j] = _eno2_cell(b, c, d)
    else:
        for j in range(lower.size):
            lower[j] = upper[j] = D[2 * s + j]


@njit(cache=True, fastmath=FLAGS, error_model="numpy")
def _cell_row(D, scheme, eps, lower, upper):
    """One row of cells, rows of D `WIDTH` apart."""
    _cells(D, WIDTH, scheme, eps, lower, upper)


@njit(cache=True, fastmath=FLAGS, error_model="numpy")
def _cell_line(D, scheme, eps, lower, upper):
    """All cells of one contiguous line."""
    _cells(D, 1, scheme, eps, lower, upper)


@njit(cache=True)
def _difference_row(here, above, inverse, out):
    for j in range(out.size):
        out[j] = (above[j] - here[j]) * inverse


@njit(cache=True)
def _difference_line(line, inverse, out):
    for j in range(line.size - 1):
        out[j] = (line[j + 1] - line[j]) * inverse[j]


@njit(cache=True)
def _cells_to_rows(D, n, inner, w, scheme, eps, plus, minus):
    """Both derivatives of n rows of w nodes from the cells -1, ..., n - 1."""
    spare = D[(n + 2 * GHOSTS - 1) * WIDTH :][:w]
    for m in range(-1, n):
        lower = plus[m * inner : m * inner + w] if m >= 0 else spare
        upper = minus[(m + 1) * inner : (m + 1) * inner + w] if m < n - 1 else spare
        _cell_row(D[(m + 1) * WIDTH :], scheme, eps, lower, upper)


@njit(cache=True)
def _along_lines(V, n, inverse, scheme, eps, ghosts, minus, plus):
    """`one_sided_along` of contiguous lines, many side by side in scratch.

    One loop over all their cells, those that straddle two lines included (nobody
    reads them): loops over single lines end in too many odd cells.
    """
    pitch = n + 2 * GHOSTS - 1
    most = max(1, BATCH // pitch)
    D, lower = np.empty(most * pitch), np.empty(most * pitch)
    upper = np.empty(most * pitch)
    for start in range(0, V.size, most * n):
        lines = min(most, (V.size - start) // n)
        for i in range(lines):
            low = start + i * n
            line, row = V[low : low + n], D[i * pitch : (i + 1) * pitch]
            _difference_line(line, inverse, row[GHOSTS:])
            if ghosts[0] == PERIODIC:
                row[GHOSTS + n - 1] = (line[0] - line[n - 1]) * inverse[n - 1]
                _periodic_differences(row, n, 1, 1)
            else:
                _ghost_differences(row, n, 1, 1, ghosts, line[:1], line[n - 1 :])
        cells = lines * pitch - 4
        if scheme == FIRST:
            lower = upper = D[2:]
        else:
            _cell_line(D, scheme, eps, lower[:cells], upper[:cells])
        for i in range(lines):
            low, row = start + i * n, i * pitch
            for j in range(n):
                plus[low + j] = lower[row + j + 1]
                minus[low + j] = upper[row + j]


@njit(cache=True)
def _along_rows(V, n, inner, inverse, scheme, eps, ghosts, minus, plus, D):
    """`one_sided_along` of any other axis, `WIDTH` neighbouring lines at a time."""
    for start in range(0, V.size, n * inner):
        for j0 in range(0, inner, WIDTH):
            w, low = min(WIDTH, inner - j0), start + j0
            for i in range(n - 1):
                at, row = low + i * inner, (GHOSTS + i) * WIDTH
                here, above = V[at : at + w], V[at + inner : at + inner + w]
                _difference_row(here, above, inverse[i], D[row : row + w])
            last = low + (n - 1) * inner
            ends = V[low : low + w], V[last : last + w]
            if ghosts[0] == PERIODIC:
                row = (GHOSTS + n - 1) * WIDTH
                _difference_row(ends[1], ends[0], inverse[n - 1], D[row : row + w])
                _periodic_differences(D, n, WIDTH, w)
            else:
                _ghost_differences(D, n, WIDTH, w, ghosts, ends[0], ends[1])
            _cells_to_rows(D, n, inner, w, scheme, eps, plus[low:], minus[low:])


@njit(cache=True)
def one_sided_along(V, n, inner, inverse, scheme, eps, ghosts, minus, plus, D):
    """Left and right derivatives of V (flat, C order) along the axis of n nodes.

    inner: product of the lengths of the axes after it. inverse (n,): 1 / distance to
    the upper neighbour (the seam last; any number there where not periodic).
    ghosts (2,): codes of the low and high end, PERIODIC in both or in neither.
    minus, plus (flat): results. D: scratch of `scratch_size`.

    First order: ``minus[i] = (V[i] - V[i-1]) / h``, ``plus[i] = (V[i+1] - V[i]) / h``.
    """
    if inner == 1:
        _along_lines(V, n, inverse, scheme, eps, ghosts, minus, plus)
    else:
        _along_rows(V, n, inner, inverse, scheme, eps, ghosts, minus, plus, D)
