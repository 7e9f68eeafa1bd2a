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
def _weno5_row(D, s, eps, minus, plus):
    """Jiang-Peng from the six differences 0, s, ..., 5 s of each node.

    Smoothness is three times equation 2.12, expanded in second differences e_k: a
    positive definite form, so nothing cancels; both sides share its terms and one
    division.
    """
    eps = 3.0 * eps
    for j in range(minus.size):
        c, d = D[2 * s + j], D[3 * s + j]
        e1, e2, e3 = c - D[s + j], d - c, D[4 * s + j] - d
        e0 = D[s + j] - D[j]
        e4 = D[5 * s + j] - D[4 * s + j]
        q1, q2, q3 = 4.0 * e1 * e1 + eps, e2 * e2, 4.0 * e3 * e3 + eps
        m1, m2 = e1 * e2, e2 * e3
        s0 = q1 + e1 * (6.0 * e1 - 11.0 * e0) + 4.0 * e0 * e0
        s1 = q1 + 4.0 * q2 - 5.0 * m1
        s2 = q3 + 10.0 * q2 - 11.0 * m2
        z01, z02, z12 = s0 * s1, s0 * s2, s1 * s2
        w0, w1, w2 = z12 * z12, 6.0 * z02 * z02, 3.0 * z01 * z01
        left = w0 * (5.0 * e1 - 2.0 * e0) + w1 * (e1 + 2.0 * e2)
        left += w2 * (4.0 * e2 - e3)
        left_sum = 6.0 * (w0 + w1 + w2)
        s0 = q3 + e3 * (6.0 * e3 - 11.0 * e4) + 4.0 * e4 * e4
        s1 = q3 + 4.0 * q2 - 5.0 * m2
        s2 = q1 + 10.0 * q2 - 11.0 * m1
        z01, z02, z12 = s0 * s1, s0 * s2, s1 * s2
        w0, w1, w2 = z12 * z12, 6.0 * z02 * z02, 3.0 * z01 * z01
        right = w0 * (5.0 * e3 - 2.0 * e4) + w1 * (e3 + 2.0 * e2)
        right += w2 * (4.0 * e2 - e1)
        right_sum = 6.0 * (w0 + w1 + w2)
        inverse = 1.0 / (left_sum * right_sum)
        minus[j] = c + left * right_sum * inverse
        plus[j] = d - right * left_sum * inverse


@njit(cache=True, inline="always")
def _weno3_row(D, s, eps, minus, plus):
    """Two stencils, weights 1/3 and 2/3, from the four inner differences."""
    for j in range(minus.size):
        b, c = D[s + j], D[2 * s + j]
        d, e = D[3 * s + j], D[4 * s + j]
        left, mid, right = (c - b) ** 2, (d - c) ** 2, (e - d) ** 2
        z0, z1, z2 = (left + eps) ** 2, (mid + eps) ** 2, (right + eps) ** 2
        w0, w1 = z1, 2.0 * z0
        minus[j] = (w0 * (3 * c - b) + w1 * (c + d)) / (2.0 * (w0 + w1))
        w0, w1 = z1, 2.0 * z2
        plus[j] = (w0 * (3 * d - e) + w1 * (c + d)) / (2.0 * (w0 + w1))


@njit(cache=True, inline="always")
def _eno2_row(D, s, minus, plus):
    """Osher-Shu: the smaller neighbouring second difference, the left one on ties."""
    for j in range(minus.size):
        b, c = D[s + j], D[2 * s + j]
        d, e = D[3 * s + j], D[4 * s + j]
        left, mid, right = c - b, d - c, e - d
        minus[j] = c + 0.5 * (mid if abs(mid) < abs(left) else left)
        plus[j] = d - 0.5 * (right if abs(right) < abs(mid) else mid)


@njit(cache=True, inline="always")
def _first_row(D, s, minus, plus):
    for j in range(minus.size):
        minus[j] = D[2 * s + j]
        plus[j] = D[3 * s + j]


@njit(cache=True, fastmath=FLAGS, error_model="numpy")
def _reconstruct_row(D, scheme, eps, minus, plus):
    """One row of nodes, rows of D `WIDTH` apart."""
    if scheme == WENO5:
        _weno5_row(D, WIDTH, eps, minus, plus)
    elif scheme == WENO3:
        _weno3_row(D, WIDTH, eps, minus, plus)
    elif scheme == ENO2:
        _eno2_row(D, WIDTH, minus, plus)
    else:
        _first_row(D, WIDTH, minus, plus)


@njit(cache=True, fastmath=FLAGS, error_model="numpy")
def _reconstruct_line(D, scheme, eps, minus, plus):
    """All nodes of one contiguous line."""
    if scheme == WENO5:
        _weno5_row(D, 1, eps, minus, plus)
    elif scheme == WENO3:
        _weno3_row(D, 1, eps, minus, plus)
    elif scheme == ENO2:
        _eno2_row(D, 1, minus, plus)
    else:
        _first_row(D, 1, minus, plus)


@njit(cache=True)
def _difference_row(here, above, inverse, out):
    for j in range(out.size):
        out[j] = (above[j] - here[j]) * inverse


@njit(cache=True)
def _difference_line(line, inverse, out):
    for j in range(line.size - 1):
        out[j] = (line[j + 1] - line[j]) * inverse[j]


@njit(cache=True)
def one_sided_along(V, n, inner, inverse, scheme, eps, ghosts, minus, plus, D):
    """Left and right derivatives of V (flat, C order) along the axis of n nodes.

    inner: product of the lengths of the axes after it. inverse (n,): 1 / distance to
    the upper neighbour (the seam last; any number there where not periodic).
    ghosts (2,): codes of the low and high end, PERIODIC in both or in neither.
    minus, plus (flat): results. D: scratch of `scratch_size`.

    First order: ``minus[i] = (V[i] - V[i-1]) / h``, ``plus[i] = (V[i+1] - V[i]) / h``.
    """
    block = n * inner
    for start in range(0, V.size, block):
        for j0 in range(0, inner, WIDTH):
            w = min(WIDTH, inner - j0)
            stride = 1 if inner == 1 else WIDTH
            low = start + j0
            if inner == 1:
                line = V[low : low + n]
                _difference_line(line, inverse, D[GHOSTS : GHOSTS + n])
            else:
                for i in range(n - 1):
                    at, row = low + i * inner, (GHOSTS + i) * WIDTH
                    here, above = V[at : at + w], V[at + inner : at + inner + w]
                    _difference_row(here, above, inverse[i], D[row : row + w])
            last = low + (n - 1) * inner
            ends = V[low : low + w], V[last : last + w]
            if ghosts[0] == PERIODIC:
                row = (GHOSTS + n - 1) * stride
                _difference_row(ends[1], ends[0], inverse[n - 1], D[row : row + w])
                _periodic_differences(D, n, stride, w)
            else:
                _ghost_differences(D, n, stride, w, ghosts, ends[0], ends[1])
            if inner == 1:
                left, right = minus[low : low + n], plus[low : low + n]
                _reconstruct_line(D, scheme, eps, left, right)
            else:
                for i in range(n):
                    at = low + i * inner
                    left, right = minus[at : at + w], plus[at : at + w]
                    _reconstruct_row(D[i * WIDTH :], scheme, eps, left, right)
