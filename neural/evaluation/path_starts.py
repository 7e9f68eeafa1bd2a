"""Where paths start, and how long they are followed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from hjbpde.problem import ControlProblem

from ..exit_region import running_states
from ..sampling import on_levels, training_states
from ..start import Policy
from ..time_state import TimedProblem
from .paths import Paths
from .rollout import Rollout

Array = NDArray[np.float64]
RIM = 0.1
"""Share of the paths that start on faces."""
LEVELS = 16
"""Times that the paths of one batch start at, beside today; each batch moves them."""
CHECK_LEVELS = 9
"""Times of the states set aside."""
LEFT = 0.01
"""Share of the paths that may still run when they are no longer followed."""
MOST_STEPS = 2000
"""Steps after which paths that do not end are left to the bootstrap."""


def path_starts(problem: ControlProblem, n: int, rng: np.random.Generator) -> Array:
    """n random states (n, d) where the process runs, a share of them on faces.

    With a horizon they share a few times, because functions of t are called once a
    time; the times are uniform over batches, and some states start today.
    """
    box = problem.domain
    assert box is not None
    at_times = few_times(problem, rng)

    def draw(count: int) -> Array:
        return at_times(training_states(box, count, rng, RIM))

    return draw(n) if problem.exit is None else running_states(problem, draw, n)


def few_times(
    problem: ControlProblem, rng: np.random.Generator
) -> Callable[[Array], Array]:
    """States (n, d) moved to one of `LEVELS` times or today; as they are without T."""
    if not isinstance(problem, TimedProblem):
        return lambda x: x
    assert problem.domain is not None
    spread = (np.arange(LEVELS) + rng.random()) / LEVELS
    times = problem.domain.width[-1] * np.r_[0.0, spread]

    def moved(x: Array) -> Array:
        x[:, -1] = times[rng.integers(len(times), size=len(x))]
        return x

    return moved


def check_states(problem: ControlProblem, n: int, rng: np.random.Generator) -> Array:
    """n states (n, d) of the inner box, set aside to see what a policy changed."""
    assert problem.domain is not None
    box = problem.domain.inner(0.75, problem.artificial_axes)
    if problem.exit is None:
        x = box.sample(rng, n)
    else:
        x = running_states(problem, partial(box.sample, rng), n)
    return on_levels(box, x, CHECK_LEVELS) if isinstance(problem, TimedProblem) else x


@dataclass(frozen=True)
class Horizons:
    """How long paths are followed: while there is no V yet, and later; in words."""

    first: float
    later: float
    words: str = ""


def path_horizons(
    rollout: Rollout, given: float | None, rate: float, policy: Policy
) -> Horizons:
    """The given time; else T, or 2 / rho and then 1 / (2 rho) of the least rate rho.

    With an exit no longer than until hardly a path of `policy` still runs.
    """
    problem, dt = rollout.problem, rollout.dt
    if given is not None:
        return Horizons(given, given)
    if isinstance(problem, TimedProblem):
        assert problem.domain is not None
        T = float(problem.domain.width[-1])
        return Horizons(T, T)
    if problem.exit is None:
        return Horizons(max(dt, 2.0 / rate), max(dt, 0.5 / rate))
    over, share = ending_time(rollout, policy)
    words = (
        f"paths are followed for {over:.3g}, when {share:.1%} of those of the first "
        "policy still ran; what follows is bootstrapped"
    )
    if rate > 0 and 0.5 / rate < over:
        return Horizons(max(dt, min(2.0 / rate, over)), max(dt, 0.5 / rate))
    return Horizons(over, over, words)


def ending_time(rollout: Rollout, policy: Policy, n: int = 1024) -> tuple[float, float]:
    """When all but LEFT of n paths have ended, and the share that still runs then.

    Found on random numbers of its own.
    """
    rng = np.random.default_rng(0)
    x = path_starts(rollout.problem, n, rng)
    paths = Paths(replace(rollout, control_variate=False), None, x)
    k = rollout.problem.diffusion_at(x[:1], policy(x[:1])).shape[-1]
    steps = 0
    while paths.alive.mean() > LEFT and steps < MOST_STEPS:
        dW = np.sqrt(rollout.dt) * rng.standard_normal((n, k))
        paths.advance(policy, dW, rng)
        steps += 1
    return max(steps, 1) * rollout.dt, float(paths.alive.mean())
