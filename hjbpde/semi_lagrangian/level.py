"""One mode on one grid: what its steps read, under a policy that may be improved."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from ..errors import ProblemError
from ..faces import Faces
from ..grid import Grid
from .game_search import GameSearch
from .lookahead import Lookahead
from .obstacles import Obstacles
from .search import Search

Array = NDArray[np.float64]


@dataclass(eq=False)
class Level:
    """A mode on a grid: faces, steps, the value (*shape) and policy (free, m)."""

    faces: Faces
    look: Lookahead
    search: Search | GameSearch
    V: Array
    a: Array
    obstacles: Obstacles | None = None
    settled: Array | None = None
    """With rights to stop, what free nodes (n,) are settled at; NaN where they run."""

    @property
    def grid(self) -> Grid:
        """The grid."""
        return self.look.grid

    @property
    def scale(self) -> float:
        """sup |V|."""
        return float(np.max(np.abs(self.V))) or 1.0

    def improve(self, V: Array, wide: bool) -> None:
        """Controls, and the choice to stop, that are better given V of all modes."""
        self.a, worth = self.search.improve(V, self.a, wide)
        if self.obstacles is not None:
            held = self.obstacles.hold(worth, self.look.free)
            self.settled = np.where(held != worth, held, np.nan)

    def rows(self, looks: list[Lookahead]) -> tuple[sp.csr_matrix, Array]:
        """P (N, K N) and the right-hand side of ``V = P V + rhs``, all nodes.

        `looks` are those of all modes, whose exits are met by what is read there.
        """
        step, free, n = self.look.step(self.a), self.look.free, self.grid.size
        rhs, blocks = np.zeros(n), []
        if self.faces.fixed_mask is not None:
            assert self.faces.fixed_values is not None
            mask = self.faces.fixed_mask
            rhs[mask.ravel()] = self.faces.fixed_values[mask]
        rhs[free] = step.gain
        for mode, look in enumerate(looks):
            inner, surface = step.matrix(self.look.lattice, n, mode), look.surface
            if surface is not None:
                rhs[free] += inner[:, surface.ghosts] @ surface.beyond(look.problem)
                inner = surface.folded(inner)
            blocks.append(inner)
        inner = sp.csr_matrix(sp.hstack(blocks))
        if self.settled is not None:
            stopped = np.isfinite(self.settled)
            rhs[free[stopped]] = self.settled[stopped]
            inner = sp.diags_array((~stopped).astype(float)) @ inner
        entries = (np.ones(len(free)), (free, np.arange(len(free))))
        pick = sp.csr_matrix(entries, shape=(n, len(free)))
        return sp.csr_matrix(pick @ inner), rhs


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
