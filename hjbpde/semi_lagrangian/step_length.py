"""How long a step may be: errors of the step and of the readings in balance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..coefficients import motion
from ..grid import Grid
from ..probe import base_and_step, control_range
from ..problem import ControlProblem
from ..sets import Box, Finite

Array = NDArray[np.float64]
ARM = 0.5
"""Length of a branch in cells where the noise rules and readings are cubic."""
CELLS = {2: 4.0, 4: 1.0}
"""Cells that the fastest drift crosses in one step, by the width of a reading."""
SPREAD = 1 / 16
"""With linear readings, cells squared that the noise covers, over nodes of an axis."""
SWITCHED = 4.0
"""Share of the process that leaves a mode in a cell's step at most, times nodes."""


@dataclass(frozen=True)
class StepLength:
    """delta on the finest grid, and how it grows from grid to grid.

    power is 2 where the noise rules (branches then cover the same number of cells on
    every grid, so that errors are smooth multiples of h^2) and 1 elsewhere.
    """

    delta: float
    power: int

    def at(self, doublings: int) -> float:
        """delta on the grid coarsened so many times."""
        return self.delta * 2.0 ** (self.power * doublings)


def speeds(grid: Grid, f: Array, sigma: Array) -> tuple[float, float]:
    """Cells crossed per unit of time by the drift, and squared cells by the noise."""
    h = np.array([float(np.min(np.diff(axis))) for axis in grid.axes])
    drift = float(np.max(np.abs(f) / h, initial=0.0))
    k = sigma.shape[2]
    noise = float(np.max((sigma / h[:, None]) ** 2, initial=0.0)) * k
    return drift, noise


def balanced(
    grid: Grid, f: Array, sigma: Array, width: int, rate: float = 0.0
) -> StepLength:
    """The step for these drifts (n, d) and noises (n, d, k) on the finest grid.

    Cubic readings cost O(h^4 / delta), a step O(delta) with noise and O(delta^2)
    without: delta ~ h^2 / sigma^2 or ~ h / |f|, the shorter. Linear readings cost
    O(h^2 / delta) and ask for delta ~ h always. `rate` is the largest at which a mode
    is left: it bounds delta like a drift that crosses the grid once.
    """
    drift, noise = speeds(grid, f, sigma)
    by_drift = CELLS[width] / drift if drift > 0 else np.inf
    if rate > 0:
        by_drift = min(by_drift, CELLS[width] * SWITCHED / (rate * max(grid.shape)))
    if width == 2 and noise > 0:
        by_noise = max(SPREAD * min(grid.shape), 1.0) / noise
        return StepLength(min(by_drift, by_noise), 1)
    by_noise = ARM**2 / noise if noise > 0 else np.inf
    if by_noise < by_drift:
        return StepLength(by_noise, 2)
    return StepLength(by_drift if np.isfinite(by_drift) else 1.0, 1)


def active_columns(sigma: Array) -> list[int]:
    """Columns of the noise (n, d, k) that are not 0 everywhere."""
    return [j for j in range(sigma.shape[2]) if sigma[:, :, j].any()]


def sampled_motion(
    problem: ControlProblem, x: Array, seed: int = 0
) -> tuple[Array, Array]:
    """Drifts and noises at states x (n, d) under a few admissible controls each."""
    found = [motion(problem, x, a) for a in tried_controls(problem, x, seed)]
    f = np.concatenate([m.f for m in found])
    return f, np.concatenate([m.sigma for m in found])


def tried_controls(problem: ControlProblem, x: Array, seed: int = 0) -> list[Array]:
    """A few admissible controls (n, m) at states x (n, d)."""
    controls, n = problem.controls, len(x)
    rng = np.random.default_rng(seed)
    if controls is None:
        return [np.zeros((n, 0))]
    if isinstance(controls, Finite):
        points = np.asarray(controls.points)
        picked = points if len(points) <= 16 else controls.sample(rng, 16)
        return [np.broadcast_to(point, (n, len(point))).copy() for point in picked]
    assert isinstance(controls, Box)
    low, high = control_range(problem, x)
    base, step = base_and_step(low, high)
    ends = [np.where(np.isfinite(low), low, base - step)]
    ends.append(np.where(np.isfinite(high), high, base + step))
    return [np.ascontiguousarray(a.T) for a in (base, *ends)]


def share_of_noise(grid: Grid, f: Array, sigma: Array, delta: float) -> float:
    """A step's length over that which noise alone asks for, at most 1.

    With cubic readings: linear ones are of order 1 whatever rules.
    """
    _, noise = speeds(grid, f, sigma)
    return min(1.0, delta * noise / ARM**2)


def order_of_steps(shrunk: list[float], noisy: bool, order: int) -> float:
    """The order in h to believe at most: that of the readings, or what steps leave.

    What steps of delta miss falls like delta with noise, like delta^2 without. Where
    drift, rates or few cells rule the steps they only halve with the cells: `shrunk`
    are the factors from grid to grid.
    """
    alone = 1.0 if noisy else 2.0
    left = alone * np.log2(min(shrunk, default=np.inf))
    return float(np.clip(left, 1.0, order))
