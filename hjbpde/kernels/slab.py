"""A Runge-Kutta stage slab by slab: all of it while a slab is in the cache.

A slab is a few neighbouring rows of one axis, with all axes after it and one index of
every axis before it. Its one-sided slopes, Hamiltonian and stage are worked out before
the next slab is read, so that only values stream through memory.
"""

import numpy as np
from numba import njit

from .columns import WIDTH, scratch
from .lax_friedrichs import blend, given_speeds, rows
from .weno import one_sided_along, rows_along

NODES = 8192
"""A slab has about as many: its slopes fit the second-level cache."""


def slab_of(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """The axis that slabs cut (-1: none), its nodes in a slab, nodes behind each."""
    inner = 1
    axis = len(shape) - 1
    while axis > 0 and (axis == len(shape) - 1 or inner * shape[axis] <= NODES):
        inner *= shape[axis]
        axis -= 1
    if len(shape) == 1:
        return -1, 1, shape[0]
    return axis, min(max(1, NODES // inner), shape[axis]), inner


@njit(cache=True)
def _slab_slopes(V, lattice, cut, start, count, carried, minus, plus, D):
    """minus, plus[:, :count] at the nodes from `start` on.

    carried: of every axis up to the one cut, the minus derivative at the next node.
    """
    shape, inverse, scheme, epsilon, ghosts = lattice
    axis, _, width = cut
    inner = V.size
    for k in range(len(shape)):
        n = shape[k]
        inner //= n
        along = (n, inner, inverse[k], scheme, epsilon[k])
        back, fore = minus[k, :count], plus[k, :count]
        if k > axis:
            own = V[start : start + count]
            one_sided_along(own, *along, ghosts[k], back, fore, D)
            continue
        i = start // inner % n
        low, offset = start - i * inner, start % inner
        nodes, lines = (count // width, width) if k == axis else (1, count)
        edge = carried[k, offset : offset + lines]
        rows_along(V, low, i, nodes, along, ghosts[k], edge, back, fore, D)


@njit(cache=True)
def march_slabs(V, lattice, cut, D, game, one, a, b, dt, rho, out):
    """out = a one + b (V + dt (G - rho V)), G with the largest speeds of all controls.

    V, one, out (N,), out not V. lattice: (shape, 1/h (d, .), scheme, epsilon (d,),
    ghosts (d, 2)) as in `one_sided_along`; cut: `slab_of`; D: its scratch. game:
    (columns, acts, sense) as in `lax_friedrichs`. rho (1,) or (N,).
    """
    columns, acts, sense = game
    axis, most, width = cut
    d, block = len(acts), V.size
    S = scratch(columns[0], columns[1], most * width)
    T, P = rows(), np.empty((d, WIDTH))
    minus, plus = np.empty((d, most * width)), np.empty((d, most * width))
    carried = np.empty((max(axis + 1, 0), V.size // lattice[0][0]))
    for k in range(axis):
        block //= lattice[0][k]
    for outer in range(0, V.size, block):
        for start in range(outer, outer + block, most * width):
            count = min(most * width, outer + block - start)
            _slab_slopes(V, lattice, cut, start, count, carried, minus, plus, D)
            for at in range(0, count, WIDTH):
                j0, j1 = start + at, start + min(count, at + WIDTH)
                rate = T[6][: j1 - j0]
                given_speeds(columns, S, T, P, acts, sense, minus, plus, j0, at, rate)
                decay = rho if rho.size == 1 else rho[j0:j1]
                blend(one[j0:j1], a, V[j0:j1], b, rate, dt, decay, out[j0:j1])
