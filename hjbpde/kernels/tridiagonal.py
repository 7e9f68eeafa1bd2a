"""One-dimensional systems without cancellation, and Howard's iteration fused in.

The elimination carries ``e = 1 - c'`` instead of ``c'``: no small difference of
large numbers is ever formed, so the error stays at round-off for any number of
nodes (Grassmann, Taksar and Heyman's device, Oper. Res. 33 (1985) 1107).
"""

import numpy as np
from numba import njit

from .upwind import HYBRID, best_on_pieces, pieces_of

TIE = 1e-14
"""Gain of going on, relative to V, that counts as none where nothing is discounted."""


@njit(cache=True, error_model="numpy")
def thomas(c, lower, upper, rhs, ratio, out):
    """Solve (c + lower + upper) V - lower V_- - upper V_+ = rhs; `ratio` is scratch.

    NumPy: np.linalg.solve of the matrix with those three diagonals.
    """
    n = out.size
    s = 1 if c.size > 1 else 0
    excess, value = 1.0, 0.0
    for i in range(n):
        m = c[i * s] + lower[i] * excess
        inverse = 1.0 / (m + upper[i])
        excess = m * inverse
        ratio[i] = upper[i] * inverse
        value = (rhs[i] + lower[i] * value) * inverse
        out[i] = value
    for i in range(n - 2, -1, -1):
        out[i] += ratio[i] * out[i + 1]


@njit(cache=True, error_model="numpy")
def howard_sweep(
    scheme, V, spacing, ends, tables, boxes, limits, c, a, ratio, new, least, most
):
    """One policy improvement and its exact evaluation, in two passes.

    ``spacing`` is hm, hp, 1/hm, 1/hp, 1/(hm + hp); ``ends`` is (2, 5): fixed?, value
    or C, A, B of the ghost V_g = A V_in + B V + C at either end,
    and A + B - 1. ``tables`` as in `improve_separable` with d = 1.
    Where going on is worth less than `least` or more than `most`, V is that bound.
    Writes the control a (N) and the new value; returns the largest change, the
    largest HJB residual of V, and the first node without a control or -1.
    """
    f0, b, D, r0, r1, R = tables
    hm, hp, im, ip, ih = spacing
    low, high = boxes
    fmin, fmax = limits
    n = V.size
    s_D = 1 if D.size > 1 else 0
    s_b = 1 if b.size > 1 else 0
    s_1 = 1 if r1.size > 1 else 0
    s_R = 1 if R.size > 1 else 0
    s_lo = 1 if low.size > 1 else 0
    s_hi = 1 if high.size > 1 else 0
    s_c = 1 if c.size > 1 else 0
    s_least = 1 if least.size > 1 else 0
    s_most = 1 if most.size > 1 else 0
    excess, value, worst = 1.0, 0.0, 0.0
    ghost = ends[0, 2] * V[1] + ends[0, 3] * V[0] + ends[0, 1]
    dm = ghost - V[0]
    for i in range(n):
        here = V[i]
        if i < n - 1:
            dp = V[i + 1] - here
        else:
            dp = ends[1, 2] * V[n - 2] + ends[1, 3] * here + ends[1, 1] - here
        m, p = hm[i], hp[i]
        gain, noise = b[i * s_b], D[i * s_D]
        linear, square = r1[i * s_1], R[i * s_R]
        back, fore, left, right, central, bend = pieces_of(
            scheme, noise, dm, dp, im[i], ip[i], ih[i]
        )
        act = best_on_pieces(
            a[i], f0[i], gain, linear, square, low[i * s_lo], high[i * s_hi],
            fmin[i], fmax[i], back, fore, left, right, central, bend,
        )  # fmt: skip
        if np.isnan(act):
            return 0.0, 0.0, i
        a[i] = act
        drift = f0[i] + gain * act
        rhs = r0[i] + (linear - 0.5 * square * act) * act
        rate = c[i * s_c]
        noise *= 2.0
        if scheme == HYBRID:
            lo = max(noise - drift * p, 0.0) * im[i] * ih[i]
            up = max(noise + drift * m, 0.0) * ip[i] * ih[i]
            lo = -drift * im[i] if -drift * m > noise else lo
            up = drift * ip[i] if drift * p > noise else up
        else:
            lo = (noise * ih[i] + max(-drift, 0.0)) * im[i]
            up = (noise * ih[i] + max(drift, 0.0)) * ip[i]
        residual = rhs + lo * dm + up * dp - rate * here
        if i == 0 or i == n - 1:
            side = 0 if i == 0 else 1
            if ends[side, 0] == 1.0:
                lo, up, rate, rhs, residual = 0.0, 0.0, 1.0, ends[side, 1], 0.0
            elif side == 0:
                up, rate, rhs, lo = (
                    up + ends[0, 2] * lo,
                    rate - ends[0, 4] * lo,
                    rhs + ends[0, 1] * lo,
                    0.0,
                )
            else:
                lo, rate, rhs, up = (
                    lo + ends[1, 2] * up,
                    rate - ends[1, 4] * up,
                    rhs + ends[1, 1] * up,
                    0.0,
                )
        on = here + residual / (rate + lo + up)
        # Where nothing moves, pays or is discounted, whoever may stop does; so do ties
        # without discount, which round-off would break for going on for ever.
        idle = on != on
        slack = TIE * abs(here) if rate == 0.0 else 0.0
        if on < least[i * s_least] + slack or (idle and least[i * s_least] > -np.inf):
            lo, up, rate, rhs, residual = 0.0, 0.0, 1.0, least[i * s_least], 0.0
        elif on > most[i * s_most] - slack or (idle and most[i * s_most] < np.inf):
            lo, up, rate, rhs, residual = 0.0, 0.0, 1.0, most[i * s_most], 0.0
        worst = max(worst, abs(residual))
        mass = rate + lo * excess
        inverse = 1.0 / (mass + up)
        excess = mass * inverse
        ratio[i] = up * inverse
        value = (rhs + lo * value) * inverse
        new[i] = value
        dm = -dp
    change = abs(new[n - 1] - V[n - 1])
    for i in range(n - 2, -1, -1):
        new[i] += ratio[i] * new[i + 1]
        change = max(change, abs(new[i] - V[i]))
    return change, worst, -1
