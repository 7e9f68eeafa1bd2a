"""Where a process is stopped: a set known by states on its surface."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from hjbpde.events import Exit
from hjbpde.sets import Box

Array = NDArray[np.float64]
NEIGHBOURS = 4
"""States used to find how the surface bends, times the dimension."""
FAR = 0.2
"""Half widths from the surface at which anchors take over from it."""


@dataclass(frozen=True, eq=False)
class StoppingSet:
    """Stop where ``(x - y) . n + (x - y)' S (x - y) / 2 <= 0``, y the nearest state.

    Distances are taken in the box scaled to [-1, 1]^d; S is the slope of the normals
    between neighbours. So the surface is wrong by a third power of the spacing of its
    states, and by smooth fit the value is wrong by the square of that only.

    Parameters
    ----------
    half : (d,)
        Half widths of the box.
    states : (n, d)
        On the surface; none where one stops nowhere or everywhere.
    normals : (n, d)
        Of length 1 in the scaled box, towards where the process goes on.
    owners : (n,)
        Which of the problem's rights to stop is used behind each state.
    anchors, anchor_stops : (k, d) and (k,)
        States all over the box and whether one stops there: they decide farther than
        FAR from the surface, where a plane through its rim may lie anywhere.
    everywhere : bool
        Without states: whether one stops everywhere or nowhere.
    """

    half: Array
    states: Array
    normals: Array
    owners: NDArray[np.int64]
    anchors: Array
    anchor_stops: NDArray[np.bool_]
    everywhere: bool = False

    @classmethod
    def constant(cls, half: Array, everywhere: bool) -> StoppingSet:
        """Everything or nothing."""
        none = np.zeros((0, len(half)))
        owners, stops = np.zeros(0, np.int64), np.zeros(0, bool)
        return cls(half, none, none, owners, none, stops, everywhere)

    @property
    def is_rooted(self) -> bool:
        """Whether with a horizon its last state is -sqrt(1 - t/T), not t."""
        return True

    @property
    def is_nowhere(self) -> bool:
        """Whether it is known that nobody stops anywhere."""
        return not len(self.states) and not self.everywhere

    @cached_property
    def _tree(self) -> KDTree:
        return KDTree(self.states / self.half)

    @cached_property
    def _anchor_tree(self) -> KDTree:
        return KDTree(self.anchors / self.half)

    @cached_property
    def _slopes(self) -> Array:
        """S at every state, (n, d, d): ``n_j - n_i = S (y_j - y_i)`` for neighbours."""
        n, d = self.states.shape
        if d == 1 or n <= NEIGHBOURS * d:
            return np.zeros((n, d, d))
        z = self.states / self.half
        near = np.asarray(self._tree.query(z, NEIGHBOURS * d + 1)[1])[:, 1:]
        steps, turns = z[near] - z[:, None], self.normals[near] - self.normals[:, None]
        # Behind an edge or on another sheet the normal jumps: that is no slope.
        same = (turns**2).sum(-1) < 0.5
        steps, turns = steps * same[..., None], turns * same[..., None]
        square = np.einsum("nki,nkj->nij", steps, steps)
        ridge = 1e-6 * np.trace(square, axis1=1, axis2=2)[:, None, None] + 1e-30
        mixed = np.einsum("nki,nkj->nij", steps, turns)
        slopes = np.linalg.solve(square + ridge * np.eye(d), mixed)
        tangent = np.eye(d) - self.normals[:, :, None] * self.normals[:, None]
        slopes = tangent @ (0.5 * (slopes + slopes.transpose(0, 2, 1))) @ tangent
        return slopes

    def nearest(self, x: Array) -> NDArray[np.int64]:
        """Index of the state of the surface nearest to x (n, d), shape (n,)."""
        return np.asarray(self._tree.query(x / self.half)[1], dtype=np.int64)

    def signed(self, x: Array) -> Array:
        """Distance to the surface at x (n, d), negative where one stops, (n,)."""
        if not len(self.states):
            return np.full(len(x), -1.0 if self.everywhere else 1.0)
        k = self.nearest(x)
        away = (x - self.states[k]) / self.half
        bent = 0.5 * np.einsum("ni,nij,nj->n", away, self._slopes[k], away)
        signed, r = (
            (away * self.normals[k]).sum(-1) + bent,
            np.linalg.norm(away, axis=1),
        )
        far = r > FAR
        if far.any() and len(self.anchors):
            at = np.asarray(self._anchor_tree.query(x[far] / self.half)[1])
            signed[far] = np.where(self.anchor_stops[at], -r[far], r[far])
        return signed

    def stops(self, x: Array) -> NDArray[np.bool_]:
        """Whether one stops at x (n, d), shape (n,)."""
        return self.signed(x) <= 0

    def owner_at(self, x: Array) -> NDArray[np.int64]:
        """Which right to stop is the nearest one to x (n, d), shape (n,)."""
        if not len(self.states):
            return np.zeros(len(x), np.int64)
        return self.owners[self.nearest(x)]

    def only(self, kept: NDArray[np.bool_]) -> StoppingSet:
        """The set with fewer states on its surface; nowhere where none is left."""
        if not kept.any():
            return StoppingSet.constant(self.half, False)
        states, normals = self.states[kept], self.normals[kept]
        return replace(self, states=states, normals=normals, owners=self.owners[kept])

    def moved(self, states: Array, normals: Array) -> StoppingSet:
        """The set with its surface elsewhere; anchors near the new one follow it."""
        found = replace(self, states=states, normals=normals)
        if not len(self.anchors):
            return found
        distance = found._tree.query(self.anchors / self.half)[0]
        near = np.asarray(distance) <= FAR
        stops = self.anchor_stops.copy()
        stops[near] = found.signed(self.anchors[near]) <= 0
        return replace(found, anchor_stops=stops)

    def arrays(self) -> dict[str, Array]:
        """Everything needed to rebuild it."""
        return {
            "half": self.half,
            "states": self.states,
            "normals": self.normals,
            "owners": self.owners.astype(float),
            "anchors": self.anchors,
            "anchor_stops": self.anchor_stops.astype(float),
            "everywhere": np.array([float(self.everywhere)]),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> StoppingSet:
        """The inverse of `arrays`."""
        half, states, normals, anchors = (
            arrays[name] for name in ("half", "states", "normals", "anchors")
        )
        owners = arrays["owners"].astype(np.int64)
        stops, everywhere = arrays["anchor_stops"] > 0, arrays["everywhere"][0] > 0
        return cls(half, states, normals, owners, anchors, stops, bool(everywhere))


@dataclass(frozen=True)
class SettledExit(Exit):
    """An exit region whose surface is known: no search by bisection is needed.

    Parameters
    ----------
    surface : (n, d)
        States on it.
    within : Box
        Around where the process runs.
    """

    surface: Any = None
    within: Box | None = None
