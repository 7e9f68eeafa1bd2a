"""What one step reads of V, and the value it makes of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from .lattice import Lattice

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Reading:
    """``weights * V(points)`` of one mode, added to the rows of a step.

    rows, weights (q,); points (q, d). `part` is how much of the step is over where V
    is read: 1 at its end, 1/2 half way.
    """

    rows: NDArray[np.intp]
    points: Array
    weights: Array
    mode: int
    part: float = 1.0

    def of(self, rows: NDArray[np.intp]) -> Reading:
        """Those of some of the rows, which are increasing, and numbered anew."""
        own = np.isin(self.rows, rows)
        number = np.searchsorted(rows, self.rows[own])
        return Reading(
            number, self.points[own], self.weights[own], self.mode, self.part
        )


@dataclass(frozen=True, eq=False)
class Step:
    """What a step from n nodes reads: ``gain + decay * mean(V(points)) + readings``.

    points (n, branches, d); gain (n,) is -inf where the control is inadmissible.
    `readings` are what Robin rules tie slopes to, and where the process is taken at a
    rate. share (n,) is how much of the step was taken, 1 unless it was shortened.
    `runs` (n, branches) are the branches that read V at all; what others took is in
    `gain`. `mode` is that of the steps.

    V and what it is `now` have a row (N,) for every mode, continued as it is read.
    """

    gain: Array
    decay: Array
    points: Array
    readings: list[Reading]
    share: Array
    runs: NDArray[np.bool_] | None = None
    mode: int = 0

    @property
    def looks_early(self) -> NDArray[np.intp]:
        """Rows (q,) that read V before the end of the whole step."""
        early = self.share < 1.0
        for reading in self.readings:
            if reading.part < 1.0:
                early[reading.rows] = True
        return np.flatnonzero(early)

    def value(self, V: Array, lattice: Lattice, now: Array | None = None) -> Array:
        """The discounted payoff of the step and what follows it, (n,).

        V is read where the whole step ends; with `now`, the values where it starts,
        what is read earlier lies between both in time.
        """
        n, branches, d = self.points.shape

        def at(mode: int, points: Array, share: Array) -> Array:
            found = lattice.read(V[mode], points)
            early = np.flatnonzero(share < 1.0)
            if now is not None and early.size:
                sooner = lattice.read(now[mode], points[early])
                part = share[early]
                found[early] = part * found[early] + (1.0 - part) * sooner
            return found

        flat = self.points.reshape(-1, d)
        after = at(self.mode, flat, np.repeat(self.share, branches))
        after = after.reshape(n, branches)
        if self.runs is not None:
            after = np.where(self.runs, after, 0.0)
        out = self.gain + self.decay * after.mean(axis=1)
        for one in self.readings:
            found = at(one.mode, one.points, one.part * self.share[one.rows])
            out = out + np.bincount(one.rows, one.weights * found, n)
        return out

    def taken(self, rows: NDArray[np.intp]) -> Step:
        """The step of some of the nodes, `rows` increasing."""
        return Step(
            self.gain[rows],
            self.decay[rows],
            self.points[rows],
            [reading.of(rows) for reading in self.readings],
            self.share[rows],
            None if self.runs is None else self.runs[rows],
            self.mode,
        )

    def matrix(self, lattice: Lattice, size: int, mode: int) -> sp.csr_matrix:
        """The rows (n, size) of what is read of V in one mode."""
        n = len(self.gain)
        out = sp.csr_matrix((n, size))
        if mode == self.mode:
            out = self._ends(lattice, size)
        for one in self.readings:
            if one.mode == mode:
                index, part = lattice.stencils(one.points)
                part *= one.weights[:, None]
                at = np.repeat(one.rows, lattice.corners)
                entries = (part.ravel(), (at, index.ravel()))
                out = sp.csr_matrix(out + sp.csr_matrix(entries, shape=(n, size)))
        out.sum_duplicates()
        return out

    def _ends(self, lattice: Lattice, size: int) -> sp.csr_matrix:
        """The rows (n, size) of ``decay * mean(V(points))``."""
        n, branches, d = self.points.shape
        index, weight = lattice.stencils(self.points.reshape(-1, d))
        share = np.repeat(self.decay / branches, branches)
        if self.runs is not None:
            share = share * self.runs.ravel()
        weight *= share[:, None]
        start = np.arange(n + 1) * (branches * lattice.corners)
        return sp.csr_matrix((weight.ravel(), index.ravel(), start), shape=(n, size))
