"""Tables of a problem on the nodes: coefficients, or the functions themselves."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .coefficients import Coefficients, evaluate, half_covariance
from .correlation import Correlation
from .faces import Faces
from .jump_rates import JumpRates, JumpTable
from .off_axes import OffAxes
from .offsets import pairs_of
from .problem import ControlProblem
from .resting import resting_controls
from .sets import Box

Array = NDArray[np.float64]
BLOCK = 1 << 16
"""Nodes evaluated at once: a few tens of MB of scratch whatever the grid."""


@dataclass(frozen=True)
class QuadraticTables:
    """Coefficients on the nodes; a trailing axis of length 1 means constant."""

    f0: Array
    B: Array
    D: Array
    r0: Array
    r1: Array
    R: Array
    low: Array
    high: Array
    rho: Array
    note: str = ""
    pairs: Array | None = None
    """Entries of half the covariance above its diagonal, (d (d - 1) / 2, N), if any."""
    jumps: JumpTable | None = None
    off_axes: OffAxes | None = None
    """Jumps and the pairs as rates; D is then what is left to the axes."""

    @property
    def n_controls(self) -> int:
        """Number of controls m."""
        return self.B.shape[1]

    @property
    def noise(self) -> Correlation | None:
        """Moves along offsets, where noise is correlated between axes."""
        return None if self.off_axes is None else self.off_axes.correlation

    @property
    def correlated_axes(self) -> tuple[int, ...]:
        """Axes whose noise is correlated with another's somewhere."""
        return axes_in(self.pairs, len(self.f0))

    def axis_of(self) -> NDArray[np.int64] | None:
        """The one axis each control acts on (-1: none), None if not separable."""
        acts = (self.B != 0.0).any(axis=2)
        coupled = self.R != 0.0
        coupled[np.arange(self.n_controls), np.arange(self.n_controls)] = False
        if coupled.any() or (acts.sum(0) > 1).any() or (acts.sum(1) > 1).any():
            return None
        return np.where(acts.any(0), acts.argmax(0), -1).astype(np.int64)

    def taken(self, nodes: NDArray[np.intp]) -> QuadraticTables:
        """The tables on a subset of nodes."""

        def part(table: Array) -> Array:
            if table.shape[-1] == 1:
                return table
            return np.ascontiguousarray(table[..., nodes])

        assert self.off_axes is None, "rates belong to one grid"
        names = ("f0", "B", "D", "r0", "r1", "R", "low", "high", "rho")
        pairs = None if self.pairs is None else part(self.pairs)
        fields = {name: part(getattr(self, name)) for name in names}
        jumps = None if self.jumps is None else self.jumps.taken(nodes)
        return replace(self, **fields, pairs=pairs, jumps=jumps)

    def on(self, faces: Faces, known: JumpRates | None = None) -> QuadraticTables:
        """The tables with correlated noise and jumps as rates of one grid.

        `known` are jump rates found before.
        """
        if self.pairs is None and self.jumps is None:
            return self
        covariance = None if self.pairs is None else (self.D, self.pairs)
        off = OffAxes.of(faces, covariance, self.jumps, known)
        D = self.D if off.correlation is None else off.correlation.axis
        return replace(self, D=D, pairs=None, jumps=None, off_axes=off)

    def under(self, a: Array) -> Coefficients:
        """Coefficients of the policy a (m, N)."""
        # Loops over the few controls and axes: most of B and R is zero.
        f, r = self.f0.copy(), self.r0.copy()
        for i, act in enumerate(a):
            for k in range(len(f)):
                if self.B[k, i].any():
                    f[k] += self.B[k, i] * act
            slope = np.broadcast_to(self.r1[i], act.shape)
            for j, other in enumerate(a):
                if self.R[i, j].any():
                    slope = slope - 0.5 * self.R[i, j] * other
            r += slope * act
        return Coefficients(f, self.D, r)


@dataclass(frozen=True)
class GeneralTables:
    """Functions kept as functions, called on whole arrays of nodes and controls."""

    problem: ControlProblem
    x: Array
    low: Array
    high: Array
    rho: Array
    skip: NDArray[np.bool_] | None
    note: str = ""
    source: Array | None = None
    """Payoff (N,) added at every node, whatever the control."""
    covariance: tuple[Array, Array] | None = None
    """D (d, N) and its pairs, whatever the control, where noise is correlated."""
    jumps: JumpTable | None = None
    off_axes: OffAxes | None = None
    """Jumps and the pairs as rates; D is then what is left to the axes."""

    @property
    def n_controls(self) -> int:
        """Number of controls m."""
        return self.problem.n_controls

    @property
    def noise(self) -> Correlation | None:
        """Moves along offsets, where noise is correlated between axes."""
        return None if self.off_axes is None else self.off_axes.correlation

    @property
    def correlated_axes(self) -> tuple[int, ...]:
        """Axes whose noise is correlated with another's somewhere."""
        pairs = None if self.covariance is None else self.covariance[1]
        return axes_in(pairs, self.x.shape[1])

    @cached_property
    def constant_noise(self) -> Array | None:
        """D (d, 1) where the diffusion is a constant, else None."""
        return None if callable(self.problem.diffusion) else self._noise_at_first[0]

    @cached_property
    def _noise_at_first(self) -> tuple[Array, Array | None]:
        """D (d, 1) and its pairs at the first node."""
        x, a = self.x[:1], np.zeros((1, self.n_controls))
        return half_covariance(self.problem, x, a, None)

    @cached_property
    def resting(self) -> list[Array]:
        """For every axis the one control (1, N) that stops it; may be empty."""
        if self.n_controls != 1 or not isinstance(self.problem.controls, Box):
            return []
        return resting_controls(self.problem, self.x, self.low[0], self.high[0])

    def gaining(self, source: Array) -> GeneralTables:
        """The tables with a payoff (N,) added; what was found out is kept."""
        already = 0.0 if self.source is None else self.source
        out = replace(self, source=already + source)
        for name in ("resting", "constant_noise"):
            out.__dict__[name] = getattr(self, name)
        return out

    def taken(self, nodes: NDArray[np.intp]) -> GeneralTables:
        """The tables on a subset of nodes."""

        def part(table: Array) -> Array:
            return table if table.shape[-1] == 1 else table[..., nodes]

        skip = None if self.skip is None else self.skip[nodes]
        assert self.off_axes is None, "rates belong to one grid"
        low, high, rho = part(self.low), part(self.high), part(self.rho)
        both = None
        if self.covariance is not None:
            both = part(self.covariance[0]), part(self.covariance[1])
        jumps = None if self.jumps is None else self.jumps.taken(nodes)
        out = replace(
            self, x=self.x[nodes], low=low, high=high, rho=rho, skip=skip, source=None,
            covariance=both, jumps=jumps,
        )  # fmt: skip
        out.__dict__["resting"] = [rest[:, nodes] for rest in self.resting]
        return out

    def on(self, faces: Faces, known: JumpRates | None = None) -> GeneralTables:
        """The tables with correlated noise and jumps as rates of one grid.

        `known` are jump rates found before.
        """
        if self.covariance is None and self.jumps is None:
            return self
        off = OffAxes.of(faces, self.covariance, self.jumps, known)
        out = replace(self, covariance=None, jumps=None, off_axes=off)
        out.__dict__["resting"] = self.resting
        return out

    def under(
        self, a: Array, nodes: slice | NDArray[np.intp] | None = None
    ) -> Coefficients:
        """Coefficients of the policy a (m, n) on `nodes` (all by default)."""
        x = self.x if nodes is None else self.x[nodes]
        skip = self.skip if self.skip is None or nodes is None else self.skip[nodes]
        n = len(x)
        f, D, r = np.empty((x.shape[1], n)), np.empty((x.shape[1], n)), np.empty(n)
        pairs = []
        for start in range(0, n, BLOCK):
            part = slice(start, min(start + BLOCK, n))
            hidden = None if skip is None else skip[part]
            block = evaluate(
                self.problem, x[part], np.ascontiguousarray(a[:, part].T), hidden,
                self.constant_noise,
            )  # fmt: skip
            f[:, part], D[:, part], r[part] = block.f, block.D, block.r
            pairs.append((part.stop - part.start, block.pairs))
        if self.source is not None:
            r += self.source if nodes is None else self.source[nodes]
        if self.noise is not None:
            axis = self.noise.axis
            return Coefficients(f, axis if nodes is None else axis[:, nodes], r)
        joined = joined_pairs(pairs)
        if self.constant_noise is not None and self._noise_at_first[1] is not None:
            joined = np.repeat(self._noise_at_first[1], n, axis=1)
        return Coefficients(f, D, r, joined)


Tables = QuadraticTables | GeneralTables


def axes_in(pairs: Array | None, d: int) -> tuple[int, ...]:
    """The axes of the pairs that are not 0 everywhere."""
    if pairs is None:
        return ()
    both = zip(pairs_of(d), pairs, strict=True)
    return tuple(sorted({k for pair, values in both if values.any() for k in pair}))


def joined_pairs(blocks: list[tuple[int, Array | None]]) -> Array | None:
    """Pairs of all blocks of nodes, (., N); None where no block has any."""
    found = [pairs for _, pairs in blocks if pairs is not None]
    if not found:
        return None
    zeros = [np.zeros((len(found[0]), size)) for size, _ in blocks]
    both = zip(zeros, blocks, strict=True)
    return np.concatenate([z if p is None else p for z, (_, p) in both], axis=1)
