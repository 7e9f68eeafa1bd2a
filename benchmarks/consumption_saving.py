"""Consumption-saving with two incomes against the textbook sparse implicit scheme.

Both on nodes dense at the borrowing limit, where they are most accurate; the textbook's
scheme gets as many of them as it needs to be as accurate as ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

import hjbpde as hjb

from .measuring import Measured, seconds

Array = NDArray[np.float64]
RHO, RATE, INCOME, LEAVING = 0.05, 0.03, np.array([[0.1], [0.2]]), (0.02, 0.03)
STEP, TOLERANCE = 1000.0, 1e-6
MOST = 80_000
"""Most nodes of the textbook: where these do not reach our error it is slower yet."""


def policy(V: Array, a: Array) -> tuple[Array, Array]:
    """Upwind consumption and saving, both (2, n), by the sign of the drift.

    Achdou et al., Rev. Econ. Stud. 89 (2022) 45, online appendix, section 1. Without
    the floor slopes turn negative on the way and the steps end at a wrong value.
    """
    income = INCOME + RATE * a
    slope = np.maximum(np.diff(V, axis=1) / np.diff(a), 1e-10)
    ahead = np.concatenate([slope, income[:, -1:] ** -2], axis=1)
    behind = np.concatenate([income[:, :1] ** -2, slope], axis=1)
    saved_up, saved_down = income - ahead**-0.5, income - behind**-0.5
    up = saved_up > 0
    down = (saved_down < 0) & ~up
    saving = np.where(up, saved_up, np.where(down, saved_down, 0.0))
    return income - saving, saving


def axis(n: int) -> Array:
    """Nodes evenly spaced in sqrt(a - low)."""
    return -0.15 + 5.15 * np.linspace(0.0, 1.0, n) ** 2


def textbook(a: Array) -> Array:
    """V (2, n) by implicit steps of length 1000 until V changes by 1e-6 at most."""
    n, h = len(a), np.diff(a)
    V = -1.0 / (RHO * (INCOME + RATE * a))
    one, two = LEAVING
    switch = sp.kron(sp.csr_matrix([[-one, one], [two, -two]]), sp.identity(n))
    offsets: Any = [0, -1, 1]
    for _ in range(100):
        consumption, saving = policy(V, a)
        low, high = np.zeros((2, n)), np.zeros((2, n))
        low[:, 1:] = np.maximum(-saving[:, 1:], 0.0) / h
        high[:, :-1] = np.maximum(saving[:, :-1], 0.0) / h
        low, high = low.ravel(), high.ravel()
        A = sp.diags([-(low + high), low[1:], high[:-1]], offsets) + switch
        B = (1.0 / STEP + RHO) * sp.identity(2 * n) - A
        rhs = (-1.0 / consumption + V / STEP).ravel()
        after = sp.linalg.spsolve(sp.csc_matrix(B), rhs).reshape(2, n)
        change = float(np.max(np.abs(after - V)))
        V = after
        if not change > TOLERANCE:
            break
    return V


@dataclass(frozen=True)
class Truth:
    """V of either income on 80001 nodes, by our solver at its default."""

    limit: hjb.ModedSolution

    def miss(self, a: Array, V: Array) -> float:
        """Largest distance to V (2, n); NaN where V is."""
        true = [self.limit.value_at(a[:, None], mode=k) for k in range(2)]
        return float(np.max(np.abs(V - np.stack(true))))


def as_accurate(truth: Truth, error: float, n: int) -> tuple[int, float]:
    """Nodes at which the textbook's error is `error`, `MOST` at most; its error there.

    It is of first order.
    """
    first = truth.miss(axis(n), textbook(axis(n)))
    wanted = min(int(np.ceil(n * first / error)), MOST)
    return wanted, truth.miss(axis(wanted), textbook(axis(wanted)))


def measure() -> list[Measured]:
    """Times, errors and bars on three grids; the difference of the same scheme."""
    problem = hjb.catalogue.get("consumption-saving")
    limit = hjb.solve(problem, hjb.Grid.from_axes([axis(80001)]))
    assert isinstance(limit, hjb.ModedSolution)
    truth, plain = Truth(limit), hjb.PolicyIteration(order=1, richardson=False)
    out = []
    for n in (501, 2001, 10001):
        a = axis(n)
        grid = hjb.Grid.from_axes([a])
        solution, value = hjb.solve(problem, grid), textbook(a)
        error = truth.miss(a, solution.value)
        nodes, reached = as_accurate(truth, error, n)
        ours = seconds(lambda grid=grid: hjb.solve(problem, grid))
        same, theirs = (
            seconds(lambda m=m: textbook(axis(m)), repeats=3) for m in (n, nodes)
        )
        scale = float(np.max(np.abs(solution.value)))
        gap = float(np.max(np.abs(value - hjb.solve(problem, grid, plain).value)))
        of = f"{n} points"
        rows = (
            ("times faster than a textbook's scheme as accurate", theirs / ours, 20.0),
            ("its error then, times ours", reached / error, 0.9),
            ("times smaller error on the same points", truth.miss(a, value) / error, 9),
            ("times faster on the same points", same / ours, 0.0),
        )
        out += [Measured(f"{what}, {of}", got, aim, False) for what, got, aim in rows]
        bar = float(solution.error_bar.max())
        out.append(Measured(f"bar against the scale, {of}", bar / scale, 1e-4))
        out.append(Measured(f"same scheme's difference, {of}", gap / scale, 1e-8))
    return out
