"""Tables of a two-player game on the nodes: both players' controls side by side.

A policy is ``u = (a, b)``, (m + mb, N), and its coefficients are those of one player
who has both. Where drift is affine in (a, b), the payoff quadratic (concave in a,
convex in b), the noise free of both, and no control meets more than one of the other
player's, the choices are made pair by pair inside a kernel; elsewhere both sets are
searched.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .coefficients import Coefficients
from .correlation import Correlation
from .errors import MemoryBudgetError, ProblemError
from .faces import Faces
from .grid import Grid
from .jump_rates import JumpRates
from .off_axes import OffAxes
from .players import one_player
from .probe import control_range, fit_quadratic
from .problem import ControlProblem
from .sets import Box, ControlSet, Finite
from .tables import GeneralTables, QuadraticTables, Tables
from .tabulate import general_tables, tabulate

Array = NDArray[np.float64]
Pairs = NDArray[np.int64]
MOST_TRIED = 1e10
"""Pairs of controls times nodes beyond which one improvement is refused."""
LATTICE = {1: 11, 2: 7, 3: 5}
"""Points an axis of a box before refinement, by its number of axes."""
SECTIONS = 28
"""Golden sections an axis: 1e-7 of the box is left."""


@dataclass(frozen=True)
class GameTables:
    """Coefficients of both players' controls, and how they are chosen.

    Parameters
    ----------
    joint : tables of one player who has both controls
    own, other : the controller's set (None: no controls) and the adversary's
    pairs : (G, 2) or None
        Controls of either player that meet each other only, -1 for none; None where
        both sets are searched.
    held : bool
        Whether the controller's policy is held fast and only the reply is chosen.
    """

    joint: QuadraticTables | GeneralTables
    own: ControlSet | None
    other: ControlSet
    pairs: Pairs | None = None
    held: bool = False

    @property
    def n_own(self) -> int:
        """Number of the controller's controls m."""
        return 0 if self.own is None else self.own.dimension

    @property
    def n_controls(self) -> int:
        """Number of both players' controls."""
        return self.n_own + self.other.dimension

    @property
    def rho(self) -> Array:
        """The discount."""
        return self.joint.rho

    @property
    def noise(self) -> Correlation | None:
        """Correlated noise as moves along offsets."""
        return self.joint.noise

    @property
    def off_axes(self) -> OffAxes | None:
        """Correlated noise as rates of one grid."""
        return self.joint.off_axes

    @property
    def correlated_axes(self) -> tuple[int, ...]:
        """Axes whose noise is correlated with another's somewhere."""
        return self.joint.correlated_axes

    @property
    def note(self) -> str:
        """How controls are chosen, in words."""
        if self.pairs is not None:
            return "both players' controls in closed form, pair by pair"
        why = f" ({self.joint.note})" if self.joint.note else ""
        return f"both players' controls searched at every node{why}"

    def holding(self) -> GameTables:
        """The tables for the adversary's problem: the controller's policy held."""
        return replace(self, held=True)

    def taken(self, nodes: NDArray[np.intp]) -> GameTables:
        """The tables on a subset of nodes."""
        return replace(self, joint=self.joint.taken(nodes))

    def on(self, faces: Faces, known: JumpRates | None = None) -> GameTables:
        """The tables with their correlated noise along the offsets of a grid."""
        return replace(self, joint=self.joint.on(faces, known))

    def under(self, u: Array) -> Coefficients:
        """Coefficients of both policies u (m + mb, N)."""
        return self.joint.under(u)

    def bounds(self, player: int, nodes: slice) -> tuple[Array, Array]:
        """Ends (m, n or 1) of a box: the controller's (0) or the adversary's (1)."""
        box = (self.own, self.other)[player]
        assert isinstance(box, Box)
        if not box.varies:
            return np.array(box.low)[:, None], np.array(box.high)[:, None]
        # Only two boxes may depend on the state: theirs are the joint ends.
        rows = slice(0, self.n_own) if player == 0 else slice(self.n_own, None)
        sides = []
        for side in (self.joint.low, self.joint.high):
            sides.append(side[rows] if side.shape[1] == 1 else side[rows, nodes])
        return sides[0], sides[1]


def tables_of(problem: ControlProblem, grid: Grid, faces: Faces) -> Tables | GameTables:
    """Tables of a problem with or without an adversary."""
    tabulated = tabulate if problem.adversary is None else tabulate_game
    return tabulated(problem, grid, faces)


def tabulate_game(problem: ControlProblem, grid: Grid, faces: Faces) -> GameTables:
    """Tables of a problem with an adversary on every node.

    Raises
    ------
    ProblemError
        As `tabulate`; bounds that depend on x beside a Finite set.
    MemoryBudgetError
        So many pairs of controls that one improvement would take an hour.
    """
    own, other = problem.controls, problem.adversary
    assert other is not None
    both = own is None or isinstance(own, Box)
    if not (both and isinstance(other, Box)):
        _refuse_varying(own, other)
    if not both or isinstance(other, Finite):
        _refuse_absurd(own, other, grid)
    joint, pairs = one_player(problem), None
    tables = tabulate(joint, grid, faces, opposed=other.dimension)
    if isinstance(tables, QuadraticTables):
        pairs = pairs_of_controls(tables, tables.n_controls - other.dimension)
        if pairs is None:
            x = grid.nodes().reshape(-1, grid.dimension)
            skip = None if faces.fixed_mask is None else faces.fixed_mask.ravel()
            note = "more than two controls meet in drift or payoff"
            tables = general_tables(joint, x, skip, note)
    if pairs is None:
        _refuse_absurd(own, other, grid)
    return GameTables(tables, own, other, pairs)


def game_tables_at(problem: ControlProblem, x: Array) -> GameTables:
    """Tables at scattered points x (n, d)."""
    joint, own, other = one_player(problem), problem.controls, problem.adversary
    assert other is not None
    rho, one, m = np.ones(1), np.zeros((0, 1)), joint.n_controls
    if not isinstance(joint.controls, Box):
        return GameTables(GeneralTables(joint, x, one, one, rho, None), own, other)
    low, high = (np.ascontiguousarray(side) for side in control_range(joint, x))
    rng, mb = np.random.default_rng(0), other.dimension
    fit = fit_quadratic(joint, x, low, high, rng, opposed=mb)
    if fit.structure.closed_form:
        tables = QuadraticTables(
            fit.f0, fit.B, fit.D, fit.r0, fit.r1, fit.R, low, high, rho
        )
        pairs = pairs_of_controls(tables, m - mb)
        if pairs is not None:
            return GameTables(tables, own, other, pairs)
    return GameTables(GeneralTables(joint, x, low, high, rho, None), own, other)


def pairs_of_controls(tables: QuadraticTables, m: int) -> Pairs | None:
    """The pairs (G, 2) that meet in no other's drift or payoff, None if there are more.

    Controls before m are the controller's. Beside a payoff that couples the two of a
    pair, the adversary's must be bounded.
    """
    total = tables.n_controls
    acts = (tables.B != 0.0).any(axis=2)
    meets = (tables.R != 0.0).any(axis=2) | (acts.T.astype(int) @ acts > 0)
    meets |= np.eye(total, dtype=bool)
    for _ in range(total):
        meets = meets @ meets
    found = []
    for i in range(total):
        group = np.flatnonzero(meets[i])
        first, second = group[group < m], group[group >= m]
        if len(first) > 1 or len(second) > 1:
            return None
        pair = (first[0] if len(first) else -1, second[0] if len(second) else -1)
        if min(pair) >= 0 and tables.R[pair].any():
            ends = tables.low[pair[1]], tables.high[pair[1]]
            if not np.isfinite(ends).all():
                return None
        if group[0] == i:
            found.append(pair)
    return np.array(found, np.int64).reshape(-1, 2)


def _refuse_varying(own: ControlSet | None, other: ControlSet) -> None:
    for field, controls in (("controls", own), ("adversary", other)):
        if not isinstance(controls, Box):
            continue
        if controls.varies or not (
            np.isfinite(controls.low).all() and np.isfinite(controls.high).all()
        ):
            raise ProblemError(
                f"'{field}' is a box with bounds that are infinite or depend on x, and "
                "the other player's set is finite: give constant finite bounds, or "
                "two boxes."
            )


def _refuse_absurd(own: ControlSet | None, other: ControlSet, grid: Grid) -> None:
    tried = tries_of(own) * tries_of(other)
    if tried * grid.size > MOST_TRIED:
        raise MemoryBudgetError(
            f"'adversary': {tried:.3g} pairs of controls on {grid.size:.3g} nodes are "
            f"{tried * grid.size:.2g} evaluations for one improvement of the policy, "
            "too many to wait for. Give smaller hjb.Finite sets, a coarser grid, or "
            "the structure that needs no search (drift affine in a and b, payoff "
            "quadratic, each control meeting one of the other player's at most)."
        )


def tries_of(controls: ControlSet | None) -> float:
    """How many controls one search of a set tries."""
    if controls is None:
        return 1
    if isinstance(controls, Finite):
        return len(controls.points)
    m = controls.dimension
    return LATTICE.get(m, 3) ** m + (1 if m == 1 else 2) * m * SECTIONS
