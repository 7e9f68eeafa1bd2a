"""The multiplier of a state constraint: the slope by which a face turns the control.

``max_a { r + f . p + D . q : f.n <= 0 }`` is the least value over ``lam >= 0`` of
``max_a { r + f . (p - lam n) + D . q }``, each of which is a greedy control for other
slopes.

Source: Boyd and Vandenberghe, Convex Optimization (2004), sections 5.2 and 5.5.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .improvement import SmoothSlopes, greedy, initial_policy
from .tabulate import Tables

Array = NDArray[np.float64]

SLACK = 1e-11
"""Outward drift and noise that count as none, over the size of the drift plus one."""
PROVED = 1e-10
"""Duality gap that counts as none, over the size of the Hamiltonian."""
QUADRUPLINGS = 100
SPLITS = 60


@dataclass(eq=False)
class Multipliers:
    """States on one constrained face each, with the slopes p and curvatures q there.

    All of them (n, d) and in the maximising sense; controls are (m, n).
    """

    tables: Tables
    normals: Array
    p: Array
    q: Array

    def solve(self) -> tuple[Array, NDArray[np.bool_]]:
        """The maximisers, and where duality does not prove that they are.

        Of the maximisers at two multipliers around the root a mixture does not cross
        the face. No control can be better than the Lagrangian at either multiplier:
        where the mixture reaches that bound it is the best.
        """
        out = self._end(np.zeros(len(self.p)), None)
        need = out.push > SLACK * (1.0 + np.abs(out.push))
        inner = self._turned(out, need)
        best, unproved = inner.a, need
        for step in range(SPLITS):
            best, unproved = self._mixed(out, inner)
            unproved &= need & (inner.push <= 0)
            if not unproved.any():
                break
            # Secants of the drift, and every third time the middle.
            share = out.push / np.maximum(out.push - inner.push, 1e-300)
            share = np.clip(share, 0.01, 0.99) if step % 3 else 0.5
            middle = out.lam + share * (inner.lam - out.lam)
            trial = self._end(np.where(unproved, middle, inner.lam), inner.a)
            out = out.replaced(trial, unproved & (trial.push > 0))
            inner = inner.replaced(trial, unproved & (trial.push <= 0))
        return np.where(need, best, out.a), unproved

    def _end(self, lam: Array, start: Array | None) -> _End:
        slopes = SmoothSlopes((self.p - lam[:, None] * self.normals).T, self.q.T)
        a = initial_policy(self.tables, len(lam)) if start is None else start.copy()
        greedy(self.tables, slopes, a, scan=start is None)
        return _End(lam, a, *self._judged(a))

    def _judged(self, a: Array) -> tuple[Array, Array]:
        """The drifts outwards and the Hamiltonian under a, both (n,)."""
        under = self.tables.under(a)
        value = SmoothSlopes(self.p.T, self.q.T).value(under, slice(None))
        return (self.normals * under.f.T).sum(1), value

    def _turned(self, out: _End, need: NDArray[np.bool_]) -> _End:
        """The first multiplier tried under which the drift no longer points out."""
        size = np.abs(self.p).max(1) + np.abs(out.value) / np.maximum(out.push, 1e-300)
        size = np.where(need & (size > 0), size, 1.0)
        inner = out
        for power in range(QUADRUPLINGS):
            short = need & (inner.push > 0)
            if not short.any():
                break
            trial = self._end(np.where(short, size * 4.0**power, inner.lam), inner.a)
            inner = inner.replaced(trial, short)
        return inner

    def _mixed(self, out: _End, inner: _End) -> tuple[Array, NDArray[np.bool_]]:
        """The mixture where it is admissible and better than `inner`; the unproved."""
        share = out.push / np.where(out.push > inner.push, out.push - inner.push, 1.0)
        a = out.a + np.clip(share, 0.0, 1.0) * (inner.a - out.a)
        push, value = self._judged(a)
        good = push <= SLACK * (1.0 + np.abs(out.push))
        take = good & (value >= inner.value)
        reached = np.where(take, value, inner.value)
        bounds = [end.value - end.lam * end.push for end in (out, inner)]
        size = np.abs(inner.value) + np.abs(inner.lam * inner.push) + 1e-300
        unproved = reached < np.minimum(*bounds) - PROVED * size
        return np.where(take, a, inner.a), unproved


@dataclass(frozen=True, eq=False)
class _End:
    """A multiplier (n,), its maximiser (m, n), that one's drift out and Hamiltonian."""

    lam: Array
    a: Array
    push: Array
    value: Array

    def replaced(self, other: _End, where: NDArray[np.bool_]) -> _End:
        """The other's entries where asked."""
        names = ("lam", "a", "push", "value")
        pairs = [(getattr(self, n), getattr(other, n)) for n in names]
        return _End(*(np.where(where, new, old) for old, new in pairs))
