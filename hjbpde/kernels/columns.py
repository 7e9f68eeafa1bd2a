"""Tables on the nodes, stored once along axes where they are constant.

Row r of a table has at node n the number ``numbers[begin + (n // repeat) % period]``
with ``begin, repeat, period = places[r]``. Where repeat is 1 the numbers go on for
another `WIDTH`, so that a block of nodes is one slice; other blocks are spread into row
r of a scratch matrix S.
"""

import numpy as np
from numba import njit

WIDTH = 1024
"""Nodes of a block, at most: its rows stay in the cache, and calls are amortised."""


@njit(cache=True)
def scratch(numbers, places, nodes):
    """S for blocks of so many nodes; rows that are one number are spread already."""
    S = np.empty((len(places), min(nodes, WIDTH)))
    for r in range(len(places)):
        if places[r, 2] == 1:
            S[r, :] = numbers[places[r, 0]]
    return S


@njit(cache=True)
def is_zero(numbers, places, r):
    """Whether row r is 0 everywhere."""
    return places[r, 2] == 1 and numbers[places[r, 0]] == 0.0


@njit(cache=True)
def _spread(numbers, begin, repeat, period, j0, out):
    done = 0
    while done < out.size:
        run = (j0 + done) // repeat
        end = min(out.size, (run + 1) * repeat - j0)
        number = numbers[begin + run % period]
        for j in range(done, end):
            out[j] = number
        done = end


@njit(cache=True)
def row_of(numbers, places, r, S, j0, w):
    """Row r at the nodes j0, ..., j0 + w - 1; w is `WIDTH` at most."""
    begin, repeat, period = places[r, 0], places[r, 1], places[r, 2]
    if period > 1 and repeat == 1:
        at = begin + j0 % period
        return numbers[at : at + w]
    if period > 1:
        _spread(numbers, begin, repeat, period, j0, S[r, :w])
    return S[r, :w]
