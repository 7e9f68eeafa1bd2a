"""Jumps on the nodes of a grid: rates to the nodes around the points they land on.

``lambda sum_j w_j [V(x + delta_j) - V(x)]`` with V read between nodes by cubic
B-splines: weights that are never negative and sum to 1, so that the rows stay those of
a Markov chain, and an error ``h^2 V'' / 6`` of one factor for every point, so that
nested grids can be compared and extrapolated. Higher orders read the Lagrange cubic.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.spatial import KDTree

from .closure import bend_beyond
from .faces import FaceNodes, Faces
from .given_data import given_at
from .grid import Grid
from .interpolation import Interpolant
from .kernels.selling import add_rates
from .landing import Landing, beyond, landing
from .sets import Box

Array = NDArray[np.float64]
Indices = NDArray[np.intp]
ENTRIES = 1 << 20
"""Weights computed at once: some tens of MB of scratch whatever the grid."""


@dataclass(frozen=True, eq=False)
class JumpTable:
    """A problem's jumps on nodes x (N, d).

    rate (N,), weights (N, J); moves (N, J, d), or (1, J, d) where all nodes share them.
    """

    problem: Any
    x: Array
    rate: Array
    moves: Array
    weights: Array

    @classmethod
    def of(
        cls, problem: Any, x: Array, skip: NDArray[np.bool_] | None
    ) -> JumpTable | None:
        """The jumps from x; none from nodes in `skip`, whose value is given.

        Raises
        ------
        ProblemError
            As `hjbpde.jumps.Jumps`, naming the state.
        """
        jumps = problem.jumps
        if jumps is None:
            return None
        free = np.ones(len(x), bool) if skip is None else ~skip
        rate = np.zeros(len(x))
        rate[free] = jumps.rate_at(x[free])
        moves = jumps.displacements_at(x[free])
        count = moves.shape[1]
        weights = np.zeros((len(x), count))
        weights[free] = jumps.weights_at(x[free], count)
        if len(moves) > 1 or len(x) == 1:
            spread = np.zeros((len(x), *moves.shape[1:]))
            spread[free] = moves
            moves = spread
        return cls(problem, x, rate, moves, weights)

    def taken(self, nodes: Indices) -> JumpTable:
        """The jumps from a subset of the nodes."""
        moves = self.moves if len(self.moves) == 1 else self.moves[nodes]
        parts = {"rate": self.rate[nodes], "weights": self.weights[nodes]}
        return replace(self, x=self.x[nodes], moves=moves, **parts)

    def blocks(self) -> list[slice]:
        """The nodes in blocks whose weights fit into scratch memory."""
        corners = self.moves.shape[1] * 4 ** self.x.shape[1]
        size = max(1, ENTRIES // corners)
        return [slice(k, k + size) for k in range(0, len(self.x), size)]

    def atoms(self, block: slice) -> tuple[Indices, Array, Array]:
        """Jumps from a block: their nodes (n,), ends (n, d) and rates (n,) > 0."""
        moves = self.moves if len(self.moves) == 1 else self.moves[block]
        rate = self.rate[block][:, None] * self.weights[block]
        ends = self.x[block][:, None] + moves
        node, atom = np.nonzero(rate > 0)
        return node + block.start, ends[node, atom], rate[node, atom]


@dataclass(eq=False)
class JumpRates:
    """What jumps add to the rows of one grid.

    rates : (N, N), rates to the nodes around the landing points, none to itself
    lost : (N,), what Robin faces take of jumps beyond them
    slopes : for every face a matrix (N, nodes of the face): slopes to payoff
    squares : the same for artificial faces: curvatures beyond them to payoff
    exits : nodes, landing points, nodes that stand for them, and rates, in the exit
    kinked : whether jumps end at a value that is given, where V has a kink
    """

    faces: Faces
    table: JumpTable
    rates: sp.csr_matrix
    lost: Array
    slopes: list[sp.csr_matrix]
    squares: list[sp.csr_matrix]
    exits: tuple[Indices, Array, Array, Array]
    kinked: bool
    exit_gain: Array

    @classmethod
    def of(cls, faces: Faces, table: JumpTable) -> JumpRates:
        """The rates on the grid of these faces.

        Raises
        ------
        ProblemError
            A jump across a face that admits none, naming the state.
        """
        parts = _Assembly(faces, table, smooth=False)
        rates, slopes = parts.matrices()
        rates = sp.csr_matrix(rates - sp.diags(rates.diagonal()))
        rates.eliminate_zeros()
        rates.sort_indices()
        out = cls(
            faces, table, rates, parts.lost, slopes, parts.squares(), parts.exits(),
            parts.kinked, np.zeros(len(table.x)),
        )  # fmt: skip
        out.renew(table.problem)
        return out

    def on(self, faces: Faces) -> JumpRates:
        """The same rates with faces of their own slopes and data."""
        return replace(self, faces=faces)

    def renew(self, problem: Any) -> None:
        """Take the exit's value from `problem`, held at another time."""
        nodes, y, proxy, rate = self.exits
        self.exit_gain = np.zeros(len(self.table.x))
        if nodes.size:
            value = problem.exit.value
            gap = given_at(value, y) - given_at(value, proxy)
            np.add.at(self.exit_gain, nodes, problem.sign * rate * gap)

    @cached_property
    def leaving(self) -> Array:
        """The rate at which jumps leave every node, (N,)."""
        return np.asarray(self.rates.sum(axis=1)).ravel() + self.lost

    def share(self, rho: Array) -> float:
        """Largest share of jumps in ``rho + leaving``, rho (N,) or (1,)."""
        total = np.maximum(rho + self.leaving, np.finfo(float).tiny)
        return float(np.max(self.leaving / total))

    @cached_property
    def _smooth(self) -> tuple[sp.csr_matrix, list[sp.csr_matrix]]:
        return _Assembly(self.faces, self.table, smooth=True).matrices()

    def payoff(self) -> Array:
        """What slopes of the faces and values in the exit add to the payoff, (N,)."""
        return _of_slopes(self.slopes, self.faces) + self.exit_gain

    def smooth(self, V: Array) -> Array:
        """The jump term at V (N,) with V read by the Lagrange cubic, (N,)."""
        rates, slopes = self._smooth
        out = _of_slopes(slopes, self.faces) + self.exit_gain - self.lost * V
        add_rates(rates.indptr, rates.indices, rates.data, V, out)
        return out

    def miss(self, V: Array) -> Array:
        """What continuing V beyond artificial faces by its slope can be wrong by, (N,).

        A rate of payoff: half the curvature seen inside times the overshoot squared.
        """
        out = np.zeros(len(self.table.x))
        for face, matrix in zip(self.faces.faces, self.squares, strict=True):
            if matrix.nnz:
                grid = self.faces.grid
                bend = bend_beyond(grid, face, V.reshape(grid.shape))
                out += matrix @ np.ravel(bend)
        return out

    @property
    def note(self) -> str:
        """What the report says."""
        text = f"jumps to {self.table.moves.shape[1]} atoms, read by cubic B-splines"
        if any(matrix.nnz for matrix in self.squares):
            text += "; beyond artificial faces V continues by its slope"
        return text


class _Assembly:
    """Landing points, block by block, and what becomes of them."""

    def __init__(self, faces: Faces, table: JumpTable, smooth: bool) -> None:
        self.faces, self.table, self.grid = faces, table, faces.grid
        self.reads = "cubic_weights" if smooth else "spline_weights"
        n = len(table.x)
        self.lost, self.kinked = np.zeros(n), False
        self.over: list[list[tuple[Any, ...]]] = [[] for _ in faces.faces]
        self.ended: list[tuple[Any, ...]] = []
        self.rates: list[sp.csr_matrix] = []
        for block in table.blocks():
            self._add(block)

    def _add(self, block: slice) -> None:
        node, y, rate = self.table.atoms(block)
        rows = min(block.stop, len(self.table.x)) - block.start
        total = sp.csr_matrix((rows, self.grid.size))
        land = landing(self.table.problem, y)
        land.check(self.table.problem, self.table.x[node], y)
        self.kinked |= bool(land.ended.any())
        for number, face in enumerate(self.faces.faces):
            depth = land.over.get((face.axis, face.side))
            if depth is not None and not face.fixed:
                depth = np.where(land.ended, 0.0, depth)
                rate = self._continued(number, node, land.x, rate, depth)
        inside = self._in_exit(land)
        self.kinked |= bool(inside.any())
        if inside.any():
            total += self._ended(node[inside], land.x[inside], rate[inside], block)
        if not inside.all():
            reader = Interpolant(self.grid, np.zeros(self.grid.shape))
            weights = getattr(reader, self.reads)(land.x[~inside])
            total += (
                _gathered(rate[~inside], node[~inside] - block.start, rows) @ weights
            )
        self.rates.append(sp.csr_matrix(total))

    def _continued(
        self, number: int, node: Indices, x: Array, rate: Array, depth: Array
    ) -> Array:
        """Continue V by `depth` (n,) beyond a face with a slope; the rate left."""
        used = np.flatnonzero(depth)
        if not used.size:
            return rate
        kappa = self.faces.faces[number].kappa
        s = depth[used]
        kept, length = beyond(kappa, s)
        own = rate[used]
        self.over[number].append((node[used], x[used], own * length, 0.5 * own * s**2))
        np.add.at(self.lost, node[used], own * (1.0 - kept))
        rate = rate.copy()
        rate[used] *= kept
        return rate

    def _in_exit(self, land: Landing) -> NDArray[np.bool_]:
        problem = self.table.problem
        if problem.exit is None:
            return np.zeros(len(land.x), bool)
        return np.asarray(problem.exit.region(land.x) <= 0) & ~land.ended

    def _ended(self, node: Indices, x: Array, rate: Array, block: slice) -> Any:
        """Rates of a block to the fixed nodes nearest to points x in the exit."""
        assert self.faces.fixed_mask is not None
        fixed = np.flatnonzero(self.faces.fixed_mask)
        places = self.grid.nodes_of(fixed)
        steps = self.grid.domain.width / np.array(self.grid.shape)
        near = KDTree(places / steps).query(x / steps)[1]
        self.ended.append((node, x, places[near], rate))
        rows = min(block.stop, len(self.table.x)) - block.start
        entries = (rate, (node - block.start, fixed[near]))
        return sp.csr_matrix(entries, (rows, self.grid.size))

    def matrices(self) -> tuple[sp.csr_matrix, list[sp.csr_matrix]]:
        """Rates (N, N), and slopes to payoff of every face."""
        return sp.csr_matrix(sp.vstack(self.rates)), self._on_faces(2)

    def squares(self) -> list[sp.csr_matrix]:
        """Curvatures beyond artificial faces to payoff."""
        return self._on_faces(3, artificial=True)

    def exits(self) -> tuple[Indices, Array, Array, Array]:
        """Nodes, landing points, nodes that stand for them, and rates, in the exit."""
        if not self.ended:
            none = np.zeros((0, self.grid.dimension))
            return np.zeros(0, np.intp), none, none, np.zeros(0)
        node, y, proxy, rate = (
            np.concatenate(p) for p in zip(*self.ended, strict=True)
        )
        return node, y, proxy, rate

    def _on_faces(self, part: int, artificial: bool = False) -> list[sp.csr_matrix]:
        found = []
        for face, entries in zip(self.faces.faces, self.over, strict=True):
            shape = (self.grid.size, self.grid.size // self.grid.shape[face.axis])
            total = sp.csr_matrix(shape)
            for entry in entries if face.artificial or not artificial else []:
                weights = self._along(face, entry[1])
                total += _gathered(entry[part], entry[0], shape[0]) @ weights
            found.append(sp.csr_matrix(total))
        return found

    def _along(self, face: FaceNodes, x: Array) -> sp.csr_matrix:
        """Weights (n, nodes of the face) of points x (n, d) on it."""
        others = [k for k in range(self.grid.dimension) if k != face.axis]
        if not others:
            return sp.csr_matrix(np.ones((len(x), 1)))
        domain = self.grid.domain
        low, high = (np.asarray(b)[others] for b in (domain.low, domain.high))
        box = Box(low, high, [self.grid.periodic[k] for k in others])
        grid = Grid.from_axes([self.grid.axes[k] for k in others], box)
        reader = Interpolant(grid, np.zeros(grid.shape))
        return getattr(reader, self.reads)(x[:, others])


def _gathered(values: Array, node: Indices, rows: int) -> sp.csr_matrix:
    """The matrix (rows, n) that adds values (n,) of points to their nodes."""
    points = np.arange(len(node))
    return sp.csr_matrix((values, (node, points)), (rows, len(node)))


def _of_slopes(matrices: list[sp.csr_matrix], faces: Faces) -> Array:
    """Payoff (N,) of the slopes that the faces have now."""
    out = np.zeros(faces.grid.size)
    for face, matrix in zip(faces.faces, matrices, strict=True):
        if matrix.nnz and np.any(face.slope):
            out += matrix @ faces.on_face(face, face.slope)
    return out
