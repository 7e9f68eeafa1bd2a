"""Lax-Friedrichs Hamiltonians of affine and sampled games.

Marching in time to go, ``V_tau = G(x, grad V) - rho V`` with

    G(x, p) = r0 + f0 . p + sum_i opt_i { (r1_i + B_i . p) u_i -+ R_i u_i^2 / 2 },

opt_i a maximum (sense +1) or a minimum (sense -1) over ``low_i <= u_i <= high_i``.
Lax-Friedrichs takes ``G((p- + p+)/2) + sum_k alpha_k (p+_k - p-_k) / 2`` with
``alpha_k >= |dG/dp_k|`` over a box of gradients (Osher and Shu, SIAM J. Numer. Anal.
28 (1991), equations 3.5 to 3.7); the box decides global, local and nodal.

Tables have N columns, or one where constant. Blocks of `WIDTH` nodes are worked on
at once, every row of a block in scratch, so that loops over nodes vectorise.
"""

import numpy as np
from numba import njit

WIDTH = 512
"""Nodes of a block: its rows fit the second-level cache, and calls are amortised."""

NODE = 1
AXIS = 2
LOCAL = 3
CONTROLS = 4
"""Box of gradients behind alpha_k: global; own axis local; local on every axis. The
last takes the whole range of the controls instead, tabulated once."""


@njit(cache=True)
def _rows():
    """Seven rows of scratch, arrays of their own.

    Rows of one matrix would share a base, and loops over them would not vectorise.
    """
    a, b, c = np.empty(WIDTH), np.empty(WIDTH), np.empty(WIDTH)
    d, e, f = np.empty(WIDTH), np.empty(WIDTH), np.empty(WIDTH)
    return a, b, c, d, e, f, np.empty(WIDTH)


@njit(cache=True)
def _row(table, spread, j0, w):
    """A block's part of one row of a table; where constant, the row `spread`."""
    if table.size == 1:
        return spread[:w]
    return table[j0 : j0 + w]


@njit(cache=True)
def _spread_constants(tables, S):
    """Rows: B (d M), then r1, 1/R, low, high, R (M each), f0 (d)."""
    f0, B, r1, inverse_R, low, high, R = tables
    d, m = B.shape[0], B.shape[1]
    base = d * m
    for i in range(m):
        for k in range(d):
            S[k * m + i] = B[k, i, 0]
        S[base + i] = r1[i, 0]
        S[base + m + i] = inverse_R[i, 0]
        S[base + 2 * m + i] = low[i, 0]
        S[base + 3 * m + i] = high[i, 0]
        S[base + 4 * m + i] = R[i, 0]
    for k in range(d):
        S[base + 5 * m + k] = f0[k, 0]


@njit(cache=True)
def _optimum_row(gain, sense, inverse_R, low, high, out):
    """out = clip(sense gain / R, low, high); an R of 0 has an enormous inverse."""
    for j in range(out.size):
        u = sense * gain[j] * inverse_R[j]
        u = u if u > low[j] else low[j]
        out[j] = u if u < high[j] else high[j]


@njit(cache=True)
def _copy_row(x, out):
    for j in range(out.size):
        out[j] = x[j]


@njit(cache=True)
def _mean_row(x, y, out):
    for j in range(x.size):
        out[j] = 0.5 * (x[j] + y[j])


@njit(cache=True)
def _keep_larger(x, most):
    for j in range(x.size):
        most[j] = x[j] if x[j] > most[j] else most[j]


@njit(cache=True)
def _add_product(x, y, out):
    for j in range(out.size):
        out[j] += x[j] * y[j]


@njit(cache=True)
def _add_range(b, x, y, least, most):
    """Add the interval between b x and b y to [least, most]."""
    for j in range(least.size):
        one, two = b[j] * x[j], b[j] * y[j]
        least[j] += one if one < two else two
        most[j] += two if one < two else one


@njit(cache=True)
def _add_box_range(b, x, y, least, most):
    for j in range(least.size):
        one, two = b[j] * x, b[j] * y
        least[j] += one if one < two else two
        most[j] += two if one < two else one


@njit(cache=True)
def _add_gain(gain, u, half_sense, R, value):
    for j in range(value.size):
        value[j] += (gain[j] - half_sense * u[j] * R[j]) * u[j]


@njit(cache=True)
def _optimum(tables, S, gain, sense, i, j0, out):
    """out = the extremal control i for a row of gains."""
    _, B, _, inverse_R, low, high, _ = tables
    m, w = B.shape[1], out.size
    at = B.shape[0] * m + i
    z = _row(inverse_R[i], S[at + m], j0, w)
    lo = _row(low[i], S[at + 2 * m], j0, w)
    _optimum_row(gain, sense[i], z, lo, _row(high[i], S[at + 3 * m], j0, w), out)


@njit(cache=True)
def _value_rows(tables, S, T, P, acts, sense, minus, plus, j0, value):
    """Add to value the Hamiltonian at the mean gradient; rows of T are scratch."""
    f0, B, r1, _, _, _, R = tables
    d, m = acts.shape
    w, base = value.size, d * m
    gain, u = T[0][:w], T[1][:w]
    for k in range(d):
        _mean_row(minus[k, j0 : j0 + w], plus[k, j0 : j0 + w], P[k])
        if f0.shape[1] > 1 or f0[k, 0] != 0.0:
            f = _row(f0[k], S[base + 5 * m + k], j0, w)
            _add_product(f, P[k], value)
    for i in range(m):
        _copy_row(_row(r1[i], S[base + i], j0, w), gain)
        for k in range(d):
            if acts[k, i]:
                b = _row(B[k, i], S[k * m + i], j0, w)
                _add_product(b, P[k], gain)
        _optimum(tables, S, gain, sense, i, j0, u)
        if R.shape[1] == 1 and R[i, 0] == 0.0:
            _add_product(gain, u, value)
        else:
            bend = _row(R[i], S[base + 4 * m + i], j0, w)
            _add_gain(gain, u, 0.5 * sense[i], bend, value)


@njit(cache=True)
def _gain_range(tables, S, acts, minus, plus, box, own, i, j0, least, most):
    """Least and largest gain of control i over the box of gradients.

    own: the axis whose range is local; -1: none; -2: every axis.
    """
    _, B, r1, _, _, _, _ = tables
    d, m = acts.shape
    w = least.size
    _copy_row(_row(r1[i], S[d * m + i], j0, w), least)
    _copy_row(least, most)
    for k in range(d):
        if not acts[k, i]:
            continue
        b = _row(B[k, i], S[k * m + i], j0, w)
        if own == k or own == -2:
            back, fore = minus[k, j0 : j0 + w], plus[k, j0 : j0 + w]
            _add_range(b, back, fore, least, most)
        else:
            _add_box_range(b, box[k, 0], box[k, 1], least, most)


@njit(cache=True)
def _speed_rows(tables, S, T, acts, sense, minus, plus, box, span, k, j0, speed):
    """speed: max|dG/dp_k| over the box of gradients, by interval arithmetic."""
    f0, B, _, _, _, _, _ = tables
    d, m = acts.shape
    w = speed.size
    g0, g1, u0, u1 = T[0][:w], T[1][:w], T[2][:w], T[3][:w]
    least, most = T[4][:w], T[5][:w]
    _copy_row(_row(f0[k], S[d * m + 5 * m + k], j0, w), least)
    _copy_row(least, most)
    own = -1 if span == NODE else (k if span == AXIS else -2)
    for i in range(m):
        if not acts[k, i]:
            continue
        _gain_range(tables, S, acts, minus, plus, box, own, i, j0, g0, g1)
        _optimum(tables, S, g0, sense, i, j0, u0)
        _optimum(tables, S, g1, sense, i, j0, u1)
        _add_range(_row(B[k, i], S[k * m + i], j0, w), u0, u1, least, most)
    for j in range(w):
        one, two = abs(least[j]), abs(most[j])
        speed[j] = one if one > two else two


@njit(cache=True)
def _add_dissipation(minus, plus, speed, rate):
    for j in range(rate.size):
        rate[j] += 0.5 * speed[j] * (plus[j] - minus[j])


@njit(cache=True)
def _add_courant(speed, inverse_h, courant):
    if inverse_h.size == 1:
        for j in range(courant.size):
            courant[j] += speed[j] * inverse_h[0]
    else:
        _add_product(speed, inverse_h, courant)


@njit(cache=True)
def lax_friedrichs(
    tables, r0, acts, sense, minus, plus, box, span, fixed, inverse_h, rate, largest
):
    """rate = G((p- + p+)/2) + sum_k alpha_k (p+_k - p-_k)/2; returns the CFL sum.

    tables: (f0, B, r1, 1/R, low, high, R), B (d, M, N or 1), the others likewise; acts
    (d, M): where B is not all zero; sense (M,). minus, plus (d, N). box (d, 2): range
    of each gradient component over the grid. fixed (d,): alpha where positive, else
    computed. inverse_h (d, N or 1). largest (d,): max|dG/dp_k| met. Returns the
    maximum over nodes of sum_k alpha_k / h_k.
    """
    d, m = acts.shape
    S = np.empty((d * m + 5 * m + d, WIDTH))
    T, P = _rows(), np.empty((d, WIDTH))
    peak = np.zeros((d + 1, WIDTH))
    _spread_constants(tables, S)
    courant = np.empty(WIDTH)
    for j0 in range(0, rate.size, WIDTH):
        j1 = min(rate.size, j0 + WIDTH)
        w = j1 - j0
        here, speed = rate[j0:j1], T[6][:w]
        here[:] = r0[0] if r0.size == 1 else 0.0
        if r0.size > 1:
            here[:] = r0[j0:j1]
        _value_rows(tables, S, T, P, acts, sense, minus, plus, j0, here)
        courant[:] = 0.0
        for k in range(d):
            _speed_rows(tables, S, T, acts, sense, minus, plus, box, span, k, j0, speed)
            _keep_larger(speed, peak[k])
            if fixed[k] > 0.0:
                speed[:] = fixed[k]
            _add_dissipation(minus[k, j0:j1], plus[k, j0:j1], speed, here)
            steps = inverse_h[k] if inverse_h.shape[1] == 1 else inverse_h[k, j0:j1]
            _add_courant(speed, steps, courant[:w])
        _keep_larger(courant[:w], peak[d])
    for k in range(d):
        largest[k] = peak[k].max()
    return peak[d].max()


@njit(cache=True)
def lax_friedrichs_given(tables, r0, acts, sense, minus, plus, speeds, rate):
    """The same with alpha = speeds (d, N or 1), whatever the gradient; no return."""
    d, m = acts.shape
    S = np.empty((d * m + 5 * m + d, WIDTH))
    T, P = _rows(), np.empty((d, WIDTH))
    _spread_constants(tables, S)
    for j0 in range(0, rate.size, WIDTH):
        j1 = min(rate.size, j0 + WIDTH)
        here = rate[j0:j1]
        here[:] = r0[0] if r0.size == 1 else 0.0
        if r0.size > 1:
            here[:] = r0[j0:j1]
        _value_rows(tables, S, T, P, acts, sense, minus, plus, j0, here)
        for k in range(d):
            T[6][:] = speeds[k, 0]
            speed = _row(speeds[k], T[6], j0, here.size)
            _add_dissipation(minus[k, j0:j1], plus[k, j0:j1], speed, here)


@njit(cache=True)
def largest_speeds(tables, acts, sense, minus, plus, box, largest):
    """largest (d,): max over nodes of |dG/dp_k| over the global box of gradients."""
    d, m = acts.shape
    S = np.empty((d * m + 5 * m + d, WIDTH))
    T = _rows()
    peak = np.zeros((d, WIDTH))
    _spread_constants(tables, S)
    n = minus.shape[1]
    for j0 in range(0, n, WIDTH):
        speed = T[6][: min(n - j0, WIDTH)]
        for k in range(d):
            _speed_rows(tables, S, T, acts, sense, minus, plus, box, NODE, k, j0, speed)
            _keep_larger(speed, peak[k])
    for k in range(d):
        largest[k] = peak[k].max()


@njit(cache=True)
def sampled_lax_friedrichs(f, r, speeds, minus, plus, fixed, inverse_h, rate, largest):
    """Lax-Friedrichs with G(p) = max_a min_b r[a, b] + f[a, b] . p over samples.

    f (na, nb, d, N), r (na, nb, N), speeds (d, N): max over samples of |f_k|. Returns
    the CFL sum; the rest as in `lax_friedrichs`.
    """
    na, nb, d = f.shape[0], f.shape[1], f.shape[2]
    least, courant = np.empty(WIDTH), np.empty(WIDTH)
    here = np.empty(WIDTH)
    largest[:] = 0.0
    top = 0.0
    for j0 in range(0, rate.size, WIDTH):
        w = min(WIDTH, rate.size - j0)
        rate[j0 : j0 + w] = -np.inf
        for a in range(na):
            least[:] = np.inf
            for b in range(nb):
                for j in range(w):
                    here[j] = r[a, b, j0 + j]
                for k in range(d):
                    for j in range(w):
                        p = 0.5 * (minus[k, j0 + j] + plus[k, j0 + j])
                        here[j] += f[a, b, k, j0 + j] * p
                for j in range(w):
                    least[j] = min(least[j], here[j])
            for j in range(w):
                rate[j0 + j] = max(rate[j0 + j], least[j])
        courant[:] = 0.0
        for k in range(d):
            for j in range(w):
                speed = speeds[k, j0 + j]
                largest[k] = max(largest[k], speed)
                speed = fixed[k] if fixed[k] > 0.0 else speed
                jump = plus[k, j0 + j] - minus[k, j0 + j]
                rate[j0 + j] += 0.5 * speed * jump
                courant[j] += speed * inverse_h[k, (j0 + j) % inverse_h.shape[1]]
        for j in range(w):
            top = max(top, courant[j])
    return top


@njit(cache=True)
def blend(one, a, two, b, rate, dt, rho, out):
    """out = a one + b (two + dt (rate - rho two)), a stage of an SSP Runge-Kutta."""
    for n in range(out.size):
        decay = rho[n % rho.size] * two[n]
        out[n] = a * one[n] + b * (two[n] + dt * (rate[n] - decay))
