"""Correlated noise on the nodes: a Markov chain along integer offsets.

At every node ``D = 1/2 sigma sigma'`` is split into noise along the axes, which the
axis weights carry as ever, and noise along integer offsets e (kernels/selling.py):

    tr(D hess V)  ~  sum_i D'_i V_ii + sum_e w_e (V(x + e h) - 2 V(x) + V(x - e h)),

all of D', w >= 0: the rows stay those of a Markov chain, the values second order.

- An arm that would leave through a face where V is given, or that admits only inward
  drift, ends on the face: with arms of lengths s, t instead of 1 the weights are
  ``2 w / (s (s + t))`` and ``2 w / (t (s + t))``. Between nodes V is read linearly.
- Faces with a slope, ``dV/dn = p - kappa V``, mirror what lies beyond. On the face
  itself the mixed derivative is the slope's own, ``V_nj = d_j (p - kappa V)``: payoff
  and a drift along the face, so that no diagonal neighbour is needed.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from math import ceil, sqrt

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from .errors import ProblemError, StabilityError
from .faces import FaceNodes, Faces
from .grid import Grid
from .kernels.selling import decompose_nodes

Array = NDArray[np.float64]
Indices = NDArray[np.intp]
EVEN = 1e-9
"""Relative difference of steps below which an axis counts as evenly spaced."""


def pairs_of(d: int) -> list[tuple[int, int]]:
    """The pairs of axes in the order of their tables: (0, 1), (0, 2), ..., (1, 2)."""
    return list(itertools.combinations(range(d), 2))


def evenly_spaced(grid: Grid, axis: int) -> bool:
    """Whether offsets meet nodes: equal steps, a last one that may be shorter.

    Coarsening an even number of nodes leaves a shorter last step; a seam of a
    periodic axis must be as long as the others.
    """
    step = grid.spacing(axis)[1]
    inner = step if grid.periodic[axis] else step[:-2]
    same = bool((np.abs(inner - step[0]) <= EVEN * step[0]).all())
    return same and bool(step[-2] <= (1 + EVEN) * step[0])


@dataclass(eq=False)
class _Entries:
    """Entries of a sparse matrix under construction."""

    shape: tuple[int, int]
    rows: list[Indices] = field(default_factory=list)
    columns: list[Indices] = field(default_factory=list)
    values: list[Array] = field(default_factory=list)

    def add(self, rows: Indices, columns: Indices, values: Array) -> None:
        """Entries that count, added up where they meet."""
        used = values != 0.0
        self.rows.append(rows[used])
        self.columns.append(columns[used])
        self.values.append(values[used])

    def matrix(self) -> sp.csr_matrix:
        """The matrix; indices of the rows in increasing order."""
        if not self.rows:
            return sp.csr_matrix(self.shape)
        places = (np.concatenate(self.rows), np.concatenate(self.columns))
        out = sp.csr_matrix((np.concatenate(self.values), places), shape=self.shape)
        out.sum_duplicates()
        return out


class OffsetStencil:
    """Builds the rates node by node, all nodes of one offset at a time."""

    def __init__(self, faces: Faces, D: Array, pairs: Array) -> None:
        self.faces, self.grid = faces, faces.grid
        grid = self.grid
        self.shape, n, d = np.array(grid.shape), grid.size, grid.dimension
        self.constant = D.shape[-1] == 1 and pairs.shape[-1] == 1
        self.D = np.array(np.broadcast_to(D, (d, n)))
        self.pairs = np.array(np.broadcast_to(pairs, (len(pairs), n)))
        self.step = np.array([grid.spacing(k)[1][0] for k in range(d)])
        last = np.array([np.diff(x)[-1] for x in grid.axes])
        self.even_end = (last >= (1 - EVEN) * self.step) | np.array(grid.periodic)
        self.strides = np.array([int(np.prod(grid.shape[k + 1 :])) for k in range(d)])
        self.rates, self.fourth = _Entries((n, n)), _Entries((n, n))
        self.lost, self.rough = np.zeros(n), np.zeros(n, bool)
        sizes = [n // grid.shape[face.axis] for face in faces.faces]
        self.slopes = [_Entries((n, size)) for size in sizes]

    def build(self) -> tuple[Array, Array, int]:
        """Fill the entries; the axes' noise (d, N), what is left out of `pairs`
        (., N), and the longest offset."""
        if self.faces.fixed_mask is not None:
            self.pairs[:, self.faces.fixed_mask.ravel()] = 0.0
        self._check_axes()
        self.all_pairs = self.pairs.copy()
        for number, face in enumerate(self.faces.faces):
            if not face.fixed:
                self._along_face(number, face)
        for face in self.faces.faces:
            if not face.fixed:
                self._without_normal(face)
        axis, offsets, weights, share = self._decomposed()
        for k in range(len(weights)):
            nodes = np.flatnonzero(weights[k])
            if nodes.size:
                self._arm(nodes, offsets[k][:, nodes], weights[k][nodes])
        reach = int(np.max(np.abs(offsets) * (weights > 0)[:, None], initial=0))
        return axis, share * self.pairs, reach

    def _check_axes(self) -> None:
        for (i, j), pair in zip(pairs_of(len(self.D)), self.pairs, strict=True):
            for axis in (i, j):
                if pair.any() and not evenly_spaced(self.grid, axis):
                    raise ProblemError(
                        f"axis {axis} is unevenly spaced, but its noise is correlated "
                        f"with that of axis {j if axis == i else i}: moves along "
                        "diagonals would miss the nodes. Use equal steps there, or a "
                        "state in which the axis is stretched already (e.g. log x); on "
                        "periodic axes a number of nodes that halves evenly."
                    )

    def _decomposed(self) -> tuple[Array, Indices, Array, Array]:
        """Noise of the axes (d, N), offsets (K, d, N), weights (K, N), share (N)."""
        d, n = self.D.shape
        most = d * (d + 1) // 2
        short = int(self.shape.min())
        longest = max(1, min(ceil(sqrt(short)), (short - 1) // 2))
        scaled = self.pairs.copy()
        for k, (i, j) in enumerate(pairs_of(d)):
            scaled[k] /= self.step[i] * self.step[j]
        D = self.D / (self.step**2)[:, None]
        kinds, first, of = self._kinds(scaled)
        axis, share = np.empty((d, kinds)), np.empty(kinds)
        offsets, weights = np.zeros((most, d, kinds), int), np.zeros((most, kinds))
        bad = decompose_nodes(
            np.ascontiguousarray(D[:, first]), np.ascontiguousarray(scaled[:, first]),
            longest, axis, offsets, weights, share,
        )  # fmt: skip
        if bad >= 0:
            x = self.grid.nodes_of(np.array([np.arange(n)[first][bad]]))[0]
            raise StabilityError(
                f"the noise at x = {x} correlates {d} axes so strongly that no stencil "
                "of neighbours and diagonals is monotone (D_ii / h_i must be at least "
                "the sum of the |D_ij| / h_j, D = sigma sigma' / 2). Rotate the state "
                "so that at most three axes are correlated, or change the steps."
            )
        axis, share = axis[:, of], share[of]
        offsets, weights = offsets[..., of], weights[:, of]
        alone = ~self._correlated_axes()
        axis = np.where(alone, self.D, axis * (self.step**2)[:, None])
        return axis, offsets, weights, share

    def _kinds(self, scaled: Array) -> tuple[int, Indices | slice, Indices | slice]:
        """Nodes that stand for all: number, one of each kind, the kind of every node.

        With constant noise nodes differ only by the faces they lie on.
        """
        n = scaled.shape[1]
        if not self.constant:
            return n, slice(None), slice(None)
        code = (scaled != 0.0).T @ (1 << np.arange(len(scaled)))
        _, first, of = np.unique(code, return_index=True, return_inverse=True)
        return first.size, first, of.ravel()

    def _correlated_axes(self) -> NDArray[np.bool_]:
        """Which axes take part in a correlation at every node, (d, N)."""
        out = np.zeros(self.D.shape, bool)
        for k, (i, j) in enumerate(pairs_of(len(self.D))):
            out[[i, j]] |= self.pairs[k] != 0.0
        return out

    # --- arms ------------------------------------------------------------------

    def _arm(self, nodes: Indices, offset: Indices, weight: Array) -> None:
        """Both arms of one offset a node: offset (d, m), weight (m,)."""
        index = np.stack(np.unravel_index(nodes, self.grid.shape))
        clean = self._lands_inside(index, offset) & self._lands_inside(index, -offset)
        wide = self._lands_inside(index, 2 * offset)
        wide &= self._lands_inside(index, -2 * offset) & clean
        long = np.abs(offset).max(axis=0) > 1
        self.rough[nodes[clean & ~wide & long]] = True
        for sign in (1, -1):
            to = self._numbers(index + sign * offset)
            self.rates.add(nodes[clean], to[clean], weight[clean])
            self.fourth.add(nodes[wide], to[wide], weight[wide] / 3.0)
            far = self._numbers(index + 2 * sign * offset)
            self.fourth.add(nodes[wide], far[wide], -weight[wide] / 12.0)
        rest = np.flatnonzero(~clean)
        if rest.size:
            self._cut_arm(nodes[rest], offset[:, rest], weight[rest])

    def _lands_inside(self, index: Indices, offset: Indices) -> NDArray[np.bool_]:
        """Whether an arm ends on a node, a whole number of regular steps away."""
        out = np.ones(index.shape[1], bool)
        for k, n in enumerate(self.grid.shape):
            if self.grid.periodic[k]:
                continue
            last = n - 1 if self.even_end[k] else n - 2
            to = index[k] + offset[k]
            out &= (offset[k] == 0) | ((to >= 0) & (to <= last))
        return out

    def _numbers(self, index: Indices) -> Indices:
        """Flat numbers of nodes (d, m), wrapped or clipped to the grid."""
        flat = np.zeros(index.shape[1], np.intp)
        for k, n in enumerate(self.grid.shape):
            inside = np.clip(index[k], 0, n - 1)
            wrapped = index[k] % n if self.grid.periodic[k] else inside
            flat += self.strides[k] * wrapped
        return flat

    def _cut_arm(self, nodes: Indices, offset: Indices, weight: Array) -> None:
        """Arms that meet a face: cut there, or mirrored by its slope."""
        self.rough[nodes] = True
        x = self.grid.nodes_of(nodes).T
        way = offset.astype(np.float64) * self.step[:, None]
        moves = [way, -way]
        lengths = [self._length(x, move) for move in moves]
        both = lengths[0] + lengths[1]
        for move, length in zip(moves, lengths, strict=True):
            rate = 2.0 * weight / (length * both)
            y = x + length * move
            for number, face in enumerate(self.faces.faces):
                if _has_slope(face):
                    rate = self._mirror(number, nodes, y, rate)
            for k, periodic in enumerate(self.grid.periodic):
                if periodic:
                    low, width = self.grid.axes[k][0], self.grid.domain.width[k]
                    y[k] = low + (y[k] - low) % width
            for place, share in self._corners(y, range(len(y))):
                self.rates.add(nodes, self._numbers(place), rate * share)

    def _length(self, x: Array, move: Array) -> Array:
        """The share of the arms x + move (d, m) up to where a face cuts them."""
        length = np.ones(x.shape[1])
        for face in self.faces.faces:
            if _has_slope(face):
                continue
            edge = self.grid.axes[face.axis][0 if face.side == "low" else -1]
            room, way = np.abs(edge - x[face.axis]), move[face.axis]
            outward = -way if face.side == "low" else way
            over = outward > room * (1 + EVEN)
            length[over] = np.minimum(length[over], room[over] / outward[over])
        return length

    def _mirror(self, number: int, nodes: Indices, y: Array, rate: Array) -> Array:
        """Mirror the ends y beyond a face into the domain; the rate that is left.

        With V at the face between both ends, V(out) (1 + kappa s) = V(in)
        (1 - kappa s) + 2 s p, s the distance to the face.
        """
        face = self.faces.faces[number]
        k = face.axis
        edge = self.grid.axes[k][0 if face.side == "low" else -1]
        depth = edge - y[k] if face.side == "low" else y[k] - edge
        out = depth > EVEN * self.step[k]
        s = np.where(out, depth, 0.0)
        y[k] = np.where(out, 2.0 * edge - y[k], y[k])
        kept = np.maximum(1.0 - face.kappa * s, 0.0) / (1.0 + face.kappa * s)
        self.lost[nodes] += rate * (1.0 - kept)
        others = [i for i in range(len(y)) if i != k]
        for place, share in self._corners(y, others):
            on_face = self._on_face(place, k)
            gift = rate * share * 2.0 * s / (1.0 + face.kappa * s)
            self.slopes[number].add(nodes, on_face, gift)
        return rate * kept

    def _on_face(self, index: Indices, axis: int) -> Indices:
        """Flat numbers among a face's nodes of the nodes (d, m)."""
        index = np.stack(np.unravel_index(self._numbers(index), self.grid.shape))
        others = [k for k in range(len(index)) if k != axis]
        if not others:
            return np.zeros(index.shape[1], np.intp)
        shape = tuple(self.grid.shape[k] for k in others)
        return np.asarray(np.ravel_multi_index(tuple(index[others]), shape))

    def _corners(
        self, y: Array, axes: range | list[int]
    ) -> list[tuple[Indices, Array]]:
        """Nodes (d, m) and weights (m,) of linear interpolation along `axes` at y."""
        below, share = np.zeros(y.shape, int), np.zeros(y.shape)
        for k in axes:
            line, n = self.grid.axes[k], self.grid.shape[k]
            top = n - 1 if self.grid.periodic[k] else n - 2
            tiny = 1e-7 * self.step[k]
            below[k] = np.clip(np.searchsorted(line, y[k] + tiny) - 1, 0, top)
            step = self.grid.spacing(k)[1][below[k]]
            part = (y[k] - line[below[k]]) / step
            share[k] = np.where(
                np.abs(part - np.rint(part)) < 1e-6, np.rint(part), part
            )
        found = []
        for corner in itertools.product((0, 1), repeat=len(axes)):
            weight, place = np.ones(y.shape[1]), below.copy()
            for k, up in zip(axes, corner, strict=True):
                weight = weight * (share[k] if up else 1.0 - share[k])
                place[k] += up
            if weight.any():
                found.append((place, weight))
        return found

    # --- on the faces --------------------------------------------------------------

    def _slab(self, face: FaceNodes) -> Indices:
        nodes = np.arange(self.grid.size).reshape(self.grid.shape)
        return nodes[self.faces.slab(face, 0)].ravel()

    def _without_normal(self, face: FaceNodes) -> None:
        """No arms across the face from its own nodes: `_along_face` has them."""
        for k, pair in enumerate(pairs_of(len(self.D))):
            if face.axis in pair:
                self.pairs[k, self._slab(face)] = 0.0

    def _along_face(self, number: int, face: FaceNodes) -> None:
        """Mixed derivatives with the normal: 2 D_nj V_nj = 2 D_nj d_j (+-dV/dn)."""
        slab, turn = self._slab(face), 2.0 if face.side == "high" else -2.0
        for k, (i, j) in enumerate(pairs_of(len(self.D))):
            mixed = self.pairs[k, slab]
            if face.axis not in (i, j) or not mixed.any():
                continue
            if face.inward_only:
                x = self.grid.nodes_of(slab[np.flatnonzero(mixed)[:1]])[0]
                raise ProblemError(
                    f"face {(face.axis, face.side)}: the noise across it is correlated "
                    f"with another axis at x = {x}, and its rule says nothing about "
                    "mixed derivatives. Use Dirichlet, Robin or Reflecting, or leave "
                    "the face without a rule."
                )
            self._slope_along(number, j if face.axis == i else i, slab, turn * mixed)

    def _slope_along(
        self, number: int, axis: int, slab: Indices, weight: Array
    ) -> None:
        """weight d_j (p - kappa V) on the face: payoff of p, upwind drift for V."""
        face, n = self.faces.faces[number], self.grid.shape[axis]
        self.rough[slab] = True
        index = np.stack(np.unravel_index(slab, self.grid.shape))
        ends = {f.side for f in self.faces.faces if f.axis == axis and _has_slope(f)}
        # A corner of two slopes has two faces' word for V_nj: half of each.
        for side, at in (("low", 0), ("high", n - 1)):
            if side in ends:
                weight = np.where(index[axis] == at, 0.5 * weight, weight)
        hm, hp = self.grid.spacing(axis)
        low, high = index.copy(), index.copy()
        low[axis], high[axis] = index[axis] - 1, index[axis] + 1
        below, above = hm[index[axis]], hp[index[axis]]
        if not self.grid.periodic[axis]:
            below = np.where(index[axis] == 0, 0.0, below)
            above = np.where(index[axis] == n - 1, 0.0, above)
        self.slopes[number].add(
            slab, self._on_face(high, face.axis), weight / (below + above)
        )
        self.slopes[number].add(
            slab, self._on_face(low, face.axis), -weight / (below + above)
        )
        drift = -weight * face.kappa
        for to, way, part in ((high, above, drift), (low, below, -drift)):
            rate = np.maximum(part, 0.0) / np.where(way > 0, way, np.inf)
            self.rates.add(slab, self._numbers(to), rate)


def _has_slope(face: FaceNodes) -> bool:
    """Whether the face's rule is about dV/dn."""
    return not (face.fixed or face.inward_only)
