"""Explicit marching by semi-Lagrangian steps, from the horizon back to today."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ProblemError, StabilityError
from ..faces import Faces
from ..grid import Grid
from ..methods.end_slopes import Closing, EndSlopes
from ..methods.state import check_terminal
from ..probe import Motion
from ..problem import ControlProblem
from .lattice import Lattice
from .level import inadmissible, spread_policy
from .lookahead import Lookahead, Step
from .method import SemiLagrangian
from .obstacles import Obstacles
from .search import Search

Array = NDArray[np.float64]
ROUNDS = 60
"""Rounds in which shortened steps learn the values at their own time."""
OWN = ("V", "a", "before", "delta", "obstacles")
"""What a march changes of itself beside its faces."""
SEARCHED = 1e-6
"""Share of sup|V| that all searches of a march together may leave."""


@dataclass(frozen=True)
class Clock:
    """The steps of one march: strides that all grids share, each cut into equal steps.

    ticks : ends of the strides, decreasing from T to 0, every date among them.
    cuts : steps of a stride.
    """

    ticks: Array
    cuts: int = 1

    @classmethod
    def of(cls, problem: ControlProblem, stride: float) -> Clock:
        """Strides of at most that length."""
        end = float(problem.horizon or 0.0)
        marks = np.unique(np.r_[0.0, problem.dates, end])
        counts = np.maximum(np.ceil(np.diff(marks) / stride * (1 - 1e-9)), 1)
        pieces = [
            np.linspace(*pair, int(n) + 1)[1:]
            for pair, n in zip(pairwise(marks), counts, strict=True)
        ]
        return cls(np.concatenate([[0.0], *pieces])[::-1])

    @property
    def stride(self) -> float:
        """The longest stride."""
        return float(-np.diff(self.ticks).min())

    @property
    def steps(self) -> int:
        """Number of steps."""
        return self.cuts * (len(self.ticks) - 1)

    def within(self, later: float, t: float) -> Array:
        """Ends of the steps from `later`, at most a stride before, back to t."""
        return np.linspace(later, t, self.cuts + 1)


@dataclass(frozen=True, eq=False)
class Marched:
    """Values (T, *shape), maximised, and policies (T, *shape, m) at the output times.

    fastest: the largest drift (1, d) and noise (1, d, k) met, entry by entry.
    """

    look: Lookahead
    values: Array
    controls: Array
    stops: NDArray[np.bool_]
    clock: Clock
    fastest: Motion

    @property
    def grid(self) -> Grid:
        """The grid."""
        return self.look.grid

    @property
    def faces(self) -> Faces:
        """Its faces."""
        return self.look.faces

    @property
    def steps(self) -> int:
        """Number of steps to the horizon."""
        return self.clock.steps


class March:
    """One grid on its way from the horizon to today.

    Parameters
    ----------
    closing : Closing
        What the slopes at artificial faces are.
    """

    def __init__(
        self,
        problem: ControlProblem,
        grid: Grid,
        method: SemiLagrangian,
        columns: list[int],
        closing: Closing = Closing.ANCHORED,
    ) -> None:
        self.problem, self.grid, self.closing = problem, grid, closing
        self.obstacles: Obstacles | None = None
        self._held: dict[float, ControlProblem] = {}
        self.end = float(problem.horizon or 0.0)
        self.moving = problem.depends_on_time or problem.data_depend_on_time
        last = self.at(self.end)
        self.faces = Faces.of(last, grid)
        midpoint = method.feet == "rk2"
        self.look = Lookahead(last, self.faces, 1.0, method.width, midpoint, columns)
        weno = method.interpolation == "weno"
        self.look.lattice = Lattice.of(grid, method.width, weno, method.limiter)
        self.search = Search.of(self.look, march=True)
        self.a = self.search.start()
        self.V = _terminal(problem, grid)
        self.end_slopes = EndSlopes.of(self.faces, self.V)
        self.obstacles = self._rights(self.end)
        if self.obstacles is not None:
            check_terminal(grid, self.V, self.obstacles.V)
        self.before: Array | None = None
        self.final: Array | None = None
        self.delta, self.enough, d = 1.0, SEARCHED, grid.dimension
        self.fastest = Motion(
            np.zeros((1, d)), np.zeros((1, d, len(columns))), np.zeros(1)
        )
        self._continue_slopes()

    def at(self, t: float) -> ControlProblem:
        """The problem held at calendar time t."""
        if not self.moving:
            return self.problem
        if t not in self._held:
            self._held = {
                **dict(list(self._held.items())[-3:]),
                t: self.problem.at_time(t),
            }
        return self._held[t]

    def run(self, clock: Clock, outputs: Array) -> Marched:
        """March through all strides.

        An output time within a stride is reached by steps of its own, as many: the
        same share of a stride on every grid, so that grids can be compared there.
        """
        values = np.empty((len(outputs), *self.grid.shape))
        stops = np.zeros(values.shape, bool)
        controls = np.empty((*values.shape, self.a.shape[1]))
        slack = 1e-10 * self.end
        self.enough = max(SEARCHED / clock.steps, 1e-13)
        values[-1], stops[-1] = self.V, self.stopped()
        self.faces.set_fixed(self.V)
        for later, t in pairwise(clock.ticks.tolist()):
            within = (outputs > t + slack) & (outputs < later - slack)
            for i in np.flatnonzero(within):
                kept = self._memory()
                self.walk(clock.within(later, float(outputs[i])))
                values[i], controls[i] = self.V, self.everywhere()
                stops[i] = self.stopped()
                self._recall(kept)
            self.walk(clock.within(later, t))
            here = np.abs(outputs - t) <= slack
            values[here], controls[here] = self.V, self.everywhere()
            stops[here] = self.stopped()
        controls[-1] = self.final
        return Marched(self.look, values, controls, stops, clock, self.fastest)

    def walk(self, times: Array) -> None:
        """Take the steps that end at these times, the first is where V is."""
        for later, t in pairwise(times.tolist()):
            V, a = self.step(t, later)
            self._check(V, t)
            self._watch(a)
            self.advance(V, a, t)
            if self.final is None:
                self.final = self.everywhere()

    def _memory(self) -> dict[str, Any]:
        """All that further steps depend on."""
        faces = [{**vars(face)} for face in self.faces.faces]
        fixed = self.faces.fixed_values
        own = {name: getattr(self, name) for name in OWN}
        return {**own, "faces": faces, "fixed": fixed}

    def _recall(self, kept: dict[str, Any]) -> None:
        """The inverse of `_memory`."""
        for face, known in zip(self.faces.faces, kept.pop("faces"), strict=True):
            vars(face).update(known)
        self.faces.fixed_values = kept.pop("fixed")
        for name, value in kept.items():
            setattr(self, name, value)

    def step(self, t: float, later: float) -> tuple[Array, Array]:
        """V(t) (*shape) and its policy on free nodes from V(later)."""
        delta = later - t
        held = [self.at(time) for time in (t, t + 0.5 * delta, later)]
        self.look = self.look.held(held, delta)
        now = self._guess(t, delta)
        self.search.look = self.look
        self.search.now = self.look.continued(now, self.look.problem)
        if self.problem.depends_on_time:
            self.search.renew()
        a, worth = self.search.follow(self.V.ravel(), self.a, self.enough)
        step = self.look.step(a)
        if not np.isfinite(step.gain).all():
            raise inadmissible(self.look, step.gain)
        rights = self._rights(t)
        self._settle(step, now, worth, rights)
        self.obstacles = rights
        return now, a

    def _rights(self, t: float) -> Obstacles | None:
        """Those to stop at calendar time t; None where the problem has none at all."""
        if not self.problem.stops:
            return None
        known, moving = self.obstacles, self.problem.data_depend_on_time
        if known is not None and not moving and not self.problem.dates:
            return known
        now = self.at(t)
        return Obstacles.of(now, self.grid, self.V, self.problem.stops_at(t))

    def _settle(
        self, step: Step, now: Array, worth: Array, rights: Obstacles | None
    ) -> None:
        """Fill V(t) (*shape), `now`; shortened steps read what it has become."""
        look, V = self.look, self.look.continued(self.V)

        def held(values: Array, rows: NDArray[np.intp]) -> Array:
            return values if rights is None else rights.hold(values, rows)

        now.ravel()[look.free] = held(worth, look.free)
        early = np.flatnonzero(step.share < 1.0)
        part = step.taken(early)
        for _ in range(ROUNDS if early.size else 0):
            rows = look.free[early]
            known = look.continued(now, look.problem)
            worth = held(part.value(V, look.lattice, known), rows)
            change = np.max(np.abs(worth - now.ravel()[rows]))
            now.ravel()[rows] = worth
            if change <= 1e-13 * np.max(np.abs(now)):
                break

    def advance(self, V: Array, a: Array, t: float) -> None:
        """Go on from V at t, in place."""
        self.before, self.V, self.a = self.V, V, a
        self.delta = self.look.delta
        if self.problem.data_depend_on_time:
            self.faces.renew(self.at(t))
        self._continue_slopes()

    def stopped(self) -> NDArray[np.bool_]:
        """Nodes (*shape) where somebody stops now."""
        if self.obstacles is None:
            return np.zeros(self.grid.shape, bool)
        return self.obstacles.met(self.V)

    def everywhere(self) -> Array:
        """The policy of the last step on all nodes, (*shape, m)."""
        return spread_policy(self.look, self.faces, self.a)

    def _guess(self, t: float, delta: float) -> Array:
        """V(t) as it would go on in time, with the data of t."""
        now = self.V.copy()
        if self.before is not None:
            now += (self.V - self.before) * (delta / self.delta)
        faces = self.faces
        if self.problem.data_depend_on_time:
            faces = Faces.of(self.at(t), self.grid)
        faces.set_fixed(now)
        return now

    def _continue_slopes(self) -> None:
        if self.faces.artificial:
            slopes = self.end_slopes.at(self.faces, self.V, self.closing)
            self.faces.set_slopes(slopes)

    def _watch(self, a: Array) -> None:
        """Remember the largest drift and noise."""
        moved, known = self.look.motion_under(a), self.fastest
        f = np.abs(moved.f).max(axis=0, initial=0.0)
        sigma = np.abs(moved.sigma).max(axis=0, initial=0.0)
        self.fastest = Motion(
            np.maximum(known.f, f), np.maximum(known.sigma, sigma), known.r
        )

    def _check(self, V: Array, t: float) -> None:
        if np.isfinite(V).all():
            return
        place = self.grid.nodes_of(np.flatnonzero(~np.isfinite(V))[:1])[0]
        raise StabilityError(
            f"SemiLagrangian: V is not finite at x = {place}, t = {t:g}: it has grown "
            "without bound. Shorten the horizon, bound the controls, or take "
            "hjb.SemiLagrangian('linear'), which is monotone."
        )


def _terminal(problem: ControlProblem, grid: Grid) -> Array:
    """The terminal value (*shape), maximised."""
    nodes = grid.nodes()
    found = problem.sign * np.asarray(problem.terminal_at(nodes), float)
    if not np.isfinite(found).all():
        bad = np.argwhere(~np.isfinite(found))[0]
        raise ProblemError(f"'terminal' is not finite at x = {nodes[tuple(bad)]}.")
    return found.copy()
