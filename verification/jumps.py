"""What jumps add to the HJB equation of a candidate."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hjbpde import Dirichlet, Robin
from hjbpde.given_data import given_at
from hjbpde.landing import Landing, beyond, landing

from .reference import running
from .subject import Subject

Array = NDArray[np.float64]


def jump_part(subject: Subject, x: Array) -> Array:
    """``lambda sum_j w_j [V(x + delta_j) - V(x)]`` at points (n, d), shape (n,).

    NaN where a jump ends outside the box in which the candidate may be asked. Zero,
    without a value asked for, where nothing jumps.
    """
    problem, out = subject.problem, np.zeros(len(x))
    if problem.jumps is None or not len(x):
        return out
    y = x[:, None] + problem.jumps.displacements_at(x)
    weights = problem.jumps.weights_at(x, y.shape[1])
    V = subject.value(x)
    for j in range(y.shape[1]):
        out += weights[:, j] * (_landed(subject, y[:, j]) - V)
    return problem.jumps.rate_at(x) * out


def _landed(subject: Subject, y: Array) -> Array:
    """V where jumps to y (n, d) end, by the rules of the faces and the exit."""
    problem, land = subject.problem, landing(subject.problem, y)
    asked = subject.box.contains(land.x, 1e-9)
    out = np.full(len(y), np.nan)
    out[asked] = subject.value(land.x[asked])
    if problem.exit is not None:
        left = ~running(problem, land.x) & ~land.ended
        out = np.where(left, given_at(problem.exit.value, land.x), out)
    for face, depth in land.over.items():
        rule = problem.faces[face]
        if isinstance(rule, Dirichlet):
            out = np.where(depth > 0, given_at(rule.g, land.x), out)
    for face, depth in land.over.items():
        if not isinstance(problem.faces[face], Dirichlet):
            depth = np.where(land.ended, 0.0, depth)
            out = _continued(subject, land, face, depth, out)
    return out


def _continued(
    subject: Subject, land: Landing, face: Any, depth: Array, V: Array
) -> Array:
    """V beyond a face with a slope, by dV/dn = p - kappa V along `depth`."""
    far = (depth > 0) & np.isfinite(V)
    rule, (axis, side) = subject.problem.faces[face], face
    x, s, out = land.x[far], depth[far], V.copy()
    if isinstance(rule, Robin):
        kappa = rule.alpha / rule.beta
        p = given_at(rule.g, x) / rule.beta
    else:
        sign = -1.0 if side == "low" else 1.0
        kappa, p = 0.0, sign * subject.gradient(x)[:, axis]
    kept, length = beyond(kappa, s)
    out[far] = kept * V[far] + p * length
    return out
