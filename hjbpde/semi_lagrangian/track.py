"""One mode of a march: its value at the time reached, and one step further back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..closure import bend_beyond
from ..coefficients import Motion
from ..data_in_time import Breaks
from ..errors import ProblemError, StabilityError
from ..faces import Faces
from ..grid import Grid
from ..methods.end_slopes import Closing, EndSlopes
from ..methods.state import check_terminal
from ..problem import ControlProblem
from .game_search import search_of
from .lattice import Lattice
from .level import inadmissible, spread_policy
from .lookahead import Lookahead
from .memory import memory_of_faces, prefixed, recall_faces, under
from .method import SemiLagrangian
from .obstacles import Obstacles
from .parts import Part
from .step import Step

Array = NDArray[np.float64]


class Track:
    """One mode on one grid on its way from the horizon to today.

    Parameters
    ----------
    closing : Closing
        What the slopes at artificial faces are.
    bent : bool
        Whether V bends beyond them as much as it may, where jumps land.
    """

    def __init__(
        self,
        part: Part,
        grid: Grid,
        method: SemiLagrangian,
        columns: list[int],
        breaks: Breaks,
        closing: Closing,
        bent: bool = False,
    ) -> None:
        problem, self.part = part.problem, part
        self.problem, self.grid, self.closing = problem, grid, closing
        self.bent, self.breaks = bent, breaks
        self.obstacles: Obstacles | None = None
        self._held: dict[float, ControlProblem] = {}
        self.moving = problem.depends_on_time or problem.data_depend_on_time
        last = self.at(float(problem.horizon or 0.0))
        self.faces = Faces.of(last, grid)
        self.look = Lookahead(
            last, self.faces, 1.0, method.width, method.feet == "rk2", columns,
            part.switching,
        )  # fmt: skip
        weno = method.interpolation == "weno"
        self.look.lattice = Lattice.of(grid, method.width, weno, method.limiter)
        self.search = search_of(self.look, part, march=True)
        self.a = self.search.start()
        self.V = _terminal(problem, grid)
        self.end_slopes = EndSlopes.of(self.faces, self.V)
        self.obstacles = self.rights(float(problem.horizon or 0.0))
        if self.obstacles is not None:
            check_terminal(grid, self.V, self.obstacles.V)
        self.before: Array | None = None
        self.final: Array | None = None
        self.delta, d = 1.0, grid.dimension
        self.fastest = Motion(
            np.zeros((1, d)), np.zeros((1, d, len(columns))), np.zeros(1)
        )
        self._continue_slopes()

    def at(self, t: float) -> ControlProblem:
        """The problem held at calendar time t, both players as one."""
        if not self.moving:
            t = 0.0
        if t not in self._held:
            self._held = {
                **dict(list(self._held.items())[-3:]),
                t: self.part.at(t),
            }
        return self._held[t]

    def memory(self) -> dict[str, NDArray[Any]]:
        """All that further steps depend on."""
        out: dict[str, NDArray[Any]] = memory_of_faces(self.faces)
        out |= {"V": self.V, "a": self.a, "delta": np.array(self.delta)}
        if self.before is not None:
            out["before"] = self.before
        if self.obstacles is not None:
            out |= prefixed("obstacles.", self.obstacles.memory())
        return out

    def recall(self, memory: Mapping[str, NDArray[Any]]) -> None:
        """The inverse of `memory`."""
        recall_faces(self.faces, memory)
        self.V, self.a = memory["V"], memory["a"]
        self.before, self.delta = memory.get("before"), float(memory["delta"])
        self.obstacles = None
        known = under("obstacles.", memory)
        if known:
            self.obstacles = Obstacles(self.grid, **known)

    def seen(self) -> dict[str, NDArray[Any]]:
        """What is known of all steps so far, for the end of the march."""
        out: dict[str, NDArray[Any]] = {
            "fastest.f": self.fastest.f,
            "fastest.sigma": self.fastest.sigma,
        }
        return out if self.final is None else {**out, "final": self.final}

    def recall_seen(self, memory: Mapping[str, NDArray[Any]]) -> None:
        """The inverse of `seen`."""
        f, sigma = memory["fastest.f"], memory["fastest.sigma"]
        self.fastest = Motion(f, sigma, self.fastest.r)
        self.final = memory.get("final")

    def look_back(self, t: float, later: float) -> Array:
        """Turn to the step from `later` to t; V(t) as it would go on, (*shape)."""
        delta = later - t
        times = (t, t + 0.5 * delta, self.breaks.before(later))
        held = [self.at(time) for time in times]
        self.look = self.search.look = self.look.held(held, delta)
        if self.bent:
            faces, V = self.faces, self.V
            self.look.bends = [bend_beyond(self.grid, f, V) for f in faces.artificial]
        return self._guess(t, delta)

    def read(self, V: Array, problem: ControlProblem | None = None) -> Array:
        """V (*shape) as steps read it, (N,), by default where the step ends in time."""
        return self.look.continued(V.ravel(), problem)

    def choose(self, V: Array, now: Array, enough: float) -> tuple[Array, Array, Step]:
        """Controls, what they are worth, and their step, given V and what it is now.

        Raises
        ------
        ProblemError
            A node where every control crosses a wall.
        """
        self.search.now = now
        if self.problem.depends_on_time:
            self.search.renew()
        a, worth = self.search.follow(V, self.a, enough)
        step = self.look.step(a)
        if not np.isfinite(step.gain).all():
            raise inadmissible(self.look, step.gain)
        return a, worth, step

    def rights(self, t: float) -> Obstacles | None:
        """Those to stop at calendar time t; None where the problem has none at all."""
        if not self.problem.stops:
            return None
        known, moving = self.obstacles, self.problem.data_depend_on_time
        if known is not None and not moving and not self.problem.dates:
            return known
        now = self.at(t)
        return Obstacles.of(now, self.grid, self.V, self.problem.stops_at(t))

    def advance(self, V: Array, a: Array, t: float) -> None:
        """Go on from V at t, in place.

        Raises
        ------
        StabilityError
            V is not finite.
        """
        self._check(V, t)
        self._watch(a)
        self.before, self.V, self.a = self.V, V, a
        self.delta = self.look.delta
        if self.problem.data_depend_on_time:
            self.faces.renew(self.at(t))
        self._continue_slopes()
        if self.final is None:
            self.final = self.everywhere()

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
