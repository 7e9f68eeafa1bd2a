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


@njit(cache=True, inline="always", error_model="numpy")
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


@njit(cache=True, inline="always", error_model="numpy")
def unravel(row, shape, index):
    """Indices of a row on the axes before the last; NumPy: np.unravel_index."""
    rest = row
    for k in range(shape.size - 2, -1, -1):
        index[k] = rest % shape[k]
        rest //= shape[k]


@njit(cache=True, error_model="numpy")
def strides(shape, ghosts):
    """C-order strides in elements of axes with `ghosts` more nodes than `shape`."""
    out = np.ones(shape.size, np.int64)
    for k in range(shape.size - 2, -1, -1):
        out[k] = out[k + 1] * (shape[k + 1] + ghosts)
    return out


@njit(cache=True, inline="always", error_model="numpy")
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
        return (
            back,
            fore,
            -2.0 * D * im,
            2.0 * D * ip,
            central,
            2.0 * D * ih * (fore - back),
        )
    return back, fore, 0.0, 0.0, 0.0, 0.0


@njit(cache=True, error_model="numpy")
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


@njit(cache=True, error_model="numpy")
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


@njit(cache=True, error_model="numpy")
def row_of(table, i, base, n, out):
    """Row `table[i, base:base + n]`, spread into `out` where the table is constant."""
    if table.shape[1] > 1:
        return table[i, base : base + n]
    for j in range(n):
        out[j] = table[i, 0]
    return out


@njit(cache=True, error_model="numpy")
def central_maximisers(
    scheme, here, under, over, im, ip, f0, b, D, r1, R, low, high, act, sure
):
    """Where the central piece holds the maximiser, written without branches.

    It does when each piece's free maximiser asks for a drift on the central side of
    that piece: then the Hamiltonian rises towards the centre from both ends.
    """
    central_scheme = 1.0 if scheme == HYBRID else 0.0
    for j in range(act.size):
        back, fore = (here[j] - under[j]) * im[j], (over[j] - here[j]) * ip[j]
        ahead = ip[j] / (im[j] + ip[j])
        middle = ahead * fore + (1.0 - ahead) * back
        square = R[j] if R[j] > 0.0 else 1.0
        inverse = 1.0 / square
        a = (r1[j] + b[j] * middle) * inverse
        gain = b[j] * b[j] * inverse
        f = f0[j] + b[j] * a
        f_back, f_fore = f + gain * (back - middle), f + gain * (fore - middle)
        left, right = -2.0 * D[j] * im[j], 2.0 * D[j] * ip[j]
        good = central_scheme if R[j] > 0.0 else 0.0
        good = good if min(f, f_back) >= left else 0.0
        good = good if max(f, f_fore) <= right else 0.0
        good = good if a >= low[j] else 0.0
        sure[j] = good if a <= high[j] else 0.0
        act[j] = a


@njit(cache=True, error_model="numpy")
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
    index = np.zeros(d, np.int64)
    stride = strides(shape, 2)
    im, ip = 1.0 / hm, 1.0 / hp
    limited = fmin.max() > -np.inf or fmax.min() < np.inf
    scratch = np.empty((12, n_last))
    act, sure = scratch[8], scratch[9]
    for row in range(r.size // n_last):
        unravel(row, shape, index)
        base = row * n_last
        end = base + n_last
        padded = 1
        for k in range(d - 1):
            padded += (index[k] + 1) * stride[k]
        r[base:end] = r0[base:end]
        for k in range(d):
            f[k, base:end] = f0[k, base:end]
        for i in range(m):
            k = axis_of[i]
            linear = row_of(r1, i, base, n_last, scratch[0])
            square = row_of(R, i, base, n_last, scratch[1])
            lo = row_of(low, i, base, n_last, scratch[2])
            hi = row_of(high, i, base, n_last, scratch[3])
            if k < 0:
                for j in range(n_last):
                    act[j] = best_on_pieces(
                        a[i, base + j], 0.0, 0.0, linear[j], square[j], lo[j], hi[j],
                        -np.inf, np.inf, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0,
                    )  # fmt: skip
                gain = scratch[4]
                gain[:] = 0.0
            else:
                gain = row_of(b, i, base, n_last, scratch[4])
                noise = row_of(D, k, base, n_last, scratch[5])
                s = stride[k]
                if k == d - 1:
                    back, ahead = im[k, :n_last], ip[k, :n_last]
                else:
                    back, ahead = scratch[6], scratch[7]
                    back[:] = im[k, index[k]]
                    ahead[:] = ip[k, index[k]]
                here = Vp[padded : padded + n_last]
                under = Vp[padded - s : padded - s + n_last]
                over = Vp[padded + s : padded + s + n_last]
                drift = f0[k, base:end]
                central_maximisers(
                    scheme, here, under, over, back, ahead, drift, gain, noise,
                    linear, square, lo, hi, act, sure,
                )  # fmt: skip
                for j in range(0 if not limited and sure.min() == 1.0 else n_last):
                    at = j if k == d - 1 else index[k]
                    if sure[j] == 1.0 and not limited:
                        continue
                    one, two, left, right, central, bend = pieces_of(
                        scheme, noise[j], under[j] - here[j], over[j] - here[j],
                        back[j], ahead[j], 1.0 / (hm[k, at] + hp[k, at]),
                    )  # fmt: skip
                    act[j] = best_on_pieces(
                        a[i, base + j], drift[j], gain[j], linear[j], square[j],
                        lo[j], hi[j], fmin[k, at], fmax[k, at],
                        one, two, left, right, central, bend,
                    )  # fmt: skip
                    if np.isnan(act[j]):
                        return base + j
            a[i, base:end] = act
            moved, paid = f[max(k, 0), base:end], r[base:end]
            for j in range(n_last):
                moved[j] += gain[j] * act[j]
            for j in range(n_last):
                paid[j] += (linear[j] - 0.5 * square[j] * act[j]) * act[j]
    return -1


@njit(cache=True, error_model="numpy")
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


@njit(cache=True, error_model="numpy")
def monotone_residual(Vp, shape, lower, upper, c, r, out):
    """out = r + sum_k lower (V_- - V) + upper (V_+ - V) - c V on every node.

    `lower` and `upper` are the weights before faces are folded in.
    """
    d = shape.size
    n_last = shape[d - 1]
    n_rows = r.size // n_last
    s_c = 1 if c.size > 1 else 0
    index = np.zeros(d, np.int64)
    stride = strides(shape, 2)
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
