"""A stationary problem on nested grids, each settled from the one before."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoint import Checkpoint, Page
from ..error_bar import ErrorBar
from ..errors import NotConverged
from ..faces import Faces
from ..grid import Grid
from ..methods.nested import carry_slope
from ..problem import ControlProblem
from ..progress import bar_over
from ..prolongation import (
    cubically_prolonged,
    nested_grids,
    prolonged,
    prolonged_policy,
)
from .bar import bound
from .game_search import search_of
from .level import Level, spread_policy
from .lookahead import Lookahead
from .method import SemiLagrangian
from .obstacles import Obstacles
from .parts import parts_of
from .step_length import StepLength, active_columns, balanced, sampled_motion
from .system import System, settle

Array = NDArray[np.float64]
LINEAR = "cubic readings did not settle (V has kinks or jumps): linear ones"
"""What the report says where it was so."""
LEVELS = 3
"""Nested grids that are solved: two differences tell an order."""


@dataclass(frozen=True)
class Pages:
    """Where systems are kept that are settled; a bar shows them where asked for.

    part: what is solved beside the problem itself, the first word of its pages.
    """

    file: Checkpoint = field(default_factory=Checkpoint)
    part: str = ""
    progress: bool = False

    def of(self, grid: Grid, what: str = "") -> Page:
        """The page of a grid."""
        return self.file.page(f"{self.part}{what}{grid.shape}")


@dataclass(eq=False)
class Nested:
    """One solve: the grids from coarse to fine, and the length of their steps."""

    problem: ControlProblem
    grid: Grid
    method: SemiLagrangian
    pages: Pages = field(default_factory=Pages)
    fallbacks: tuple[str, ...] = ()
    """What had to be replaced, with the reason."""

    @property
    def perishing(self) -> bool:
        """Whether states may be lost, see `Lookahead`."""
        return False

    @cached_property
    def grids(self) -> list[Grid]:
        """From coarse to fine."""
        return nested_grids(self.grid)[-LEVELS:]

    @property
    def opening(self) -> ControlProblem:
        """The problem that policies start from."""
        return self.problem

    @cached_property
    def sampled(self) -> tuple[StepLength, list[int]]:
        """The step before any policy is known, and the columns of noise that count."""
        found = [sampled(part.joint, self.grid) for part in parts_of(self.problem)]
        f = np.concatenate([f for f, _ in found])
        sigma = np.concatenate([s for _, s in found])
        columns = active_columns(sigma)
        return self.planned(f, sigma[:, :, columns]), columns

    def planned(self, f: Array, sigma: Array) -> StepLength:
        """The step for these drifts and noises."""
        return planned(self.problem, self.grid, f, sigma, self.method)

    @property
    def fewest(self) -> int:
        """Grids that must settle."""
        return 1

    def solve(self) -> list[System]:
        """The settled systems from coarse to fine.

        By linear readings where cubic ones do not settle: these have no maximum
        principle, and beside jumps of V (an exit that drift leads away from, a few
        controls that turn it back) their policies may go in circles.
        """
        systems = self._solved()
        settled = systems[-1].status != "not converged" and len(systems) >= self.fewest
        if settled or self.method.width == 2:
            return systems
        self.fallbacks += (LINEAR,)
        self.method = replace(self.method, interpolation="linear")
        self.pages = replace(self.pages, part=f"linear {self.pages.part}")
        self._forget()
        return self._solved()

    def _forget(self) -> None:
        """Drop what was found by other readings."""
        self.__dict__.pop("sampled", None)

    def _solved(self) -> list[System]:
        """The systems, of which the last may not have settled."""
        coarsest = len(self.grids) - 1
        before = self._start(0, self.sampled[0].at(coarsest))
        length = self._length_for(before)
        systems: list[System] = []
        shapes = [g.shape for g in self.grids]
        for i, _ in bar_over(range(len(shapes)), shapes, self.pages.progress, "solve"):
            delta = length.at(coarsest - i)
            system = self._finer(i, delta, before)
            page = self.pages.of(self.grids[i])
            self._settled(system, page, 4 if systems else 30)
            if system.status == "not converged" and i < coarsest:
                # Too coarse for cubic readings: the next grid starts afresh.
                systems, delta = [], length.at(coarsest - i - 1)
                before = self._start(i + 1, delta)
                continue
            systems.append(system)
            before = system
        return systems

    def joined(self, levels: list[Level], before: System) -> System:
        """The system of all modes, after the one `before`."""
        del before
        return System(levels)

    def bound(self, systems: list[System]) -> ErrorBar:
        """The bar of the finest grid's values."""
        return bound(systems, self.method.order)

    def answers(self, systems: list[System]) -> dict[str, Any]:
        """What the solution has beside value and control."""
        del systems
        return {}

    def details(self, systems: list[System]) -> dict[str, Any]:
        """What the report has beside grids and steps."""
        del systems
        return {}

    def settle(self, system: System, updates: int) -> None:
        """Solve one grid from its start, in place."""
        settle(system, self.method.tolerance, self.method.max_policies, updates)

    def _settled(self, system: System, page: Page, updates: int) -> None:
        """Settle a system, or take it from its page."""
        kept = page.found()
        if kept is not None:
            system.recall(kept)
            return
        system.admit()
        try:
            self.settle(system, updates)
        except NotConverged:
            # Cubic readings that nothing ends on a grid this coarse.
            if system.grid.matches(self.grids[-1]):
                raise
            system.status = "not converged"
            return
        page.keep(system.memory, finished=True)

    def _length_for(self, system: System) -> StepLength:
        """Steps for the speeds of the policies found."""
        moved = [level.look.motion_under(level.a) for level in system.levels]
        f = np.concatenate([m.f for m in moved])
        sigma = np.concatenate([m.sigma for m in moved])
        return self.planned(f, sigma)

    def _start(self, i: int, delta: float) -> System:
        """A middle policy's value, improved with linear readings, which are monotone.

        Cubic ones have no maximum principle: far from the answer they may go astray.
        """
        grid, levels, midpoint = self.grids[i], [], self.method.feet == "rk2"
        for part in parts_of(self.opening):
            one, switching = part.joint, part.switching
            faces = Faces.of(one, grid)
            columns = self.sampled[1]
            look = Lookahead(one, faces, delta, 2, midpoint, columns, switching)
            search, V = search_of(look, part), np.zeros(grid.shape)
            faces.set_fixed(V)
            obstacles = obstacles_of(one, grid)
            levels.append(Level(faces, look, search, V, search.start(), obstacles))
        system, page = System(levels), self.pages.of(grid, "start ")
        kept = page.found()
        if kept is not None:
            system.recall(kept)
            return system
        system.admit()
        if ends_by_stops_alone(self.problem, grid):
            # To go on everywhere has no value; to stop everywhere has one.
            system.V = np.stack([v.obstacles.psi for v in levels if v.obstacles])
        else:
            system.evaluate()
        settle(system, 1e-6, self.method.max_policies, 30, wide=True)
        page.keep(system.memory, finished=True)
        return system

    def _finer(
        self, i: int, delta: float, before: System, width: int | None = None
    ) -> System:
        """A system that starts from the values and policies of the one before."""
        grid, levels, method = self.grids[i], [], self.method
        midpoint, columns = method.feet == "rk2", self.sampled[1]
        wide, alone = width or method.width, ends_by_stops_alone(self.problem, grid)
        for part, old in zip(parts_of(self.problem), before.levels, strict=True):
            one, switching = part.joint, part.switching
            faces = Faces.of(one, grid)
            for face, coarse in zip(faces.faces, old.faces.faces, strict=True):
                carry_slope(face, coarse, grid)
            look = Lookahead(one, faces, delta, wide, midpoint, columns, switching)
            look.perishing = self.perishing
            V, a = _carried(old, grid)
            if alone and not grid.matches(old.grid):
                # Cubic overshoot beside a kink of psi would be worth going on for ever.
                V = prolonged(old.V, grid)
            faces.set_fixed(V)
            a = np.ascontiguousarray(a[look.free])
            search, obstacles = search_of(look, part), obstacles_of(one, grid)
            levels.append(Level(faces, look, search, V, a, obstacles))
        return self.joined(levels, before)


def ends_by_stops_alone(problem: ControlProblem, grid: Grid) -> bool:
    """Whether only rights to stop can end what is not discounted in some state."""
    nodes = grid.nodes()
    parts = [part.joint for part in parts_of(problem)] if problem.stops else []
    return any(np.min(np.asarray(p.discount_at(nodes), float)) <= 0 for p in parts)


def sampled(problem: ControlProblem, grid: Grid) -> tuple[Array, Array]:
    """Drifts and noises of a few controls on the free nodes of one mode."""
    mask = Faces.of(problem, grid).fixed_mask
    free = np.arange(grid.size) if mask is None else np.flatnonzero(~mask.ravel())
    return sampled_motion(problem, grid.nodes_of(free))


def planned(
    problem: ControlProblem, grid: Grid, f: Array, sigma: Array, method: SemiLagrangian
) -> StepLength:
    """The step for these drifts and noises, or the one that was asked for."""
    x, rate = grid.nodes().reshape(grid.size, -1), 0.0
    if problem.modes is not None:
        rate = float(np.max(problem.modes.at(x).sum(axis=-1)))
    if problem.jumps is not None:
        rate = float(np.max(problem.at_time(0.0).jumps.rate_at(x)))
    found = balanced(grid, f, sigma, method.width, rate)
    return found if method.step is None else StepLength(method.step, found.power)


def obstacles_of(problem: ControlProblem, grid: Grid) -> Obstacles | None:
    """The rights to stop of a stationary problem."""
    return Obstacles.of(problem, grid) if problem.stops else None


def _carried(level: Level, grid: Grid) -> tuple[Array, Array]:
    """Value (*shape) and policy (N, m) of a level on the same grid or the next."""
    V, a = level.V.copy(), spread_policy(level.look, level.faces, level.a)
    if not grid.matches(level.grid):
        V = cubically_prolonged(V, grid)
        flat = a.reshape(level.grid.size, -1).T
        a = prolonged_policy(flat, level.grid, grid).T
    return V, a.reshape(grid.size, -1)
