"""Every number of one comparison, taken once; the rules are applied elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hjbpde import Box, ControlProblem, Grid

from .excursion import Excursion, excursion_of
from .long_run import LongRun, long_run_of
from .losses import losses_of
from .path_regret import follows_paths, path_losses
from .points import SamplePoints, climb, few, judged_points, sample_points
from .reference import Instant, running
from .regret import Losses
from .residual import value_residual
from .slopes import Slopes, compare_slopes
from .subject import Subject
from .when import When

Array = NDArray[np.float64]

CLIMBERS = 16
FLAT = 1e-6
"""An oscillation below this share of the scale is none."""
SMALLEST = 1e-100
"""A scale below this is the round-off of a value that is zero."""
STOP_SLACK = 0.5
"""Share of the tolerance by which a value may exceed psi and still mean to stop."""


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
    times: Array | None = None
    level_bar: float = 0.0
    """How well the constant of a relative value is known, see `levelled`."""

    @cached_property
    def instants(self) -> tuple[Instant, ...]:
        """Every time and mode judged; one without either where there is none."""
        times: Sequence[float | None] = (None,)
        modes: Sequence[int | None] = (None,)
        if self.times is not None:
            times = [float(t) for t in self.times]
        if self.problem.modes is not None:
            modes = range(self.problem.modes.n)
        whens = [When(t, k) for t in times for k in modes]
        return tuple(
            Instant.of(self.subject, self.reference, w, self.level_bar) for w in whens
        )

    @cached_property
    def long_run(self) -> LongRun | None:
        """The long-run average, where that is the aim."""
        return long_run_of(self.problem, self.reference, self.grid)

    def unit_of_losses(self, scale: float) -> float:
        """What regret is relative to: `scale`, that of values, but in the long run."""
        return scale if self.long_run is None else self.long_run.scale


@dataclass(frozen=True, eq=False)
class Values:
    """e, u and s (n,) at x (n, d); `signed` is candidate minus reference.

    `places` (n, d) or more, with time and mode as last columns.
    """

    x: Array
    places: Array
    candidate: Array
    truth: Array
    bar: Array
    scale: Array

    @property
    def signed(self) -> Array:
        """Candidate minus reference, (n,)."""
        return self.candidate - self.truth


def values_at(instant: Instant, x: Array) -> Values:
    """Candidate and reference at x (n, d); without a value the candidate's is NaN.

    The scale is left at 1.
    """
    subject, reference = instant.subject, instant.reference
    truth = np.asarray(reference.value_at(x))
    mine = subject.value(x) if subject.has_value else np.full(len(x), np.nan)
    bar, one = instant.bar_at(x), np.ones(len(x))
    return Values(x, instant.places(x), mine, truth, bar, one)


def scaled(problem: ControlProblem, found: Sequence[Values]) -> list[Values]:
    """s(x): the problem's own scale, else sup|V| of the reference over all of them.

    In the long run V is known up to a constant, and sup|V| the least that any leaves.
    """
    size = max(SMALLEST, *(float(np.abs(v.truth).max()) for v in found))
    if problem.average:
        size = max(SMALLEST, *(0.5 * float(np.ptp(v.truth)) for v in found))
    out = []
    for values in found:
        scale: Any = size if problem.scale is None else problem.scale
        scale = np.asarray(scale(values.x) if callable(scale) else scale, float)
        out.append(replace(values, scale=np.broadcast_to(scale, (len(values.x),))))
    return out


def joined(found: Sequence[Values]) -> Values:
    """The values of every time, one after the other."""
    names = ("x", "places", "candidate", "truth", "bar", "scale")
    return Values(**{n: np.concatenate([getattr(v, n) for v in found]) for n in names})


def levelled(setting: Setting, points: SamplePoints) -> Setting:
    """With ``average=True`` the candidate's value is moved by a constant.

    Like the reference's it is known up to one. Their mean difference over the nodes is
    taken off; what it may be wrong by, the mean of the reference's bar, is added to it.
    """
    if not setting.problem.average or not setting.subject.has_value:
        return setting
    found = values_at(setting.instants[0], points.x[: points.n_nodes or None])
    gap = float(found.signed.mean())
    if not np.isfinite(gap):
        return setting
    level_bar = float(found.bar.mean())
    return replace(setting, subject=setting.subject.raised(-gap), level_bar=level_bar)


def all_values(setting: Setting, points: SamplePoints) -> list[Values]:
    """For every time, values at the sample points and at tops around the worst."""
    plain = [values_at(instant, points.x) for instant in setting.instants]
    found = scaled(setting.problem, plain)
    known = all(np.isfinite(v.candidate).all() for v in found)
    if not (setting.subject.has_value and known):
        return found
    pairs = zip(setting.instants, found, strict=True)
    tops = [_climbed(setting, instant, v, points) for instant, v in pairs]
    both = [joined(pair) for pair in zip(plain, tops, strict=True)]
    return scaled(setting.problem, both)


def _climbed(
    setting: Setting, instant: Instant, first: Values, points: SamplePoints
) -> Values:
    """Values at the tops around the worst of the first ones, scale left at 1."""
    if not np.isfinite(first.bar).all():
        # Bars of infinity leave nothing to climb.
        return values_at(instant, points.x[:0])

    def excess(x: Array) -> Array:
        runs = running(instant.problem, x)
        score = np.full(len(x), -np.inf)
        runs[runs] = np.isfinite(instant.reference.value_at(x[runs]))
        got = values_at(instant, x[runs])
        score[runs] = np.abs(got.signed) - got.bar
        return score

    score = (np.abs(first.signed) - first.bar) / first.scale
    worst = points.x[np.argsort(score)[-CLIMBERS:]]
    tops = climb(excess, worst, setting.region, points.resolution, setting.seed)
    return values_at(instant, tops)


def slopes_of(setting: Setting, found: Sequence[Values]) -> list[Slopes] | None:
    """Gradients compared at every time; None without a value."""
    if not setting.subject.has_value:
        return None
    slopes = []
    for instant, values in zip(setting.instants, found, strict=True):
        # A constant value oscillates by its round-off only.
        osc = max(float(np.ptp(values.truth)), FLAT * float(values.scale.max()))
        slopes.append(
            compare_slopes(instant, setting.grid, values.x, setting.region, osc)
        )
    return slopes


def residual_of(
    setting: Setting, instant: Instant, points: SamplePoints
) -> Array | None:
    """HJB residual in units of V at a few points off the grid; None without value."""
    if not setting.subject.has_value:
        return None
    off_grid = few(points.x[points.n_nodes :], setting.seed)
    return value_residual(setting.subject, instant, off_grid)


def loss_of(
    setting: Setting, scale: float, refine: bool
) -> tuple[Losses | None, Excursion | None]:
    """Regret and excursion of the policy; None where nothing is decided.

    `scale` is what the regret is relative to. With `refine` the regret's grid is
    refined while its own bar hides the answer.
    """
    problem, region = setting.problem, setting.region
    may_stop = any(stop.by == "controller" for stop in problem.stops)
    one = setting.subject.joint
    idle = one.n_controls == 0 and problem.impulse is None
    if idle and not may_stop:
        return None, None
    allowed = setting.tolerance * scale
    subject = replace(setting.subject, slack=STOP_SLACK * allowed)
    if follows_paths(problem) and hasattr(setting.reference, "error_at"):
        return path_losses(subject, setting.reference, setting.grid, region), None
    losses = losses_of(
        subject, setting.grid, region, setting.times, allowed if refine else None
    )
    if subject.lent:
        losses = replace(losses, replies=())
    if one.n_controls == 0 or losses.tables is None:
        return losses, None
    return losses, excursion_of(one, losses.tables, region, setting.seed)


def points_of(setting: Setting) -> SamplePoints:
    """The points of the comparison."""
    points = sample_points(setting.grid, setting.region, setting.seed)
    first = setting.instants[0]
    return judged_points(first.problem, points, first.reference)
