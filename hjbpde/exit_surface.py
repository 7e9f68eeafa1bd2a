"""How far a grid value misses the exit data on the true surface of the region.

Exit nodes take g where they lie, up to a cell beyond the surface. Nested grids may
share the nodes on both sides of it and then agree without being right, so this error
is measured on the surface itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .given_data import given_at
from .grid import Grid
from .methods.state import GridState
from .problem import ControlProblem

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
BISECTIONS = 40


def surface_miss(problem: ControlProblem, state: GridState, V: Array) -> float:
    """``max |V(x) - g(x)|`` where grid lines cross the surface of the exit region.

    V (*shape), maximised, is read on the line between a running node and an exit
    node, bent as it is inside. By the comparison principle a monotone value is off by
    no more than this inside because of where exit nodes lie. Lines that the process
    does not follow (weight 0) do not count.
    """
    grid = state.grid
    if problem.exit is None or state.under is None:
        return 0.0
    running = np.asarray(problem.exit.region(grid.nodes()) > 0)
    running = np.broadcast_to(running, grid.shape)
    _, lower, upper = state.rows(state.under)
    worst = 0.0
    for axis in range(grid.dimension):
        for step, weights in ((-1, lower), (1, upper)):
            felt = weights[axis].reshape(grid.shape) > 0
            edges = _Edges.across(grid, running, felt, axis, step)
            if len(edges.start):
                worst = max(worst, edges.miss(problem, running, V))
    return worst


@dataclass(frozen=True, eq=False)
class _Edges:
    """Grid edges along one axis from a running node to an exit node."""

    grid: Grid
    axis: int
    step: int
    start: NDArray[np.intp]

    @classmethod
    def across(
        cls, grid: Grid, running: Mask, felt: Mask, axis: int, step: int
    ) -> _Edges:
        """Those that leave the running nodes in the direction `step`."""
        every = cls(grid, axis, step, np.argwhere(running & felt))
        ends, valid = every.node(1)
        return cls(grid, axis, step, every.start[valid & ~running[tuple(ends.T)]])

    def node(self, ahead: int) -> tuple[NDArray[np.intp], Mask]:
        """The nodes `ahead` steps along each edge (n, d), and whether they exist."""
        n = self.grid.shape[self.axis]
        found = self.start.copy()
        place = found[:, self.axis] + ahead * self.step
        if self.grid.periodic[self.axis]:
            found[:, self.axis] = place % n
            return found, np.ones(len(found), bool)
        found[:, self.axis] = np.clip(place, 0, n - 1)
        return found, (place >= 0) & (place < n)

    def length(self, ahead: int) -> Array:
        """Distance from the node `ahead` to the next in the direction `step`, (n,)."""
        places = self.node(ahead)[0][:, self.axis]
        before, after = self.grid.spacing(self.axis)
        return np.asarray(after if self.step > 0 else before)[places]

    def miss(self, problem: ControlProblem, running: Mask, V: Array) -> float:
        """Largest distance between V and g at the crossings."""
        x, h = self.grid.nodes()[tuple(self.start.T)], self.length(0)

        def at(share: Array) -> Array:
            y = x.copy()
            y[:, self.axis] += self.step * share * h
            return self.grid.domain.wrap(y)

        low, high = np.zeros(len(x)), np.ones(len(x))
        for _ in range(BISECTIONS):
            middle = 0.5 * (low + high)
            runs = np.asarray(problem.exit.region(at(middle)) > 0)
            low, high = np.where(runs, middle, low), np.where(runs, high, middle)
        here, end = V[tuple(self.start.T)], V[tuple(self.node(1)[0].T)]
        line = here + high * (end - here)
        line -= 0.5 * high * (1.0 - high) * h**2 * self._bend(running, V)
        data = given_at(problem.exit.value, at(high))
        return float(np.abs(line - problem.sign * data).max())

    def _bend(self, running: Mask, V: Array) -> Array:
        """V'' just inside, from three running nodes; 0 where there are fewer."""
        (one, has_one), (two, has_two) = self.node(-1), self.node(-2)
        known = has_one & has_two
        known &= running[tuple(one.T)] & running[tuple(two.T)]
        first, second = self.length(-1), self.length(-2)
        V0, V1, V2 = (V[tuple(nodes.T)] for nodes in (self.start, one, two))
        bend = 2.0 * ((V0 - V1) / first - (V1 - V2) / second) / (first + second)
        return np.where(known, bend, 0.0)
