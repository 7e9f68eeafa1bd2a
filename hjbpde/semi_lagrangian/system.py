"""Policy iteration on one grid: the value of a policy is one sparse linear system.

All modes are solved together; without modes there is one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla
from numpy.typing import NDArray

from ..coefficients import discount_of
from ..errors import NotConverged
from ..grid import Grid
from ..methods.policy_iteration import Closing
from ..prolongation import cubically_prolonged
from .game_search import GameSearch
from .level import Level, inadmissible
from .lookahead import Lookahead
from .memory import memory_of_faces, prefixed, recall_faces, under

Array = NDArray[np.float64]
DIRECT = 6000
"""Unknowns up to which elimination is tried first."""
DIRECT_PLANE = 40000
"""The same where rows are short: two states at most, four readings."""
FALLS = 1e-9
"""Share of sup|V| by which round-off lets values fall from policy to policy."""
PATIENCE = 6
"""Policies without halving the change before an iteration counts as stagnated."""


@dataclass(eq=False)
class System:
    """The levels of all modes on one grid."""

    levels: list[Level]
    changes: list[float] = field(default_factory=list)
    status: str = ""
    solver: str = ""

    @property
    def grid(self) -> Grid:
        """The grid."""
        return self.levels[0].grid

    @property
    def looks(self) -> list[Lookahead]:
        """The steps of all modes."""
        return [level.look for level in self.levels]

    @property
    def V(self) -> Array:
        """(K, *shape), maximised."""
        return np.stack([level.V for level in self.levels])

    @V.setter
    def V(self, values: Array) -> None:
        for level, V in zip(self.levels, values, strict=True):
            level.V = V

    @property
    def scale(self) -> float:
        """sup |V|."""
        return max(level.scale for level in self.levels)

    @property
    def held(self) -> int:
        """Number of nodes that somebody stops at."""
        known = [v.settled for v in self.levels if v.settled is not None]
        return sum(int(np.isfinite(settled).sum()) for settled in known)

    @property
    def is_game(self) -> bool:
        """Whether an adversary plays."""
        return any(isinstance(level.search, GameSearch) for level in self.levels)

    @property
    def algebraic(self) -> float:
        """What further policies may still change."""
        return 2.0 * self.changes[-1] if self.changes else 0.0

    @property
    def least_loss(self) -> float:
        """Smallest share of the value that a step discounts."""
        if any(look.surface is not None for look in self.looks):
            rows, rhs = self.rows()
            steps, _ = solve_rows(rows, np.ones(rhs.size), np.zeros(rhs.size))
            return 1.0 / max(float(np.max(np.abs(steps))), 1.0)
        return max(min(_loss(look) for look in self.looks), 1e-12)

    def read(self) -> Array:
        """V as it is read, (K, N)."""
        return np.stack([v.look.continued(v.V.ravel()) for v in self.levels])

    def memory(self) -> dict[str, NDArray[Any]]:
        """A grid that is settled, for the checkpoint."""
        out: dict[str, NDArray[Any]] = {
            "changes": np.array(self.changes),
            "status": np.array(self.status),
            "solver": np.array(self.solver),
        }
        for k, level in enumerate(self.levels):
            own = {"V": level.V, "a": level.a, **memory_of_faces(level.faces)}
            if level.settled is not None:
                own["settled"] = level.settled
            out |= prefixed(f"mode{k}.", own)
        return out

    def recall(self, memory: Mapping[str, NDArray[Any]]) -> None:
        """Go, from a start, to where `memory` left the system."""
        self.changes = [float(change) for change in memory["changes"]]
        self.status, self.solver = str(memory["status"]), str(memory["solver"])
        for k, level in enumerate(self.levels):
            own = under(f"mode{k}.", memory)
            level.V, level.a = own["V"].copy(), own["a"].copy()
            level.settled = own["settled"].copy() if "settled" in own else None
            recall_faces(level.faces, own)

    def improve(self, wide: bool) -> None:
        """Better policies of all modes given V."""
        V = self.read()
        for level in self.levels:
            level.improve(V, wide)

    def rows(self) -> tuple[sp.csr_matrix, Array]:
        """``I - P`` and the right-hand side of the policies, all nodes and modes."""
        found = [level.rows(self.looks) for level in self.levels]
        P = sp.vstack([inner for inner, _ in found])
        rhs = np.concatenate([one for _, one in found])
        return sp.csr_matrix(sp.identity(rhs.size, format="csr") - P), rhs

    def felt(self) -> sp.csr_matrix:
        """Rows that carry a wrong slope at a face to V."""
        return self.rows()[0]

    def evaluate(self) -> float:
        """V of the policies; how much it changed."""
        rows, rhs = self.rows()
        before = self.V
        found, self.solver = solve_rows(rows, rhs, before.ravel())
        self.V = found.reshape(before.shape)
        return float(np.max(np.abs(self.V - before)))

    def admit(self) -> None:
        """Replace controls that would leave through a wall at once, in place.

        Raises
        ------
        ProblemError
            A node where every control does.
        """
        V = self.read()
        for level in self.levels:
            lost = ~np.isfinite(level.look.step(level.a).gain)
            if lost.any():
                a, worth = level.search.improve(V, level.a, wide=True)
                level.a[lost] = a[lost]
                if not np.isfinite(worth).all():
                    raise inadmissible(level.look, worth)


def _loss(look: Lookahead) -> float:
    """Smallest share of V that a whole step of one mode discounts."""
    rho = discount_of(look.problem, look.x)
    c = np.maximum(rho + look.leaving(look.x), np.finfo(float).tiny)
    return float(np.min(-np.expm1(-c * look.delta) * rho / c))


def solve_rows(rows: sp.csr_matrix, rhs: Array, start: Array) -> tuple[Array, str]:
    """x with rows x = rhs, and how it was found.

    Raises
    ------
    NotConverged
        Where neither the iteration nor elimination leaves a small residual.
    """
    size = float(np.max(np.abs(rhs))) + float(np.max(np.abs(start))) + 1e-300

    def left(x: Array) -> float:
        return float(np.max(np.abs(rhs - rows @ x))) if np.isfinite(x).all() else np.inf

    n = rhs.size
    enough = DIRECT_PLANE if rows.nnz < 24 * n else DIRECT
    if n > enough:
        x, best = start, left(start)
        for _ in range(6):
            correction, _ = spla.bicgstab(
                rows, rhs - rows @ x, rtol=1e-8, atol=0.0, maxiter=400
            )
            after = left(x + correction)
            if after >= best:
                break
            x, best = x + correction, after
            if best <= 1e-13 * size:
                return x, "stabilised biconjugate gradients"
        if best <= 1e-11 * size:
            return x, "stabilised biconjugate gradients"
    try:
        x = spla.splu(rows.tocsc()).solve(rhs)
    except RuntimeError:
        # SuperLU's word for a singular matrix.
        x = np.full(n, np.nan)
    if left(x) <= 1e-9 * size:
        return x, "elimination"
    raise NotConverged(
        f"semi-Lagrangian policy evaluation on {n} nodes leaves a residual of "
        f"{left(x):.3g}. Likely a value that is infinite under the policy: discount "
        "too small for the growth of the payoff or, without discount, a process that "
        "nothing ends."
    )


def settle(
    system: System, tolerance: float, most: int, slope_updates: int, wide: bool = False
) -> None:
    """Policies until the value changes by less than tolerance * scale, in place.

    Both players of a game improve at once, which may go round in circles; then every
    choice of the controller is answered to the end before the next (Hoffman and Karp,
    Management Science 12 (1966) 359).
    """
    _settle(system, tolerance, most, slope_updates, wide)
    if system.status == "not converged" and system.is_game:
        climb(system, tolerance, most, slope_updates)


def _settle(
    system: System, tolerance: float, most: int, slope_updates: int, wide: bool
) -> None:
    """Policies of all, until V settles."""
    closings = [
        Closing(level, slope_updates)  # type: ignore[arg-type]
        for level in system.levels
    ]
    best, stalled, fewest = np.inf, 0, system.grid.size * len(system.levels) + 1
    for n in range(most):
        # The best of all controls is looked for at the start and again at the end.
        scan = wide and n < 2
        scan |= n > 0 and system.changes[-1] <= 1e-4 * system.scale
        system.improve(scan)
        for closing in closings if n else []:
            if closing.due(system.changes[-1] / system.scale):
                closing.update()
        before = system.V
        change = system.evaluate()
        system.changes.append(change)
        done = all(closing.done for closing in closings)
        if change <= tolerance * system.scale and done and scan:
            system.status = "converged"
            return
        stalled = stalled + 1 if change > 0.5 * best else 0
        best = min(best, change)
        if not system.is_game and n and _only_rises(before, system):
            # A switch of controls moves by the reach of a step, V as much each time.
            stalled = 0
        if 0 < system.held < fewest:
            # A set to stop in recedes by the reach of a step, V as much each time.
            fewest, stalled = system.held, 0
        if stalled >= PATIENCE and done:
            break
    small = system.changes[-1] <= 1e-3 * system.scale
    system.status = "stagnated" if small else "not converged"


def _only_rises(before: Array, system: System) -> bool:
    """Whether no value fell, as under monotone readings: such policies arrive."""
    return float(np.min(system.V - before)) >= -FALLS * system.scale


def climb(system: System, tolerance: float, most: int, slope_updates: int) -> None:
    """Choices of the controller, each answered to the end, in place."""
    searches = [level.search for level in system.levels]
    players = [one for one in searches if isinstance(one, GameSearch)]
    for n in range(most):
        before = system.V
        system.improve(wide=n % 4 == 0)
        for player in players:
            player.holding = True
        _settle(system, 0.1 * tolerance, most, slope_updates if n == 0 else 4, False)
        for player in players:
            player.holding = False
        answered, system.status = system.status, "not converged"
        change = float(np.max(np.abs(system.V - before)))
        system.changes.append(change)
        if answered == "not converged":
            return
        if change <= tolerance * system.scale:
            system.status = answered
            return


def extrapolated(fine: Array, coarse: Array, grid: Grid, order: int) -> Array:
    """Values (q, *shape) from those on the grid and on its coarsening."""
    kept = np.ix_(*(grid.kept(k) for k in range(grid.dimension)))
    change = [
        cubically_prolonged(V[kept] - W, grid)
        for V, W in zip(fine, coarse, strict=True)
    ]
    return fine + np.stack(change) / (2.0**order - 1.0)
