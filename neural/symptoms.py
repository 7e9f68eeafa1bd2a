"""What a learned answer shows when asked: residual, curvature, bounds, paths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hjbpde.probe import control_range
from hjbpde.problem import ControlProblem
from hjbpde.sets import Box
from hjbpde.simulate import Paths, simulate

from .value_model import row_scale

Array = NDArray[np.float64]
PATHS, MOST_STEPS = 200, 600


@dataclass(frozen=True)
class Evidence:
    """Shares are of states or paths; residual and mismatch are over sup|V|.

    `floor` is the residual that rounding V to float32 alone may leave.
    """

    residual: float
    saturated: float
    wrong_curvature: float
    leaving: float
    growing: bool
    mismatch: float
    single_precision: bool
    floor: float


def look(
    learned: Any, problem: ControlProblem, region: Box, points: int, seed: int
) -> Evidence:
    """Ask at random states of `region`, and simulate the policy from them."""
    rng = np.random.default_rng(seed)
    x = region.sample(rng, points)
    value, a = learned.value_at(x), learned.control_at(x)
    scale = max(float(np.abs(value).max()), 1e-300)
    start = region.sample(rng, PATHS)
    paths = _paths(learned, problem, start, seed)
    single = bool((value == value.astype(np.float32)).all() and np.ptp(value) > 0)
    return Evidence(
        residual=_residual(learned, problem, x, a) / scale,
        saturated=_saturated(problem, x, a),
        wrong_curvature=_wrong_curvature(learned, problem, x),
        leaving=_leaving(problem, paths),
        growing=_growing(paths),
        mismatch=_mismatch(learned, problem, paths) / scale,
        single_precision=single,
        floor=float(np.finfo(np.float32).eps) * 8.0,
    )


def _residual(learned: Any, problem: ControlProblem, x: Array, a: Array) -> float:
    """RMS of rho V - r - L^a V over the rates of the rows, in the units of V."""
    f = np.asarray(problem.drift_at(x, a))
    gap = np.asarray(problem.discount_at(x)) * learned.value_at(x)
    gap = gap - np.asarray(problem.payoff_at(x, a))
    gap = gap - (f * learned.gradient_at(x)).sum(-1)
    if problem.diffusion is not None and hasattr(learned, "hessian_at"):
        sigma = np.asarray(problem.diffusion_at(x, a))
        noise = np.einsum("nik,njk->nij", sigma, sigma)
        gap = gap - 0.5 * np.einsum("nij,nij->n", noise, learned.hessian_at(x))
    return float(np.sqrt(np.mean((gap / row_scale(problem, x, a)) ** 2)))


def _saturated(problem: ControlProblem, x: Array, a: Array) -> float:
    """The largest share of states with one entry of the control on one bound."""
    if not isinstance(problem.controls, Box) or not problem.n_controls:
        return 0.0
    low, high = (v.T for v in control_range(problem, x))
    low_share = (a <= low + 1e-9).mean(0)
    high_share = (a >= high - 1e-9).mean(0)
    return float(max(low_share.max(), high_share.max()))


def _wrong_curvature(learned: Any, problem: ControlProblem, x: Array) -> float:
    """Where more noise is worth more, on axes whose noise the control can raise."""
    if not callable(problem.diffusion) or not hasattr(learned, "hessian_at"):
        return 0.0
    if not isinstance(problem.controls, Box):
        return 0.0
    rng = np.random.default_rng(0)
    low, high = (v.T for v in control_range(problem, x))
    low = np.where(np.isfinite(low), low, -1.0)
    high = np.where(np.isfinite(high), high, 1.0)
    draws = [low + (high - low) * rng.random(low.shape) for _ in range(2)]
    one, two = (np.asarray(problem.diffusion_at(x, a)) for a in draws)
    felt = np.abs(one - two).max(axis=(0, 2)) > 0
    if not felt.any():
        return 0.0
    bend = problem.sign * np.einsum("nii->ni", learned.hessian_at(x))[:, felt]
    return float((bend >= 0).any(axis=1).mean())


def _paths(learned: Any, problem: ControlProblem, start: Array, seed: int) -> Paths:
    """Paths for two discount times, steps a tenth of the state's own time scale."""
    a = learned.control_at(start)
    rate = float(np.median(row_scale(problem, start, a)))
    rho = float(np.median(np.asarray(problem.discount_at(start))))
    horizon = 2.0 / rho
    dt = max(0.1 / rate, horizon / MOST_STEPS)

    def policy(x: Array) -> Array:
        return learned.control_at(x)

    return simulate(problem, policy, start, horizon, min(dt, horizon), PATHS, seed)


def _leaving(problem: ControlProblem, paths: Paths) -> float:
    """The share of paths that end on an artificial face."""
    assert problem.domain is not None
    low, high = np.asarray(problem.domain.low), np.asarray(problem.domain.high)
    last, out = paths.states[:, -1], np.zeros(len(paths.states), bool)
    for (axis, side), rule in problem.faces.items():
        if rule is None:
            wall = low[axis] if side == "low" else high[axis]
            out |= last[:, axis] == wall
    return float(out.mean())


def _growing(paths: Paths) -> bool:
    """Whether the last quarter of the time pays more than the first, discounted."""
    total = paths.rewards
    quarter = max(total.shape[1] // 4, 1)
    first = np.abs(total[:, quarter] - total[:, 0]).mean()
    last = np.abs(total[:, -1] - total[:, -1 - quarter]).mean()
    return bool(last > 2.0 * first or not np.isfinite(last))


def _mismatch(learned: Any, problem: ControlProblem, paths: Paths) -> float:
    """|V - simulated payoff with V as tail| beyond four standard errors, mean."""
    begin, end = paths.states[:, 0], paths.states[:, -1]
    rho = np.asarray(problem.discount_at(begin))
    tail = np.exp(-rho * paths.times[-1]) * learned.value_at(end)
    gap = paths.rewards[:, -1] + tail - learned.value_at(begin)
    error = 4.0 * float(gap.std()) / np.sqrt(len(gap))
    return max(abs(float(gap.mean())) - error, 0.0)
