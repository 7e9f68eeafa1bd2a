"""The verification identity J(u) - V = 1/2 E int |u - u*|^2, with its null test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hjbpde.errors import HJBError, ProblemError
from hjbpde.real_numbers import real_array

from .options import check_count
from .reverse_diffusion import ReverseDiffusion

Array = NDArray[np.float64]
Control = Callable[[Array, float], Array]
"""u(x (n, d), reverse time t) -> (n, d)."""


@dataclass(frozen=True)
class Identity:
    """Both sides of the identity for one control, and what the time step adds.

    Parameters
    ----------
    excess, distance : float
        ``J(u) - V`` and ``1/2 E int |u - u*|^2``, means over start states.
    excess_error, distance_error : float
        Their standard errors.
    null : float
        ``J(u*) - V`` on the same noise: zero but for the time step.
    difference : float
        ``excess - distance``; its standard error, `error`, is that of the pathwise
        difference.
    bias : float
        ``|difference(h) - difference(h / 2)|``: what the time step is worth.
    """

    excess: float
    excess_error: float
    distance: float
    distance_error: float
    null: float
    difference: float
    error: float
    bias: float

    @property
    def holds(self) -> bool:
        """``|difference| <= 2 bias + 4 error``.

        The Euler scheme is of weak order 1, so the difference left at h / 2 is about
        the change from h to h / 2; the 2 covers higher orders.
        """
        return abs(self.difference) <= 2.0 * self.bias + 4.0 * self.error

    def __str__(self) -> str:
        word = "FAILS"
        if self.holds:
            small = abs(self.difference) <= 4.0 * self.error
            word = f"holds within its {'noise' if small else 'discretisation bias'}"
        return (
            f"J(u) - V = {self.excess:.5f} +- {self.excess_error:.5f}, half the "
            f"squared distance = {self.distance:.5f} +- {self.distance_error:.5f}, "
            f"difference {self.difference:+.5f} +- {self.error:.5f}, time step worth "
            f"{self.bias:.5f}, null {self.null:+.5f}: {word}"
        )


def identity(
    problem: ReverseDiffusion,
    control: Control,
    *,
    paths: int = 4000,
    steps: int = 400,
    seed: int = 0,
) -> Identity:
    """Simulate J(u) and the distance to u* along the paths of u, at h and h / 2.

    Euler-Maruyama from X_0 ~ p_T, steps growing like t^2 from the data. The zero-mean
    ``int u* . dW`` is added to each path's cost (it is exact for the noise of V along
    the path), and the control u* itself runs on the same noise as null test.

    Parameters
    ----------
    control : callable, (x (n, d), reverse time) -> (n, d)
    paths : int
    steps : int
        Steps of the coarse run; the reported numbers are those of ``2 steps``.

    Raises
    ------
    ProblemError
        No exact marginals or density; a control of the wrong shape or not finite.

    Source: the article's verification identity; Berner, Richter and Ullrich,
    arXiv 2211.01364, Proposition 2.6.
    """
    check_count("identity", "paths", paths, 2)
    check_count("identity", "steps", steps)
    problem.law(problem.horizon)  # refuses before any simulation
    rng = np.random.default_rng(seed)
    start = problem.start(paths, rng)
    noise = rng.standard_normal((2 * steps, paths, problem.dimension))
    coarse = _run(problem, control, start, noise, steps)
    fine = _run(problem, control, start, noise, 2 * steps)
    null = _run(problem, problem.control, start, noise, 2 * steps)
    gap = fine[0] - fine[1]
    return Identity(
        excess=float(fine[0].mean()),
        excess_error=_error(fine[0]),
        distance=float(fine[1].mean()),
        distance_error=_error(fine[1]),
        null=float(null[0].mean()),
        difference=float(gap.mean()),
        error=_error(gap),
        bias=abs(float((coarse[0] - coarse[1] - gap).mean())),
    )


def _error(values: Array) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values)))


def _run(
    problem: ReverseDiffusion, control: Control, start: Array, noise: Array, steps: int
) -> tuple[Array, Array]:
    """Per path: J - V(X_0) with the martingale taken out, and 1/2 int |u - u*|^2."""
    clock = problem.horizon * np.linspace(1.0, 0.0, steps + 1) ** 2
    fine = problem.horizon * np.linspace(1.0, 0.0, len(noise) + 1) ** 2
    dW = noise * np.sqrt(-np.diff(fine))[:, None, None]
    dW = dW.reshape(steps, -1, *noise.shape[1:]).sum(axis=1)
    x, cost = start, -problem.value(start, 0.0)
    distance = np.zeros(len(start))
    for k, dB in enumerate(dW):
        t, h = float(clock[k]), float(clock[k] - clock[k + 1])
        now = problem.horizon - t
        u, best = _asked(control, x, now), problem.control(x, now)
        divergence = np.asarray(problem.process.divergence(x, t))
        cost = cost + h * (0.5 * (u**2).sum(-1) + divergence) + (best * dB).sum(-1)
        distance = distance + 0.5 * h * ((u - best) ** 2).sum(-1)
        s = problem.noise(now)
        x = x + h * (s * u - problem.process.drift(x, t)) + s * dB
    return cost + problem.value(x, problem.horizon), distance


def _asked(control: Control, x: Array, now: float) -> Array:
    try:
        u = control(x, now)
    except HJBError:
        raise
    except Exception as cause:
        raise ProblemError(
            f"identity: the control failed on states {x.shape}, t = {now:g}: "
            f"{type(cause).__name__}: {cause}. It is called with x (n, d) and one "
            "reverse time."
        ) from cause
    u = real_array(u, "identity: what the control returned")
    if u.shape != x.shape or not np.isfinite(u).all():
        raise ProblemError(
            f"identity: the control returned shape {u.shape} for states {x.shape}, or "
            "is not finite; it must give one vector (d,) a state."
        )
    return u
