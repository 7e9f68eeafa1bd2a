"""Least costs to an exit without noise, discount and horizon: solved as u, told as V.

`kruzkov` makes rewards u of arriving out of costs V. u is 0 until a path is found: each
policy reaches a step further than the one before, with linear readings on the coarsest
grid; the rest is as of every stationary problem.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..error_bar import ErrorBar
from ..faces import Faces
from ..grid import Grid
from ..problem import ControlProblem
from .bar import bound
from .kruzkov import Kruzkov
from .lattice import Lattice
from .level import Level
from .lookahead import ROUNDING, Lookahead
from .method import SemiLagrangian
from .nested import Nested, Pages, obstacles_of, sampled
from .parts import parts_of
from .search import Search
from .step_length import StepLength, balanced, tried_controls
from .system import System, extrapolated

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
AIM = 2.0
"""lam V where nearly all nodes are nearer to the exit: u = e^-2 there."""
CONDITIONED = (0.8, 3.5)
"""lam V at which lam is left as it is."""
FAR = 0.9
"""Share of the nodes in reach that are nearer than V is measured."""
MOST_RATES = 16
"""Rates that are tried. A rate far too large sees paths of up to 20 / lam only."""
REACHED = 1e-12
"""u below which no path has been found yet."""
MOST_FRONTS = 1000
"""Policies on the coarsest grid, each of which reaches a step further."""


class ArrivingSystem(System):
    """Policies that look for a first way as long as there are nodes without one."""

    @property
    def held(self) -> int:
        """Number of nodes from which no path is known."""
        return int(np.count_nonzero(self.V <= REACHED))

    def improve(self, wide: bool) -> None:
        """Better policies; all controls are tried, as u has several local maxima."""
        del wide
        super().improve(wide=True)


def arriving(
    problem: ControlProblem, grid: Grid, method: SemiLagrangian, pages: Pages
) -> Arriving:
    """The solve of a problem, at a rate lam at which u is neither flat nor tiny.

    lam is 2 over the cost from the far nodes, as seen on the coarsest grid.
    """
    faces = Faces.of(problem, grid)
    assert faces.fixed_mask is not None
    assert faces.fixed_values is not None
    shift = float(np.min(-faces.fixed_values[faces.fixed_mask]))
    walled = has_obstacles(problem, grid)
    f, _ = sampled(Kruzkov(problem, 1.0, shift).discounted, grid)
    moving = np.abs(f / np.asarray(grid.domain.width)).max(axis=1)
    moving = moving[moving > 0]
    rate = AIM * float(np.median(moving)) if moving.size else 1.0
    for _ in range(MOST_RATES):
        kruzkov = Kruzkov(problem, rate, shift)
        nested = Arriving(
            kruzkov.discounted, grid, method, pages, kruzkov=kruzkov, walled=walled
        )
        far = nested.farthest()
        low, high = CONDITIONED
        if far <= 0 or low <= rate * far <= high:
            break
        rate = AIM / far
    return nested


@dataclass(eq=False)
class Arriving(Nested):
    """One solve of the transformed problem; its answers are those of the given one."""

    kruzkov: Kruzkov | None = None
    walled: bool = False
    reached: Mask | None = None
    """Nodes (*shape) from which the exit is reached, known once there is a bar."""
    starts: dict[int, System] = field(default_factory=dict)

    @property
    def perishing(self) -> bool:
        """Where every control crosses a wall at once the exit is out of reach."""
        return True

    @property
    def given(self) -> Kruzkov:
        """The transform."""
        assert self.kruzkov is not None
        return self.kruzkov

    def planned(self, f: Array, sigma: Array) -> StepLength:
        """The step; at most a cell where there are obstacles, or they are jumped."""
        found = super().planned(f, sigma)
        if self.method.step is not None or not self.walled:
            return found
        return balanced(self.grid, f, sigma, 4)

    def farthest(self) -> float:
        """The cost of most nodes in reach at most, on the coarsest grid."""
        system = self._start(0, self.sampled[0].at(len(self.grids) - 1))
        mask = system.levels[0].faces.fixed_mask
        assert mask is not None
        there = arrives(system) & ~mask
        cost = self.given.cost_of(system.V[0])[there]
        cost = cost[np.isfinite(cost)] - self.given.shift
        return float(np.quantile(cost, FAR)) if cost.size else 0.0

    @property
    def fewest(self) -> int:
        """Two grids, where there are two: one alone may be settled by chance."""
        return min(2, len(self.grids))

    def _forget(self) -> None:
        super()._forget()
        self.starts = {}

    def joined(self, levels: list[Level], before: System) -> System:
        """A system that goes on looking."""
        del before
        return ArrivingSystem(levels)

    def _start(self, i: int, delta: float) -> System:
        """The value by linear readings, carried from the grid before."""
        if i not in self.starts:
            if i:
                before = self.starts.get(i - 1) or self._start(i - 1, 2.0 * delta)
                system = self._finer(i, delta, before, width=2)
            else:
                system = self._first(delta)
            self._reach(system)
            self.starts[i] = system
        return self.starts[i]

    def _first(self, delta: float) -> System:
        """The middle policy on the coarsest grid."""
        grid, levels = self.grids[0], []
        for part in parts_of(self.problem):
            faces, V = Faces.of(part.joint, grid), np.zeros(grid.shape)
            columns, midpoint = self.sampled[1], self.method.feet == "rk2"
            look = Lookahead(part.joint, faces, delta, 2, midpoint, columns)
            look.perishing = True
            faces.set_fixed(V)
            search, obstacles = Search.of(look), obstacles_of(part.joint, grid)
            levels.append(Level(faces, look, search, V, search.start(), obstacles))
        system = ArrivingSystem(levels)
        system.evaluate()
        return system

    def _reach(self, system: System) -> None:
        """Policies until none reaches further or is better, in place."""
        unknown = system.grid.size + 1
        for _ in range(MOST_FRONTS):
            system.improve(wide=True)
            change, left = system.evaluate(), system.held
            system.changes.append(change)
            if change <= 1e-6 * system.scale and left >= unknown:
                break
            unknown = left
        system.status = "converged"

    # --- what is told ----------------------------------------------------------

    def bound(self, systems: list[System]) -> ErrorBar:
        """The bar of V: what u within its own makes of it; infinite out of reach."""
        kruzkov, fine = self.given, systems[-1]
        found = bound(systems, self.method.order)
        # Steps end beyond the surface, by so much of their length at most.
        over = 2.0 * ROUNDING * fine.looks[0].delta * kruzkov.rate
        found = replace(found, total=found.total + over)
        u, known = fine.V, self._known(fine)[None]
        bar = np.where(known, 0.0, kruzkov.bar_of(u, found.total))
        # A bar of u that leaves out 0 is proof of a path as good as the policy's own.
        self.reached = arrives(fine) | np.isfinite(bar[0])
        sure = np.isfinite(bar) & ~known
        least = np.array([np.min(u[sure], initial=1.0)])
        parts = {
            name: float(kruzkov.bar_of(least, np.array([part]))[0])
            for name, part in found.parts.items()
        }
        if "discretisation" in parts:
            parts["discretisation"] = float(np.max(bar[sure], initial=0.0))
        return replace(found, total=bar, parts=parts, notes=self._notes(found))

    def _known(self, system: System) -> Mask:
        """Nodes (*shape) that carry data."""
        mask = system.levels[0].faces.fixed_mask
        assert mask is not None
        return mask

    def _notes(self, found: ErrorBar) -> tuple[str, ...]:
        inside = np.asarray(self.problem.exit.region(self.grid.nodes())) <= 0
        notes = [f"{np.count_nonzero(inside)} nodes in the exit region", *found.notes]
        assert self.reached is not None
        lost = int(np.count_nonzero(~self.reached))
        if lost:
            notes.append(
                f"{lost} of {self.grid.size} nodes: no path to the exit region is seen "
                "(or obstacles); value infinite, control arbitrary"
            )
        rate = f"solved for exp(-lam V), lam = {self.given.rate:.3g}"
        return (*notes, f"{rate} (Kruzkov); residuals are its changes")

    def answers(self, systems: list[System]) -> dict[str, Any]:
        """The problem as given, and its value, after `bound`."""
        kruzkov, fine, opinion = self.given, systems[-1], None
        sign, faces = kruzkov.problem.sign, Faces.of(kruzkov.problem, self.grid)
        cost = kruzkov.cost_of(fine.V[0])
        assert self.reached is not None
        cost[~self.reached] = np.inf
        assert faces.fixed_mask is not None
        assert faces.fixed_values is not None
        cost = np.where(faces.fixed_mask, -faces.fixed_values, cost)
        if len(systems) > 1 and np.isfinite(cost).all():
            coarse = systems[-2].V
            better = extrapolated(fine.V, coarse, self.grid, self.method.order)
            opinion = -sign * kruzkov.cost_of(better[0])
            opinion = opinion if np.isfinite(opinion).all() else None
        return {
            "problem": kruzkov.problem,
            "value": -sign * cost,
            "second_opinion": opinion,
        }

    def details(self, systems: list[System]) -> dict[str, Any]:
        """The rate."""
        del systems
        return {"rate": self.given.rate}


def has_obstacles(problem: ControlProblem, grid: Grid) -> bool:
    """Whether some node costs infinitely much."""
    x = grid.nodes().reshape(grid.size, -1)
    with np.errstate(all="ignore"):
        found = [problem.payoff_at(x, a) for a in tried_controls(problem, x)]
    return bool(np.isinf(np.asarray(found, float)).any())


def arrives(system: System) -> Mask:
    """Nodes (*shape) whose policy leads to the exit: most corners around the foot do.

    u alone does not tell: between nodes a thin share of those in reach keeps all others
    alive, a little.
    """
    level = system.levels[0]
    look, grid = level.look, level.grid
    step = replace(look.step(level.a), readings=[])
    rows = step.matrix(Lattice.of(grid, 2), grid.size, 0)
    sure = np.zeros(len(look.free), bool)
    if step.runs is not None:
        sure |= ~step.runs.all(axis=1) & (step.decay > 0)
    if level.settled is not None:
        sure |= np.isfinite(level.settled)
    own = rows[np.arange(len(look.free)), look.free]
    own = np.asarray(own, float).ravel()
    # A step that stays in its cell is judged by where it goes, not by where it is.
    needed = 0.5 * (step.decay - own)
    found = level.faces.fixed_mask
    alive = np.zeros(grid.size, bool) if found is None else found.ravel().copy()
    while True:
        share = rows @ alive.astype(float) - own * alive[look.free]
        new = sure | (share > needed * (1.0 + 1e-9)) & (needed > 1e-12)
        new &= ~alive[look.free]
        if not new.any():
            return alive.reshape(grid.shape)
        alive[look.free[new]] = True
