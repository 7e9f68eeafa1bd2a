"""Faces of a grid as arithmetic: fixed nodes and ghost values.

Every rule but Dirichlet gives the ghost node beyond a face the value
``V_ghost = A V_inside + B V_face + C``; folding the ghost's weight w into the face
row adds ``A w`` to the inner neighbour, ``-w (A + B - 1)`` to the discount and
``w C`` to the payoff. An artificial face is a Robin face whose slope is continued
from inside (see closure.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .boundary import Dirichlet, Extrapolate, Robin, StateConstraint
from .errors import ProblemError
from .given_data import given_at
from .grid import Grid
from .problem import ControlProblem

Array = NDArray[np.float64]


@dataclass(eq=False)
class FaceNodes:
    """One face: its rule in numbers. ``C`` is an array over the face's nodes."""

    axis: int
    side: str
    fixed: bool = False
    A: float = 1.0
    kappa: float = 0.0
    C: Any = 0.0
    artificial: bool = False
    geometric: bool = False
    damping: Any = 1.0
    step: float = 0.0
    slope: Any = 0.0
    inward_only: bool = False
    noiseless: bool = False

    @property
    def B(self) -> float:
        """Weight of the face's own value in its ghost."""
        return 1.0 - self.A + self.excess

    @property
    def excess(self) -> float:
        """A + B - 1, exactly 0 where no value is gained or lost at the face."""
        return -2.0 * self.step * self.kappa

    def at(self, depth: int, n: int) -> int:
        """Index on the axis of the node `depth` steps inside the face."""
        return depth if self.side == "low" else n - 1 - depth


@dataclass(eq=False)
class Faces:
    """All faces of one grid, in the maximising sense (costs carry a minus)."""

    grid: Grid
    faces: list[FaceNodes]
    fixed_mask: NDArray[np.bool_] | None = None
    fixed_values: Array | None = None
    padded: Array | None = field(default=None, repr=False)
    inside: bool = False
    """Whether nodes inside the domain are fixed too (an exit region)."""

    @classmethod
    def of(cls, problem: ControlProblem, grid: Grid) -> Faces:
        """The faces of `grid` under the rules of `problem`."""
        faces = [
            _numbers(problem, grid, axis, side, rule)
            for (axis, side), rule in problem.faces.items()
        ]
        out = cls(grid, faces)
        fixed = [face for face in faces if face.fixed]
        if problem.exit is not None:
            mask, values = exit_data(problem, grid)
            out.fixed_mask, out.fixed_values = mask, problem.sign * values
            out.inside = True
        elif fixed:
            out.fixed_mask = np.zeros(grid.shape, bool)
            out.fixed_values = np.zeros(grid.shape)
        for face in fixed:
            assert out.fixed_mask is not None
            assert out.fixed_values is not None
            slab = out.slab(face, 0)
            out.fixed_mask[slab] = True
            out.fixed_values[slab] = face.C
        return out

    def renew(self, problem: ControlProblem) -> None:
        """Take boundary data and exit values from `problem`, held at another time."""
        fresh = Faces.of(problem, self.grid)
        for face, now in zip(self.faces, fresh.faces, strict=True):
            if not face.artificial:
                face.C, face.slope = now.C, now.slope
        self.fixed_values = fresh.fixed_values

    def coarsened(self, grid: Grid) -> Faces:
        """The homogeneous faces of a coarser grid, for corrections."""
        faces = []
        for face in self.faces:
            copy = FaceNodes(**{**face.__dict__, "C": 0.0, "slope": 0.0})
            copy.step = _step(grid, face.axis, face.side)
            faces.append(copy)
        out = Faces(grid, faces, inside=self.inside)
        if self.fixed_mask is not None:
            kept = [
                np.searchsorted(fine, coarse)
                for fine, coarse in zip(self.grid.axes, grid.axes, strict=True)
            ]
            out.fixed_mask = self.fixed_mask[np.ix_(*kept)]
            out.fixed_values = np.zeros(grid.shape)
        return out

    def on_face(self, face: FaceNodes, values: Any) -> Array:
        """Values on a face, one number or an array, at its nodes in C order."""
        shape = self.grid.shape
        layer = (*shape[: face.axis], *shape[face.axis + 1 :])
        return np.broadcast_to(values, layer).ravel()

    def slab(self, face: FaceNodes, depth: int) -> tuple[Any, ...]:
        """Index of the layer of nodes `depth` steps inside a face."""
        where: list[Any] = [slice(None)] * self.grid.dimension
        where[face.axis] = face.at(depth, self.grid.shape[face.axis])
        return tuple(where)

    @property
    def artificial(self) -> list[FaceNodes]:
        """The faces without a rule."""
        return [face for face in self.faces if face.artificial]

    def limits(self) -> tuple[Array, Array]:
        """Range of admissible drift by axis and node index, both (d, max n)."""
        shape = (self.grid.dimension, max(self.grid.shape))
        low, high = np.full(shape, -np.inf), np.full(shape, np.inf)
        for face in self.faces:
            if face.inward_only:
                at = face.at(0, self.grid.shape[face.axis])
                (low if face.side == "low" else high)[face.axis, at] = 0.0
        return low, high

    def pad(self, V: Array) -> Array:
        """V with one layer of ghost values on every side (edges are unused)."""
        shape = self.grid.shape
        if self.padded is None:
            self.padded = np.zeros([n + 2 for n in shape])
        out = self.padded
        core = (slice(1, -1),) * len(shape)
        out[core] = V
        for axis, periodic in enumerate(self.grid.periodic):
            if periodic:
                out[_layer(core, axis, 0)] = V.take(-1, axis)
                out[_layer(core, axis, -1)] = V.take(0, axis)
        for face in self.faces:
            own, inside = V[self.slab(face, 0)], V[self.slab(face, 1)]
            end = 0 if face.side == "low" else -1
            if face.fixed:
                # No row reads it; the control on the face feels the slope inside.
                out[_layer(core, face.axis, end)] = 2.0 * own - inside
            else:
                ghost = face.A * inside + face.B * own + face.C
                out[_layer(core, face.axis, end)] = ghost
        return out

    def fold(self, lower: Array, upper: Array, c: Array, rhs: Array | None) -> None:
        """Fold ghost weights into the rows and make fixed rows the identity."""
        shape = self.grid.shape
        c = c.reshape(shape)
        for face in self.faces:
            if face.fixed:
                continue
            slab = self.slab(face, 0)
            out_w, in_w = (lower, upper) if face.side == "low" else (upper, lower)
            outside = out_w[face.axis].reshape(shape)
            inside = in_w[face.axis].reshape(shape)
            weight = outside[slab].copy()
            inside[slab] += face.A * weight
            if face.excess != 0.0:
                c[slab] -= face.excess * weight
            if rhs is not None:
                rhs.reshape(shape)[slab] += weight * face.C
            outside[slab] = 0.0
        if self.fixed_mask is not None:
            for k in range(len(shape)):
                lower[k].reshape(shape)[self.fixed_mask] = 0.0
                upper[k].reshape(shape)[self.fixed_mask] = 0.0
            c[self.fixed_mask] = 1.0
            if rhs is not None:
                assert self.fixed_values is not None
                rhs.reshape(shape)[self.fixed_mask] = self.fixed_values[self.fixed_mask]

    def set_fixed(self, V: Array, value: float | None = None) -> None:
        """Write the Dirichlet data (or one value) into V, in place."""
        if self.fixed_mask is not None:
            assert self.fixed_values is not None
            data = self.fixed_values[self.fixed_mask] if value is None else value
            V[self.fixed_mask] = data

    def ends(self) -> Array:
        """The two ends of a 1-D grid for the fused kernel, see `howard_sweep`."""
        rows = np.zeros((2, 5))
        for face in self.faces:
            row = rows[0 if face.side == "low" else 1]
            row[:] = (
                float(face.fixed),
                float(np.asarray(face.C)),
                face.A,
                face.B,
                face.excess,
            )
        return rows

    def set_slopes(self, slopes: list[Any]) -> None:
        """Outward slopes of V on the artificial faces, in their order."""
        for face, slope in zip(self.artificial, slopes, strict=True):
            face.slope = slope
            face.C = 2.0 * face.step * slope


def _layer(core: tuple[slice, ...], axis: int, end: int) -> tuple[Any, ...]:
    where: list[Any] = list(core)
    where[axis] = end
    return tuple(where)


def _step(grid: Grid, axis: int, side: str) -> float:
    x = grid.axes[axis]
    return float(x[1] - x[0] if side == "low" else x[-1] - x[-2])


def _numbers(
    problem: ControlProblem, grid: Grid, axis: int, side: str, rule: Any
) -> FaceNodes:
    face = FaceNodes(axis, side, step=_step(grid, axis, side))
    if rule is None:
        face.artificial = True
    elif isinstance(rule, Dirichlet):
        face.fixed = True
        face.C = problem.sign * face_data(grid, face, rule.g)
    elif isinstance(rule, Robin):
        face.kappa = rule.alpha / rule.beta
        data = problem.sign * face_data(grid, face, rule.g) / rule.beta
        face.C = 2.0 * face.step * data
        face.slope = data
    elif isinstance(rule, Extrapolate):
        face.A, face.inward_only = -1.0, True
    elif isinstance(rule, StateConstraint):
        face.inward_only = face.noiseless = True
    elif problem.diffusion is None:
        # Reflecting: drift alone is held at the face, noise would be mirrored.
        face.A = 0.0
    return face


def exit_data(problem: ControlProblem, grid: Grid) -> tuple[NDArray[np.bool_], Array]:
    """Nodes in the exit region and the value taken there, both (*shape)."""
    nodes = grid.nodes()
    phi = np.broadcast_to(np.asarray(problem.exit.region(nodes), float), grid.shape)
    if np.isnan(phi).any():
        raise ProblemError("'exit': region(x) is NaN on some nodes.")
    mask = phi <= 0
    if not mask.any():
        raise ProblemError(
            "'exit': no node of the grid lies in the exit region; refine the grid or "
            "enlarge the region."
        )
    values = np.zeros(grid.shape)
    values[mask] = given_at(problem.exit.value, nodes[mask], "'exit': value(x)")
    return mask, values


def face_data(grid: Grid, face: FaceNodes, g: Any) -> Array:
    """Boundary data on the nodes of a face, shape of the face."""
    axes = list(grid.axes)
    at = face.at(0, grid.shape[face.axis])
    axes[face.axis] = axes[face.axis][at : at + 1]
    shape = [n for k, n in enumerate(grid.shape) if k != face.axis]
    if not callable(g):
        values = np.full(shape, float(g))
    else:
        x = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
        x = x.reshape(-1, grid.dimension)
        found = np.asarray(g(x), dtype=float)
        try:
            values = np.broadcast_to(found, (len(x),))
        except ValueError:
            raise ProblemError(
                f"the data of face {(face.axis, face.side)} have shape "
                f"{found.shape} for {len(x)} points; expected one number a point."
            ) from None
        values = values.reshape(shape)
    if not np.isfinite(values).all():
        raise ProblemError(
            f"the data of face {(face.axis, face.side)} are not finite everywhere."
        )
    return values
