"""Everything known on one grid while it is being solved."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..faces import Faces
from ..grid import Grid
from ..improvement import initial_policy
from ..kernels.upwind import assemble
from ..linear import Ladder, Rows, default_ladder
from ..multigrid import spacings
from ..probe import Coefficients
from ..tabulate import Tables

Array = NDArray[np.float64]


@dataclass(eq=False)
class GridState:
    """Everything known on one grid; fields fill up as the solve goes on."""

    grid: Grid
    faces: Faces
    tables: Tables
    scheme: int
    V: Array
    a: Array
    ladder: Ladder
    bounds: list[float] = field(default_factory=list)
    status: str = ""
    under: Coefficients | None = None
    amplification: float | None = None
    """max w of A w = 1 where it was solved for; 1 / rho_min bounds it elsewhere."""

    @property
    def rho_min(self) -> float:
        """Smallest discount rate."""
        return float(np.min(self.tables.rho))

    def algebraic(self) -> float:
        """Bound of |V - V_h| from the last residual."""
        last = self.bounds[-1]
        if self.amplification is None:
            return last
        return last * self.rho_min * self.amplification

    @property
    def scale(self) -> float:
        """sup |V|."""
        return float(np.max(np.abs(self.V))) or 1.0

    def spread_rho(self) -> Array:
        """The discount on every node, a fresh array."""
        return np.array(np.broadcast_to(self.tables.rho, (self.grid.size,)))

    def rows(self, under: Coefficients) -> tuple[Rows, Array, Array]:
        """Rows before folding, and the weights that folding will change."""
        d, n = under.f.shape
        lower, upper = np.empty((d, n)), np.empty((d, n))
        shape = np.array(self.grid.shape, np.int64)
        assemble(
            self.scheme, shape, *spacings(self.grid), under.f, under.D, lower, upper
        )
        rows = Rows(
            self.grid, self.faces, lower, upper, self.spread_rho(), under.f, under.D,
            self.scheme,
        )  # fmt: skip
        return rows, lower, upper

    def folded(self, under: Coefficients) -> tuple[Rows, Array]:
        """Rows with the faces folded in, and their right-hand side."""
        rows, lower, upper = self.rows(under)
        rhs = under.r.copy()
        self.faces.fold(lower, upper, rows.c, rhs)
        return rows, rhs


def make_state(
    problem_faces: Faces,
    tables: Tables,
    scheme: int,
    V: Array | None = None,
    a: Array | None = None,
) -> GridState:
    """A state at V (0 by default) and policy a."""
    grid = problem_faces.grid
    if V is None:
        V = np.zeros(grid.shape)
        problem_faces.set_fixed(V)
    if a is None:
        a = initial_policy(tables, grid.size)
    return GridState(grid, problem_faces, tables, scheme, V, a, default_ladder(grid))
