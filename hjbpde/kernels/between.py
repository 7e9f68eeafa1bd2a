"""How far a Hamiltonian rises or falls while one component of the gradient changes.

For the faces where a state is held (`hjbpde.methods.reflecting_faces`): with G as in
`lax_friedrichs`, p_k = q and the other components fixed,

    sign max { sign (G(q) - G(0)) : q between 0 and slope },

sign 1 for the most G rises, -1 for the most it falls. G need not be convex: gradients
all over the range are tried, then again around the best, finer each time.
"""

import numpy as np
from numba import njit

COUNT = 19
"""Gradients tried at once."""
ROUNDS = 8
"""How often the range around the best is tried again, 9 times finer."""
BESIDE = 1e-5
"""How near to both ends gradients are tried: does G rise from there?"""


@njit(cache=True)
def _spread(low, high, first, shares):
    """Shares of the slope to be tried; the first time also right beside the ends."""
    n = len(shares)
    if not first:
        for c in range(n):
            shares[c] = low + (high - low) * c / (n - 1)
        return
    for c in range(n - 2):
        shares[c + (c > 0) + (c == n - 3)] = c / (n - 3)
    shares[1], shares[n - 2] = BESIDE, 1.0 - BESIDE


@njit(cache=True)
def _narrowed(shares, rises):
    """The largest rise, and the shares between which it lies: one if at an end."""
    c = np.argmax(rises)
    at_end = c == 0 or c == len(shares) - 1
    low, high = (c, c) if at_end else (c - 1, c + 1)
    return rises[c], shares[low], shares[high]


@njit(cache=True, inline="always")
def _optimum(gain, sense, inverse_R, low, high, R):
    """opt_u { gain u - sense R u^2 / 2 }; an R of 0 has an enormous inverse."""
    u = sense * gain * inverse_R
    u = min(max(u, low), high)
    return (gain - 0.5 * sense * R * u) * u


@njit(cache=True)
def affine_rise(tables, sense, p, k, slope, sign, out):
    """Of affine games; tables as in `godunov`, rows of N or 1 numbers.

    p (d, N), slope and sign (N,); p[k] is not read. out (N,): the result.
    """
    f0, B, r1, inverse_R, low, high, R = tables
    d, m = B.shape[0], B.shape[1]
    shares, rises = np.empty(COUNT), np.empty(COUNT)
    gains, still = np.empty(m), np.empty(m)
    for n in range(out.size):
        for i in range(m):
            gains[i] = r1[i, n % r1.shape[1]]
            for j in range(d):
                if j != k:
                    gains[i] += B[j, i, n % B.shape[2]] * p[j, n]
        out[n], begin, end = 0.0, 0.0, 1.0
        for turn in range(ROUNDS + 1):
            _spread(begin, end, turn == 0, shares)
            for c in range(COUNT):
                rises[c] = f0[k, n % f0.shape[1]] * shares[c] * slope[n]
            for i in range(m):
                z, r = inverse_R[i, n % inverse_R.shape[1]], R[i, n % R.shape[1]]
                lo, hi = low[i, n % low.shape[1]], high[i, n % high.shape[1]]
                b = B[k, i, n % B.shape[2]]
                still[i] = _optimum(gains[i], sense[i], z, lo, hi, r)
                for c in range(COUNT):
                    gain = gains[i] + b * shares[c] * slope[n]
                    rises[c] += _optimum(gain, sense[i], z, lo, hi, r) - still[i]
            rises *= sign[n]
            most, begin, end = _narrowed(shares, rises)
            out[n] = max(out[n], most)
            if begin == end:
                break
        out[n] *= sign[n]


@njit(cache=True)
def sampled_rise(f, r, p, k, slope, sign, out):
    """Of G(p) = max_a min_b r[a, b] + f[a, b] . p; f (na, nb, d, N), r (na, nb, N)."""
    na, nb, d = f.shape[0], f.shape[1], f.shape[2]
    shares, rises = np.empty(COUNT), np.empty(COUNT)
    fixed, least = np.empty((na, nb)), np.empty(COUNT)
    for n in range(out.size):
        at_rest = -np.inf
        for a in range(na):
            worst = np.inf
            for b in range(nb):
                fixed[a, b] = r[a, b, n]
                for j in range(d):
                    if j != k:
                        fixed[a, b] += f[a, b, j, n] * p[j, n]
                worst = min(worst, fixed[a, b])
            at_rest = max(at_rest, worst)
        out[n], begin, end = 0.0, 0.0, 1.0
        for turn in range(ROUNDS + 1):
            _spread(begin, end, turn == 0, shares)
            rises[:] = -np.inf
            for a in range(na):
                least[:] = np.inf
                for b in range(nb):
                    for c in range(COUNT):
                        value = fixed[a, b] + f[a, b, k, n] * shares[c] * slope[n]
                        least[c] = min(least[c], value)
                for c in range(COUNT):
                    rises[c] = max(rises[c], least[c])
            for c in range(COUNT):
                rises[c] = sign[n] * (rises[c] - at_rest)
            most, begin, end = _narrowed(shares, rises)
            out[n] = max(out[n], most)
            if begin == end:
                break
        out[n] *= sign[n]
