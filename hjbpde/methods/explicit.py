"""Explicit marching of first-order Hamilton-Jacobi equations.

In time to go ``tau = T - t`` and in the maximising sense,

    V_tau = G(x, grad V, t) - rho V,   G = sup_a inf_b { r + f . grad V },

by one-sided differences, a numerical Hamiltonian and a strong-stability-preserving
Runge-Kutta rule (Shu and Osher, J. Comput. Phys. 77 (1988), equations 2.16 and 2.18).
First order in h with `FirstOrder` (monotone, so convergent to the viscosity solution:
Crandall and Lions, Math. Comp. 43 (1984), theorem 1); the reconstruction's order where
V is smooth; order 1 near kinks whatever the reconstruction.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ..checkpoint import Page
from ..data_in_time import Breaks
from ..errors import MethodMismatch, ProblemError, StabilityError
from ..grid import Grid
from ..one_sided import WENO5, End, Ends, OneSided, Reconstruction
from .constraint import Constraint, Tube, with_tube
from .filtering import Filter, Filtered
from .hamiltonians import Hamiltonian, LaxFriedrichs, Numerical
from .rates import Discount, rates_of

Array = NDArray[np.float64]
MAX_DIMENSION = 6
COURANT_LIMIT = 1.0
"""dt sum_k alpha_k / h_k above which one Euler stage is no longer monotone."""

_RULES = {
    1: ((0.0, 1.0, 0.0),),
    2: ((0.0, 1.0, 0.0), (0.5, 0.5, 1.0)),
    3: ((0.0, 1.0, 0.0), (0.75, 0.25, 1.0), (1.0 / 3.0, 2.0 / 3.0, 0.5)),
}
"""Stages (a, b, c): ``V <- a V_0 + b (V + dt L(V, tau + c dt))``."""


@dataclass(frozen=True)
class ExplicitMarching:
    """Explicit marching for problems without noise, up to 6 dimensions.

    Parameters
    ----------
    scheme : FirstOrder, ENO2, WENO3, WENO5 or Filtered
        How one-sided derivatives are reconstructed.
    hamiltonian : LaxFriedrichs or Godunov
    stages : int
        1, 2 or 3: the SSP Runge-Kutta rule, of that order.
    cfl : float
        Share of the largest stable step taken; in (0, 1].
    step : float, optional
        A fixed step instead; refused where it is not stable.
    even_steps : bool
        Equal steps up to each output time (recounted as speeds change); otherwise
        the longest stable step every time and a short one at the end.
    tube : Tube
        Reachable sets or tubes.
    ends : End or pairs of End
        Beyond the faces that have no rule.

    Raises
    ------
    MethodMismatch
        Another number of stages, or a cfl outside (0, 1].
    """

    scheme: Reconstruction | Filtered = field(default_factory=WENO5)
    hamiltonian: Numerical = field(default_factory=LaxFriedrichs)
    stages: int = 3
    cfl: float = 0.5
    step: float | None = None
    even_steps: bool = True
    tube: Tube = Tube.NONE
    ends: End | Ends = End.LINEAR

    def __post_init__(self) -> None:
        if self.stages not in _RULES:
            raise MethodMismatch(
                f"ExplicitMarching: stages is {self.stages}; use 1, 2 or 3."
            )
        if not 0.0 < self.cfl <= 1.0:
            raise MethodMismatch(
                f"ExplicitMarching: cfl is {self.cfl:g}; it must lie in (0, 1]."
            )
        if self.step is not None and not self.step > 0.0:
            raise MethodMismatch(
                f"ExplicitMarching: step is {self.step:g}; it must be positive."
            )

    @property
    def reconstruction(self) -> Reconstruction:
        """Of the one-sided derivatives, filtered or not."""
        scheme = self.scheme
        return scheme.high if isinstance(scheme, Filtered) else scheme


@dataclass(frozen=True, eq=False)
class Marched:
    """Values at the times asked for, and how they came about.

    values (T, *shape); path (steps,): the times stepped on, from late to early; dt:
    least and largest; courant: largest dt sum_k alpha_k / h_k used; speeds (d,):
    max|dG/dp_k| met; filtered: share of nodes and steps that a filter moved.
    """

    times: Array
    values: Array
    path: Array
    dt: tuple[float, float]
    courant: float
    speeds: Array
    filtered: float = 0.0

    @property
    def steps(self) -> int:
        """Number of time steps."""
        return len(self.path)


class _March:
    """Arrays of one march; V (N,) is advanced in place and `path` holds its times."""

    def __init__(
        self,
        hamiltonian: Hamiltonian,
        grid: Grid,
        terminal: Array,
        method: ExplicitMarching,
        discount: Discount,
        parts: int,
        breaks: Breaks,
    ) -> None:
        self.method, self.breaks = method, breaks
        self.V = np.array(terminal, dtype=float).ravel()
        self.stages = [self.V.copy(), self.V.copy()]
        one_sided = OneSided.on(grid, method.reconstruction, method.ends, terminal)
        self.rates = rates_of(hamiltonian, method.hamiltonian, one_sided, discount)
        self.filter = None
        if isinstance(method.scheme, Filtered):
            given = (hamiltonian, method.hamiltonian, grid, method.ends, discount)
            self.filter = Filter(method.scheme, *given)
        self.speeds = np.zeros(grid.dimension)
        self.courant, self.dt_range = 0.0, (math.inf, 0.0)
        self.path: list[float] = []
        self.parts, self.done, self.longest = parts, 0, math.inf

    def begin(self, interval: float) -> None:
        """Go from one output time to the one before, in at least `parts` steps."""
        self.done, self.longest = 0, interval / self.parts * (1 + 1e-12)

    def memory(self, t: float, values: Array) -> dict[str, Array]:
        """All that the steps below calendar time t depend on, and what is kept."""
        counts = [t, self.done, self.longest, self.courant, *self.dt_range]
        out = {"V": self.V.copy(), "values": values, "speeds": self.speeds.copy()}
        out |= {"counts": np.array(counts), "path": np.array(self.path)}
        return out if self.filter is None else {**out, "filter": self.filter.memory()}

    def recall(
        self, memory: Mapping[str, Array] | None, t: float, values: Array
    ) -> float:
        """Bring a march at t to where `memory` left it; the time it goes on from."""
        if memory is None:
            return t
        self.V[:], self.speeds[:] = memory["V"], memory["speeds"]
        values[...] = memory["values"]
        t, done, self.longest, self.courant, *dt_range = memory["counts"].tolist()
        self.done, self.dt_range = int(done), (dt_range[0], dt_range[1])
        if self.filter is not None:
            self.filter.recall(memory["filter"])
        self.path = memory["path"].tolist()
        return t

    def sum_at(self, V: Array, t: float) -> float:
        """The CFL sum of V at calendar time t; the next stage starts from there."""
        total = self.rates.measure(V, t)
        np.maximum(self.speeds, self.rates.largest, out=self.speeds)
        return total

    def step_for(self, total: float, remaining: float) -> float:
        """The next step: the user's if stable, else `cfl` of the largest stable."""
        total = total + float(self.rates.rho.max())
        step = self.method.step
        if step is None:
            stable = self.method.cfl / total if total > 0.0 else remaining
            stable = min(stable, self.longest)
            if not self.method.even_steps:
                return min(stable, remaining)
            count = max(math.ceil(remaining / stable * (1 - 1e-12)), 1)
            # Whole multiples of `parts` in all from one output time to the next.
            return remaining / (count + -(self.done + count) % self.parts)
        if step * total > COURANT_LIMIT * (1 + 1e-12):
            raise StabilityError(
                f"explicit marching: a step of {step:g} is unstable on this grid: "
                "the CFL number dt sum_k max|dH/dp_k| / h_k is "
                f"{step * total:.3g} > {COURANT_LIMIT:g}. The largest stable step is "
                f"{COURANT_LIMIT / total:.6g}; step=None takes "
                f"{self.method.cfl:g} of it."
            )
        return min(step, self.longest, remaining)

    def advance(self, t: float, remaining: float) -> float:
        """One Runge-Kutta step back from calendar time t; returns its length."""
        end = self.breaks.before(t)
        total = self.sum_at(self.V, end)
        if not math.isfinite(total):
            raise StabilityError(
                f"explicit marching: max|dH/dp| is {total} at t = {t:g}: the value "
                "has grown without bound. Shorten the horizon, or bound the controls."
            )
        dt = self.step_for(total, remaining)
        worst = self._stages(t, dt, total)
        while self.method.step is None and worst > COURANT_LIMIT * (1 + 1e-9):
            # Speeds grew within the step: take it again, shorter.
            dt *= 0.5 / worst
            worst = self._stages(t, dt, self.sum_at(self.V, end))
        last = self.stages[(self.method.stages - 1) % 2]
        if self.filter is not None:
            self.filter.apply(last, dt)
        self.V, self.stages = last, [self.V, self.stages[self.method.stages % 2]]
        self.done += 1
        self.courant = max(self.courant, worst)
        self.dt_range = (min(self.dt_range[0], dt), max(self.dt_range[1], dt))
        return dt

    def _stages(self, t: float, dt: float, total: float) -> float:
        """All stages of a step, in two arrays taking turns; the largest CFL sum."""
        worst, before = dt * total, self.V
        if self.filter is not None:
            end = self.breaks.before(t)
            worst = max(worst, self.filter.prepare(self.V, end, dt))
        for s, (a, b, c) in enumerate(_RULES[self.method.stages]):
            if s > 0:
                worst = max(worst, dt * self.sum_at(before, t - c * dt))
            before = self.stages[s % 2]
            self.rates.step(self.V, a, b, dt, before)
        return worst


def march_explicit(
    hamiltonian: Hamiltonian,
    grid: Grid,
    terminal: Array,
    times: Sequence[float] | Array,
    method: ExplicitMarching | None = None,
    *,
    constraint: Constraint | None = None,
    rho: Array | float | Discount = 0.0,
    tick: Callable[[float], None] | None = None,
    page: Page | None = None,
    parts: int = 1,
    through: Sequence[float] | Array = (),
    breaks: Breaks | None = None,
) -> Marched:
    """March from the last of `times` back to the first, keeping V at each.

    Parameters
    ----------
    hamiltonian : AffineHamiltonian or SampledHamiltonian
        In the maximising sense.
    terminal : (*shape)
        V at ``times[-1]``.
    times : (T,)
        Increasing calendar times; ``value[0]`` belongs to ``times[0]``.
    constraint : Constraint, optional
        Obstacles and Dirichlet nodes; the tube of `method` is added to it.
    rho : float, (N,), or callable
        Discount rate; ``rho(t) -> (N or 1,)`` where it moves.
    tick : callable, optional
        Called with the calendar time after every step.
    page : Page, optional
        Where the march is kept; one kept there goes on.
    parts : int
        From one of `times` to the one before at least so many steps are taken, or a
        multiple of that where they are even.
    through : (S,), optional
        Further times to step on, without keeping V there.
    breaks : Breaks, optional
        Where data jump or bend: steps back from there take the data before.

    Returns
    -------
    Marched

    Raises
    ------
    StabilityError
        A step that is too large (the largest is named), dissipation bounds too small,
        or a value that stops being finite.
    MethodMismatch, ProblemError
        Too many dimensions, stretched axes, times that do not increase.
    """
    method = method or ExplicitMarching()
    times = _checked_times(times)
    terminal = _checked_terminal(grid, terminal)
    constraint = with_tube(constraint or Constraint(), method.tube, terminal.ravel())
    discount = rho if callable(rho) else _resting(rho)
    breaks = breaks or Breaks.none()
    march = _March(hamiltonian, grid, terminal, method, discount, parts, breaks)
    values = np.zeros((len(times), *grid.shape))
    values[-1] = terminal
    page = page or Page()
    constraint.apply(march.V, float(times[-1]))
    t = march.recall(page.found(), float(times[-1]), values)
    before = len(march.path)
    goals = np.union1d(times, np.asarray(through, dtype=float))
    for later, goal in pairwise(goals[::-1].tolist()):
        if goal > t:
            continue  # found on the page
        if t == later:
            march.begin(later - goal)
        while t > goal:
            dt = march.advance(t, t - goal)
            t = goal if t - dt <= goal else t - dt
            march.path.append(t)
            constraint.apply(march.V, t)
            if tick is not None:
                tick(t)
            page.keep(lambda t=t: march.memory(t, values))
        _check_finite(grid, march.V, t)
        kept = np.flatnonzero(times == goal)
        values[kept] = march.V.reshape(grid.shape)
    if len(march.path) > before:
        page.keep(lambda: march.memory(t, values), finished=True)
    path, share = np.array(march.path), march.filter.share if march.filter else 0.0
    met = (march.dt_range, march.courant, march.speeds, share)
    return Marched(times, values, path, *met)


def _resting(rho: Array | float) -> Discount:
    """The same discount at all times."""
    rates = np.atleast_1d(np.asarray(rho, dtype=float))
    return lambda t: rates


def _checked_times(times: Sequence[float] | Array) -> Array:
    found = np.asarray(times, dtype=float)
    if found.ndim != 1 or found.size < 2 or not (np.diff(found) > 0).all():
        raise ProblemError(
            "explicit marching: times must be at least two increasing numbers, got "
            f"{np.array2string(found, threshold=8)}."
        )
    return found


def _checked_terminal(grid: Grid, terminal: Array) -> Array:
    terminal = np.asarray(terminal, dtype=float)
    if terminal.shape != grid.shape:
        raise ProblemError(
            f"explicit marching: the terminal value has shape {terminal.shape} on a "
            f"grid of shape {grid.shape}."
        )
    if grid.dimension > MAX_DIMENSION:
        raise MethodMismatch(
            f"explicit marching takes 1 to {MAX_DIMENSION} dimensions, not "
            f"{grid.dimension}."
        )
    _check_finite(grid, terminal.ravel(), None)
    return terminal


def _check_finite(grid: Grid, V: Array, t: float | None) -> None:
    bad = np.flatnonzero(~np.isfinite(V))
    if bad.size:
        place = grid.nodes_of(bad[:1])[0]
        if t is None:
            raise ProblemError(
                f"explicit marching: the terminal value is {V[bad[0]]} at x = {place}."
            )
        raise StabilityError(
            f"explicit marching: V is {V[bad[0]]} at x = {place}, t = {t:g}: it has "
            "grown without bound. Shorten the horizon, or bound the controls."
        )
