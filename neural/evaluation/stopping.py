"""Least squares with rights to stop: the value of going on, and a surface that moves.

See `surface_run`: W is smooth across the surface, V = max(W, psi) has a jump in its
second derivative there: fitting V itself by choosing at every state between its two
rows stalls at 1e-3 where this reaches 1e-7 (measured in 1-D to 3-D).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hjbpde.problem import ControlProblem
from hjbpde.progress import bar_over

from ..collocation import Collocation
from ..features import FeatureBasis, FeatureValue
from ..free_boundary import resampled
from ..outcome import Outcome
from ..start import Policy
from ..stopping_payoff import Payoffs, box_around
from ..stopping_sketch import NODES
from .held_out import stopped_error
from .surface_run import Beginning, Evaluated, State, SurfaceRun, at_once

if TYPE_CHECKING:
    from .least_squares import LeastSquares

TIMED = 1e-7
"""Least Tikhonov weight with a horizon, where a corner of the data is no smooth value:
less weight finds it again at other times, enlarged (measured on American puts)."""
STEEPER = 2.0
"""Feature scales with a horizon over those without, for the same corner: a factor of
2 to 5 in V on American puts."""
MORE = {2: (2.0, 4.0)}
"""By states with time: features with a horizon over those without, and least rows for
each. With fewer the surface follows the noise of the corner; in three states they cost
18 times the time."""
TRIES, WORTH = 3, 0.5
"""Draws of all features at most, until what is wrong on the surface and beside it is
so much less than with few. A draw may open a hole in the set (1 in 4 on American
puts), and the next one does not."""


@dataclass(frozen=True, eq=False)
class FeatureEvaluator:
    """W in random features, by one linear least-squares problem a policy and set."""

    method: LeastSquares
    basis: FeatureBasis
    scale: float
    name: str = "LeastSquares"
    is_inexact: bool = False

    def evaluate(self, problem: ControlProblem, policy: Policy, seed: int) -> Evaluated:
        """W of `policy` in a problem that ends on the surface of the set."""
        method, rng = self.method, np.random.default_rng(seed)
        ratio = method.points_per_feature
        system = Collocation.build(problem, self.basis, ratio, rng)
        a = policy(system.x)
        fit = system.solve(policy, a, method.regularisation, None)
        return Evaluated(fit.value, system.x, a, system.held_out)

    def details(self) -> Mapping[str, Any]:
        """The number of features and their slope."""
        return {"features": len(self.basis.bias), "feature_scale": self.scale}


def learn_stopping(
    method: LeastSquares, problem: ControlProblem, start: Any, seed: int, progress: bool
) -> Outcome:
    """Find the surface and the scale on a smaller basis, then use the full one.

    Raises
    ------
    ProblemError, MethodMismatch
        As in `Beginning`.
    """
    began, rng = time.perf_counter(), np.random.default_rng(seed)
    timed = problem.horizon is not None
    if timed:
        method = _steeper(method, problem.dimension + 1)
    full, small, scales = method.sizes(problem.dimension + timed)
    begin = Beginning.of("LeastSquares", problem, _n_surface(small), rng)
    payoffs = begin.payoffs
    if begin.first.everywhere:
        return at_once(payoffs, begin.first)
    policy, words = begin.policy(start, rng)
    trials: list[SurfaceRun] = []
    for scale, _ in bar_over(scales, scales, progress, "feature scale"):
        at = begin.first, policy
        run = _trial(method, payoffs, trials, at, scale, rng)
        trials.append(replace(run, seed=seed).iterate(False))
    best = min(trials, key=_badness)
    scale, middle, runs = scales[trials.index(best)], time.perf_counter(), list(trials)
    enough = WORTH * _badness(best)
    for _ in range(TRIES if small != full and best.best is not None else 0):
        stopping, greedy = best.state
        spread = resampled(payoffs, stopping, _n_surface(full), rng)
        box = box_around(payoffs.problem, stopping)
        basis = FeatureBasis.draw(box, full, scale, rng)
        last = _run(method, payoffs, basis, scale, "full", (spread, greedy))
        runs.append(replace(last, seed=seed).iterate(progress))
        best = min(best, runs[-1], key=_badness)
        if runs[-1].status == "converged" or _badness(best) <= enough:
            break
    ended = time.perf_counter()
    seconds = {"scale selection": middle - began, "iteration": ended - middle}
    history = [entry for run in runs for entry in run.history]
    return _judged(payoffs, best.outcome(words, history, seconds))


def _judged(payoffs: Payoffs, found: Outcome) -> Outcome:
    """With an estimate of how far V may be off, in many states; no grid can say it."""
    if payoffs.box.dimension <= max(NODES):
        return found
    assert isinstance(found.model, FeatureValue) and found.stopping is not None
    off = stopped_error(payoffs, found.stopping, found.model)
    settled = found.status in ("converged", "stagnated")
    return replace(
        found,
        status="not converged" if settled and not off.is_small else found.status,
        checks=(*found.checks, str(off)),
        details={
            **found.details,
            "error_estimate": off.size,
            "error_at": list(off.place),
            "surface_move": found.history[-1]["surface_move"],
        },
    )


def _steeper(method: LeastSquares, d: int) -> LeastSquares:
    """Options for a corner of the data at the horizon, in d states with time."""
    features, _, scales = method.sizes(d)
    more, rows = MORE.get(d, (1.0, 1.0))
    return replace(
        method,
        features=method.features or int(more * features),
        scales=method.scales or tuple(STEEPER * scale for scale in scales),
        points_per_feature=max(method.points_per_feature, rows),
        regularisation=max(method.regularisation, TIMED),
    )


def _trial(
    method: LeastSquares, payoffs: Payoffs, before: list[SurfaceRun], first: State,
    scale: float, rng: np.random.Generator,
) -> SurfaceRun:  # fmt: skip
    """A run on the smaller basis, from the best state of those before it."""
    small = method.sizes(payoffs.box.dimension)[1]
    good = min(before, key=_badness, default=None)
    at, box, stage = first, payoffs.box, "first"
    if good is not None:
        at, stage = good.state, "scale"
        box = box_around(payoffs.problem, at[0])
    basis = FeatureBasis.draw(box, small, scale, rng)
    return _run(method, payoffs, basis, scale, stage, at)


def _run(
    method: LeastSquares, payoffs: Payoffs, basis: FeatureBasis, scale: float,
    stage: str, at: State,
) -> SurfaceRun:  # fmt: skip
    """A run on one basis."""
    limits = method.max_policies, method.tolerance
    evaluator = FeatureEvaluator(method, basis, scale)
    return SurfaceRun(evaluator, payoffs, limits, 0, stage, *at)


def _n_surface(features: int) -> int:
    """States on the surface: as many rows as an exit surface gets."""
    return max(8, features // 2)


def _badness(run: SurfaceRun) -> float:
    return run.best_residual
