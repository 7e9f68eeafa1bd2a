"""Consumption-saving with two incomes against the textbook sparse implicit scheme."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

import hjbpde as hjb

from .measuring import Measured, seconds

Array = NDArray[np.float64]
RHO, RATE, INCOME, LEAVING = 0.05, 0.03, np.array([[0.1], [0.2]]), (0.02, 0.03)
STEP, TOLERANCE = 1000.0, 1e-6


def policy(V: Array, a: Array) -> tuple[Array, Array]:
    """Upwind consumption and saving, both (2, n), by the sign of the drift.

    Achdou et al., Rev. Econ. Stud. 89 (2022) 45, online appendix, section 1.
    """
    income = INCOME + RATE * a
    slope = np.diff(V, axis=1) / (a[1] - a[0])
    ahead = np.concatenate([slope, income[:, -1:] ** -2], axis=1)
    behind = np.concatenate([income[:, :1] ** -2, slope], axis=1)
    saved_up, saved_down = income - ahead**-0.5, income - behind**-0.5
    up = saved_up > 0
    down = (saved_down < 0) & ~up
    saving = np.where(up, saved_up, np.where(down, saved_down, 0.0))
    return income - saving, saving


def textbook(n: int) -> Array:
    """V (2, n) by implicit steps of length 1000 until V changes by 1e-6 at most."""
    a = np.linspace(-0.15, 5.0, n)
    h = a[1] - a[0]
    V = -1.0 / (RHO * (INCOME + RATE * a))
    one, two = LEAVING
    switch = sp.kron(sp.csr_matrix([[-one, one], [two, -two]]), sp.identity(n))
    offsets: Any = [0, -1, 1]
    for _ in range(100):
        consumption, saving = policy(V, a)
        low, high = np.maximum(-saving, 0.0) / h, np.maximum(saving, 0.0) / h
        low[:, 0], high[:, -1] = 0.0, 0.0
        low, high = low.ravel(), high.ravel()
        A = sp.diags([-(low + high), low[1:], high[:-1]], offsets) + switch
        B = (1.0 / STEP + RHO) * sp.identity(2 * n) - A
        rhs = (-1.0 / consumption + V / STEP).ravel()
        after = sp.linalg.spsolve(sp.csc_matrix(B), rhs).reshape(2, n)
        change = float(np.max(np.abs(after - V)))
        V = after
        if change < TOLERANCE:
            break
    return V


def measure() -> list[Measured]:
    """Speed on one grid, the same scheme's values, and the errors of either."""
    problem = hjb.catalogue.get("consumption-saving")
    plain = hjb.PolicyIteration(order=1)
    limit = hjb.solve(problem, 40001)
    assert isinstance(limit, hjb.ModedSolution)
    out = []
    for n in (500, 2000, 10000):
        with np.errstate(all="ignore"):
            theirs, value = seconds(lambda n=n: textbook(n)), textbook(n)
        ours, solution = (
            seconds(lambda n=n: hjb.solve(problem, n)),
            hjb.solve(problem, n),
        )
        x = solution.grid.nodes()
        true = np.stack([limit.value_at(x, mode=k) for k in range(2)])
        gap = float(np.max(np.abs(value - hjb.solve(problem, n, plain).value)))
        gain = float(
            np.max(np.abs(value - true)) / np.max(np.abs(solution.value - true))
        )
        out.append(Measured(f"times faster, {n} points", theirs / ours, 20.0, False))
        # On the finest grid the textbook's slopes turn negative on the way.
        out.append(Measured(f"same scheme's difference, {n} points", gap, 1e-6))
        out.append(Measured(f"times smaller error, {n} points", gain, 5.0, False))
    return out
