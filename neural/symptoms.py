"""What a learned answer shows when asked: residual, curvature, bounds, paths."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hjbpde.probe import control_range
from hjbpde.problem import ControlProblem
from hjbpde.sets import Box
from hjbpde.simulate import Paths, simulate

from .exit_region import running_states
from .value_model import row_scale

Array = NDArray[np.float64]
PATHS, MOST_STEPS = 200, 600


@dataclass(frozen=True)
class Evidence:
    """Shares are of states or paths; residual and mismatch are over sup|V|.

    `floor` is the residual that rounding V to float32 alone may leave; `lost` the share
    of states without a number; `flat` whether V is `level` all over although its payoff
    is not.
    """

    residual: float
    saturated: float
    wrong_curvature: float
    leaving: float
    growing: bool
    mismatch: float
    single_precision: bool
    floor: float
    lost: float = 0.0
    lost_at: str = ""
    flat: bool = False
    level: float = 0.0


def look(
    learned: Any, problem: ControlProblem, region: Box, points: int, seed: int
) -> Evidence:
    """Ask at random states of `region`, and simulate the policy from them.

    With an exit, where the process still runs; with a horizon, today.
    """
    rng = np.random.default_rng(seed)
    x, start = (_states(problem, region, n, rng) for n in (points, PATHS))
    lost = _lost_at(learned, x)
    if lost.any():
        return _nothing(float(lost.mean()), str(x[lost][0]))
    value, a = learned.value_at(x), learned.control_at(x)
    scale = max(float(np.abs(value).max()), 1e-300)
    paths = _paths(learned, problem, start, seed)
    single = bool((value == value.astype(np.float32)).all() and np.ptp(value) > 0)
    return Evidence(
        residual=_residual(learned, problem, x, a) / scale,
        saturated=_saturated(problem, x, a),
        wrong_curvature=_wrong_curvature(learned, problem, x),
        leaving=float(_lost(problem, paths).mean()),
        growing=problem.horizon is None and _growing(paths),
        mismatch=_mismatch(learned, problem, paths) / scale,
        single_precision=single,
        floor=float(np.finfo(np.float32).eps) * 8.0,
        flat=_flat(problem, x, a, value),
        level=float(value.mean()),
    )


def _lost_at(learned: Any, x: Array) -> NDArray[np.bool_]:
    """Where V or its slope is no finite number, shape (n,)."""
    lost = ~np.isfinite(learned.value_at(x))
    if not lost.any():
        lost = ~np.isfinite(learned.gradient_at(x)).all(-1)
    return lost if lost.any() else ~np.isfinite(learned.control_at(x)).all(-1)


def _nothing(share: float, where: str) -> Evidence:
    """What can be said of an answer that is NaN: no path can be followed."""
    nan = float("nan")
    return Evidence(nan, 0.0, 0.0, 0.0, False, nan, False, 0.0, share, where)


def _flat(problem: ControlProblem, x: Array, a: Array, value: Array) -> bool:
    """Whether V varies by less than 1e-4 of what its payoff does, at its own rate.

    ``rho V - L V = r`` lets V vary by that of r over the rate of the rows, about.
    """
    now = _today(problem)
    paid = float(np.ptp(np.asarray(now.payoff_at(x, a))))
    rate = float(np.median(row_scale(now, x, a)))
    return bool(np.isfinite(paid) and np.ptp(value) * rate < 1e-4 * paid)


def _states(
    problem: ControlProblem, region: Box, n: int, rng: np.random.Generator
) -> Array:
    if problem.exit is None:
        return region.sample(rng, n)
    return running_states(problem, partial(region.sample, rng), n)


def _today(problem: ControlProblem) -> ControlProblem:
    """The data at t = 0, discounted by 1/T more, of a problem with a horizon T."""
    if problem.horizon is None:
        return problem
    return problem.slice_at(0.0, 1.0 / float(problem.horizon))


def _pace_of_value(learned: Any, problem: ControlProblem, x: Array) -> Array:
    """V/T + V_t at x (n, d) today: what the discount of `_today` adds, and V's pace."""
    if problem.horizon is None:
        return np.zeros(len(x))
    T = float(problem.horizon)
    h = 1e-3 * T
    v0, v1, v2 = (learned.value_at(x, t=k * h) for k in range(3))
    return v0 / T + (4.0 * v1 - 3.0 * v0 - v2) / (2.0 * h)


def _residual(learned: Any, problem: ControlProblem, x: Array, a: Array) -> float:
    """RMS of rho V - V_t - r - L^a V over the rates of the rows, in the units of V."""
    moved = _pace_of_value(learned, problem, x)
    problem = _today(problem)
    f = np.asarray(problem.drift_at(x, a))
    gap = np.asarray(problem.discount_at(x)) * learned.value_at(x) - moved
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
    problem = _today(problem)
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
    """Paths for two discount times, or to the horizon.

    Steps are a tenth of the state's own time scale; without discount paths run for
    20 of these scales.
    """
    now = _today(problem)
    rate = float(np.median(row_scale(now, start, learned.control_at(start))))
    rho = float(np.median(np.asarray(now.discount_at(start))))
    if problem.horizon is not None:
        horizon = float(problem.horizon)
        steps = int(np.clip(np.ceil(10.0 * rate * horizon), 10, MOST_STEPS))

        def timed(x: Array, t: float) -> Array:
            return learned.control_at(x, t=t)

        dt = horizon / steps
        return simulate(problem, timed, start, horizon, dt, PATHS, seed)
    horizon = 2.0 / rho if rho > 0 else 20.0 / rate
    dt = max(0.1 / rate, horizon / MOST_STEPS)

    def policy(x: Array) -> Array:
        return learned.control_at(x)

    return simulate(problem, policy, start, horizon, min(dt, horizon), PATHS, seed)


def _lost(problem: ControlProblem, paths: Paths) -> NDArray[np.bool_]:
    """Which paths end on an artificial face."""
    assert problem.domain is not None
    low, high = np.asarray(problem.domain.low), np.asarray(problem.domain.high)
    last, out = paths.states[:, -1], np.zeros(len(paths.states), bool)
    for (axis, side), rule in problem.faces.items():
        if rule is None:
            wall = low[axis] if side == "low" else high[axis]
            out |= last[:, axis] == wall
    return out


def _growing(paths: Paths) -> bool:
    """Whether the last quarter of the time pays more than the first, discounted."""
    total = paths.rewards
    quarter = max(total.shape[1] // 4, 1)
    first = np.abs(total[:, quarter] - total[:, 0]).mean()
    last = np.abs(total[:, -1] - total[:, -1 - quarter]).mean()
    return bool(last > 2.0 * first or not np.isfinite(last))


def _mismatch(learned: Any, problem: ControlProblem, paths: Paths) -> float:
    """|V - simulated payoff with V as tail| beyond four standard errors, mean.

    No tail where the path has collected what its end pays.
    """
    begin, end = paths.states[:, 0], paths.states[:, -1]
    gap = paths.rewards[:, -1] - learned.value_at(begin)
    if problem.horizon is None:
        rho = np.asarray(problem.discount_at(begin))
        tail = np.exp(-rho * paths.times[-1]) * learned.value_at(end)
        going = np.isinf(paths.ended) | _lost(problem, paths)
        gap = gap + np.where(going, tail, 0.0)
    error = 4.0 * float(gap.std()) / np.sqrt(len(gap))
    return max(abs(float(gap.mean())) - error, 0.0)
