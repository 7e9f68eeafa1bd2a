"""The long-run average and the relative value, by policy iteration.

    lambda = sup_a { r + f . grad V + D . hess V },   V = 0 at the domain centre,

on the monotone scheme: ``lambda = max_a (r_a + L_a V)`` at every node. For any V the
largest and the smallest entry of the right-hand side enclose the best average of the
scheme's chain (Odoni, Oper. Res. 17 (1969) 857; Puterman, Markov Decision Processes
(1994), theorem 8.5.5), so half their distance is the residual, a rigorous bound.
Each policy is evaluated by one solve with a vanishing discount, ``(eps - L_a) w = r_a
+ L_a V - lambda`` and V + w: what the discount leaves out is in the next residual, so
the limit carries no trace of eps, and the steps contract by eps / (eps + gap).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..boundary import Dirichlet, Robin
from ..errors import ProblemError
from ..faces import Faces
from ..game_tables import GameTables
from ..grid import Grid
from ..interpolation import Interpolant
from ..linear import Rows
from ..problem import ControlProblem
from ..progress import bar_over
from ..prolongation import (
    cubically_prolonged,
    kept_nodes,
    nested_grids,
    prolonged_policy,
)
from ..sets import Box
from ..table_checks import hold_inside
from ..tabulate import QuadraticTables, Tables, fixed_policy_tables, tabulate
from .inward import inward_start
from .memory import recall_result, result_of
from .nested import CLOSABLE, RunOptions, carry_slope
from .policy_iteration import (
    EPS,
    Closing,
    PolicyIteration,
    Scans,
    is_searched,
    iterate,
    residual_of,
)
from .state import GridState, make_state

Array = NDArray[np.float64]
VANISHING = 1e-3
"""The discount of one evaluation over the rate at which the state mixes."""


@dataclass(eq=False)
class AverageState:
    """One grid: the relative value, the average, and how fast the state mixes."""

    state: GridState
    plain: Tables
    average: float
    rate: float

    def memory(self) -> dict[str, Any]:
        """A grid that is solved, for the checkpoint."""
        numbers = np.array([self.average, self.rate])
        return {**result_of(self.state), "average and rate": numbers}

    @classmethod
    def recalled(
        cls, faces: Faces, tables: Tables, scheme: int, memory: Mapping[str, Any]
    ) -> AverageState:
        """A grid as `memory` left it."""
        state = make_state(faces, tables, scheme)
        assert not isinstance(state.tables, GameTables)
        recall_result(state, memory)
        return cls(state, state.tables, *memory["average and rate"].tolist())

    @property
    def residual(self) -> float:
        """Half the width of the enclosure of the average."""
        return self.state.bounds[-1]

    def residuals(self, scan: bool) -> tuple[Array, Rows]:
        """Improve the policy; r + L V - average with the average in the middle."""
        state = self.state
        state.tables = _gaining(self.plain, -self.average)
        out, rows = residual_of(state, scan)
        middle = 0.5 * (float(np.max(out)) + float(np.min(out)))
        self.average += middle
        return out - middle, rows

    def centred(self) -> Array:
        """V less its value at the domain centre."""
        return centred(self.state.grid, self.state.V)


def centred(grid: Grid, V: Array, domain: Box | None = None) -> Array:
    """V (*shape) less its value at the centre of the grid's domain, or of another."""
    domain = domain or grid.domain
    centre = 0.5 * (np.asarray(domain.low) + np.asarray(domain.high))
    return V - float(Interpolant(grid, V).cubic(centre))


def with_discount(tables: Tables, rho: float) -> Tables:
    """The tables with a constant discount."""
    return replace(tables, rho=np.array([rho]))


def _gaining(tables: Tables, gain: float) -> Tables:
    if isinstance(tables, QuadraticTables):
        return replace(tables, r0=tables.r0 + gain)
    return tables.gaining(np.full(len(tables.x), gain))


def mixing_rate(state: GridState) -> float:
    """The rate of crossing the domain by drift and noise, on average over nodes."""
    under = state.under or state.tables.under(state.a)
    width = np.asarray(state.grid.domain.width)[:, None]
    rates = 2.0 * under.D / width**2 + np.abs(under.f) / width
    return float(np.mean(np.max(rates + 0.0 * under.f, axis=0))) or 1.0


def iterate_average(
    one: AverageState,
    tolerance: float,
    max_policies: int,
    deadline: float = np.inf,
    slope_updates: int = 4,
) -> None:
    """Policies until the enclosure of the average is narrow, in place."""
    state, stalled = one.state, 0
    closing = Closing(state, slope_updates)
    exact = state.grid.dimension == 1 and not state.grid.periodic[0]
    scans = Scans(is_searched(state), first=True)
    for _ in range(max_policies):
        residual, rows = one.residuals(scans.due)
        size = max(abs(one.average), one.rate * state.scale)
        if closing.due(float(np.max(np.abs(residual))) / size):
            closing.update()
            residual, rows = one.residuals(scan=False)
        bound = float(np.max(np.abs(residual)))
        best = min(state.bounds[-6:], default=np.inf)
        state.bounds.append(bound)
        if closing.done and bound <= tolerance * size:
            if scans.agree():
                state.status = "converged"
                return
            stalled = 0
            continue
        scans.pass_on()
        stalled = stalled + 1 if bound > 0.5 * best else 0
        weight = float(np.max(rows.lower.sum(0) + rows.upper.sum(0)))
        floor = 4 * EPS * state.scale * weight
        state.status = "stagnated" if bound <= 20 * floor else "not converged"
        settled = stalled >= 3 and bound <= 20 * floor
        hopeless = not np.isfinite(bound) or stalled >= 25
        if settled or hopeless or time.monotonic() > deadline:
            return
        rows.c += VANISHING * one.rate
        state.ladder.prepare(rows)
        correction, _ = state.ladder.correct(residual, 1e-12 if exact else 1e-5)
        V = state.V.ravel() + correction
        state.V = (V - V[V.size // 2]).reshape(state.grid.shape)


def solve_average(
    problem: ControlProblem,
    grid: Grid,
    method: PolicyIteration,
    options: RunOptions,
    policy: Array | None = None,
) -> list[AverageState]:
    """Average and relative value on every nested grid, coarse to fine.

    Those of the best policy, or of a fixed one (N, m).
    """
    check_average_faces(problem)
    least = CLOSABLE if any(rule is None for rule in problem.faces.values()) else 5
    faces = Faces.of(problem, grid)
    if policy is None:
        tables = tabulate(problem, grid, faces)
    else:
        tables = fixed_policy_tables(problem, grid, faces, policy)
        hold_inside(grid, faces, tables.f0, policy)
    tables = with_discount(tables, 0.0)
    grids = nested_grids(grid, least, tables.correlated_axes)
    nested = [tables]
    for finer in reversed(grids[1:]):
        nested.insert(0, nested[0].taken(kept_nodes(finer)))
    found: list[AverageState] = []
    shapes = [g.shape for g in grids]
    for i, _ in bar_over(range(len(grids)), shapes, options.progress, "solve"):
        faces, code = Faces.of(problem, grids[i]), method.scheme.code
        page = options.page(grids[i])
        kept = page.found()
        if kept is not None:
            found.append(AverageState.recalled(faces, nested[i], code, kept))
            continue
        if found:
            one = _finer(found[-1], faces, nested[i], code)
        else:
            one = _first(faces, nested[i], code)
        if options.guess is not None and i == len(grids) - 1:
            one.state.V = options.guess.copy()
        iterate_average(
            one, options.tolerance, method.max_policies, options.deadline,
            4 if found else 30,
        )  # fmt: skip
        found.append(one)
        if options.kept(one.state.status):
            page.keep(one.memory, finished=True)
    return found


def check_average_faces(problem: ControlProblem) -> None:
    """Refuse rules that end the process or feed value back.

    Raises
    ------
    ProblemError
        A Dirichlet face, or a Robin face with alpha not 0.
    """
    for face, rule in problem.faces.items():
        if isinstance(rule, Dirichlet) or (isinstance(rule, Robin) and rule.alpha):
            raise ProblemError(
                f"the rule of face {face} is {rule!r}: in the long run nothing may end "
                "or be discounted there; use Reflecting(), StateConstraint() or None."
            )


def _first(faces: Faces, tables: Tables, scheme: int) -> AverageState:
    """The coarsest grid, from the problem discounted at the rate of mixing."""
    state = make_state(faces, tables, scheme)
    assert not isinstance(state.tables, GameTables)
    tables = state.tables
    rate = mixing_rate(state)
    state.tables = with_discount(tables, rate)
    if faces.artificial:
        inward_start(state)
    iterate(state, 1e-6, 100, slope_updates=30)
    state.bounds, state.status = [], ""
    V = state.V.ravel()
    average = rate * float(V[V.size // 2])
    state.V = state.V - V[V.size // 2]
    return AverageState(state, tables, average, mixing_rate(state))


def _finer(
    before: AverageState, faces: Faces, tables: Tables, scheme: int
) -> AverageState:
    grid, coarse = faces.grid, before.state
    for face, other in zip(faces.faces, coarse.faces.faces, strict=True):
        carry_slope(face, other, grid)
    V = cubically_prolonged(coarse.V, grid)
    a = prolonged_policy(coarse.a, coarse.grid, grid)
    state = make_state(faces, tables, scheme, V, a)
    assert not isinstance(state.tables, GameTables)
    return AverageState(state, state.tables, before.average, mixing_rate(state))
