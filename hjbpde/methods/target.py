"""The region in which a process ends, as geometry: inside, nearest points, a point."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation

from ..boundary import Dirichlet
from ..errors import ProblemError
from ..faces import FaceNodes, face_data
from ..given_data import given_at
from ..grid import Grid
from ..problem import ControlProblem

Array = NDArray[np.float64]
STEP = 1e-6
"""Step of differences of phi, relative to the domain's width."""
NEWTON = 12
"""Steps towards the nearest point of the region's border."""
BAND = 2
"""Layers of nodes around the region whose value is set from the nearest point."""


@dataclass(frozen=True)
class Target:
    """The exit region on one grid.

    phi, g (*shape): level, and value as a cost: that of the nearest point of the region
    within the band, elsewhere that of some point of it. inside, band: bool (*shape).
    nearest: (n, d), for the n nodes of the band in C order. point: the only point (d,),
    or None. on_faces (*shape): the cost given on `Dirichlet` faces, infinite elsewhere.
    """

    phi: Array
    g: Array
    inside: NDArray[np.bool_]
    band: NDArray[np.bool_]
    nearest: Array
    point: Array | None
    on_faces: Array

    @property
    def value_nearest(self) -> Array:
        """g at the nearest points of the band, (n,)."""
        return self.g[self.band]


def target_of(problem: ControlProblem, grid: Grid) -> Target:
    """Where the exit region of the problem lies on the grid.

    Raises
    ------
    ProblemError
        phi or g not finite, or neither a node nor an isolated zero in the region.
    """
    nodes = grid.nodes()
    phi = _level(problem, nodes)
    inside = phi <= 0
    point = None
    if np.count_nonzero(inside) <= 1:
        point = _isolated_zero(
            problem, grid, nodes[np.unravel_index(phi.argmin(), phi.shape)]
        )
    if not inside.any() and point is None:
        raise ProblemError(
            "'exit': no node of the grid lies in the exit region, and it is not a "
            "single point; refine the grid or enlarge the region."
        )
    seed = inside.copy()
    if point is not None:
        cell = [
            np.clip(np.searchsorted(x, p) - np.array([1, 0]), 0, x.size - 1)
            for x, p in zip(grid.axes, point, strict=True)
        ]
        seed[np.ix_(*cell)] = True
    on_faces = np.where(inside, np.inf, _on_faces(problem, grid))
    near = _dilated(seed, grid) & ~inside
    if point is None:
        # There the straight way may lead across the face.
        near &= ~_dilated(np.isfinite(on_faces), grid)
    x = nodes[near]
    nearest = (
        np.broadcast_to(point, x.shape)
        if point is not None
        else _project(problem, grid, x)
    )
    g = np.full(grid.shape, np.nan)
    g[inside] = _values(problem, nodes[inside])
    g[near] = _values(problem, nearest)
    g[np.isnan(g)] = np.nanmin(g)
    return Target(phi, g, inside, near, np.array(nearest), point, on_faces)


def _on_faces(problem: ControlProblem, grid: Grid) -> Array:
    """What is paid where a path leaves through a face, the least where faces meet."""
    paid = np.full(grid.shape, np.inf)
    for (axis, side), rule in problem.faces.items():
        if isinstance(rule, Dirichlet):
            face = FaceNodes(axis, side)
            layer = [slice(None)] * grid.dimension
            at = face.at(0, grid.shape[axis])
            layer[axis] = slice(at, at + 1)
            data = -problem.sign * face_data(grid, face, rule.g)
            data = np.expand_dims(data, axis)
            paid[tuple(layer)] = np.minimum(paid[tuple(layer)], data)
    return paid


def _level(problem: ControlProblem, x: Array) -> Array:
    phi = np.broadcast_to(np.asarray(problem.exit.region(x), float), x.shape[:-1])
    if not np.isfinite(phi).all():
        where = x[~np.isfinite(phi)][0]
        raise ProblemError(f"'exit': region(x) is not finite at x = {where}.")
    return np.array(phi)


def _values(problem: ControlProblem, x: Array) -> Array:
    return -problem.sign * given_at(problem.exit.value, x, "'exit': value(x)")


def _dilated(mask: NDArray[np.bool_], grid: Grid) -> NDArray[np.bool_]:
    widths = [(BAND if p else 0,) * 2 for p in grid.periodic]
    wide = np.pad(mask, widths, mode="wrap")
    wide = np.asarray(
        binary_dilation(wide, np.ones((3,) * mask.ndim, bool), iterations=BAND), bool
    )
    cut = tuple(slice(w[0], w[0] + n) for w, n in zip(widths, mask.shape, strict=True))
    return wide[cut]


def _gradient(problem: ControlProblem, grid: Grid, x: Array) -> Array:
    """grad phi by differences that stay inside the domain, (n, d)."""
    domain = grid.domain
    low, high = np.asarray(domain.low), np.asarray(domain.high)
    out = np.empty_like(x)
    for k in range(x.shape[1]):
        up, down = x.copy(), x.copy()
        step = STEP * float(domain.width[k])
        up[:, k] = np.minimum(x[:, k] + step, high[k])
        down[:, k] = np.maximum(x[:, k] - step, low[k])
        rise = _level(problem, up) - _level(problem, down)
        out[:, k] = rise / (up[:, k] - down[:, k])
    return out


def _project(problem: ControlProblem, grid: Grid, x: Array) -> Array:
    """Points of {phi = 0} nearest to x (n, d).

    Alternates a Newton step on phi with a step along the tangent plane towards x
    (Chopp, SIAM J. Sci. Comput. 23 (2001) 230, section 2.2).
    """
    domain, y = grid.domain, x.copy()
    reach = 2.0 * BAND * np.array([np.max(grid.spacing(k)) for k in range(x.shape[1])])
    for _ in range(NEWTON):
        slope = _gradient(problem, grid, y)
        size = np.maximum((slope**2).sum(1, keepdims=True), 1e-300)
        off = x - y
        along = off - (off * slope).sum(1, keepdims=True) / size * slope
        step = -_level(problem, y)[:, None] / size * slope + along
        y = domain.clip(np.clip(y + step, x - reach, x + reach))
    slope = _gradient(problem, grid, y)
    size = np.maximum((slope**2).sum(1, keepdims=True), 1e-300)
    return domain.clip(y - _level(problem, y)[:, None] / size * slope)


def _isolated_zero(problem: ControlProblem, grid: Grid, start: Array) -> Array | None:
    """The only point of the region near `start`, None where it is more than a point."""
    steps = np.array([np.max(grid.spacing(k)[0]) for k in range(grid.dimension)])
    y = trial = start[None, :].copy()
    lowest = np.inf
    for _ in range(NEWTON):
        level = float(_level(problem, trial)[0])
        # At a cone's tip differences see no slope, so the best point is kept.
        if level >= lowest:
            break
        y, lowest = trial, level
        slope = _gradient(problem, grid, y)
        size = max(float((slope**2).sum()), 1e-300)
        trial = grid.domain.clip(y - level / size * slope)
    if abs(lowest) > 1e-7 * float(np.min(grid.domain.width)):
        return None
    if np.any(np.abs(y[0] - start) > 2 * steps):
        return None
    eye = np.eye(grid.dimension)
    around = grid.domain.clip(y + 1e-3 * np.concatenate([eye, -eye]) * steps)
    moved = np.abs(around - y).max(1) > 0
    return y[0] if (_level(problem, around)[moved] > 0).all() else None
