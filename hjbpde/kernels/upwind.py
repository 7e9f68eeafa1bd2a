"""Monotone weights, the greedy control through them, and the discrete residual.

Arrays are C-order flat: node ``n = row * n_last + j``. `Vp` is the value with one
ghost layer on every side, so reading neighbours needs no case for faces or
periodic axes. Tables are ``(., N)`` or, where constant, ``(., 1)``.

Letters: f drift, D half the squared noise, r payoff (maximised), hm / hp distance
to the lower / upper neighbour, dm = V_- - V, dp = V_+ - V.
"""

import numpy as np
from numba import njit

HYBRID = 1


@njit(cache=True, inline="always")
def axis_gain(scheme, f, D, dm, dp, hm, hp):
    """lower * dm + upper * dp on one axis.

    NumPy: upwind  2 D (dm/hm + dp/hp)/(hm+hp) + max(f,0) dp/hp + max(-f,0) dm/hm;
    hybrid the same with D -> 0 and one-sided f where |f| h > 2 D, else central.
    """
    if scheme == HYBRID:
        if f * hp > 2.0 * D:
            return f * dp / hp
        if -f * hm > 2.0 * D:
            return -f * dm / hm
        return ((2.0 * D - f * hp) * dm / hm + (2.0 * D + f * hm) * dp / hp) / (hm + hp)
    drift = f * dp / hp if f > 0.0 else -f * dm / hm
    return drift + 2.0 * D * (dm / hm + dp / hp) / (hm + hp)


@njit(cache=True, inline="always")
def unravel(row, shape, index):
    """Indices of a row on the axes before the last; NumPy: np.unravel_index."""
    rest = row
    for k in range(shape.size - 2, -1, -1):
        index[k] = rest % shape[k]
        rest //= shape[k]


@njit(cache=True, inline="always")
def pieces_of(scheme, D, dm, dp, im, ip, ih):
    """What `best_on_pieces` needs of one axis, from reciprocal spacings.

    Slopes behind and ahead, where the drift leaves the central piece (0 upwind), the
    central slope, and what curvature adds there. im = 1/hm, ip = 1/hp, ih = 1/(hm+hp).
    """
    back, fore = -dm * im, dp * ip
    if scheme == HYBRID:
        # (hm fore + hp back) / (hm + hp), with hm / (hm + hp) = 1 - hp / (hm + hp).
        ahead = 0.5 if im == ip else ip / (im + ip)
        central = ahead * fore + (1.0 - ahead) * back
        return back, fore, -2.0 * D * im, 2.0 * D * ip, central, 2.0 * D * ih * (
            fore - back
        )
    return back, fore, 0.0, 0.0, 0.0, 0.0


@njit(cache=True)
def best_on_pieces(
    a_old, f0, b, r1, R, low, high, fmin, fmax, back, fore, left, right, central, bend
):
    """argmax over a in [low, high] of r1 a - R a^2/2 + gain(f0 + b a).

    gain(f) = back f below `left`, fore f above `right`, central f + bend between.
    Where back >= fore it is concave, and an interior central maximiser is the answer;
    otherwise the maximiser of each piece, clipped to piece and box, is a candidate.
    Returns NaN if no a keeps f in [fmin, fmax].
    """
    lo, hi = low, high
    if fmin > -np.inf or fmax < np.inf:
        if b == 0.0:
            if f0 < fmin - 1e-12 or f0 > fmax + 1e-12:
                return np.nan
        else:
            one, two = (fmin - f0) / b, (fmax - f0) / b
            lo, hi = max(lo, min(one, two)), min(hi, max(one, two))
            if lo > hi:
                return np.nan
    if b == 0.0:
        if R > 0.0:
            return min(max(r1 / R, lo), hi)
        return hi if r1 > 0.0 else (lo if r1 < 0.0 else min(max(a_old, lo), hi))
    inverse_R = 1.0 / R if R > 0.0 else 0.0
    if left < right and R > 0.0 and back >= fore:
        a = (r1 + b * central) * inverse_R
        f = f0 + b * a
        if left <= f <= right and lo <= a <= hi:
            return a
    inverse_b = 1.0 / b
    one, two = (left - f0) * inverse_b, (right - f0) * inverse_b
    best, best_value = min(max(a_old, lo), hi), -np.inf
    for piece in range(3):
        if piece == 0:
            slope, flat = back, 0.0
            p_lo, p_hi = (lo, min(hi, one)) if b > 0.0 else (max(lo, one), hi)
        elif piece == 1:
            slope, flat = fore, 0.0
            p_lo, p_hi = (max(lo, two), hi) if b > 0.0 else (lo, min(hi, two))
        else:
            slope, flat = central, bend
            p_lo, p_hi = max(lo, min(one, two)), min(hi, max(one, two))
            if left >= right:
                break
        if p_lo > p_hi:
            continue
        gain = r1 + b * slope
        if R > 0.0:
            a = gain * inverse_R
        else:
            a = p_hi if gain > 0.0 else (p_lo if gain < 0.0 else a_old)
        a = min(max(a, p_lo), p_hi)
        value = (r1 - 0.5 * R * a) * a + slope * (f0 + b * a) + flat
        if value > best_value:
            best_value, best = value, a
    return best


@njit(cache=True)
def best_in_regimes(
    scheme, a_old, f0, b, D, r1, R, low, high, fmin, fmax, dm, dp, hm, hp
):
    """argmax over a in [low, high] of r1 a - R a^2/2 + axis_gain(f0 + b a).

    NumPy: max over a fine array of a.
    """
    back, fore, left, right, central, bend = pieces_of(
        scheme, D, dm, dp, 1.0 / hm, 1.0 / hp, 1.0 / (hm + hp)
    )
    return best_on_pieces(
        a_old, f0, b, r1, R, low, high, fmin, fmax,
        back, fore, left, right, central, bend,
    )  # fmt: skip


@njit(cache=True)
def improve_separable(
    scheme, Vp, shape, hm, hp, fmin, fmax, tables, boxes, axis_of, a, f, r
):
    """Greedy control of the discrete Hamiltonian, one control an axis at most.

    ``tables = (f0, b, D, r0, r1, R)`` and ``boxes = (low, high)``; control i acts on
    axis ``axis_of[i]`` (-1: on the payoff alone) with gain ``b[i]`` and payoff
    ``r1 a - R a^2/2``. Writes a (m, N), f (d, N), r (N); returns the first node
    without an admissible control, or -1. NumPy: `best_in_regimes` at every node.
    """
    f0, b, D, r0, r1, R = tables
    low, high = boxes
    d, m = shape.size, a.shape[0]
    n_last = shape[d - 1]
    n_rows = r.size // n_last
    s_D = 1 if D.shape[1] > 1 else 0
    s_b = 1 if b.shape[1] > 1 else 0
    s_r1 = 1 if r1.shape[1] > 1 else 0
    s_R = 1 if R.shape[1] > 1 else 0
    s_lo = 1 if low.shape[1] > 1 else 0
    s_hi = 1 if high.shape[1] > 1 else 0
    index = np.zeros(d, np.int64)
    stride = np.ones(d, np.int64)
    for k in range(d - 2, -1, -1):
        stride[k] = stride[k + 1] * (shape[k + 1] + 2)
    for row in range(n_rows):
        unravel(row, shape, index)
        base = row * n_last
        padded = 1
        for k in range(d - 1):
            padded += (index[k] + 1) * stride[k]
        for j in range(n_last):
            r[base + j] = r0[base + j]
        for k in range(d):
            for j in range(n_last):
                f[k, base + j] = f0[k, base + j]
        for i in range(m):
            k = axis_of[i]
            for j in range(n_last):
                n = base + j
                linear, square = r1[i, n * s_r1], R[i, n * s_R]
                lo, hi = low[i, n * s_lo], high[i, n * s_hi]
                if k < 0:
                    act = best_in_regimes(
                        scheme,
                        a[i, n],
                        0.0,
                        0.0,
                        0.0,
                        linear,
                        square,
                        lo,
                        hi,
                        -np.inf,
                        np.inf,
                        0.0,
                        0.0,
                        1.0,
                        1.0,
                    )
                else:
                    at = j if k == d - 1 else index[k]
                    s = stride[k]
                    here = Vp[padded + j]
                    gain = b[i, n * s_b]
                    act = best_in_regimes(
                        scheme,
                        a[i, n],
                        f0[k, n],
                        gain,
                        D[k, n * s_D],
                        linear,
                        square,
                        lo,
                        hi,
                        fmin[k, at],
                        fmax[k, at],
                        Vp[padded + j - s] - here,
                        Vp[padded + j + s] - here,
                        hm[k, at],
                        hp[k, at],
                    )
                    if np.isnan(act):
                        return n
                    f[k, n] += gain * act
                a[i, n] = act
                r[n] += linear * act - 0.5 * square * act * act
    return -1


@njit(cache=True)
def assemble(scheme, shape, hm, hp, f, D, lower, upper):
    """Weights of both neighbours on every axis, lower and upper (d, N).

    NumPy hybrid: E = max(D, f hp/2, -f hm/2); upwind: see `axis_gain`.
    """
    d = shape.size
    n_last = shape[d - 1]
    n_rows = f.shape[1] // n_last
    index = np.zeros(d, np.int64)
    s_D = 1 if D.shape[1] > 1 else 0
    for row in range(n_rows):
        unravel(row, shape, index)
        base = row * n_last
        for k in range(d):
            for j in range(n_last):
                n = base + j
                at = j if k == d - 1 else index[k]
                m, p = hm[k, at], hp[k, at]
                drift, noise = f[k, n], 2.0 * D[k, n * s_D]
                if scheme == HYBRID:
                    lo = max(noise - drift * p, 0.0) / (m * (m + p))
                    up = max(noise + drift * m, 0.0) / (p * (m + p))
                    lo = -drift / m if -drift * m > noise else lo
                    up = drift / p if drift * p > noise else up
                else:
                    lo = noise / (m * (m + p)) + max(-drift, 0.0) / m
                    up = noise / (p * (m + p)) + max(drift, 0.0) / p
                lower[k, n] = lo
                upper[k, n] = up


@njit(cache=True)
def monotone_residual(Vp, shape, lower, upper, c, r, out):
    """out = r + sum_k lower (V_- - V) + upper (V_+ - V) - c V on every node.

    `lower` and `upper` are the weights before faces are folded in.
    """
    d = shape.size
    n_last = shape[d - 1]
    n_rows = r.size // n_last
    s_c = 1 if c.size > 1 else 0
    index = np.zeros(d, np.int64)
    stride = np.ones(d, np.int64)
    for k in range(d - 2, -1, -1):
        stride[k] = stride[k + 1] * (shape[k + 1] + 2)
    for row in range(n_rows):
        unravel(row, shape, index)
        base = row * n_last
        padded = 1
        for k in range(d - 1):
            padded += (index[k] + 1) * stride[k]
        for j in range(n_last):
            out[base + j] = r[base + j] - c[(base + j) * s_c] * Vp[padded + j]
        for k in range(d):
            s = stride[k]
            for j in range(n_last):
                here = Vp[padded + j]
                out[base + j] += lower[k, base + j] * (Vp[padded + j - s] - here)
                out[base + j] += upper[k, base + j] * (Vp[padded + j + s] - here)
