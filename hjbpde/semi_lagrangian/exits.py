"""The surface of an exit region between the nodes: where it is met, values beyond it.

A branch that meets the surface ends there and takes g. Readings beside the surface take
nodes beyond it, where V is g and no continuation of V: they read what the polynomial
through g on the surface and V on the running nodes of a grid line makes of those nodes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d

from ..errors import ProblemError
from ..given_data import given_at
from ..grid import Grid
from ..problem import ControlProblem

Array = NDArray[np.float64]
Rows = NDArray[np.intp]
Mask = NDArray[np.bool_]
BISECTIONS = 45
"""Halvings between two nodes on both sides of the surface."""
MOST_ROUNDS = 60
ACCURATE = 1e-12
"""Share of a path, or of phi at its start, to which its end is found."""
DEPTH = {2: 2, 4: 4}
"""Nodes beyond the surface that readings take, by their width; corners lie deeper."""
NEAREST = 0.5
"""Cells from the surface at which the first node of a polynomial lies at least."""
MOST_SAMPLES = 16
"""Points at which a long branch is looked at: it may cross a thin region."""


Path = Callable[[Array, Rows], Array]


@dataclass(frozen=True, eq=False)
class Surface:
    """The surface {phi = 0} on one grid.

    `ghosts` are flat numbers of nodes beyond it that readings take, their values
    ``weights @ V + shares @ g(crossings)``.
    """

    region: Callable[[Any], Any]
    grid: Grid
    running: Mask
    ghosts: Rows
    weights: sp.csr_matrix
    crossings: Array
    shares: sp.csr_matrix

    @classmethod
    def of(cls, problem: ControlProblem, grid: Grid, width: int) -> Surface:
        """For readings of `width` nodes an axis."""
        region = problem.exit.region
        phi = np.broadcast_to(np.asarray(region(grid.nodes()), float), grid.shape)
        lines = _Lines(region, grid, phi > 0, DEPTH[width], 1 if width == 2 else 2)
        found = [
            lines.along(axis, step)
            for axis in range(grid.dimension)
            for step in (-1, 1)
        ]
        return cls(region, grid, phi > 0, *_joined(found, lines.ghosts, grid.size))

    def near(self, cells: int) -> Mask:
        """Nodes (*shape) with one of the region so many cells away, or one more."""
        out = ~self.running
        for axis, periodic in enumerate(self.grid.periodic):
            mode = "wrap" if periodic else "nearest"
            window = 2 * min(cells + 1, self.grid.shape[axis]) + 1
            out = maximum_filter1d(out, window, axis=axis, mode=mode)
        return np.asarray(out, bool)

    def phi(self, x: Array) -> Array:
        """phi at x (n, d), positive where the process runs on."""
        found = np.asarray(self.region(x), float)
        if found.shape != x.shape[:1] or np.isnan(found).any():
            raise ProblemError(
                f"'exit': region(x) has shape {found.shape} for {len(x)} states, or is "
                "NaN; expected one number a state."
            )
        return found

    def met(self, path: Path, n: int, samples: int) -> Array:
        """Where paths first meet the region, as a share of them, (n,).

        ``path(s, rows)`` are the points of some paths at shares s in [0, 1], running
        at 0; 2 means that a path never does.
        """
        found, rest = np.full(n, 2.0), np.arange(n)
        before = np.ones(n)
        if n:
            before = self.phi(path(np.zeros(n), rest))
        for i in range(1, samples + 1):
            if not rest.size:
                break
            now = self.phi(path(np.full(len(rest), i / samples), rest))
            ends = now <= 0
            rows = rest[ends]
            if rows.size:
                sides = np.stack([before[ends], now[ends]])
                found[rows] = self._root(
                    path, rows, ((i - 1) / samples, sides, i / samples)
                )
            rest, before = rest[~ends], now[~ends]
        return found

    def _root(
        self, path: Path, rows: Rows, bracket: tuple[float, Array, float]
    ) -> Array:
        """Where phi changes its sign, by false positions (Illinois) and halving.

        `bracket`: a share, phi there and at the other share, (2, q), that share.
        """
        low, high = (np.full(len(rows), side) for side in bracket[::2])
        (at_low, at_high), root = bracket[1].copy(), np.zeros(len(rows))
        for i in range(MOST_ROUNDS):
            root = high - at_high * (high - low) / (at_high - at_low)
            if i % 4 == 3:
                root = 0.5 * (low + high)
            value = self.phi(path(root, rows))
            runs = value > 0
            # The end that stays counts half, so that it will not stay for ever.
            at_high = np.where(runs, 0.5 * at_high, value)
            at_low = np.where(runs, value, 0.5 * at_low)
            low, high = np.where(runs, root, low), np.where(runs, high, root)
            if np.all(
                (np.abs(value) <= bracket[1][0] * ACCURATE) | (high - low < ACCURATE)
            ):
                break
        return root

    def value(self, problem: ControlProblem, x: Array) -> Array:
        """g at x (n, d), maximised."""
        return problem.sign * given_at(problem.exit.value, x, "'exit': value(x)")

    def beyond(self, problem: ControlProblem) -> Array:
        """What g adds to the values of the ghosts."""
        return self.shares @ self.value(problem, self.crossings)

    def continued(self, V: Array, beyond: Array) -> Array:
        """V (N,) or (*shape) with its continuation on the ghosts."""
        out = V.copy()
        out.ravel()[self.ghosts] = self.weights @ V.ravel() + beyond
        return out

    def folded(self, rows: sp.csr_matrix) -> sp.csr_matrix:
        """Rows on continued values as rows on V."""
        onto = sp.csr_matrix(
            (np.ones(len(self.ghosts)), (np.arange(len(self.ghosts)), self.ghosts)),
            shape=(len(self.ghosts), self.grid.size),
        )
        change = self.weights - onto
        return sp.csr_matrix(rows + (rows @ onto.T) @ change)


Found = tuple[Rows, NDArray[Any], NDArray[Any], Array, Array, Array]
"""Ghosts, depths, node numbers and weights (q, 2), crossings and their weights."""


class _Lines:
    """Grid lines from nodes beyond the surface back to the running ones."""

    def __init__(
        self, region: Any, grid: Grid, running: Mask, depth: int, degree: int
    ) -> None:
        self.region, self.grid, self.running = region, grid, running
        self.depth, self.degree = depth, degree
        near = np.zeros(grid.shape, bool)
        for axis, periodic in enumerate(grid.periodic):
            for shift in range(-depth, depth + 1):
                moved = np.roll(running, shift, axis)
                if not periodic and shift:
                    cut: list[Any] = [slice(None)] * grid.dimension
                    cut[axis] = slice(0, shift) if shift > 0 else slice(shift, None)
                    moved[tuple(cut)] = False
                near |= moved
        self.nodes = np.argwhere(near & ~running)
        self.ghosts = np.ravel_multi_index(tuple(self.nodes.T), grid.shape)

    def along(self, axis: int, step: int) -> Found:
        """What one direction offers to the ghosts that it leads from to V."""
        number, coordinate, runs = self._walked(axis, step)
        first = runs[:, 1 : self.depth + 1]
        rows = np.flatnonzero(first.any(axis=1))
        depth = np.asarray(np.argmax(first[rows], axis=1) + 1, np.intp)
        number, runs, coordinate = number[rows], runs[rows], coordinate[rows]
        crossing, at = (
            self._crossing(rows, axis, coordinate, depth),
            np.arange(rows.size),
        )
        near, cell = coordinate[at, depth], coordinate[at, depth - 1]
        share = np.abs((crossing - near) / (cell - near))
        start = np.where((share < NEAREST) & runs[at, depth + 1], depth + 1, depth)
        two = runs[at, start + 1] & (self.degree > 1)
        nodes = np.stack([number[at, start], number[at, start + 1]], axis=1)
        y = np.stack([coordinate[at, start], coordinate[at, start + 1]], axis=1)
        weight, own = _polynomial(crossing, y, two, coordinate[:, 0])
        # A node almost on the surface carries no slope: g itself is continued.
        alone = (share < NEAREST / 4) & (start == depth)
        weight[alone], own[alone] = 0.0, 1.0
        points = self.grid.nodes_of(self.ghosts[rows])
        points[:, axis] = crossing
        points = np.asarray(self.grid.domain.wrap(points), float)
        return rows, depth, np.asarray(nodes, np.intp), weight, points, own

    def _walked(self, axis: int, step: int) -> tuple[Rows, Array, Mask]:
        """Numbers, coordinates and whether V is known on the nodes of every line."""
        grid, x = self.grid, self.grid.axes[axis]
        places = self.nodes[:, axis, None] + step * np.arange(self.depth + 4)
        turns, index = np.divmod(places, x.size)
        coordinate = x[index] + turns * float(np.asarray(grid.domain.width)[axis])
        every = np.repeat(self.nodes[:, None], places.shape[1], axis=1)
        every[..., axis] = index
        flat = np.ravel_multi_index(tuple(np.moveaxis(every, -1, 0)), grid.shape)
        number = np.asarray(flat, np.intp)
        valid = (turns == 0) | grid.periodic[axis]
        return number, coordinate, self.running.ravel()[number] & valid

    def _crossing(self, rows: Rows, axis: int, coordinate: Array, depth: Rows) -> Array:
        """Where the surface cuts the line before its first running node."""
        at, base = np.arange(rows.size), self.grid.nodes_of(self.ghosts[rows])
        inside, outside = coordinate[at, depth], coordinate[at, depth - 1]
        for _ in range(BISECTIONS):
            middle = 0.5 * (inside + outside)
            base[:, axis] = middle
            runs = np.asarray(self.region(self.grid.domain.wrap(base)) > 0)
            inside = np.where(runs, middle, inside)
            outside = np.where(runs, outside, middle)
        return outside


def _polynomial(s: Array, y: Array, two: Mask, x: Array) -> tuple[Array, Array]:
    """Weights at x of values at y (q, 2) and at s: parabolas, or lines if not `two`."""
    a, b = y[:, 0], np.where(two, y[:, 1], y[:, 0] + 1.0)
    first = (x - s) / (a - s) * np.where(two, (x - b) / (a - b), 1.0)
    second = np.where(two, (x - s) * (x - a) / ((b - s) * (b - a)), 0.0)
    own = (x - a) / (s - a) * np.where(two, (x - b) / (s - b), 1.0)
    return np.stack([first, second], axis=1), own


def _joined(
    found: list[Found], ghosts: Rows, size: int
) -> tuple[Rows, sp.csr_matrix, Array, sp.csr_matrix]:
    """The mean over the directions in which the surface is nearest."""
    rows = np.concatenate([one[0] for one in found])
    depth = np.concatenate([one[1] for one in found])
    least = np.full(len(ghosts), np.iinfo(np.intp).max)
    np.minimum.at(least, rows, depth)
    used = depth == least[rows]
    rows = rows[used]
    nodes = np.concatenate([one[2] for one in found])[used]
    weight, crossings, own = (
        np.concatenate([one[i] for one in found]).astype(float)[used] for i in (3, 4, 5)
    )
    kept, place = np.unique(rows, return_inverse=True)
    mean = 1.0 / np.bincount(place)[place]
    entries = (weight * mean[:, None]).ravel(), (np.repeat(place, 2), nodes.ravel())
    weights = sp.csr_matrix(entries, shape=(len(kept), size))
    shares = sp.csr_matrix(
        (own * mean, (place, np.arange(len(rows)))), shape=(len(kept), len(rows))
    )
    return ghosts[kept], weights, crossings, shares
