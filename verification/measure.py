"""Every number of one comparison, taken once; the rules are applied elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hjbpde import Box, ControlProblem, Grid

from .candidate import Subject
from .excursion import Excursion, excursion_of
from .points import SamplePoints, climb, sample_points
from .regret import Regret, decided_regret, regret_of
from .residual import hamiltonian_gap, value_residual
from .slopes import Slopes, compare_slopes

Array = NDArray[np.float64]

FEW = 4096
"""Points for controls and residuals, whose greedy steps cost more than a value."""
CLIMBERS = 16
FLAT = 1e-6
"""An oscillation below this share of the scale is none."""
SMALLEST = 1e-100
"""A scale below this is the round-off of a value that is zero."""


@dataclass(frozen=True, eq=False)
class Setting:
    """What one comparison is made of."""

    problem: ControlProblem
    subject: Subject
    reference: Any
    grid: Grid
    region: Box
    tolerance: float
    seed: int


@dataclass(frozen=True, eq=False)
class Values:
    """e, u and s (n,) at x (n, d); `signed` is candidate minus reference."""

    x: Array
    candidate: Array
    signed: Array
    bar: Array
    scale: Array


def values_at(setting: Setting, x: Array) -> Values:
    """Candidate and reference at x (n, d); without a value the candidate's is NaN."""
    subject, reference = setting.subject, setting.reference
    truth = np.asarray(reference.value_at(x))
    mine = subject.value(x) if subject.has_value else np.full(len(x), np.nan)
    bar = np.full(len(x), np.inf)
    if hasattr(reference, "error_at"):
        bar = np.asarray(reference.error_at(x))
    return Values(x, mine, mine - truth, bar, scale_at(setting.problem, x, truth))


def scale_at(problem: ControlProblem, x: Array, truth: Array) -> Array:
    """s(x) (n,): the problem's own scale, else sup|V| of the reference there."""
    if callable(problem.scale):
        return np.broadcast_to(np.asarray(problem.scale(x), float), (len(x),))
    if problem.scale is not None:
        return np.full(len(x), float(problem.scale))
    return np.full(len(x), max(float(np.abs(truth).max()), SMALLEST))


def all_values(setting: Setting, points: SamplePoints) -> Values:
    """Values at the sample points and at the tops found around the worst of them."""
    first = values_at(setting, points.x)
    if not setting.subject.has_value or not np.isfinite(first.candidate).all():
        return first
    scale = float(first.scale.max())

    def excess(x: Array) -> Array:
        got = values_at(setting, x)
        return (np.abs(got.signed) - got.bar) / scale

    # Bars of infinity leave nothing to climb.
    score = np.abs(first.signed) - np.where(np.isfinite(first.bar), first.bar, 0.0)
    top = np.argsort(score / first.scale)[-CLIMBERS:]
    if not np.isfinite(first.bar).all():
        return first
    tops = climb(excess, points.x[top], setting.region, points.resolution, setting.seed)
    more = values_at(setting, tops)
    return Values(
        x=np.concatenate([first.x, tops]),
        candidate=np.concatenate([first.candidate, more.candidate]),
        signed=np.concatenate([first.signed, more.signed]),
        bar=np.concatenate([first.bar, more.bar]),
        scale=np.r_[first.scale, np.full(len(tops), scale)]
        if not callable(setting.problem.scale)
        else np.r_[first.scale, more.scale],
    )


def slopes_of(setting: Setting, x: Array) -> Slopes | None:
    """Gradients compared at x (n, d); None without a value."""
    if not setting.subject.has_value:
        return None
    truth = np.asarray(setting.reference.value_at(x))
    # A constant value oscillates by its round-off only.
    scale = float(scale_at(setting.problem, x, truth).max())
    osc = max(float(np.ptp(truth)), FLAT * scale)
    return compare_slopes(
        setting.subject, setting.reference, setting.grid, x, setting.region, osc
    )


@dataclass(frozen=True, eq=False)
class Policies:
    """The two policies at x (n, d): relative distance (n,), and what it gives away."""

    x: Array
    error: Array
    gap: Array


def policies_of(setting: Setting, points: SamplePoints) -> Policies | None:
    """Controls compared at a few of the points; None without controls."""
    problem, subject, reference = setting.problem, setting.subject, setting.reference
    if problem.n_controls == 0:
        return None
    x = few(points.x, setting.seed)
    mine, theirs = subject.control(x)[0], np.asarray(reference.control_at(x))
    size = np.maximum(np.abs(theirs).max(axis=0), 1e-300)
    error = (np.abs(mine - theirs) / size).max(axis=1)
    truth = Subject(problem, problem.domain or setting.region, _as_functions(reference))
    p = truth.gradient(x)
    curve = truth.curvature(x) if callable(problem.diffusion) else np.zeros_like(p)
    gap = np.full(len(x), np.nan)
    good = np.isfinite(mine).all(axis=1)
    gap[good] = hamiltonian_gap(
        problem, x[good], mine[good], theirs[good], p[good], curve[good]
    )
    return Policies(x, error, gap)


def _as_functions(reference: Any) -> Any:
    from .candidate import Candidate

    return Candidate(reference.value_at, reference.control_at, reference.gradient_at)


def residual_of(setting: Setting, points: SamplePoints) -> Array | None:
    """HJB residual in units of V at a few points off the grid; None without value."""
    if not setting.subject.has_value:
        return None
    off_grid = points.x[points.n_nodes :]
    return value_residual(setting.subject, few(off_grid, setting.seed))


def few(x: Array, seed: int) -> Array:
    """At most FEW of the points, spread over all of them."""
    if len(x) <= FEW:
        return x
    keep = np.random.default_rng(seed).choice(len(x), FEW, replace=False)
    return x[np.sort(keep)]


def loss_of(
    setting: Setting, scale: float, refine: bool
) -> tuple[Regret | None, Excursion | None]:
    """Regret and excursion of the policy; None without controls.

    With `refine` the regret's grid is refined while its own bar hides the answer.
    """
    problem, region = setting.problem, setting.region
    if problem.n_controls == 0:
        return None, None
    if refine:
        allowed = setting.tolerance * scale
        regret = decided_regret(setting.subject, problem, setting.grid, region, allowed)
    else:
        regret = regret_of(setting.subject, problem, setting.grid, region)
    excursion = excursion_of(
        problem, regret.grid, regret.policy, regret.best_policy, region, setting.seed
    )
    return regret, excursion


def points_of(setting: Setting) -> SamplePoints:
    """The points of the comparison."""
    return sample_points(setting.grid, setting.region, setting.seed)
