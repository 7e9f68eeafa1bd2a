"""One-sided first derivatives along one axis: first order, ENO2, WENO3, WENO5.

An axis of an array is seen as ``(outer, n, inner)``. Divided differences of a block
of lines go to a small scratch first; then a cell, the interval between two neighbours
on a line, gives a slope to each of them: the plus derivative of the node below and the
minus derivative of the node above have the same differences. Every loop runs over unit
strides and vectorises.

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

GHOSTS = 3
WIDTH = 256
"""Neighbouring lines worked on at once, at most."""
CELLS = 8192
"""Cells of neighbouring lines worked on at once, at most."""
BATCH = 1024
"""Nodes of contiguous lines worked on at once: they stay in the first-level cache."""
STRIP = 2 * GHOSTS + 1
"""Differences that the cells -1, 0, 1 of a line depend on, and the last three."""
THIRD, SIXTH = 1.0 / 3.0, 1.0 / 6.0
FLAGS = {"contract", "reassoc", "nsz"}
"""What may be reordered; NaN and infinity keep their meaning. The error model of the
reconstructions is NumPy's: a check for division by zero would forbid vectors."""


def scratch_size(shape: tuple[int, ...]) -> int:
    """Doubles of scratch for every axis of an array of this shape."""
    return max(CELLS + 2 * GHOSTS * WIDTH, shape[-1] + STRIP * BATCH)


@njit(cache=True)
def _source(m, n, ghosts):
    """The interval whose difference interval m takes, -3 <= m <= n + 1, and the rule.

    LINEAR: as it is; MIRROR: turned round; AWAY_FROM_ZERO: turned by the sign of the
    end value. Interval m lies between the nodes m and m + 1.
    """
    if 0 <= m < n - 1:
        return m, LINEAR
    code = ghosts[0] if m < 0 else ghosts[1]
    if code == PERIODIC:
        return (m + n if m < 0 else (m - n if m >= n else m)), LINEAR
    if code == MIRROR:
        return max(-1 - m if m < 0 else 2 * n - 3 - m, 0), MIRROR
    return (0 if m < 0 else n - 2), code


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
    A, B, C, E, F = D, D[s:], D[2 * s :], D[3 * s :], D[4 * s :]
    if scheme == WENO5:
        for j in range(lower.size):
            ends = _weno5_cell(A[j], B[j], C[j], E[j], F[j], 0.75 * eps)
            lower[j], upper[j] = ends
    elif scheme == WENO3:
        for j in range(lower.size):
            lower[j], upper[j] = _weno3_cell(B[j], C[j], E[j], eps)
    elif scheme == ENO2:
        for j in range(lower.size):
            lower[j], upper[j] = _eno2_cell(B[j], C[j], E[j])
    else:
        for j in range(lower.size):
            lower[j] = upper[j] = C[j]


@njit(cache=True, fastmath=FLAGS, error_model="numpy")
def _cell_rows(D, s, scheme, eps, lower, upper):
    """Cells of neighbouring lines, the rows of D s apart."""
    _cells(D, s, scheme, eps, lower, upper)


@njit(cache=True, fastmath=FLAGS, error_model="numpy")
def _cell_line(D, scheme, eps, lower, upper):
    """Cells of one contiguous line."""
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
def _interval_row(V, low, m, n, inner, inverse, ghosts, out):
    """out = difference across interval m of the lines whose first nodes are at low."""
    source, rule = _source(m, n, ghosts)
    w, here = out.size, low + source * inner
    above = low if source == n - 1 else here + inner
    _difference_row(V[here : here + w], V[above : above + w], inverse[source], out)
    if rule == MIRROR:
        for j in range(w):
            out[j] = -out[j]
    elif rule == AWAY_FROM_ZERO:
        end, side = low if m < 0 else low + (n - 1) * inner, -1.0 if m < 0 else 1.0
        for j in range(w):
            out[j] = side * np.sign(V[end + j]) * abs(out[j])


@njit(cache=True)
def _differences(V, low, first, last, axis, ghosts, w, D):
    """Rows of D: across the intervals first, ..., last - 1 of the w lines at low."""
    n, inner, inverse, _, _ = axis
    for m in range(first, last):
        row, at = (m - first) * w, low + m * inner
        if 0 <= m < n - 1:
            here, above = V[at : at + w], V[at + inner : at + inner + w]
            _difference_row(here, above, inverse[m], D[row : row + w])
        else:
            _interval_row(V, low, m, n, inner, inverse, ghosts, D[row : row + w])


@njit(cache=True)
def _rows_of_lines(V, low, i, rows, axis, ghosts, carried, minus, plus, D):
    """`rows_along` of as many lines as `carried` has entries."""
    _, inner, _, scheme, eps = axis
    w, first = carried.size, (-1 if i == 0 else i)
    _differences(V, low, first - 2, i + rows + 2, axis, ghosts, w, D)
    if i == 0:
        # The cell below has an upper node only.
        _cell_rows(D, w, scheme, eps, minus[:w], carried)
        D = D[w:]
    for j in range(w):
        minus[j] = carried[j]
    # All but the last row at once where rows of lines are next to each other.
    step = max(rows - 1, 1) if w == inner else 1
    for r in range(0, rows - 1, step):
        at = r * inner
        lower, upper = plus[at : at + step * w], minus[at + inner :][: step * w]
        _cell_rows(D[r * w :], w, scheme, eps, lower, upper)
    last = (rows - 1) * inner
    _cell_rows(D[(rows - 1) * w :], w, scheme, eps, plus[last : last + w], carried)


@njit(cache=True)
def rows_along(V, low, i, rows, axis, ghosts, carried, minus, plus, D):
    """Both derivatives at the nodes i, ..., i + rows - 1 of neighbouring lines.

    low: flat index of node 0 of the first line; the lines are as many as `carried` has
    entries. axis: (n, inner, inverse, scheme, eps) as in `one_sided_along`. minus,
    plus: results from node i on, rows `inner` apart. carried: the minus derivative at
    node i, left there by the call for node i - 1 (not read where i = 0); on return
    that at node i + rows.
    """
    lines, inner = carried.size, axis[1]
    parts = (lines + WIDTH - 1) // WIDTH
    most = max(1, CELLS * parts // lines)
    for part in range(parts):
        j0, j1 = lines * part // parts, lines * (part + 1) // parts
        edge = carried[j0:j1]
        for r in range(0, rows, most):
            back, fore = minus[j0 + r * inner :], plus[j0 + r * inner :]
            some = min(most, rows - r)
            _rows_of_lines(V, low + j0, i + r, some, axis, ghosts, edge, back, fore, D)


@njit(cache=True)
def _strip(V, m, n, lines, inverse, ghosts, out):
    """out = difference across interval m of contiguous lines."""
    source, rule = _source(m, n, ghosts)
    step = 1 - n if source == n - 1 else 1
    end, side = (0, -1.0) if m < 0 else (n - 1, 1.0)
    scale = -inverse[source] if rule == MIRROR else inverse[source]
    for i in range(lines):
        at = i * n + source
        out[i] = (V[at + step] - V[at]) * scale
        if rule == AWAY_FROM_ZERO:
            out[i] = side * np.sign(V[i * n + end]) * abs(out[i])


@njit(cache=True)
def _line_ends(V, axis, ghosts, minus, plus, D):
    """The derivatives that depend on what lies beyond the ends of contiguous lines.

    Those of the cells -1, 0, 1 and of the last three: differences around an end are
    put side by side for all lines, as if they were rows.
    """
    n, _, inverse, scheme, eps = axis
    lines = V.size // n
    lower, upper = np.empty(3 * lines), np.empty(3 * lines)
    for first in (-1, n - 3):
        for r in range(STRIP):
            row = D[r * lines : (r + 1) * lines]
            _strip(V, first - 2 + r, n, lines, inverse, ghosts, row)
        _cell_rows(D, lines, scheme, eps, lower, upper)
        for r in range(3):
            m = first + r
            for i in range(lines):
                if m >= 0:
                    plus[i * n + m] = lower[r * lines + i]
                if m < n - 1:
                    minus[i * n + m + 1] = upper[r * lines + i]


@njit(cache=True)
def _along_lines(V, axis, ghosts, minus, plus, D):
    """`one_sided_along` of contiguous lines, some at a time.

    One loop over all their cells, those that straddle two lines included: what they
    leave next to the ends is mended after. Loops over single lines end in odd cells.
    """
    n, _, inverse, scheme, eps = axis
    most = n * max(1, BATCH // n)
    for start in range(0, V.size, most):
        size = min(most, V.size - start)
        lines = V[start : start + size]
        back, fore = minus[start : start + size], plus[start : start + size]
        for i in range(0, size, n):
            _difference_line(lines[i : i + n], inverse, D[i : i + n])
        _cell_line(D, scheme, eps, fore[2 : size - 3], back[3 : size - 2])
        _line_ends(lines, axis, ghosts, back, fore, D)


@njit(cache=True)
def one_sided_along(V, n, inner, inverse, scheme, eps, ghosts, minus, plus, D):
    """Left and right derivatives of V (flat, C order) along the axis of n nodes.

    inner: product of the lengths of the axes after it. inverse (n,): 1 / distance to
    the upper neighbour (the seam last; any number there where not periodic).
    ghosts (2,): codes of the low and high end, PERIODIC in both or in neither.
    minus, plus (flat): results. D: scratch of `scratch_size`.

    First order: ``minus[i] = (V[i] - V[i-1]) / h``, ``plus[i] = (V[i+1] - V[i]) / h``.
    """
    axis = (n, inner, inverse, scheme, eps)
    if inner == 1:
        _along_lines(V, axis, ghosts, minus, plus, D)
        return
    carried = np.empty(inner)
    for low in range(0, V.size, n * inner):
        rows_along(V, low, 0, n, axis, ghosts, carried, minus[low:], plus[low:], D)
