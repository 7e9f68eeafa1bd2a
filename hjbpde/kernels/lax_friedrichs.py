"""Lax-Friedrichs Hamiltonians of affine and sampled games.

Marching in time to go, ``V_tau = G(x, grad V) - rho V`` with

    G(x, p) = r0 + f0 . p + sum_i opt_i { (r1_i + B_i . p) u_i -+ R_i u_i^2 / 2 },

opt_i a maximum (sense +1) or a minimum (sense -1) over ``low_i <= u_i <= high_i``.
Lax-Friedrichs takes ``G((p- + p+)/2) + sum_k alpha_k (p+_k - p-_k) / 2`` with
``alpha_k >= |dG/dp_k|`` over a box of gradients (Osher and Shu, SIAM J. Numer. Anal.
28 (1991), equations 3.5 to 3.7); the box decides global, local and nodal.

Tables are `columns`, whose rows are f0 (d), B (d M), r0 (1), r1, 1/R, low, high, R (M
each) and the largest speeds over all controls (d). Blocks of `WIDTH` nodes are worked
on at once, every row of a block in scratch, so that loops over nodes vectorise.
"""

import numpy as np
from numba import njit

from .columns import WIDTH, is_zero, row_of, scratch

NODE = 1
AXIS = 2
LOCAL = 3
CONTROLS = 4
"""Box of gradients behind alpha_k: global; own axis local; local on every axis. The
last takes the whole range of the controls instead, tabulated once."""


@njit(cache=True)
def rows():
    """Seven rows of scratch, arrays of their own.

    Rows of one matrix would share a base, and loops over them would not vectorise.
    """
    a, b, c = np.empty(WIDTH), np.empty(WIDTH), np.empty(WIDTH)
    d, e, f = np.empty(WIDTH), np.empty(WIDTH), np.empty(WIDTH)
    return a, b, c, d, e, f, np.empty(WIDTH)


@njit(cache=True, inline="always")
def _clipped(gain, sense, inverse_R, low, high):
    """clip(sense gain / R, low, high); an R of 0 has an enormous inverse."""
    u = sense * gain * inverse_R
    u = u if u > low else low
    return u if u < high else high


@njit(cache=True)
def _optimum_row(gain, sense, inverse_R, low, high, out):
    for j in range(out.size):
        out[j] = _clipped(gain[j], sense, inverse_R[j], low[j], high[j])


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
def _product(x, y, out):
    for j in range(out.size):
        out[j] = x[j] * y[j]


@njit(cache=True)
def _add_optimum(gain, sense, inverse_R, low, high, R, value):
    """value += gain u - sense R u^2 / 2 at the extremal u."""
    for j in range(value.size):
        u = _clipped(gain[j], sense, inverse_R[j], low[j], high[j])
        value[j] += (gain[j] - 0.5 * sense * R[j] * u) * u


@njit(cache=True)
def _add_constant_optimum(gain, sense, inverse_R, low, high, R, value):
    """The same with one number each for all nodes: fewer rows to read."""
    for j in range(value.size):
        u = _clipped(gain[j], sense, inverse_R, low, high)
        value[j] += (gain[j] - 0.5 * sense * R * u) * u


@njit(cache=True)
def _control_rows(columns, S, acts, i, j0, w):
    """1/R, low, high and R of control i."""
    numbers, places = columns
    d, m = acts.shape
    at = d + d * m + 1 + m + i
    z = row_of(numbers, places, at, S, j0, w)
    low = row_of(numbers, places, at + m, S, j0, w)
    high = row_of(numbers, places, at + 2 * m, S, j0, w)
    return z, low, high, row_of(numbers, places, at + 3 * m, S, j0, w)


@njit(cache=True)
def _are_constant(places, at, m):
    """Whether 1/R, low, high and R of a control are one number each."""
    longest = 1
    for r in range(at, at + 4 * m, m):
        longest = max(longest, places[r, 2])
    return longest == 1


@njit(cache=True)
def _gain_row(columns, S, P, acts, i, j0, gain):
    """gain = r1_i + B_i . p of control i at the gradient rows P."""
    numbers, places = columns
    d, m = acts.shape
    w, at = gain.size, d + d * m + 1 + i
    begun = not is_zero(numbers, places, at)
    if begun or not acts[:, i].any():
        _copy_row(row_of(numbers, places, at, S, j0, w), gain)
    for k in range(d):
        if not acts[k, i]:
            continue
        b = row_of(numbers, places, d + k * m + i, S, j0, w)
        if begun:
            _add_product(b, P[k], gain)
        else:
            _product(b, P[k], gain)
            begun = True


@njit(cache=True)
def _value_rows(columns, S, T, P, acts, sense, j0, value):
    """value += the Hamiltonian at the gradient rows P, less r0; T: scratch."""
    numbers, places = columns
    d, m = acts.shape
    w = value.size
    gain = T[0][:w]
    for k in range(d):
        if not is_zero(numbers, places, k):
            _add_product(row_of(numbers, places, k, S, j0, w), P[k], value)
    for i in range(m):
        _gain_row(columns, S, P, acts, i, j0, gain)
        at = d + d * m + 1 + m + i
        if _are_constant(places, at, m):
            z, low = numbers[places[at, 0]], numbers[places[at + m, 0]]
            high = numbers[places[at + 2 * m, 0]]
            R = numbers[places[at + 3 * m, 0]]
            _add_constant_optimum(gain, sense[i], z, low, high, R, value)
        else:
            box = _control_rows(columns, S, acts, i, j0, w)
            _add_optimum(gain, sense[i], *box, value)


@njit(cache=True)
def _gain_range(columns, S, acts, minus, plus, box, own, i, j0, least, most):
    """Least and largest gain of control i over the box of gradients.

    own: the axis whose range is local; -1: none; -2: every axis.
    """
    numbers, places = columns
    d, m = acts.shape
    w = least.size
    _copy_row(row_of(numbers, places, d + d * m + 1 + i, S, j0, w), least)
    _copy_row(least, most)
    for k in range(d):
        if not acts[k, i]:
            continue
        b = row_of(numbers, places, d + k * m + i, S, j0, w)
        if own == k or own == -2:
            back, fore = minus[k, j0 : j0 + w], plus[k, j0 : j0 + w]
            _add_range(b, back, fore, least, most)
        else:
            _add_box_range(b, box[k, 0], box[k, 1], least, most)


@njit(cache=True)
def _speed_rows(columns, S, T, acts, sense, minus, plus, box, span, k, j0, speed):
    """speed: max|dG/dp_k| over the box of gradients, by interval arithmetic."""
    numbers, places = columns
    d, m = acts.shape
    w = speed.size
    g0, g1, u0, u1 = T[0][:w], T[1][:w], T[2][:w], T[3][:w]
    least, most = T[4][:w], T[5][:w]
    _copy_row(row_of(numbers, places, k, S, j0, w), least)
    _copy_row(least, most)
    own = -1 if span == NODE else (k if span == AXIS else -2)
    for i in range(m):
        if not acts[k, i]:
            continue
        _gain_range(columns, S, acts, minus, plus, box, own, i, j0, g0, g1)
        z, low, high, _ = _control_rows(columns, S, acts, i, j0, w)
        _optimum_row(g0, sense[i], z, low, high, u0)
        _optimum_row(g1, sense[i], z, low, high, u1)
        b = row_of(numbers, places, d + k * m + i, S, j0, w)
        _add_range(b, u0, u1, least, most)
    for j in range(w):
        one, two = abs(least[j]), abs(most[j])
        speed[j] = one if one > two else two


@njit(cache=True)
def _mean_and_dissipation(minus, plus, speed, mean, rate):
    for j in range(rate.size):
        mean[j] = 0.5 * (plus[j] + minus[j])
        rate[j] += 0.5 * speed[j] * (plus[j] - minus[j])


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
    columns, acts, sense, minus, plus, box, span, fixed, inverse_h, rate, largest
):
    """rate = G((p- + p+)/2) + sum_k alpha_k (p+_k - p-_k)/2; returns the CFL sum.

    acts (d, M): where B is not all zero; sense (M,). minus, plus (d, N). box (d, 2):
    range of each gradient component over the grid. fixed (d,): alpha where positive,
    else computed. inverse_h (d, N or 1). largest (d,): max|dG/dp_k| met. Returns the
    maximum over nodes of sum_k alpha_k / h_k.
    """
    (numbers, places), d = columns, len(acts)
    S, T, P = scratch(numbers, places, rate.size), rows(), np.empty((d, WIDTH))
    peak = np.zeros((d + 1, min(rate.size, WIDTH)))
    courant = np.empty(WIDTH)
    for j0 in range(0, rate.size, WIDTH):
        j1 = min(rate.size, j0 + WIDTH)
        w = j1 - j0
        here, speed = rate[j0:j1], T[6][:w]
        for k in range(d):
            _mean_row(minus[k, j0:j1], plus[k, j0:j1], P[k])
        _copy_row(row_of(numbers, places, d + acts.size, S, j0, w), here)
        _value_rows(columns, S, T, P, acts, sense, j0, here)
        courant[:] = 0.0
        for k in range(d):
            _speed_rows(
                columns, S, T, acts, sense, minus, plus, box, span, k, j0, speed
            )
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
def given_speeds(columns, S, T, P, acts, sense, minus, plus, j0, at, rate):
    """The same at the nodes from j0 on, alpha the largest speeds over all controls.

    minus, plus hold the node j0 in column `at`. S: `scratch`, T: `rows`, P (d, WIDTH).
    """
    numbers, places = columns
    w, first = rate.size, len(places) - len(acts)
    _copy_row(row_of(numbers, places, len(acts) + acts.size, S, j0, w), rate)
    for k in range(len(acts)):
        speed = row_of(numbers, places, first + k, S, j0, w)
        back, fore = minus[k, at : at + w], plus[k, at : at + w]
        _mean_and_dissipation(back, fore, speed, P[k], rate)
    _value_rows(columns, S, T, P, acts, sense, j0, rate)


@njit(cache=True)
def fastest_lax_friedrichs(columns, acts, sense, minus, plus, rate):
    """rate of all nodes, alpha the largest speeds over all controls."""
    (numbers, places), d = columns, len(acts)
    S, T, P = scratch(numbers, places, rate.size), rows(), np.empty((d, WIDTH))
    for j0 in range(0, rate.size, WIDTH):
        part = rate[j0 : j0 + WIDTH]
        given_speeds(columns, S, T, P, acts, sense, minus, plus, j0, j0, part)


@njit(cache=True)
def largest_speeds(columns, acts, sense, minus, plus, box, largest):
    """largest (d,): max over nodes of |dG/dp_k| over the global box of gradients."""
    numbers, places = columns
    d, n = minus.shape
    S, T = scratch(numbers, places, n), rows()
    peak = np.zeros((d, min(n, WIDTH)))
    for j0 in range(0, n, WIDTH):
        speed = T[6][: min(n - j0, WIDTH)]
        for k in range(d):
            _speed_rows(
                columns, S, T, acts, sense, minus, plus, box, NODE, k, j0, speed
            )
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
    if rho.size == 1:
        for n in range(out.size):
            change = rate[n] - rho[0] * two[n]
            out[n] = a * one[n] + b * (two[n] + dt * change)
    else:
        for n in range(out.size):
            change = rate[n] - rho[n] * two[n]
            out[n] = a * one[n] + b * (two[n] + dt * change)
