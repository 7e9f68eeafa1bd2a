"""Godunov's Hamiltonian of separable affine games; tables as in `lax_friedrichs`."""

import numpy as np
from numba import njit


@njit(cache=True, inline="always")
def _upwind_supremum(f0, b, r1, inverse_R, low, high, back, fore):
    """sup_u f+ fore + f- back + r1 u - R u^2/2 with f = f0 + b u; b is not 0.

    The two signs of f are constraints on u, so f = 0 is a candidate of both.
    """
    R = 1.0 / inverse_R
    still = -f0 / b
    best = -np.inf
    for side in range(2):
        p = fore if side == 0 else back
        forward = (side == 0) == (b > 0.0)
        lo = max(low, still) if forward else low
        hi = high if forward else min(high, still)
        if lo <= hi:
            gain = r1 + b * p
            u = min(max(gain * inverse_R, lo), hi)
            best = max(best, f0 * p + (gain - 0.5 * R * u) * u)
    return best


@njit(cache=True, error_model="numpy")
def godunov(tables, r0, axis_of, sense, minus, plus, inverse_h, rate, largest):
    """Godunov's Hamiltonian where every control acts on one axis, one an axis at most.

    axis_of (M,): the axis of each control, -1 where it acts on none. On an axis the
    extremum over the control of the upwind difference of its own drift equals
    Godunov's formula, ext of G over the interval between p- and p+ (Osher and Shu,
    equation 3.8), because G is convex or concave there. Returns the CFL sum.
    """
    f0, B, r1, inverse_R, low, high, _ = tables
    d, m = B.shape[0], B.shape[1]
    largest[:] = 0.0
    top = 0.0
    control = np.full(d, -1)
    for i in range(m):
        if axis_of[i] >= 0:
            control[axis_of[i]] = i
    for n in range(rate.size):
        value, courant = r0[n % r0.size], 0.0
        for i in range(m):
            if axis_of[i] < 0:
                g, z = r1[i, n % r1.shape[1]], inverse_R[i, n % inverse_R.shape[1]]
                lo, hi = low[i, n % low.shape[1]], high[i, n % high.shape[1]]
                u = min(max(sense[i] * g * z, lo), hi)
                value += (g - 0.5 * sense[i] * u / z) * u
        for k in range(d):
            f, back, fore = f0[k, n % f0.shape[1]], minus[k, n], plus[k, n]
            i = control[k]
            b = 0.0 if i < 0 else B[k, i, n % B.shape[2]]
            if i < 0:
                value += max(f, 0.0) * fore + min(f, 0.0) * back
                speed = abs(f)
            else:
                g, z = r1[i, n % r1.shape[1]], inverse_R[i, n % inverse_R.shape[1]]
                lo, hi = low[i, n % low.shape[1]], high[i, n % high.shape[1]]
                s = sense[i]
                if b == 0.0:
                    u = min(max(s * g * z, lo), hi)
                    value += (g - 0.5 * s * u / z) * u
                    value += max(f, 0.0) * fore + min(f, 0.0) * back
                else:
                    value += s * _upwind_supremum(
                        f, b, s * g, z, lo, hi, s * back, s * fore
                    )
                one = f + b * min(max(s * (g + b * back) * z, lo), hi)
                two = f + b * min(max(s * (g + b * fore) * z, lo), hi)
                speed = max(abs(one), abs(two))
            largest[k] = max(largest[k], speed)
            courant += speed * inverse_h[k, n % inverse_h.shape[1]]
        top = max(top, courant)
        rate[n] = value
    return top
