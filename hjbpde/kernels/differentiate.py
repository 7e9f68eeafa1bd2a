"""First and second derivatives along one axis by tabulated stencils."""

from numba import njit


@njit(cache=True, error_model="numpy")
def differentiate(V, n_outer, n, n_inner, source, w1, w2, p, q):
    """p = dV/dx, q = d2V/dx2 along an axis of length n; row i reads source[i, s].

    NumPy: ``p[i] = sum_s w1[i, s] V[source[i, s]]``, q likewise with w2.
    """
    width = source.shape[1]
    if n_inner == 1:
        for o in range(n_outer):
            base = o * n
            for i in range(n):
                one, two = 0.0, 0.0
                for s in range(width):
                    v = V[base + source[i, s]]
                    one += w1[i, s] * v
                    two += w2[i, s] * v
                p[base + i] = one
                q[base + i] = two
        return
    for o in range(n_outer):
        for i in range(n):
            out = (o * n + i) * n_inner
            for j in range(n_inner):
                p[out + j] = 0.0
                q[out + j] = 0.0
            for s in range(width):
                at = (o * n + source[i, s]) * n_inner
                a, b = w1[i, s], w2[i, s]
                if a == 0.0 and b == 0.0:
                    continue
                for j in range(n_inner):
                    p[out + j] += a * V[at + j]
                    q[out + j] += b * V[at + j]
