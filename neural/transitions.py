"""What a model-free learner sees: short transitions under held controls."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hjbpde.boundary import Reflecting, StateConstraint
from hjbpde.errors import ProblemError
from hjbpde.problem import ControlProblem
from hjbpde.real_numbers import real_array
from hjbpde.sets import Box, ControlSet
from hjbpde.simulate import simulate

from .options import check_count, check_number

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Transitions:
    """(x_t, a, r dt, x_{t+dt}), and x_{t+2dt} where a was held for two steps.

    Parameters
    ----------
    states : (n, d)
        x_t.
    controls : (n, m)
        a, constant over the step (over both steps where `later_states` is given).
    payoffs : (n,)
        ``r(x_t, a) dt``, or the integral of r over the step with `integrated`; in
        the problem's own sense.
    next_states : (n, d)
        x_{t+dt}.
    dt : float
        One step, in the units of 1 / discount; > 0.
    later_states : (n, d), optional
        x_{t+2dt} under the same control: second-order targets need it.
    later_payoffs : (n,), optional
        Those of the second step; needed with `integrated` and `later_states`.
    integrated : bool
        What `payoffs` are.

    Raises
    ------
    ProblemError
        Wrong shapes, NaN or infinity (the row is named), dt <= 0.
    """

    states: Any
    controls: Any
    payoffs: Any
    next_states: Any
    dt: float
    later_states: Any = None
    later_payoffs: Any = None
    integrated: bool = False

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in ("dt", "integrated"):
                continue
            if value is not None or not field.name.startswith("later"):
                object.__setattr__(self, field.name, _frozen(field.name, value))
        check_number("Transitions", "dt", self.dt)
        if self.states.ndim != 2 or self.controls.ndim != 2 or not len(self.states):
            raise ProblemError(
                f"Transitions: states {self.states.shape} and controls "
                f"{self.controls.shape} must be (n, d) and (n, m) with n >= 1; use "
                "x[:, None] for one state."
            )
        n, d = self.states.shape
        wanted = {"controls": (n, self.controls.shape[1]), "payoffs": (n,)}
        wanted |= dict.fromkeys(("next_states", "later_states"), (n, d))
        wanted["later_payoffs"] = (n,)
        for name, shape in wanted.items():
            array = getattr(self, name)
            if array is not None and array.shape != shape:
                raise ProblemError(
                    f"Transitions: {name} has shape {array.shape}, the states "
                    f"{self.states.shape} ask for {shape}."
                )
        if self.integrated and self.is_second_order and self.later_payoffs is None:
            raise ProblemError(
                "Transitions: integrated payoffs with later_states need later_payoffs, "
                "or the rate at the start is known to first order only."
            )

    def __len__(self) -> int:
        return len(self.states)

    @property
    def is_second_order(self) -> bool:
        """Whether x_{t+2dt} is known."""
        return self.later_states is not None

    def rates(self, order: int) -> Array:
        """The payoff rate r(x_t, a), to O(dt^order) where payoffs are integrals."""
        if self.integrated and order == 2:
            return (1.5 * self.payoffs - 0.5 * self.later_payoffs) / self.dt
        return self.payoffs / self.dt

    def rows(self, keep: Any) -> Transitions:
        """Some of the rows: a slice, a mask or indices."""
        taken = {
            f.name: None if (v := getattr(self, f.name)) is None else v[keep]
            for f in fields(self)
            if f.name not in ("dt", "integrated")
        }
        return Transitions(**taken, dt=self.dt, integrated=self.integrated)

    @classmethod
    def from_paths(
        cls, states: Any, controls: Any, payoffs: Any, dt: float, integrated: bool
    ) -> Transitions:
        """Rows from paths, (paths, steps + 1, d), (paths, steps, m), (paths, steps).

        Where every control is held for two steps or more, each row keeps its second
        step; rows over which the control changes are left out.
        """
        x, a, r = (np.asarray(v, float) for v in (states, controls, payoffs))
        same = (a[:, 1:] == a[:, :-1]).all(-1)
        if not same.any():
            flat = (x[:, :-1], a, r, x[:, 1:])
            now, held, paid, then = (v.reshape(-1, *v.shape[2:]) for v in flat)
            return cls(now, held, paid, then, dt, integrated=integrated)
        return cls(
            x[:, :-2][same],
            a[:, :-1][same],
            r[:, :-1][same],
            x[:, 1:-1][same],
            dt,
            later_states=x[:, 2:][same],
            later_payoffs=r[:, 1:][same],
            integrated=integrated,
        )


def _frozen(name: str, value: Any) -> Array:
    array = _as_array(name, value)
    bad = np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(-1))
    if bad.size:
        raise ProblemError(
            f"Transitions: {name}[{int(bad[0])}] = {array[bad[0]]} is not finite "
            f"({bad.size} such rows). Leave these transitions out; a network trained "
            "on one NaN is NaN everywhere."
        )
    array.setflags(write=False)
    return array


def _as_array(name: str, value: Any) -> Array:
    """A float64 copy of an array, a nested list or a float tensor, with rows."""
    if isinstance(value, torch.Tensor):
        if not value.is_floating_point():
            raise ProblemError(
                f"Transitions: {name} is a tensor of {value.dtype}; give float64: "
                f"{name}.double()."
            )
        value = value.detach().cpu().numpy()
    array = real_array(value, f"Transitions: {name}").copy()
    if array.ndim == 0 or not len(array):
        raise ProblemError(
            f"Transitions: {name} has shape {array.shape}; give one row a transition, "
            "at least one."
        )
    return array


def explored(
    controls: ControlSet | None, n: int, spread: float, rng: np.random.Generator
) -> Array:
    """Random admissible controls (n, m); infinite sides are explored to +-spread."""
    if controls is None:
        return np.zeros((n, 0))
    if not isinstance(controls, Box):
        return controls.sample(rng, n)
    if controls.varies:
        raise ProblemError(
            "Transitions: the control bounds depend on x; draw the controls yourself "
            "and hand over arrays."
        )
    low, high = np.asarray(controls.low), np.asarray(controls.high)
    low = np.where(np.isfinite(low), low, np.minimum(high - 1.0, 0.0) - spread)
    high = np.where(np.isfinite(high), high, np.maximum(low + spread, spread))
    return low + (high - low) * rng.random((n, low.size))


def sample_transitions(
    problem: ControlProblem,
    n: int = 20_000,
    dt: float = 0.05,
    *,
    seed: int = 0,
    hold: int = 8,
    spread: float = 4.0,
    substeps: int = 10,
) -> Transitions:
    """n transitions of the problem's simulator, as a stranger would see them.

    ``n / hold`` paths start uniformly in the inner 75 % of the domain (along
    artificial axes), each under one random control held for `hold` steps.

    Parameters
    ----------
    n : int
        Steps observed, all paths together.
    dt : float
        Time between observations; `substeps` Euler steps are taken in each.
    hold : int
        2 or more gives x_{t+2dt}. The noise of second-order targets telescopes
        along a held path: its variance per observed step falls from 2.5 times that
        of first-order targets towards 1 times as `hold` grows.
    spread : float
        How far infinite sides of the control set are explored.

    Returns
    -------
    Transitions with ``r(x_t, a) dt`` as payoffs. Rows whose path left through an
    artificial face are left out.

    Raises
    ------
    ProblemError
        dt or n out of range, or no path that stays inside.
    """
    check_steps("sample_transitions", dt, hold, n, seed)
    check_number("sample_transitions", "spread", spread)
    check_count("sample_transitions", "n", n, hold)
    check_count("sample_transitions", "substeps", substeps)
    if not isinstance(problem, ControlProblem):
        raise ProblemError(
            f"sample_transitions takes a ControlProblem, got {type(problem).__name__}."
        )
    assert problem.domain is not None
    rng = np.random.default_rng(seed)
    paths = n // hold
    start = problem.domain.inner(0.75, problem.artificial_axes).sample(rng, paths)
    a = explored(problem.controls, paths, spread, rng)
    inner = dt / substeps
    noise = int(rng.integers(2**31))
    found = simulate(problem, lambda x: a, start, hold * dt, inner, paths, noise)
    x = found.states[:, ::substeps]
    kept = np.repeat(a[:, None], hold, axis=1)
    payoffs = np.asarray(problem.payoff_at(x[:, :-1], kept)) * dt
    inside = ~_stopped(problem, x).any(1)
    if not inside.any():
        raise ProblemError(
            "sample_transitions: every path left the domain; take a smaller dt, hold "
            "or spread, or a wider domain."
        )
    return Transitions.from_paths(
        x[inside], kept[inside], payoffs[inside], dt, integrated=False
    )


def _stopped(problem: ControlProblem, x: Array) -> NDArray[np.bool_]:
    """Which states (paths, n, d) lie on a face that ends the path."""
    assert problem.domain is not None
    domain, out = problem.domain, np.zeros(x.shape[:-1], bool)
    for (axis, side), rule in problem.faces.items():
        if isinstance(rule, Reflecting | StateConstraint):
            continue
        wall = np.asarray(domain.low if side == "low" else domain.high)[axis]
        out |= x[..., axis] == wall
    return out


def check_steps(owner: str, dt: Any, hold: Any, n: Any, seed: Any) -> None:
    """Refuse what no transitions can be drawn with."""
    check_number(owner, "dt", dt)
    check_count(owner, "hold", hold)
    check_count(owner, "n", n)
    check_count(owner, "seed", seed, 0)
