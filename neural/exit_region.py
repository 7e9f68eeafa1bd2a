"""Where a process with an exit still runs, and the surface where it ends."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from hjbpde.errors import ProblemError
from hjbpde.problem import ControlProblem

Array = NDArray[np.float64]
TRIES = 40
"""Draws before a running or an exit region is called too small to sample."""


def running(problem: ControlProblem, x: Array) -> NDArray[np.bool_]:
    """Whether the process still runs at x (n, d): phi(x) > 0, or there is no exit."""
    if problem.exit is None:
        return np.ones(len(x), bool)
    phi = np.asarray(problem.exit.region(x), dtype=float)
    try:
        phi = np.broadcast_to(phi, (len(x),))
    except ValueError:
        raise ProblemError(
            f"'exit': region(x) has shape {phi.shape} for {len(x)} states; expected "
            "one number a state."
        ) from None
    if np.isnan(phi).any():
        raise ProblemError(f"'exit': region(x) is NaN at x = {x[np.isnan(phi)][0]}.")
    return phi > 0


def exit_value(problem: ControlProblem, x: Array) -> Array:
    """g at x (n, d), shape (n,)."""
    g = problem.exit.value
    values = np.asarray(g(x) if callable(g) else g, dtype=float)
    try:
        values = np.broadcast_to(values, (len(x),))
    except ValueError:
        raise ProblemError(
            f"'exit': value(x) has shape {values.shape} for {len(x)} states; expected "
            "one number a state."
        ) from None
    if not np.isfinite(values).all():
        bad = x[int(np.flatnonzero(~np.isfinite(values))[0])]
        raise ProblemError(f"'exit': value(x) is not finite at x = {bad}.")
    return values


def running_states(
    problem: ControlProblem, draw: Callable[[int], Array], n: int
) -> Array:
    """n states where the process runs, from ``draw(n)`` by rejection.

    Raises
    ------
    ProblemError
        Next to no state of the domain is outside the exit region.
    """
    return _drawn(problem, draw, n, True, "outside")


def exit_states(problem: ControlProblem, n: int, rng: np.random.Generator) -> Array:
    """n states on the surface phi = 0, by bisection between running and ended ones.

    Where the exit knows states of its surface, those, and n at most.

    Raises
    ------
    ProblemError
        Next to no state of the domain is in the exit region, or outside it.
    """
    known = getattr(problem.exit, "surface", None)
    if known is not None:
        return known[rng.permutation(len(known))[:n]]
    box = problem.domain
    assert box is not None

    def draw(count: int) -> Array:
        return box.sample(rng, count)

    inner = _drawn(problem, draw, n, True, "outside")
    outer = _drawn(problem, draw, n, False, "in")
    for _ in range(60):
        middle = 0.5 * (inner + outer)
        runs = running(problem, middle)[:, None]
        inner, outer = np.where(runs, middle, inner), np.where(runs, outer, middle)
    return inner


def _drawn(
    problem: ControlProblem,
    draw: Callable[[int], Array],
    n: int,
    runs: bool,
    where: str,
) -> Array:
    found, missing = [], n
    for _ in range(TRIES):
        x = draw(n)
        x = x[running(problem, x) == runs][:missing]
        found.append(x)
        missing -= len(x)
        if missing == 0:
            return np.concatenate(found)
    raise ProblemError(
        f"'exit': hardly a state of the domain {problem.domain} is {where} the exit "
        "region; fit the domain to it, or check the sign of region(x), which is "
        "negative where the process has ended."
    )
