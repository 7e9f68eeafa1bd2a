"""The grid's answer for the marginals of a forward process, in 1-D and 2-D."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.interpolate import RegularGridInterpolator
from scipy.sparse.linalg import splu

from hjbpde.errors import ProblemError
from hjbpde.grid import Grid
from hjbpde.real_numbers import real_array

from .options import check_count
from .reverse_diffusion import ReverseDiffusion

Array = NDArray[np.float64]
STEADY = 4
"""Implicit half steps at the start; Crank-Nicolson alone keeps the finest waves."""


@dataclass(frozen=True, eq=False)
class Marginals:
    """p_t on a grid at stored times.

    Parameters
    ----------
    grid : Grid
    times : (n,)
        Forward times, increasing.
    density : (n, *shape)
    """

    grid: Grid
    times: Array
    density: Array

    def value(self, t: float) -> Array:
        """V = -log p_t on the nodes (forward time t, one of `times`)."""
        return -np.log(np.maximum(self.density[self._index(t)], 1e-300))

    def score_nodes(self, t: float) -> Array:
        """grad log p_t on the nodes, (*shape, d), fourth-order differences inside."""
        log = -self.value(t)
        slopes = [_slope(log, axis, nodes) for axis, nodes in enumerate(self.grid.axes)]
        return np.stack(slopes, axis=-1)

    def score(self, y: Array, t: float) -> Array:
        """grad log p_t at y (n, d) inside the grid, cubic interpolation, (n, d)."""
        find = RegularGridInterpolator(
            tuple(self.grid.axes), self.score_nodes(t), method="cubic"
        )
        return np.asarray(find(y))

    def _index(self, t: float) -> int:
        k = int(np.abs(self.times - t).argmin())
        if abs(self.times[k] - t) > 1e-9 * max(self.times[-1], 1.0):
            raise ProblemError(
                f"fokker_planck: t = {t:g} was not stored; ask for it in times=."
            )
        return k


def _slope(values: Array, axis: int, nodes: Array) -> Array:
    out = np.gradient(values, nodes, axis=axis, edge_order=2)
    if len(nodes) < 5:
        return out
    v, g = np.moveaxis(values, axis, 0), np.moveaxis(out, axis, 0)
    h = nodes[1] - nodes[0]
    g[2:-2] = (v[:-4] - 8 * v[1:-3] + 8 * v[3:-1] - v[4:]) / (12 * h)
    return out


def fokker_planck(
    problem: ReverseDiffusion,
    grid: Grid,
    times: Any,
    *,
    steps: int = 400,
    density: Callable[[Array], Array] | None = None,
) -> Marginals:
    """``p_t = -div(f p) + sigma^2 / 2 lap p`` from p_data, on a uniform grid.

    Central fluxes with no flux through the faces (mass is kept to round-off) and
    Crank-Nicolson after two implicit steps of half size (Rannacher, Numer. Math. 43
    (1984) 309). Second order in h and in the time step. Time steps grow from 0 like
    t^2 does. With ``V = -log p`` this is the article's HJB equation (3).

    Parameters
    ----------
    grid : Grid
        1-D or 2-D, uniform, wide enough that p is negligible at its faces.
    times : sequence of float
        Forward times to keep, in (0, horizon].
    steps : int
        Time steps up to the last time.
    density : callable, (n, d) -> (n,), optional
        p_data where the target has no density of its own.

    Raises
    ------
    ProblemError
        More than two states, times out of range, a target without density.
    """
    d = problem.dimension
    if d > 2 or len(grid.shape) != d:
        raise ProblemError(
            f"fokker_planck: {d} states on a {len(grid.shape)}-D grid; 1 or 2 "
            "states on a grid of as many axes can be solved."
        )
    check_count("fokker_planck", "steps", steps)
    wanted = np.unique(real_array(times, "fokker_planck: times"))
    inside = (wanted > 0) & (wanted <= problem.horizon * (1 + 1e-12))
    if not len(wanted) or not inside.all():
        raise ProblemError(
            f"fokker_planck: times {wanted} must lie in (0, {problem.horizon:g}]."
        )
    nodes = grid.nodes().reshape(-1, d)
    p = _start(problem, nodes, density)
    clock = np.unique(
        np.concatenate([wanted[-1] * np.linspace(0, 1, steps + 1) ** 2, wanted])
    )
    kept = []
    for k, (now, then) in enumerate(pairwise(clock)):
        p = _advance(problem, grid, p, float(now), float(then), k < STEADY // 2)
        if np.isclose(wanted, then, rtol=1e-12).any():
            kept.append(p.reshape(grid.shape))
    return Marginals(grid, wanted, np.stack(kept))


def _start(
    problem: ReverseDiffusion,
    nodes: Array,
    density: Callable[[Array], Array] | None,
) -> Array:
    if density is not None:
        return np.asarray(density(nodes), float)
    log_density = getattr(problem.target, "log_density", None)
    if log_density is None:
        raise ProblemError("fokker_planck: samples have no density; give density=.")
    return np.exp(log_density(nodes))


def _advance(
    problem: ReverseDiffusion,
    grid: Grid,
    p: Array,
    now: float,
    then: float,
    implicit: bool,
) -> Array:
    h, middle = then - now, 0.5 * (now + then)
    L = forward_operator(problem, grid, middle)
    eye = sp.identity(len(p), format="csc")
    solve = splu(sp.csc_matrix(eye - 0.5 * h * L)).solve
    if implicit:
        return np.asarray(solve(solve(p)))
    return np.asarray(solve(p + 0.5 * h * (L @ p)))


def forward_operator(problem: ReverseDiffusion, grid: Grid, t: float) -> sp.csr_matrix:
    """``-div(f p) + sigma^2 / 2 lap p`` as a matrix on the raveled nodes.

    Fluxes live between nodes; end cells have half the width, so that column sums
    weighted by cell sizes vanish.
    """
    shape, d = grid.shape, len(grid.shape)
    half = 0.5 * float(problem.process.noise(t)) ** 2
    if not np.isfinite(half):
        raise ProblemError(f"fokker_planck: the noise is not finite at t = {t:g}.")
    total = sp.csr_matrix((int(np.prod(shape)),) * 2)
    for axis, x in enumerate(grid.axes):
        n, h = len(x), float(x[1] - x[0])
        middles = _between(grid, axis)
        f = real_array(problem.process.drift(middles, t), "fokker_planck: the drift")
        if f.shape != middles.shape or not np.isfinite(f).all():
            raise ProblemError(
                f"fokker_planck: the drift has shape {f.shape} for states "
                f"{middles.shape} at t = {t:g}, or is not finite; it must return one "
                "vector a state."
            )
        f = f[:, axis]
        to_face: list[Any] = [sp.identity(m, format="csr") for m in shape]
        slope, out = list(to_face), list(to_face)
        left, right = sp.eye_array(n - 1, n), sp.eye_array(n - 1, n, k=1)
        to_face[axis] = 0.5 * (left + right)
        slope[axis] = (right - left) / h
        cell = np.full(n, h)
        cell[[0, -1]] *= 0.5
        out[axis] = sp.diags_array(1.0 / cell) @ (left - right).T
        flux = sp.diags_array(f) @ _kron(to_face, d) - half * _kron(slope, d)
        total = total - _kron(out, d) @ flux
    return sp.csr_matrix(total)


def _kron(parts: list[Any], d: int) -> Any:
    return parts[0] if d == 1 else sp.kron(parts[0], parts[1], format="csr")


def _between(grid: Grid, axis: int) -> Array:
    """Points between neighbours along `axis`, (n, d)."""
    axes = [np.asarray(x) for x in grid.axes]
    axes[axis] = 0.5 * (axes[axis][1:] + axes[axis][:-1])
    mesh = np.meshgrid(*axes, indexing="ij")
    return np.stack([m.ravel() for m in mesh], axis=-1)
