"""Problems with a horizon as problems in (x, t): time is one state more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hjbpde.boundary import BoundaryRule, Dirichlet, Face, Robin
from hjbpde.errors import ProblemError
from hjbpde.events import Exit, Stop
from hjbpde.held import held, held_rule, keywords
from hjbpde.problem import ControlProblem
from hjbpde.sets import Box

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TimedProblem(ControlProblem):
    """``rho V - V_t = max_a { r + L^a V }``, V(x, T) = g(x), on states y = (x, t).

    Time drifts at rate 1 without noise and ends on its high face, where V = g; on
    its low face, today, nothing is imposed. Every other field is the given problem's,
    read at y. Functions that name t are called once a time, with a number, as on
    grids: many states should share a time.

    Source: Fleming and Soner, Controlled Markov Processes and Viscosity Solutions,
    2nd ed., section IV.3: the parabolic equation on [0, T] x box.
    """

    @classmethod
    def of(cls, problem: ControlProblem) -> TimedProblem:
        """The problem with a horizon as one in (x, t).

        Raises
        ------
        ProblemError
            Terminal data that are not finite, with the state.
        """
        domain, T = problem.domain, problem.horizon
        assert domain is not None and T is not None
        _check_terminal(problem)
        read, d = _Reader(problem), problem.dimension
        field = "reward" if problem.reward is not None else "cost"
        payoff: dict[str, Any] = {field: read.function("payoff_at")}
        low, high = np.asarray(domain.low), np.asarray(domain.high)
        return cls(
            drift=read.drift,
            diffusion=read.diffusion,
            controls=_controls(problem.controls),
            domain=Box([*low, 0.0], [*high, T], [*domain.periodic_axes, False]),
            # A function, because the number 0 is refused without a horizon.
            discount=read.function("discount_at"),
            boundary={**_faces(problem), (d, "high"): Dirichlet(_of_x(g_of(problem)))},
            exit=_exit(problem.exit),
            stop=tuple(Stop(_of_x(s.payoff), s.by) for s in problem.stops) or None,
            best_control=_best_control(problem.best_control),
            name=problem.name,
            **payoff,
        )


ROOT_FLOOR = 1e-3
"""Smallest |s| at which the pace of the root clock is taken; it is infinite at T."""


def root_clock(t: Any, T: float) -> Any:
    """``s = -sqrt(1 - t/T)``, from -1 today to 0 at the horizon."""
    return -np.sqrt(np.maximum(1.0 - np.asarray(t) / T, 0.0))


def rooted(problem: TimedProblem) -> TimedProblem:
    """The same problem on the clock ``s = -sqrt(1 - t/T)``, ``ds = dt / (2 T |s|)``.

    Before the horizon values and free boundaries change like the root of the time
    left; on this clock they are nearly straight, and a kink of the terminal data
    opens like a cone, at one point only.
    """
    assert problem.domain is not None
    low, high = np.asarray(problem.domain.low), np.asarray(problem.domain.high)
    T = float(high[-1])

    def timed(y: Array) -> Array:
        return np.concatenate([y[..., :-1], T * (1.0 - y[..., -1:] ** 2)], -1)

    def reading(function: Any) -> Any:
        if not callable(function):
            return function
        return lambda y, *more: function(timed(y), *more)

    def drift(y: Array, a: Array) -> Array:
        f = np.array(problem.drift(timed(y), a))
        f[..., -1] = 0.5 / (T * np.maximum(np.abs(y[..., -1]), ROOT_FLOOR))
        return f

    controls = problem.controls
    if isinstance(controls, Box) and controls.varies:
        controls = Box(reading(controls.low), reading(controls.high))
    faces = {
        face: replace(rule, g=reading(rule.g))
        if isinstance(rule, Dirichlet | Robin)
        else rule
        for face, rule in problem.faces.items()
    }
    return replace(
        problem,
        drift=drift,
        diffusion=reading(problem.diffusion),
        reward=reading(problem.reward),
        cost=reading(problem.cost),
        controls=controls,
        discount=reading(problem.discount),
        domain=Box([*low[:-1], -1.0], [*high[:-1], 0.0], problem.domain.periodic),
        boundary=faces,
    )


def slice_of(problem: ControlProblem, t: float) -> ControlProblem:
    """The data at time t of a problem with a horizon, as a stationary problem.

    Its discount is larger by 1, so that it stands without the horizon; data on faces
    may name t as well.
    """
    faces = {face: held_rule(rule, t=t) for face, rule in problem.faces.items()}
    return replace(problem.slice_at(t, 1.0), boundary=faces)


@dataclass(frozen=True, eq=False)
class _Reader:
    """Functions of a problem with a horizon, read at y = (x, t) of shape (..., d+1)."""

    problem: ControlProblem

    @cached_property
    def slices(self) -> dict[float, ControlProblem]:
        """Problems at the times asked so far: building one costs more than a call."""
        return {}

    def function(self, name: str) -> Callable[..., Array]:
        """The method `name` of the problem at the time of every state."""
        problem = self.problem
        rate = 1.0 if name == "discount_at" else 0.0
        field = name.removesuffix("_at")
        if field == "payoff":
            field = "reward" if problem.reward is not None else "cost"

        def at_time(t: float) -> Callable[..., Array]:
            now = self.slices.get(t)
            if now is None:
                now = self.slices[t] = problem.slice_at(t, 1.0)
            return lambda *given: np.asarray(getattr(now, name)(*given)) - rate

        return by_time(at_time, "t" in keywords(getattr(problem, field)))

    def drift(self, y: Array, a: Array) -> Array:
        """(f, 1)."""
        f = self.function("drift_at")(y, a)
        return np.concatenate([f, np.ones((*f.shape[:-1], 1))], -1)

    @property
    def diffusion(self) -> Any:
        """sigma with a row of zeros for time."""
        problem, d = self.problem, self.problem.dimension
        if problem.diffusion is None:
            return None
        if not callable(problem.diffusion):
            x, a = np.zeros((1, d)), np.zeros((1, problem.n_controls))
            sigma = np.asarray(problem.diffusion_at(x, a))[0]
            return np.vstack([sigma, np.zeros((1, sigma.shape[1]))])

        def of_state(y: Array, a: Array) -> Array:
            sigma = self.function("diffusion_at")(y, a)
            still = np.zeros((*sigma.shape[:-2], 1, sigma.shape[-1]))
            return np.concatenate([sigma, still], -2)

        return of_state


def by_time(
    at_time: Callable[[float], Callable[..., Array]], depends: bool = True
) -> Callable[..., Array]:
    """A function of y = (x, t) from one of x a time; one call where t is not felt."""

    def at(y: Array, *more: Array) -> Array:
        x, t = np.ascontiguousarray(y[..., :-1]), y[..., -1]
        if not depends or y.size == 0:
            return at_time(0.0)(x, *more)
        # States of one time side by side: a mask a time would cost more than the calls.
        order = np.argsort(t, axis=None, kind="stable")
        given = [m.reshape(t.size, *m.shape[t.ndim :])[order] for m in (x, *more)]
        times = t.reshape(-1)[order]
        starts = np.flatnonzero(np.r_[True, times[1:] != times[:-1]])
        parts = [
            at_time(float(times[i]))(*(m[i:j] for m in given))
            for i, j in pairwise([*starts, t.size])
        ]
        found = np.concatenate(parts)
        out = np.empty(found.shape)
        out[order] = found
        return out.reshape(*t.shape, *found.shape[1:])

    return at


def g_of(problem: ControlProblem) -> Callable[[Array], Array]:
    """The terminal data as a function of x."""
    return lambda x: np.asarray(problem.terminal_at(x), dtype=float)


def _check_terminal(problem: ControlProblem) -> None:
    assert problem.domain is not None
    x = problem.domain.sample(np.random.default_rng(0), 256)
    values = np.asarray(problem.terminal_at(x), dtype=float)
    if not np.isfinite(values).all():
        bad = x[int(np.flatnonzero(~np.isfinite(values))[0])]
        raise ProblemError(
            f"'terminal' is not finite at x = {bad}. Likely a logarithm or division "
            "outside its range; shrink the domain or guard the function."
        )


def _of_x(function: Any) -> Any:
    """A function of x alone as one of y; numbers stay."""
    return (lambda y: function(y[..., :-1])) if callable(function) else function


def _faces(problem: ControlProblem) -> dict[Face, BoundaryRule | None]:
    """The rules of the faces in x, their data read at y."""

    def at_state(g: Any) -> Any:
        if "t" not in keywords(g):
            return _of_x(g)
        return by_time(lambda t: held(g, t=t))

    return {
        face: replace(rule, g=at_state(rule.g))
        if isinstance(rule, Dirichlet | Robin)
        else rule
        for face, rule in problem.faces.items()
    }


def _exit(leaving: Exit | None) -> Exit | None:
    if leaving is None:
        return None
    return Exit(_of_x(leaving.region), _of_x(leaving.value))


def _controls(controls: Any) -> Any:
    if isinstance(controls, Box) and controls.varies:
        return Box(_of_x(controls.low), _of_x(controls.high))
    return controls


def _best_control(best: Any) -> Any:
    if best is None:
        return None

    def of_state(y: Array, p: Array, hess: Array) -> Array:
        return best(y[..., :-1], p[..., :-1], hess[..., :-1, :-1])

    return of_state
