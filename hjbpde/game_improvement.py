"""Both players' choices at every node: max over a of min over b of a Hamiltonian.

The adversary replies to a, the order written in the problem. Finite sets are searched
exhaustively, boxes on a lattice that includes their corners and then by golden sections
along each axis; the incumbent is always tried, so that a policy changes only where
that pays. A reply found too dear makes the choice look too good: the error of the
search is that of golden sections, 1e-7 of a box along each axis.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .coefficients import Coefficients
from .game_tables import LATTICE, SECTIONS, GameTables
from .kernels.game import improve_pairs, smooth_pairs
from .sets import Finite
from .tables import BLOCK, GeneralTables, QuadraticTables

Array = NDArray[np.float64]
Stencil = tuple[int, Array, NDArray[np.int64], Array, Array]
"""Scheme, padded value, shape and the spacings on either side."""
GOLDEN = 0.5 * (np.sqrt(5.0) - 1.0)
Judge = Callable[[Array], tuple[Array, Array]]
"""Controls (m, n) to their values (n,) and what goes with them (., n)."""


class Hamiltonian(Protocol):
    """As `improvement.Hamiltonian`, of which only the value is asked."""

    def value(self, under: Coefficients, nodes: slice) -> Array:
        """The Hamiltonian at `nodes` for given coefficients."""
        ...


def improve_game(
    tables: GameTables, stencil: Hamiltonian, around: Stencil, u: Array
) -> Coefficients:
    """max min of the discrete Hamiltonian, written into u (M, N).

    `stencil` is that Hamiltonian, `around` the same as the kernels take it.
    """
    joint, pairs = tables.joint, tables.pairs
    if pairs is None:
        search_game(tables, stencil, u)
        return tables.under(u)
    assert isinstance(joint, QuadraticTables)
    acts = (joint.B != 0.0).any(axis=2)
    parts, boxes = (joint.f0, joint.B, joint.r1, joint.R), (joint.low, joint.high)
    improve_pairs(*around, joint.D, pairs, acts, tables.held, parts, boxes, u)
    return joint.under(u)


def greedy_game(tables: GameTables, slopes: Hamiltonian, p: Array, u: Array) -> None:
    """max min of payoff + f . p + D . q, written into u (M, N).

    `slopes` is that Hamiltonian, p (d, N) the gradient in it.
    """
    joint, pairs = tables.joint, tables.pairs
    if pairs is None:
        search_game(tables, slopes, u)
        return
    assert isinstance(joint, QuadraticTables)
    acts = (joint.B != 0.0).any(axis=2)
    parts, boxes = (joint.f0, joint.B, joint.r1, joint.R), (joint.low, joint.high)
    p = np.ascontiguousarray(p)
    smooth_pairs(p, pairs, acts, tables.held, parts, boxes, u)


def search_game(tables: GameTables, hamiltonian: Hamiltonian, u: Array) -> Array:
    """max min by search, written into u (M, N); the values (N,)."""
    n, m, values = u.shape[1], tables.n_own, np.empty(u.shape[1])
    for start in range(0, n, BLOCK):
        nodes = slice(start, min(start + BLOCK, n))
        search = _Search(tables, hamiltonian, nodes)
        a, b = u[:m, nodes], u[m:, nodes]
        if tables.held:
            b, values[nodes] = search.reply(1, a, b)
        else:
            a, b, values[nodes] = search.choice(0, a, b)
        u[:m, nodes], u[m:, nodes] = a, b
    return values


def order_gap(tables: GameTables, hamiltonian: Hamiltonian, u: Array) -> Array:
    """inf_b sup_a less sup_a inf_b of a Hamiltonian, (N,), from u (M, N) on; >= 0.

    0 in closed form: there the payoff is concave in a, convex in b and the drift
    affine in both (Sion's theorem).
    """
    n, m, out = u.shape[1], tables.n_own, np.zeros(u.shape[1])
    if tables.pairs is not None:
        return out
    for start in range(0, n, BLOCK):
        nodes = slice(start, min(start + BLOCK, n))
        search = _Search(tables, hamiltonian, nodes)
        a, b = u[:m, nodes], u[m:, nodes]
        low = search.choice(0, a, b)[2]
        high = -search.choice(1, b, a)[2]
        out[nodes] = np.maximum(high - low, 0.0)
    return out


class _Search:
    """Extrema over both sets at the nodes of a block; player 0 maximises."""

    def __init__(
        self, tables: GameTables, hamiltonian: Hamiltonian, nodes: slice
    ) -> None:
        assert isinstance(tables.joint, GeneralTables)
        self.tables, self.joint = tables, tables.joint
        self.hamiltonian, self.nodes = hamiltonian, nodes

    def payoff(self, player: int, mine: Array, theirs: Array) -> Array:
        """What a player gets for both controls, (n,)."""
        both = (mine, theirs) if player == 0 else (theirs, mine)
        under = self.joint.under(np.concatenate(both), self.nodes)
        value = self.hamiltonian.value(under, self.nodes)
        return value if player == 0 else -value

    def reply(self, player: int, theirs: Array, start: Array) -> tuple[Array, Array]:
        """The best control of a player who knows the other's, and the other's gain."""

        def judge(mine: Array) -> tuple[Array, Array]:
            return self.payoff(player, mine, theirs), mine[:0]

        mine, best, _ = self._best(player, judge, start)
        return mine, -best

    def choice(
        self, player: int, start: Array, replied: Array
    ) -> tuple[Array, Array, Array]:
        """The best control of a player whom the other answers, the answer, the gain."""

        def judge(mine: Array) -> tuple[Array, Array]:
            answer, gain = self.reply(1 - player, mine, replied)
            return gain, answer

        mine, best, answer = self._best(player, judge, start)
        return mine, answer, best

    def _best(
        self, player: int, judge: Judge, start: Array
    ) -> tuple[Array, Array, Array]:
        """argmax of `judge` over a player's set, its value and what goes with it."""
        controls = (self.tables.own, self.tables.other)[player]
        if isinstance(controls, Finite):
            found = _Incumbent(judge, start)
            for point in controls.points:
                found.offer(np.repeat(point[:, None], start.shape[1], axis=1))
        elif controls is None:
            found = _Incumbent(judge, start)
        else:
            low, high = self.tables.bounds(player, self.nodes)
            found = _Incumbent(judge, np.clip(start, low, high))
            found.search(low, high)
        return found.a, found.best, found.load


class _Incumbent:
    """The best control found so far at every node of a block."""

    def __init__(self, judge: Judge, start: Array) -> None:
        self.judge, self.a = judge, start.copy()
        self.best, self.load = judge(self.a)
        self.load = self.load.copy()

    def offer(self, a: Array) -> Array:
        """Take a (m, n) where it is better; returns its value."""
        value, load = self.judge(a)
        better = value > self.best
        self.a[:, better], self.best[better] = a[:, better], value[better]
        self.load[:, better] = load[:, better]
        return value

    def search(self, low: Array, high: Array) -> None:
        """A lattice on the box [low, high] (m, n or 1), then golden sections."""
        m = len(self.a)
        count = LATTICE.get(m, 3)
        shares = np.linspace(0.0, 1.0, count)
        for share in itertools.product(shares, repeat=m):
            a = low + np.array(share)[:, None] * (high - low)
            self.offer(np.broadcast_to(a, self.a.shape))
        step = (high - low) / (count - 1)
        for _ in range(1 if m == 1 else 2):
            for i in range(m):
                self._along(i, low[i], high[i], step[i])

    def _along(self, i: int, low: Array, high: Array, step: Array) -> None:
        """Golden sections along one axis, around the incumbent."""
        base = self.a.copy()

        def value(one: Array) -> Array:
            a = base.copy()
            a[i] = one
            return self.offer(a)

        start = np.maximum(base[i] - step, low)
        stop = np.minimum(base[i] + step, high)
        one, two = stop - GOLDEN * (stop - start), start + GOLDEN * (stop - start)
        v_one, v_two = value(one), value(two)
        for _ in range(SECTIONS):
            left = v_one > v_two
            start, stop = np.where(left, start, one), np.where(left, two, stop)
            kept, v_kept = np.where(left, one, two), np.where(left, v_one, v_two)
            span = GOLDEN * (stop - start)
            new = np.where(left, stop - span, start + span)
            v_new = value(new)
            one, two = np.where(left, new, kept), np.where(left, kept, new)
            v_one = np.where(left, v_new, v_kept)
            v_two = np.where(left, v_kept, v_new)
