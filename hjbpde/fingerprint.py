"""What tells one problem from another: its fields in words, its functions in numbers.

Functions have no names to compare, so they are evaluated at fixed places.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .boundary import Dirichlet, Robin
from .held import held
from .probe import control_range, random_control
from .problem import ControlProblem
from .sets import Finite

Array = NDArray[np.float64]
PLACES = 8
"""States at which functions are compared."""
TRIED = 512
"""States among which those inside an exit region are looked for."""
SAME = 1e-9
"""Relative difference of two problems' numbers below which they are one problem."""
FUNCTIONS = ("drift", "diffusion", "reward", "cost", "discount")


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """words: which fields a problem has; numbers (n,): what its functions are."""

    words: str
    numbers: Array

    @classmethod
    def of(cls, problem: ControlProblem) -> Fingerprint:
        """The fingerprint of a problem; the same in every process."""
        with np.errstate(all="ignore"):
            parts = [np.asarray(part, float).ravel() for part in _numbers(problem)]
        return cls(_words(problem), np.nan_to_num(np.concatenate(parts)))

    def matches(self, other: Fingerprint) -> bool:
        """Whether both are one problem, as far as can be seen."""
        return (
            self.words == other.words
            and self.numbers.shape == other.numbers.shape
            and bool(np.allclose(self.numbers, other.numbers, rtol=SAME, atol=0.0))
        )


def _words(problem: ControlProblem) -> str:
    """Sense, rules and rights of a problem."""
    rules = {face: type(rule).__name__ for face, rule in problem.faces.items()}
    used = sorted(problem.special)
    stops = [(stop.by, stop.dates) for stop in problem.stops]
    sense = "reward" if problem.sign > 0 else "cost"
    return (
        f"{problem.name!r}: {sense}, {problem.controls!r}, {problem.adversary!r}, "
        f"{rules}, {used}, stops by {stops}"
    )


def _numbers(problem: ControlProblem) -> Iterator[Any]:
    rng, box = np.random.default_rng(0), problem.domain
    assert box is not None
    x = box.inner(0.98).sample(rng, PLACES)
    yield from (box.low, box.high, problem.horizon or 0.0)
    for one in _held(problem, rng):
        yield from _functions(one, x, rng)
        yield from _data(one, x)
        if one.jumps is not None:
            jumps = one.jumps.displacements_at(x)
            yield from (one.jumps.rate_at(x), jumps)
            yield one.jumps.weights_at(x, jumps.shape[1])
        if one.impulse is not None:
            y = one.impulse.targets_from(x)
            yield from (y, one.impulse.costs(x, y))
    if problem.modes is not None:
        yield problem.modes.at(x)
    if problem.terminal is not None:
        yield problem.terminal_at(x)


def _held(problem: ControlProblem, rng: np.random.Generator) -> Iterator[Any]:
    """The problem at three times and in every mode, the adversary held somewhere."""
    fixed = {}
    if problem.adversary is not None:
        fixed["b"] = _sampled(problem.adversary, PLACES, rng)
    end = 0.0 if problem.horizon is None else float(problem.horizon)
    times = [0.0] if problem.horizon is None else [0.0, 0.4 * end, end]
    for t in times:
        now = problem.at_time(t) if problem.horizon is not None else problem
        functions = {f: held(getattr(now, f), **fixed) for f in FUNCTIONS}
        now = replace(now, **functions, adversary=None) if fixed else now
        modes = 0 if problem.modes is None else problem.modes.n
        yield from [now.in_mode(k) for k in range(modes)] or [now]


def _functions(
    problem: ControlProblem, x: Array, rng: np.random.Generator
) -> Iterator[Any]:
    """The coefficients, and the range of the controls, at x."""
    controls = problem.controls
    if isinstance(controls, Finite) or controls is None:
        a = _sampled(controls, len(x), rng)
    else:
        low, high = control_range(problem, x)
        yield from (low, high)
        a = np.ascontiguousarray(random_control(low, high, rng).T)
    yield problem.drift_at(x, a)
    yield problem.diffusion_at(x, a)
    yield problem.payoff_at(x, a)
    yield problem.discount_at(x)


def _data(problem: ControlProblem, x: Array) -> Iterator[Any]:
    """Face data, exit and stopping payoffs, each where it is defined."""
    box = problem.domain
    assert box is not None
    for (axis, side), rule in problem.faces.items():
        if isinstance(rule, Dirichlet | Robin):
            at = x.copy()
            at[:, axis] = np.asarray(getattr(box, side))[axis]
            yield rule.g(at) if callable(rule.g) else rule.g
        if isinstance(rule, Robin):
            yield [rule.alpha, rule.beta]
    for stop in problem.stops:
        yield stop.payoff(x)
    if problem.exit is not None:
        tried = box.sample(np.random.default_rng(1), TRIED)
        phi = np.asarray(problem.exit.region(tried), float).ravel()
        yield phi[:PLACES]
        inside, g = tried[phi <= 0][:PLACES], problem.exit.value
        yield g(inside) if callable(g) and len(inside) else 0.0 if callable(g) else g


def _sampled(controls: Any, n: int, rng: np.random.Generator) -> Array:
    return np.zeros((n, 0)) if controls is None else controls.sample(rng, n)
