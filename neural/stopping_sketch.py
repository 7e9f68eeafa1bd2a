"""A rough idea of where to stop, from a Markov chain on a few nodes.

Least squares needs to know how many pieces the stopping set has and roughly where.
A monotone chain cannot get that wrong by much more than its spacing: central or, where
noise is small, upwind weights on a tensor grid (Kushner and Dupuis, Numerical Methods
for Stochastic Control Problems in Continuous Time, 2nd ed., section 5.3; noise between
axes is left out), Howard's iteration with stopping as one more choice at every node.
Time, where it is a state, is an axis of its own that only goes forward.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RegularGridInterpolator
from scipy.sparse import coo_array
from scipy.sparse.linalg import spsolve

from hjbpde.boundary import Dirichlet
from hjbpde.greedy import greedy_control

from .ends import face_data
from .stopping_payoff import Owners, Payoffs

Array = NDArray[np.float64]
NODES = {1: 201, 2: 41, 3: 17, 4: 9}
MAX_POLICIES = 40


def spacing(d: int) -> float:
    """Distance of two nodes in half widths; infinite where there are none."""
    if d not in NODES:
        return float("inf")
    return 2.0 / (NODES[d] - 1)


@dataclass(frozen=True, eq=False)
class Sketch:
    """By how much going on beats stopping at every node, and between by interpolation.

    Parameters
    ----------
    axes : one array an axis
    lead : (rights, nodes)
        Signed for the holder of each right; negative where it is used.
    """

    axes: tuple[Array, ...]
    lead: Array

    @cached_property
    def _tables(self) -> list[RegularGridInterpolator]:
        shape = tuple(map(len, self.axes))
        return [RegularGridInterpolator(self.axes, q.reshape(shape)) for q in self.lead]

    def labels(self, x: Array) -> tuple[NDArray[np.bool_], Owners]:
        """Whether one stops at x (n, d), and by which right."""
        low, high = ([axis[k] for axis in self.axes] for k in (0, -1))
        x = np.clip(x, low, high)
        lead = np.stack([table(x) for table in self._tables])
        stops = np.asarray((lead < 0).any(0), dtype=bool)
        return stops, np.asarray(lead.argmin(0), dtype=np.int64)


def sketch(payoffs: Payoffs) -> Sketch:
    """Solve the chain, in at most four states, time included."""
    chain = _Chain(payoffs)
    V = payoffs.kept(chain.x, chain.psi[0])
    V = np.where(chain.fixed, chain.data, V)
    stops, owners = np.ones(len(V), bool), np.zeros(len(V), np.int64)
    for _ in range(MAX_POLICIES):
        before = stops.copy()
        weights, payoff, rho = chain.rows(V)
        lead = chain.lead(V, weights, payoff, rho)
        stops = np.asarray((lead < 0).any(0) & ~chain.fixed)
        owners = np.asarray(lead.argmin(0), dtype=np.int64)
        new = chain.solve(weights, payoff, rho, stops, owners)
        change, V = float(np.abs(new - V).max()), new
        if (stops == before).all() and change <= 1e-6 * max(np.abs(V).max(), 1e-300):
            break
    return Sketch(chain.axes, chain.lead(V, *chain.rows(V)))


class _Chain:
    """Nodes, neighbours and given values of the chain."""

    def __init__(self, payoffs: Payoffs) -> None:
        box, problem = payoffs.box, payoffs.problem
        d = box.dimension
        low, high = np.asarray(box.low), np.asarray(box.high)
        self.axes = tuple(np.linspace(low[i], high[i], NODES[d]) for i in range(d))
        self.shape = tuple(map(len, self.axes))
        self.h = np.array([axis[1] - axis[0] for axis in self.axes])
        nodes = np.stack(np.meshgrid(*self.axes, indexing="ij"), -1)
        self.x = np.ascontiguousarray(nodes.reshape(-1, d))
        self.payoffs, self.problem = payoffs, replace(problem, stop=None)
        self.psi = np.stack([payoffs.of(k, self.x) for k in range(len(payoffs.stops))])
        self.index = np.arange(len(self.x)).reshape(self.shape)
        self.fixed, self.data = np.zeros(len(self.x), bool), np.zeros(len(self.x))
        for face, rule in problem.faces.items():
            if isinstance(rule, Dirichlet):
                at = np.take(self.index, 0 if face[1] == "low" else -1, face[0]).ravel()
                self.fixed[at] = True
                self.data[at] = face_data(rule.g, self.x[at], face)

    def rows(self, V: Array) -> tuple[coo_array, Array, Array]:
        """Rates to other nodes (N, N), payoff and discount, under the greedy policy."""
        problem, x, d = self.problem, self.x, len(self.axes)
        table = V.reshape(self.shape)
        slopes = [np.gradient(table, axis, axis=i) for i, axis in enumerate(self.axes)]
        hess = None
        if callable(problem.diffusion):
            hess = np.zeros((len(x), d, d))
            for i, axis in enumerate(self.axes):
                hess[:, i, i] = np.gradient(slopes[i], axis, axis=i).ravel()
        p = np.stack([slope.ravel() for slope in slopes], -1)
        a = greedy_control(problem, x, p, hess)
        f = np.asarray(problem.drift_at(x, a))
        D = 0.5 * (np.asarray(problem.diffusion_at(x, a)) ** 2).sum(-1)
        at, to, rate = [], [], []
        for i, h in enumerate(self.h):
            for sign, here, there in self._neighbours(i):
                at.append(here)
                to.append(there)
                rate.append(self._weight(D[here, i], sign * f[here, i], h))
        places = np.concatenate(at), np.concatenate(to)
        rates = coo_array((np.concatenate(rate), places), shape=(len(x), len(x)))
        payoff = np.asarray(problem.payoff_at(x, a))
        return rates, payoff, np.asarray(problem.discount_at(x))

    @staticmethod
    def _weight(D: Array, f: Array, h: float) -> Array:
        """Central where the noise allows it, upwind elsewhere: never negative."""
        return np.maximum(D, 0.5 * np.abs(f) * h) / h**2 + 0.5 * f / h

    def _neighbours(self, axis: int) -> list[tuple[float, Any, Any]]:
        """(+1 or -1, nodes, their neighbours that way); none beyond a face."""
        n = self.shape[axis]
        below = np.take(self.index, np.arange(n - 1), axis).ravel()
        above = np.take(self.index, np.arange(1, n), axis).ravel()
        pairs = [(1.0, below, above), (-1.0, above, below)]
        if self.problem.domain is not None and self.problem.domain.periodic_axes[axis]:
            first = np.take(self.index, 0, axis).ravel()
            last = np.take(self.index, n - 1, axis).ravel()
            pairs += [(-1.0, first, last), (1.0, last, first)]
        return pairs

    def lead(self, V: Array, rates: coo_array, payoff: Array, rho: Array) -> Array:
        """What one relaxation makes of V, over psi, for every right's holder."""
        total = np.asarray(rates.sum(1)).ravel() + rho
        on = (payoff + rates @ V) / np.where(total > 0, total, 1.0)
        on = np.where(self.fixed, V, on)
        return self.payoffs.sides[:, None] * (on - self.psi)

    def solve(
        self, rates: coo_array, payoff: Array, rho: Array, stops: Any, owners: Owners
    ) -> Array:
        """V of one policy; psi where it stops, the data where they are given."""
        n, held = len(payoff), self.fixed | stops
        total = np.asarray(rates.sum(1)).ravel() + rho
        free = ~held[rates.row]
        main, kept = np.arange(n), np.asarray(rates.data, dtype=float)[free]
        values = np.r_[-kept, np.where(held, 1.0, total)]
        rows, columns = np.r_[rates.row[free], main], np.r_[rates.col[free], main]
        matrix = coo_array((values, (rows, columns)), shape=(n, n)).tocsr()
        taken = np.where(self.fixed, self.data, self.psi[owners, main])
        return np.asarray(spsolve(matrix, np.where(held, taken, payoff)))
