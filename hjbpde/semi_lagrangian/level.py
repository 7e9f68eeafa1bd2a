"""Policy iteration on one grid: the value of a policy is one sparse linear system."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from ..errors import NotConverged, ProblemError
from ..faces import Faces
from ..grid import Grid
from ..methods.policy_iteration import Closing
from ..probe import discount_of
from .lookahead import Lookahead
from .obstacles import Obstacles
from .search import Search

Array = NDArray[np.float64]
DIRECT = 6000
"""Unknowns up to which elimination is tried first."""
DIRECT_PLANE = 40000
"""The same where rows are short: two states at most, four readings."""
PATIENCE = 6
"""Policies without halving the change before an iteration counts as stagnated."""


@dataclass(eq=False)
class Level:
    """One grid: its faces, its steps, the value (*shape) and policy (free, m)."""

    faces: Faces
    look: Lookahead
    search: Search
    V: Array
    a: Array
    obstacles: Obstacles | None = None
    settled: Array | None = None
    """With rights to stop, what free nodes (n,) are settled at; NaN where they run."""
    changes: list[float] = field(default_factory=list)
    status: str = ""
    solver: str = ""

    @property
    def grid(self) -> Grid:
        """The grid."""
        return self.look.grid

    @property
    def scale(self) -> float:
        """sup |V|."""
        return float(np.max(np.abs(self.V))) or 1.0

    @property
    def algebraic(self) -> float:
        """What further policies may still change."""
        return 2.0 * self.changes[-1] if self.changes else 0.0

    @property
    def least_loss(self) -> float:
        """Smallest share of the value that a step discounts."""
        if self.look.surface is not None:
            rows, _ = self.rows()
            steps, _ = solve_rows(
                rows, np.ones(self.grid.size), np.zeros(self.grid.size)
            )
            return 1.0 / max(float(np.max(np.abs(steps))), 1.0)
        rho = float(np.min(discount_of(self.look.problem, self.look.x)))
        return max(-np.expm1(-rho * self.look.delta), 1e-12)

    def improve(self, wide: bool) -> None:
        """Controls, and the choice to stop, that are better given V."""
        self.a, worth = self.search.improve(self.V.ravel(), self.a, wide)
        if self.obstacles is not None:
            held = self.obstacles.hold(worth, self.look.free)
            self.settled = np.where(held != worth, held, np.nan)

    def rows(self) -> tuple[sp.csr_matrix, Array]:
        """``I - P`` and the right-hand side of the policy, all nodes."""
        step = self.look.step(self.a)
        n = self.grid.size
        inner = step.matrix(self.look.lattice, n)
        pick = sp.csr_matrix(
            (
                np.ones(len(self.look.free)),
                (self.look.free, np.arange(len(self.look.x))),
            ),
            shape=(n, len(self.look.x)),
        )
        rhs = np.zeros(n)
        mask = self.faces.fixed_mask
        if mask is not None:
            assert self.faces.fixed_values is not None
            rhs[mask.ravel()] = self.faces.fixed_values[mask]
        rhs[self.look.free] = step.gain
        surface = self.look.surface
        if surface is not None:
            beyond = surface.beyond(self.look.problem)
            rhs[self.look.free] += inner[:, surface.ghosts] @ beyond
            inner = surface.folded(inner)
        if self.settled is not None:
            stopped = np.isfinite(self.settled)
            rhs[self.look.free[stopped]] = self.settled[stopped]
            inner = sp.diags_array((~stopped).astype(float)) @ inner
        return sp.csr_matrix(sp.identity(n, format="csr") - pick @ inner), rhs


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
    x = spla.splu(rows.tocsc()).solve(rhs)
    if left(x) <= 1e-9 * size:
        return x, "elimination"
    raise NotConverged(
        f"semi-Lagrangian policy evaluation on {n} nodes leaves a residual of "
        f"{left(x):.3g}. Likely a value that is infinite under the policy: discount "
        "too small for the growth of the payoff."
    )


def settle(
    level: Level, tolerance: float, most: int, slope_updates: int, wide: bool = False
) -> None:
    """Policies until the value changes by less than tolerance * scale, in place."""
    closing = Closing(level, slope_updates)  # type: ignore[arg-type]
    best, stalled = np.inf, 0
    for n in range(most):
        # The best of all controls is looked for at the start and again at the end.
        scan = wide and n < 2
        scan |= n > 0 and level.changes[-1] <= 1e-4 * level.scale
        level.improve(scan)
        if n and closing.due(level.changes[-1] / level.scale):
            closing.update()
        rows, rhs = level.rows()
        V, level.solver = solve_rows(rows, rhs, level.V.ravel())
        V = V.reshape(level.grid.shape)
        change = float(np.max(np.abs(V - level.V)))
        level.V = V
        level.changes.append(change)
        if change <= tolerance * level.scale and closing.done and scan:
            level.status = "converged"
            return
        stalled = stalled + 1 if change > 0.5 * best else 0
        best = min(best, change)
        if stalled >= PATIENCE and closing.done:
            break
    small = level.changes[-1] <= 1e-3 * level.scale
    level.status = "stagnated" if small else "not converged"


def admit(level: Level) -> None:
    """Replace controls that would leave through a wall at once, in place.

    Raises
    ------
    ProblemError
        A node where every control does.
    """
    lost = ~np.isfinite(level.look.step(level.a).gain)
    if lost.any():
        a, worth = level.search.improve(level.V.ravel(), level.a, wide=True)
        level.a[lost] = a[lost]
        if not np.isfinite(worth).all():
            raise inadmissible(level.look, worth)


def inadmissible(look: Lookahead, worth: Array) -> ProblemError:
    """The error that names the first node where every control is worth -inf."""
    bad = int(np.flatnonzero(~np.isfinite(worth))[0])
    return ProblemError(
        f"no admissible control at x = {look.x[bad]}: under each of them "
        "drift or noise crosses the state-constrained face at once. Let the "
        "noise vanish there, or use Reflecting()."
    )


def spread_policy(look: Lookahead, faces: Faces, a: Array) -> Array:
    """The policy (*shape, m): on nodes that carry data that of the nearest free one."""
    grid, mask = look.grid, faces.fixed_mask
    out = np.zeros((grid.size, a.shape[1]))
    out[look.free] = a
    out = out.reshape(*grid.shape, -1)
    if mask is None or not mask.any():
        return out
    found = distance_transform_edt(mask, return_distances=False, return_indices=True)
    return out[tuple(np.asarray(found))]
