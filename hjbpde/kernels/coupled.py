"""Quadratic maximisers when controls share axes or each other's cost.

The discrete Hamiltonian is concave quadratic in a plus, on every axis, a piecewise
linear function of the drift. Each combination of pieces (and of break points held
as equalities) is a small quadratic programme on the box; its solutions are offered
and the Hamiltonian itself decides between them.
"""

import numpy as np
from numba import njit

from .upwind import HYBRID, axis_gain, strides, unravel


@njit(cache=True, error_model="numpy")
def solve_small(A, b, n):
    """Gaussian elimination with pivoting in place; False when singular."""
    for i in range(n):
        p = i
        for k in range(i + 1, n):
            if abs(A[k, i]) > abs(A[p, i]):
                p = k
        if abs(A[p, i]) < 1e-13:
            return False
        if p != i:
            for j in range(n):
                A[i, j], A[p, j] = A[p, j], A[i, j]
            b[i], b[p] = b[p], b[i]
        for k in range(i + 1, n):
            factor = A[k, i] / A[i, i]
            if factor != 0.0:
                for j in range(i, n):
                    A[k, j] -= factor * A[i, j]
                b[k] -= factor * b[i]
    for i in range(n - 1, -1, -1):
        for j in range(i + 1, n):
            b[i] -= A[i, j] * b[j]
        b[i] /= A[i, i]
    return True


@njit(cache=True, error_model="numpy")
def box_maximiser(g, R, low, high, a):
    """argmax of g.a - a'R a/2 on a box by cyclic exact steps, written into a.

    Converges for R positive semidefinite on a finite box, or definite R.
    NumPy: scipy.optimize with bounds.
    """
    m = g.size
    for _ in range(200):
        change = 0.0
        for i in range(m):
            slope = g[i]
            for j in range(m):
                if j != i:
                    slope -= R[i, j] * a[j]
            if R[i, i] > 0.0:
                new = slope / R[i, i]
            else:
                new = high[i] if slope > 0.0 else (low[i] if slope < 0.0 else a[i])
            new = min(max(new, low[i]), high[i])
            change = max(change, abs(new - a[i]) / (1.0 + abs(new)))
            a[i] = new
        if change < 1e-15:
            return


@njit(cache=True, error_model="numpy")
def hamiltonian(scheme, a, f0, B, D, r1, R, dm, dp, hm, hp, fmin, fmax):
    """r1.a - a'R a/2 + sum of axis gains; -inf outside the drift limits."""
    d, m = f0.size, a.size
    total = 0.0
    for i in range(m):
        total += r1[i] * a[i]
        for j in range(m):
            total -= 0.5 * a[i] * R[i, j] * a[j]
    for k in range(d):
        f = f0[k]
        for i in range(m):
            f += B[k, i] * a[i]
        if f < fmin[k] - 1e-10 or f > fmax[k] + 1e-10:
            return -np.inf
        total += axis_gain(scheme, f, D[k], dm[k], dp[k], hm[k], hp[k])
    return total


@njit(cache=True, error_model="numpy")
def smooth_coupled(p, tables, boxes, a):
    """argmax of (r1 + B'p).a - a'R a/2 on the box at every node, into a (m, n)."""
    B, r1, R = tables
    low, high = boxes
    d, n = p.shape
    m = a.shape[0]
    s_B = 1 if B.shape[2] > 1 else 0
    s_1 = 1 if r1.shape[1] > 1 else 0
    s_R = 1 if R.shape[2] > 1 else 0
    s_lo = 1 if low.shape[1] > 1 else 0
    s_hi = 1 if high.shape[1] > 1 else 0
    g, lo, hi, act = np.empty(m), np.empty(m), np.empty(m), np.empty(m)
    square = np.empty((m, m))
    for node in range(n):
        for i in range(m):
            g[i] = r1[i, node * s_1]
            for k in range(d):
                g[i] += B[k, i, node * s_B] * p[k, node]
            lo[i], hi[i] = low[i, node * s_lo], high[i, node * s_hi]
            act[i] = min(max(a[i, node], lo[i]), hi[i])
            for j in range(m):
                square[i, j] = R[i, j, node * s_R]
        box_maximiser(g, square, lo, hi, act)
        for i in range(m):
            a[i, node] = act[i]


@njit(cache=True, error_model="numpy")
def try_pieces(pattern, base, scheme, f0, B, D, r1, R, low, high, sl, A, rhs, a, act):
    """Offer the solution of one combination of pieces and active bounds.

    `pattern` in base 5 by axis: 0 down, 1 up, 2 central, 3 / 4 the break points;
    `act` in base 3 by control: 0 free, 1 low, 2 high. Writes a; False if unsolvable.
    """
    d, m = f0.size, r1.size
    n = 0
    size = m + d
    for i in range(size):
        rhs[i] = 0.0
        for j in range(size):
            A[i, j] = 0.0
    n_eq = 0
    for i in range(m):
        rhs[i] = r1[i]
        for j in range(m):
            A[i, j] = R[i, j]
    rest = pattern
    for k in range(d):
        piece = rest % base
        rest //= base
        if piece < 3:
            for i in range(m):
                rhs[i] += B[k, i] * sl[piece, k]
        else:
            target = sl[piece, k]
            row = m + n_eq
            rhs[row] = target - f0[k]
            for i in range(m):
                A[row, i] = B[k, i]
                A[i, row] = B[k, i]
                rhs[i] += 0.0
            n_eq += 1
    rest = act
    for i in range(m):
        state = rest % 3
        rest //= 3
        if state:
            bound = low[i] if state == 1 else high[i]
            if not np.isfinite(bound):
                return False
            for j in range(m + n_eq):
                A[i, j] = 0.0
            A[i, i] = 1.0
            rhs[i] = bound
    n = m + n_eq
    if not solve_small(A, rhs, n):
        return False
    for i in range(m):
        if rhs[i] < low[i] - 1e-9 or rhs[i] > high[i] + 1e-9:
            return False
        a[i] = min(max(rhs[i], low[i]), high[i])
    return True


@njit(cache=True, error_model="numpy")
def climb(pattern, pieces, convex, scheme, f0, B, r1, R, low, high, sl, g, drift, act):
    """Maximise with pieces from `pattern` on convex axes, else where the drift lies.

    Moves act; returns whether the concave axes' pieces agreed with their drift.
    """
    d, m = f0.size, act.size
    for _ in range(8):
        rest = pattern
        for i in range(m):
            g[i] = r1[i]
        for k in range(d):
            drift[k] = f0[k]
            for i in range(m):
                drift[k] += B[k, i] * act[i]
            piece = 2 if scheme == HYBRID else (1 if drift[k] > 0.0 else 0)
            if drift[k] > sl[4, k]:
                piece = 1
            elif drift[k] < sl[3, k]:
                piece = 0
            if convex[k]:
                piece = rest % pieces
                rest //= pieces
            for i in range(m):
                g[i] += B[k, i] * sl[piece, k]
        box_maximiser(g, R, low, high, act)
        same = True
        for k in range(d):
            after = f0[k]
            for i in range(m):
                after += B[k, i] * act[i]
            moved = (after > sl[4, k]) != (drift[k] > sl[4, k])
            moved = moved or (after < sl[3, k]) != (drift[k] < sl[3, k])
            if moved and not convex[k]:
                same = False
        if same:
            return True
    return False


@njit(cache=True, error_model="numpy")
def improve_coupled(scheme, Vp, shape, hm, hp, fmin, fmax, tables, boxes, a, f, r):
    """Greedy control of the discrete Hamiltonian with coupled controls.

    As `improve_separable`, with B (d, m, N) and R (m, m, N) full. On an axis where
    the value is convex the gain is the largest of its pieces' lines, so the maximum
    is found by trying every piece there; on the other axes the pieces the drift lies
    on are followed until they agree with it (`climb`). Where they never do (a break
    point holds the maximum), or faces limit the drift, all combinations of pieces,
    break points and bounds are tried for d, m <= 3, beyond that all pieces.
    """
    f0, B, D, r0, r1, R = tables
    low, high = boxes
    d, m = shape.size, a.shape[0]
    last = d - 1
    n_last = shape[last]
    s_D = 1 if D.shape[1] > 1 else 0
    s_B = 1 if B.shape[2] > 1 else 0
    s_1 = 1 if r1.shape[1] > 1 else 0
    s_R = 1 if R.shape[2] > 1 else 0
    s_lo = 1 if low.shape[1] > 1 else 0
    s_hi = 1 if high.shape[1] > 1 else 0
    index, stride = np.zeros(d, np.int64), strides(shape, 2)
    dm, dp, gm, gp = np.empty(d), np.empty(d), np.empty(d), np.empty(d)
    nf, nD, cmin, cmax = np.empty(d), np.empty(d), np.empty(d), np.empty(d)
    nB, nR, nr = np.empty((d, m)), np.empty((m, m)), np.empty(m)
    lo, hi, g = np.empty(m), np.empty(m), np.empty(m)
    act, best = np.empty(m), np.empty(m)
    sl, drift, convex = np.zeros((5, d)), np.empty(d), np.zeros(d, np.bool_)
    pieces = 3 if scheme == HYBRID else 2
    A, rhs = np.empty((m + d, m + d)), np.empty(m + d)
    for row in range(r.size // n_last):
        unravel(row, shape, index)
        base = row * n_last
        padded = 1
        for k in range(last):
            padded += (index[k] + 1) * stride[k]
        for j in range(n_last):
            n = base + j
            here = Vp[padded + j]
            limited, n_convex = False, 0
            for k in range(d):
                at = j if k == last else index[k]
                dm[k] = Vp[padded + j - stride[k]] - here
                dp[k] = Vp[padded + j + stride[k]] - here
                gm[k], gp[k] = hm[k, at], hp[k, at]
                cmin[k], cmax[k] = fmin[k, at], fmax[k, at]
                nf[k], nD[k] = f0[k, n], D[k, n * s_D]
                for i in range(m):
                    nB[k, i] = B[k, i, n * s_B]
                sl[0, k] = -dm[k] / gm[k]
                sl[1, k] = dp[k] / gp[k]
                sl[2, k] = (gm[k] * dp[k] / gp[k] - gp[k] * dm[k] / gm[k]) / (
                    gm[k] + gp[k]
                )
                reach = 2.0 * nD[k] if scheme == HYBRID else 0.0
                sl[3, k], sl[4, k] = -reach / gm[k], reach / gp[k]
                convex[k] = sl[1, k] > sl[0, k]
                n_convex += convex[k]
                if cmin[k] > -np.inf or cmax[k] < np.inf:
                    limited = True
                    sl[3, k] = sl[4, k] = 0.0
            for i in range(m):
                nr[i] = r1[i, n * s_1]
                lo[i], hi[i] = low[i, n * s_lo], high[i, n * s_hi]
                best[i] = min(max(a[i, n], lo[i]), hi[i])
                for q in range(m):
                    nR[i, q] = R[i, q, n * s_R]
            top = hamiltonian(
                scheme, best, nf, nB, nD, nr, nR, dm, dp, gm, gp, cmin, cmax
            )
            done = not limited
            patterns = pieces**n_convex if done else 1
            for pattern in range(patterns):
                for i in range(m):
                    act[i] = best[i]
                settled = climb(
                    pattern, pieces, convex, scheme, nf, nB, nr, nR, lo, hi, sl, g,
                    drift, act,
                )  # fmt: skip
                done = done and settled
                value = hamiltonian(
                    scheme, act, nf, nB, nD, nr, nR, dm, dp, gm, gp, cmin, cmax
                )
                if value > top:
                    top = value
                    for i in range(m):
                        best[i] = act[i]
            if not done:
                small = d <= 3 and m <= 3
                radix = 5 if small else 3
                bounds = 3**m if m <= 6 else 1
                for pattern in range(radix**d):
                    for state in range(bounds):
                        ok = try_pieces(
                            pattern,
                            radix,
                            scheme,
                            nf,
                            nB,
                            nD,
                            nr,
                            nR,
                            lo,
                            hi,
                            sl,
                            A,
                            rhs,
                            act,
                            state,
                        )
                        if ok:
                            value = hamiltonian(
                                scheme,
                                act,
                                nf,
                                nB,
                                nD,
                                nr,
                                nR,
                                dm,
                                dp,
                                gm,
                                gp,
                                cmin,
                                cmax,
                            )
                            if value > top:
                                top = value
                                for i in range(m):
                                    best[i] = act[i]
            if top == -np.inf:
                return n
            r[n] = r0[n]
            for i in range(m):
                a[i, n] = best[i]
                r[n] += nr[i] * best[i]
                for q in range(m):
                    r[n] -= 0.5 * best[i] * nR[i, q] * best[q]
            for k in range(d):
                f[k, n] = nf[k]
                for i in range(m):
                    f[k, n] += nB[k, i] * best[i]
    return -1
