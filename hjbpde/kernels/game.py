"""Two players, one control each, against one another: max over a of min over b.

Both act on the payoff

    la a - Ra a^2/2 + lb b + Sb b^2/2 + K a b

and on drifts f_k = f0_k + Ba_k a + Bb_k b of some axes, whose gain is piecewise linear,
the pieces of `kernels.upwind.pieces_of`. The reply b is exact: a minimiser is sought on
every piece. The choice a is bracketed by the slopes met on any piece, then scanned and
refined by golden sections.
"""

import numpy as np
from numba import njit

from .upwind import pieces_of, strides, unravel

GOLDEN = 0.5 * (np.sqrt(5.0) - 1.0)
SCANNED = 10
"""Intervals that the bracket of a is cut into before refinement."""
SECTIONS = 48
"""Golden sections: 1e-10 of the bracket is left."""


@njit(cache=True, error_model="numpy")
def pair_payoff(a, b, own, axes, count):
    """The Hamiltonian of one pair up to terms without a and b.

    own = (la, Ra, lb, Sb, K); a row of axes = (f0, Ba, Bb, back, fore, left, right,
    central, bend).
    """
    out = (own[0] - 0.5 * own[1] * a) * a + (own[2] + 0.5 * own[3] * b + own[4] * a) * b
    for k in range(count):
        f = axes[k, 0] + axes[k, 1] * a + axes[k, 2] * b
        if f > axes[k, 6]:
            out += f * axes[k, 4]
        elif f < axes[k, 5]:
            out += f * axes[k, 3]
        else:
            out += f * axes[k, 7] + axes[k, 8]
    return out


@njit(cache=True, error_model="numpy")
def inside(low, high):
    """A point between two ends that may be infinite."""
    if low == -np.inf:
        return 0.0 if high == np.inf else high - 1.0
    return low + 1.0 if high == np.inf else 0.5 * (low + high)


@njit(cache=True, error_model="numpy")
def pair_reply(a, b_old, low, high, own, axes, count, cuts):
    """argmin over b in [low, high] of `pair_payoff`, and its value.

    Between two values of b at which a drift changes its piece the payoff is a
    quadratic; `cuts` is scratch. NumPy: min over a fine array of b.
    """
    n = 2
    cuts[0], cuts[1] = low, high
    for k in range(count):
        if axes[k, 2] == 0.0:
            continue
        z = axes[k, 0] + axes[k, 1] * a
        for side in range(5, 7):
            t = (axes[k, side] - z) / axes[k, 2]
            if low < t < high:
                at = n
                while cuts[at - 1] > t:
                    cuts[at] = cuts[at - 1]
                    at -= 1
                cuts[at] = t
                n += 1
    best = min(max(b_old, low), high)
    least = pair_payoff(a, best, own, axes, count)
    for i in range(n - 1):
        start, stop = cuts[i], cuts[i + 1]
        mid = inside(start, stop)
        slope = own[2] + own[4] * a
        for k in range(count):
            f = axes[k, 0] + axes[k, 1] * a + axes[k, 2] * mid
            piece = 4 if f > axes[k, 6] else (3 if f < axes[k, 5] else 7)
            slope += axes[k, 2] * axes[k, piece]
        if own[3] > 0.0:
            b = min(max(-slope / own[3], start), stop)
        elif slope != 0.0:
            b = start if slope > 0.0 else stop
        else:
            continue
        value = pair_payoff(a, b, own, axes, count)
        if value < least:
            least, best = value, b
    return best, least


@njit(cache=True, error_model="numpy")
def pair_choice(a_old, b_old, box, own, axes, count, cuts):
    """argmax over a of min over b, and that b; box = (low, high) of a, then of b.

    The derivative in a is la - Ra a + K b + sum_k Ba_k slope_k with slope_k between
    the slopes behind and ahead: where it has one sign there is no maximiser.
    NumPy: max over a fine array of a of min over a fine array of b.
    """
    low, high, b_low, b_high = box[0], box[1], box[2], box[3]
    least = most = own[0]
    for k in range(count):
        one, two = axes[k, 1] * axes[k, 3], axes[k, 1] * axes[k, 4]
        least, most = least + min(one, two), most + max(one, two)
    if own[4] != 0.0:
        one, two = own[4] * b_low, own[4] * b_high
        least, most = least + min(one, two), most + max(one, two)
    if own[1] > 0.0:
        p, q = least / own[1], most / own[1]
        p, q = min(max(p, low), high), min(max(q, low), high)
    else:
        p, q = (high if least > 0.0 else low), (low if most < 0.0 else high)
    a = min(max(a_old, p), q)
    b, best = pair_reply(a, b_old, b_low, b_high, own, axes, count, cuts)
    if q - p <= 1e-15 * (abs(p) + abs(q)):
        return a, b
    for piece in range(3):
        # The maximiser if all drifts stay on the pieces behind, ahead or between.
        if own[1] == 0.0:
            break
        slope = own[0] + own[4] * b
        column = 7 if piece == 2 else 3 + piece
        for k in range(count):
            slope += axes[k, 1] * axes[k, column]
        one = min(max(slope / own[1], p), q)
        reply, value = pair_reply(one, b, b_low, b_high, own, axes, count, cuts)
        if value > best:
            a, b, best = one, reply, value
    width = (q - p) / SCANNED
    for i in range(SCANNED + 1):
        one = p + i * width if i < SCANNED else q
        reply, value = pair_reply(one, b, b_low, b_high, own, axes, count, cuts)
        if value > best:
            a, b, best = one, reply, value
    start, stop = max(p, a - width), min(q, a + width)
    one, two = stop - GOLDEN * (stop - start), start + GOLDEN * (stop - start)
    b_one, v_one = pair_reply(one, b, b_low, b_high, own, axes, count, cuts)
    b_two, v_two = pair_reply(two, b, b_low, b_high, own, axes, count, cuts)
    for _ in range(SECTIONS):
        if v_one > best:
            a, b, best = one, b_one, v_one
        if v_two > best:
            a, b, best = two, b_two, v_two
        if stop - start <= 1e-13 * (abs(start) + abs(stop)):
            break
        if v_one > v_two:
            stop, two, v_two, b_two = two, one, v_one, b_one
            one = stop - GOLDEN * (stop - start)
            b_one, v_one = pair_reply(one, b, b_low, b_high, own, axes, count, cuts)
        else:
            start, one, v_one, b_one = one, two, v_two, b_two
            two = start + GOLDEN * (stop - start)
            b_two, v_two = pair_reply(two, b, b_low, b_high, own, axes, count, cuts)
    return a, b


@njit(cache=True, error_model="numpy")
def settle_pairs(n, pairs, acts, held, tables, boxes, pieces, u, scratch):
    """Choose every pair's controls at node n, in place; pieces (d, 6) of its axes.

    pairs (G, 2): a control of each player or -1; acts (d, M): which control moves
    which axis; tables = (f0, B, r1, R).
    """
    f0, B, r1, R = tables
    low, high = boxes
    own, box, axes, cuts = scratch
    s_f, s_B = min(f0.shape[1] - 1, 1), min(B.shape[2] - 1, 1)
    s_1, s_R = min(r1.shape[1] - 1, 1), min(R.shape[2] - 1, 1)
    s_lo, s_hi = min(low.shape[1] - 1, 1), min(high.shape[1] - 1, 1)
    for g in range(pairs.shape[0]):
        i, j = pairs[g, 0], pairs[g, 1]
        own[:], box[:] = 0.0, 0.0
        if i >= 0:
            own[0], own[1] = r1[i, n * s_1], R[i, i, n * s_R]
            box[0], box[1] = low[i, n * s_lo], high[i, n * s_hi]
        if j >= 0:
            own[2], own[3] = r1[j, n * s_1], -R[j, j, n * s_R]
            box[2], box[3] = low[j, n * s_lo], high[j, n * s_hi]
        if i >= 0 and j >= 0:
            own[4] = -R[i, j, n * s_R]
        count = 0
        for k in range(acts.shape[0]):
            one = i >= 0 and acts[k, i]
            two = j >= 0 and acts[k, j]
            if not (one or two):
                continue
            axes[count, 0] = f0[k, n * s_f]
            axes[count, 1] = B[k, i, n * s_B] if one else 0.0
            axes[count, 2] = B[k, j, n * s_B] if two else 0.0
            axes[count, 3:] = pieces[k]
            count += 1
        a = u[i, n] if i >= 0 else 0.0
        b = u[j, n] if j >= 0 else 0.0
        if held:
            b, _ = pair_reply(a, b, box[2], box[3], own, axes, count, cuts)
        else:
            a, b = pair_choice(a, b, box, own, axes, count, cuts)
            if i >= 0:
                u[i, n] = a
        if j >= 0:
            u[j, n] = b


@njit(cache=True, error_model="numpy")
def room_for(d):
    """Scratch of `settle_pairs` in d dimensions: own, box, axes, cuts."""
    return np.zeros(5), np.zeros(4), np.zeros((d, 9)), np.zeros(2 * d + 2)


@njit(cache=True, error_model="numpy")
def improve_pairs(scheme, Vp, shape, hm, hp, D, pairs, acts, held, tables, boxes, u):
    """max min of the discrete Hamiltonian at every node, written into u (M, N).

    Where `held` only the replies change. NumPy: `pair_choice` at every node.
    """
    d = shape.size
    n_last = shape[d - 1]
    index = np.zeros(d, np.int64)
    stride = strides(shape, 2)
    pieces, scratch = np.empty((d, 6)), room_for(d)
    s_D = min(D.shape[1] - 1, 1)
    for row in range(u.shape[1] // n_last):
        unravel(row, shape, index)
        padded = 1
        for k in range(d - 1):
            padded += (index[k] + 1) * stride[k]
        for j in range(n_last):
            n = row * n_last + j
            here = Vp[padded + j]
            for k in range(d):
                at = j if k == d - 1 else index[k]
                m, p = hm[k, at], hp[k, at]
                back, fore, left, right, central, bend = pieces_of(
                    scheme, D[k, n * s_D], Vp[padded + j - stride[k]] - here,
                    Vp[padded + j + stride[k]] - here, 1 / m, 1 / p, 1 / (m + p),
                )  # fmt: skip
                pieces[k, 0], pieces[k, 1] = back, fore
                pieces[k, 2], pieces[k, 3] = left, right
                pieces[k, 4], pieces[k, 5] = central, bend
            settle_pairs(n, pairs, acts, held, tables, boxes, pieces, u, scratch)


@njit(cache=True, error_model="numpy")
def smooth_pairs(p, pairs, acts, held, tables, boxes, u):
    """max min of payoff + f . p with a given gradient p (d, N), written into u (M, N).

    NumPy: `pair_choice` with one slope a axis, at every node.
    """
    d = p.shape[0]
    pieces, scratch = np.zeros((d, 6)), room_for(d)
    pieces[:, 2], pieces[:, 3] = -np.inf, np.inf
    for n in range(u.shape[1]):
        for k in range(d):
            pieces[k, 0] = pieces[k, 1] = pieces[k, 4] = p[k, n]
        settle_pairs(n, pairs, acts, held, tables, boxes, pieces, u, scratch)
