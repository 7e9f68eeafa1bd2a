"""The control that maximises a Hamiltonian known only by its values, node by node.

Newton steps settle where the Hamiltonian is smooth around its maximum. A one-sided
scheme bends it where a component of the drift changes sides, and costs such as |a|
bend it, too: there the maximum often sits on the bend, where Newton stands still.
Nodes that Newton does not settle are searched along lines, see `line_search`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter, minimum_filter

from .coefficients import Coefficients
from .newton import newton_moves
from .sets import Finite
from .tables import GeneralTables

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Indices = NDArray[np.intp]
Nodes = slice | Indices
SCAN = {1: 41, 2: 15, 3: 7, 4: 5}
"""Candidates an axis of the control box before refinement."""
STEP = 1e-4
"""Step of differences, in widths of the box."""
SETTLED = 1e-7
"""A Newton step of fewer widths ends the search: the next is its square."""
VALLEY = 1e-6
"""Curvature upwards, relative to the value, that is more than rounding."""
NEWTON_ROUNDS = 6
RISE = 1e-14
"""Relative gain below which a round gained nothing."""
STACK = 1 << 14
"""Nodes times candidates that functions are called with at once."""
SCANNED = 1 << 20
"""The same that a scan keeps at once: a few tens of MB, whatever the block."""


class Hamiltonian(Protocol):
    """What improvement maximises: payoff plus drift and noise through slopes."""

    def value(self, under: Coefficients, nodes: Nodes) -> Array:
        """The Hamiltonian at `nodes` for given coefficients; -inf: inadmissible."""
        ...

    def suggestions(self, nodes: Nodes) -> list[tuple[Array, Array]]:
        """Gradients and curvatures (d, n) worth trying in a closed form."""
        ...

    def bends(self, D: Array, nodes: Nodes) -> Array:
        """Drift (L, d, n) at which it may bend where the noise is D (d, n)."""
        ...


@dataclass(frozen=True, eq=False)
class Look:
    """The Hamiltonian (P, n) of P candidates, and their drift and noise (P, d, n)."""

    value: Array
    f: Array
    D: Array


@dataclass(eq=False)
class ControlSearch:
    """The best controls a (m, n) found so far at n nodes, and their values (n,).

    low and high (m, n) bound them, infinite for a finite set and where a box is.
    """

    tables: GeneralTables
    hamiltonian: Hamiltonian
    nodes: Indices
    low: Array
    high: Array
    a: Array
    best: Array

    @classmethod
    def begun(
        cls, tables: GeneralTables, hamiltonian: Hamiltonian, nodes: Indices, a: Array
    ) -> ControlSearch:
        """From the controls a (m, n), brought into the set."""
        low, high = np.full_like(a, -np.inf), np.full_like(a, np.inf)
        if not isinstance(tables.problem.controls, Finite):
            low[:] = tables.low if tables.low.shape[1] == 1 else tables.low[:, nodes]
            high[:] = (
                tables.high if tables.high.shape[1] == 1 else tables.high[:, nodes]
            )
        a = np.clip(a, low, high)
        search = cls(tables, hamiltonian, nodes, low, high, a, np.empty(len(nodes)))
        search.best = search.look([a]).value[0]
        return search

    @classmethod
    def joined(cls, searches: list[ControlSearch]) -> ControlSearch:
        """All of them as one; a node may appear more than once."""
        first = searches[0]
        low, high, a = (
            np.concatenate([getattr(one, name) for one in searches], axis=1)
            for name in ("low", "high", "a")
        )
        nodes, best = (
            np.concatenate([getattr(one, name) for one in searches])
            for name in ("nodes", "best")
        )
        return cls(first.tables, first.hamiltonian, nodes, low, high, a, best)

    @property
    def width(self) -> Array:
        """Unit of steps (m, n): 1 where the box is infinite or a point."""
        span = self.high - self.low
        width = np.where(np.isfinite(span) & (span > 0), span, 1.0)
        return np.maximum(width, 1e-3 * np.abs(self.a))

    def look(self, candidates: Iterable[Array]) -> Look:
        """What the candidates (m, n) are worth."""
        listed, n = list(candidates), len(self.nodes)
        at_once, out = max(1, STACK // max(n, 1)), []
        for start in range(0, len(listed), at_once):
            some = listed[start : start + at_once]
            nodes = np.tile(self.nodes, len(some))
            under = self.tables.under(np.concatenate(some, axis=1), nodes)
            value = self.hamiltonian.value(under, nodes)
            parts = value[None], under.f, np.broadcast_to(under.D, under.f.shape)
            out.append([p.reshape(len(p), len(some), n) for p in parts])
        value, f, D = (
            np.concatenate(parts, axis=1) for parts in zip(*out, strict=True)
        )
        return Look(value[0], f.swapaxes(0, 1), D.swapaxes(0, 1))

    def offer(self, candidates: Iterable[Array]) -> None:
        """Take the best of the candidates (m, n) where it is better."""
        listed = list(candidates)
        if not listed:
            return
        which, most = _highest(self.look(listed).value)
        better = most > self.best
        chosen = np.stack(listed)[which, :, np.arange(len(which))].T
        self.a[:, better], self.best[better] = chosen[:, better], most[better]

    def offer_points(self, points: Array) -> None:
        """Every member (m,) of a finite set."""
        self.offer(np.broadcast_to(p[:, None], self.a.shape) for p in points)

    def offer_closed_forms(self) -> None:
        """The user's own maximiser at every suggested slope."""
        problem = self.tables.problem
        if problem.best_control is None:
            return
        x = self.tables.x[self.nodes]
        for p, q in self.hamiltonian.suggestions(self.nodes):
            hess = np.zeros((len(x), len(p), len(p)))
            hess[:, np.arange(len(p)), np.arange(len(p))] = problem.sign * q.T
            with np.errstate(all="ignore"):
                out = problem.best_control(x, problem.sign * p.T, hess)
            a = np.broadcast_to(np.asarray(out, float), (len(x), len(self.a))).T
            good = np.isfinite(a).all(0)
            self.offer([np.where(good, np.clip(a, self.low, self.high), self.a)])

    def offer_resting(self) -> None:
        """Controls that stop the drift along an axis, where there are such."""
        rests = [rest[:, self.nodes] for rest in self.tables.resting]
        self.offer(np.where(np.isfinite(rest), rest, self.a) for rest in rests)

    def scan_box(self) -> list[ControlSearch]:
        """A lattice on the box (finite sides only): the best point, and its rivals.

        Rivals are other hills: of every node that has any, the highest point above its
        lattice neighbours that is no neighbour of the best. Between lattice points it
        may be the higher one.
        """
        if not np.isfinite(self.high - self.low).all():
            return []
        m, n = self.a.shape
        rivals, at_once = [], max(1, SCANNED // SCAN.get(m, 3) ** m)
        for start in range(0, n, at_once):
            here = np.arange(start, min(start + at_once, n))
            part = self.taken(here)
            rivals.append(part._scan())
            self.put(here, part)
        return rivals

    def _scan(self) -> ControlSearch:
        m, n = self.a.shape
        span, per_axis = self.high - self.low, SCAN.get(m, 3)
        shares = np.linspace(0.0, 1.0, per_axis)
        points = np.array(list(itertools.product(shares, repeat=m)))

        def at(which: Indices) -> Array:
            return self.low + points[which].T * span

        value = self.look(at(np.array([p])) for p in range(len(points))).value
        which, most = _highest(value)
        self.challenge(replace(self, a=at(which), best=most))
        lattice, around = value.reshape(*(per_axis,) * m, n), (*(3,) * m, 1)
        top = lattice == maximum_filter(lattice, around, mode="nearest")
        # Where nothing depends on the control there are no hills.
        top &= lattice > minimum_filter(lattice, around, mode="nearest")
        share = (self.a - self.low) / np.where(span > 0, span, 1.0)
        far = np.abs(points[:, :, None] - share).max(1) * (per_axis - 1) > 1.5
        which, most = _highest(np.where(top.reshape(value.shape) & far, value, -np.inf))
        rivals = replace(self, a=at(which), best=most)
        return rivals.taken(np.flatnonzero(np.isfinite(most)))

    def challenge(self, rivals: ControlSearch) -> None:
        """Take over what `rivals`, at some of the nodes, found where it is better."""
        at = np.searchsorted(self.nodes, rivals.nodes)
        # The best comes last, and stays where a node has several rivals.
        order = np.argsort(rivals.best, kind="stable")
        order = order[rivals.best[order] > self.best[at[order]]]
        self.put(at[order], rivals.taken(order))

    def newton(self) -> Indices:
        """Newton steps; the nodes where the last would still move the control."""
        left, stuck = np.arange(len(self.nodes)), []
        for _ in range(NEWTON_ROUNDS):
            part = self.taken(left)
            before = part.best.copy()
            moving = part._newton_round()
            self.put(left, part)
            gained = part.gained(before)
            stuck.append(left[moving & ~gained])
            left = left[moving & gained]
            if not left.size:
                break
        return np.concatenate([left, *stuck])

    def taken(self, chosen: Indices) -> ControlSearch:
        """The search at some of its nodes."""
        low, high, a = (x[:, chosen] for x in (self.low, self.high, self.a))
        return replace(
            self, nodes=self.nodes[chosen], low=low, high=high, a=a,
            best=self.best[chosen],
        )  # fmt: skip

    def put(self, chosen: Indices, part: ControlSearch) -> None:
        """Take over what `part` found at the `chosen` nodes."""
        self.a[:, chosen], self.best[chosen] = part.a, part.best

    def gained(self, before: Array) -> Mask:
        """Where the values rose by more than rounding since they were `before` (n,)."""
        known = np.isfinite(before)
        least = np.where(known, before, 0.0)
        return np.where(
            known, self.best > least + RISE * np.abs(least), self.best > before
        )

    def _newton_round(self) -> Mask:
        """Projected Newton steps, taken where they improve; which would move a."""
        width = self.width
        step = STEP * width
        centre = np.clip(self.a, self.low + step, self.high - step)
        centre = np.where(self.high - self.low > 2 * step, centre, self.a)
        # Inadmissible neighbours are -inf; their differences count as flat.
        with np.errstate(invalid="ignore"):
            g, H = self._differences(centre, step)
        moves = newton_moves(g, H, centre, self.low, self.high)
        ends = [np.clip(centre + move, self.low, self.high) for move in moves]
        far = np.max([np.abs(end - self.a) / width for end in ends], axis=(0, 1))
        # On the floor of a valley the slope may vanish, too.
        curved = np.einsum("iin->in", H) * width**2 > VALLEY * np.abs(self.best)
        inside = (self.a > self.low + step) & (self.a < self.high - step)
        self.offer(ends)
        return (far > SETTLED) | (curved & inside).any(0)

    def _differences(self, a: Array, step: Array) -> tuple[Array, Array]:
        """Gradient (m, n) and second derivatives (m, m, n) of the Hamiltonian at a."""
        m, n = a.shape
        each = [np.where(np.arange(m)[:, None] == i, step, 0.0) for i in range(m)]
        pairs = [(i, j) for i in range(m) for j in range(i)]
        steps = [0 * step, *each, *(-s for s in each)]
        steps += [each[i] + each[j] for i, j in pairs]
        seen = self.look(np.clip(a + s, self.low, self.high) for s in steps).value
        here, up, down, both = (
            seen[0],
            seen[1 : m + 1],
            seen[m + 1 : 2 * m + 1],
            seen[2 * m + 1 :],
        )
        g, H = (up - down) / (2 * step), np.zeros((m, m, n))
        for i in range(m):
            H[i, i] = ((up[i] - here) + (down[i] - here)) / step[i] ** 2
        for (i, j), corner in zip(pairs, both, strict=True):
            cross = (corner - up[i]) - (up[j] - here)
            H[i, j] = H[j, i] = cross / (step[i] * step[j])
        return np.nan_to_num(g), np.nan_to_num(H, posinf=0.0, neginf=0.0)


def _highest(value: Array) -> tuple[Indices, Array]:
    """Which of the candidates' values (P, n) is the largest at every node, and it."""
    which = np.argmax(value, axis=0)
    return which, np.take_along_axis(value, which[None], 0)[0]
