"""Does the policy keep the state where the reference keeps it?"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RegularGridInterpolator
from scipy.stats import qmc

import hjbpde as hjb
from hjbpde import Box, ControlProblem, Finite, Grid, Paths, StateConstraint

from .reference import running
from .regret import Tables
from .residual import rate_of
from .strategy import NearestPolicy

Array = NDArray[np.float64]

PATHS = 256
SHOWN = 24
LIFETIMES = 2.0
"""Horizon in units of 1/rho: what happens later hardly counts."""
MOST_STEPS = 600
ALLOWED = 0.1
"""Share of the paths that may leave beyond the reference's own share."""


@dataclass(frozen=True, eq=False)
class Excursion:
    """Shares of paths that left the region through a face that is no part of it.

    A path that ends in the exit region has not left.

    Both policies start at the same points and feel the same noise. `axes` are the
    ones watched: a Dirichlet face may be met on purpose and is priced by the regret,
    a reflecting one sends the state back. `shown` and `shown_reference` are a few
    paths from one point, for pictures.
    """

    share: float
    reference_share: float
    axes: tuple[int, ...]
    horizon: float
    dt: float
    shown: Paths
    shown_reference: Paths
    paths: int = PATHS

    @property
    def drives_out(self) -> bool:
        """Whether clearly more paths leave than under the reference."""
        excess = self.share - self.reference_share
        noise = np.sqrt((self.share + self.reference_share) / self.paths)
        return bool(excess > ALLOWED and excess > 4 * noise)


@dataclass(frozen=True, eq=False)
class GridPolicy:
    """Node controls read between nodes: linear, or the nearest of a finite set."""

    problem: ControlProblem
    grid: Grid
    control: Array

    def __call__(self, x: Array) -> Array:
        """Controls at x (n, d), shape (n, m)."""
        domain, controls = self.grid.domain, self.problem.controls
        if self.control.shape[-1] == 0:
            return np.zeros((len(x), 0))
        a = self._linear(np.clip(domain.wrap(x), domain.low, domain.high))
        return controls.clip(a) if isinstance(controls, Finite) else a

    @cached_property
    def _linear(self) -> RegularGridInterpolator:
        # Built once for a whole simulation; a periodic axis gets its end point back.
        axes, values = list(self.grid.axes), self.control
        for k, periodic in enumerate(self.grid.periodic):
            if periodic:
                axes[k] = np.r_[axes[k], float(np.asarray(self.grid.domain.high)[k])]
                values = np.concatenate([values, values.take([0], axis=k)], axis=k)
        return RegularGridInterpolator(axes, values)


@dataclass(frozen=True, eq=False)
class TimedPolicy:
    """A policy of time: that of the nearest time kept."""

    times: Array
    policies: tuple[GridPolicy | NearestPolicy, ...]

    def __call__(self, x: Array, t: float = 0.0) -> Array:
        """Controls at x (n, d) and time t, shape (n, m)."""
        return self.policies[int(np.abs(self.times - t).argmin())](x)


def excursion_of(
    problem: ControlProblem, tables: Tables, region: Box, seed: int
) -> Excursion | None:
    """Simulate both node policies with common noise, with a horizon up to it.

    None where one is not finite, where hardly a state runs, or where the process may
    be stopped or moved at once, which simulation does not know.
    """
    both = tables.policy, tables.best_policy
    ended_or_moved = problem.stops or problem.impulse is not None
    if ended_or_moved or not all(np.isfinite(a).all() for a in both):
        return None
    x0 = _starts(problem, region, seed)
    if not len(x0):
        return None
    pair = [_policy(problem, tables, a) for a in both]
    horizon, dt = _steps(problem, region, pair)
    axes = tuple(watched_axes(problem))
    options = horizon, dt, len(x0), seed
    left = [
        _left(problem, hjb.simulate(problem, p, x0, *options), region, axes)
        for p in pair
    ]
    corner = region.centre + 0.25 * region.width
    corner = corner if running(_today(problem), corner[None])[0] else x0[0]
    shown = [
        hjb.simulate(problem, p, corner, horizon, dt, SHOWN, seed + 1) for p in pair
    ]
    return Excursion(left[0], left[1], axes, horizon, dt, shown[0], shown[1], len(x0))


def _policy(problem: ControlProblem, tables: Tables, a: Array) -> TimedPolicy:
    if tables.nearest:
        policies = tuple(NearestPolicy(tables.grid, now) for now in a)
        return TimedPolicy(tables.times, policies)
    policies = tuple(GridPolicy(problem, tables.grid, now) for now in a)
    return TimedPolicy(tables.times, policies)


def _today(problem: ControlProblem) -> ControlProblem:
    return problem if problem.horizon is None else problem.at_time(0.0)


def _starts(problem: ControlProblem, region: Box, seed: int) -> Array:
    """Up to PATHS states of the middle of the region where the process runs."""
    start = Box(region.low, region.high).inner(0.6)
    sobol = qmc.Sobol(problem.dimension, rng=np.random.default_rng(seed))
    x = np.asarray(start.low) + sobol.random(PATHS) * start.width
    if problem.exit is not None:
        more = np.asarray(start.low) + sobol.random(7 * PATHS) * start.width
        x = np.concatenate([x, more])
    return x[running(_today(problem), x)][:PATHS]


def watched_axes(problem: ControlProblem) -> list[int]:
    """Axes with a face that is artificial or a state constraint."""
    return sorted(
        {
            axis
            for (axis, _), rule in problem.faces.items()
            if rule is None or isinstance(rule, StateConstraint)
        }
    )


def _left(
    problem: ControlProblem, paths: Paths, region: Box, axes: tuple[int, ...]
) -> float:
    if not axes:
        return 0.0
    low, high = np.asarray(region.low)[list(axes)], np.asarray(region.high)[list(axes)]
    gap = 1e-9 * (high - low)
    where = paths.states[:, :, list(axes)]
    # A path that meets the domain's own face is stopped on it, hence the gap.
    out = ((where <= low + gap) | (where >= high - gap)).any(axis=2)
    out &= running(_today(problem), paths.states)
    return float(out.any(axis=1).mean())


def _steps(
    problem: ControlProblem, region: Box, pair: list[TimedPolicy]
) -> tuple[float, float]:
    rng, now = np.random.default_rng(0), _today(problem)
    x = np.asarray(region.low) + rng.random((512, region.dimension)) * region.width
    x = x[running(now, x)]
    rates, a = [1e-12], np.zeros((len(x), problem.n_controls))
    for policy in pair:
        a = policy(x)
        drift = np.abs(np.asarray(now.drift_at(x, a)))
        rates.append(float((drift / region.width).max()))
    horizon = problem.horizon or LIFETIMES / float(rate_of(now, x, a).mean())
    steps = int(np.clip(np.ceil(horizon * max(rates) / 0.02), 100, MOST_STEPS))
    # Strong drift: rather a shorter horizon than steps that overshoot.
    dt = min(horizon / steps, 0.1 / max(rates))
    return steps * dt, dt
