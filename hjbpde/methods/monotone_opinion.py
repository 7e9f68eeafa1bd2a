"""A monotone second opinion where high order can settle on a wrong solution.

With G neither convex nor concave in grad V (games) and a V with kinks, schemes that are
not monotone may converge, grid by grid and without a sign of it, to a function that
solves the equation almost everywhere and is not the viscosity solution (Qiu and Shu,
SIAM J. Sci. Comput. 31 (2008) 584). Nested grids cannot see that; a monotone
scheme cannot do it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ..grid import Grid
from .hamiltonians import Hamiltonian, LaxFriedrichs, Slopes

Array = NDArray[np.float64]
PAIRS = 8
"""Pairs of gradients between which G is tried at every node."""
BENT = 1e-6
"""Bend of G between two gradients, relative to its range, that is not round-off."""
KEPT = 0.7
"""Largest jump of a slope from node to node over that on the halved grid, from which on
it is a kink: 1/2 where V is smooth, 1 at a kink."""
LEAST_JUMP = 0.02
"""The same relative to the range of the slope; smaller ones are no matter."""
OPINION = (
    "V has kinks where the Hamiltonian is neither convex nor concave in its slopes: "
    "the bar reaches to what a monotone scheme finds"
)
"""What the report says of it."""


def needs_opinion(
    hamiltonians: Sequence[Hamiltonian],
    fine: tuple[Grid, Array],
    halved: tuple[Grid, Array],
) -> bool:
    """Whether values have kinks where G is neither convex nor concave.

    `fine` and `halved`: a grid and the values (T, *shape) on it.
    """
    grid, slopes = fine[0], _slopes(*fine)
    if not has_kinks(fine, halved):
        return False
    box = np.array([[s.min(), s.max()] for s in slopes])
    return any(bends_both_ways(G, box, grid.size) for G in hamiltonians)


def _slopes(grid: Grid, values: Array) -> list[Array]:
    """Differences of values (T, *shape) along every axis."""
    found = []
    for k in range(grid.dimension):
        step = np.diff(grid.axes[k])
        view = np.ones(values.ndim, dtype=int)
        view[k + 1] = -1
        found.append(np.diff(values, axis=k + 1) / step.reshape(view))
    return found


def has_kinks(fine: tuple[Grid, Array], halved: tuple[Grid, Array]) -> bool:
    """Whether some slope of V jumps: a grid and the values (T, *shape) on it, twice."""
    slopes, before = _slopes(*fine), _slopes(*halved)
    for k in range(fine[0].dimension):
        jump, wide = (
            float(np.abs(np.diff(s[k], axis=k + 1)).max(initial=0.0))
            for s in (slopes, before)
        )
        if jump > LEAST_JUMP * np.ptp(slopes[k]) and jump > KEPT * wide:
            return True
    return False


def bends_both_ways(hamiltonian: Hamiltonian, box: Array, n: int) -> bool:
    """Whether G bends up between some gradients of `box` (d, 2), down between others.

    Both at one of the n nodes; pairs are drawn for every node alone.
    """
    rng, d = np.random.default_rng(0), len(box)
    up, down, most = np.zeros(n), np.zeros(n), 0.0

    def G(p: Array) -> Array:
        rate, largest = np.empty(n), np.empty(d)
        slopes = Slopes(p, p, np.ones((d, 1)))
        hamiltonian.fill_rate(slopes, LaxFriedrichs(), rate, largest)
        return rate

    for _ in range(PAIRS):
        p, q = (
            np.ascontiguousarray(box[:, :1] + np.ptp(box, axis=1)[:, None] * share)
            for share in rng.random((2, d, n))
        )
        one, two = G(p), G(q)
        bend = 0.5 * (one + two) - G(0.5 * (p + q))
        up, down = np.maximum(up, bend), np.maximum(down, -bend)
        most = max(most, float(np.abs(one - two).max()))
    return bool((np.minimum(up, down) > BENT * most).any())


def distance(
    values: Array, monotone: list[Array], widened: Callable[[Array], Array]
) -> Array:
    """How far `values` may be from the viscosity solution, (T, *shape).

    `monotone`: values of a monotone first-order scheme on the same nodes, from coarse
    to fine; with ``E_h = 2 V_h - V_2h`` the distance is ``|V - E_h|``, and beside it
    ``|E_h - E_2h|``, what E_h lacks itself: near kinks it is of order 1 as V_h is.
    """
    best = 2.0 * monotone[-1] - monotone[-2]
    lacks = monotone[-1] - monotone[-2]
    if len(monotone) > 2:
        lacks = best - (2.0 * monotone[-2] - monotone[-3])
    return widened(np.abs(values - best)) + widened(np.abs(lacks))
