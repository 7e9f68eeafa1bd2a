"""Faces with a state constraint: the equation itself holds on them.

Up to the face V solves ``rho V = max { r + L^a V }`` over the controls that lead across
no face (`hjbpde.state_constraint`); there is no datum. Under a policy that would run
out, the row of a state where it rests is ``rho V = r``: what fixes V there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hjbpde.greedy import greedy_control
from hjbpde.problem import ControlProblem
from hjbpde.state_constraint import hold_greedy, is_constrained, outward_normals

from .sampling import FacePoints
from .value_model import ValueModel, row_scale

if TYPE_CHECKING:
    from .collocation import LinearTables

Array = NDArray[np.float64]

DEPTH = 0.05
"""How far inside, of the width, slopes are first asked whether a state leaves a face,
see `released`; halved with every policy, as V is better known near the face."""
AT_REST = 1e-6
"""Drift across a face that counts as none, over the width, in units of time."""


def equation_rows(
    problem: ControlProblem, points: FacePoints, tables: LinearTables, a: Array
) -> tuple[Array, Array, Array]:
    """``(rho V - L^a V) / scale`` (n, columns), ``r / scale`` and ``1 / scale`` (n,).

    `a` (n, m) are the policy's controls on the face, which lead across none. The last
    is the side of the discounted time, (rho - L^a) w = 1.
    """
    x = points.x
    scale = row_scale(problem, x, a)
    rho = np.asarray(problem.discount_at(x))
    row = rho[:, None] * tables.values()
    row = row - tables.along(np.asarray(problem.drift_at(x, a)))
    if problem.diffusion is not None:
        row = row - tables.curvature(np.asarray(problem.diffusion_at(x, a)))
    payoff = np.asarray(problem.payoff_at(x, a))
    return row / scale[:, None], payoff / scale, 1.0 / scale


def held_controls(
    problem: ControlProblem, model: ValueModel, x: Array, a: Array
) -> Array:
    """Controls a (n, m) at x (n, d), the best for V where they lead across a face.

    a is a function of x, so that states which stand in the same place, paths in a
    corner, are asked about once.
    """
    if not is_constrained(problem):
        return a
    at = np.flatnonzero(outward_normals(problem, x).any(1))
    if not len(at):
        return a
    there, first, back = np.unique(
        x[at], axis=0, return_index=True, return_inverse=True
    )
    slope = model.gradient(there)
    hess = model.hessian(there) if callable(problem.diffusion) else None
    out = a.copy()
    best = hold_greedy(problem, there, slope, hess, a[at][first])
    out[at] = best[back.ravel()]
    return out


def released(
    problem: ControlProblem, model: ValueModel, x: Array, a: Array, depth: float
) -> Array:
    """Controls a (n, m) at x, those of states that rest on a face looked at again.

    A policy that rests on the face while it leaves it just inside has a value with a
    jump, which a smooth fit meets by a slope that keeps the state resting: policy
    iteration would never get out. Where the slopes `depth` of the width inside lead
    away from the face, they are followed.
    """
    if not is_constrained(problem):
        return a
    assert problem.domain is not None
    normals = outward_normals(problem, x)
    pace = AT_REST * problem.domain.width.max()

    def inwards(at: NDArray[np.intp], control: Array) -> Array:
        f = np.asarray(problem.drift_at(x[at], control))
        return -(normals[at] * f).sum(1)

    at = np.flatnonzero(normals.any(1))
    at = at[inwards(at, a[at]) <= pace]
    if not len(at):
        return a
    inner = x[at] - depth * problem.domain.width * normals[at]
    slope = model.gradient(inner)
    hess = model.hessian(inner) if callable(problem.diffusion) else None
    other = greedy_control(problem, x[at], slope, hess)
    leaves = inwards(at, other) > 2.0 * pace
    out = a.copy()
    out[at[leaves]] = other[leaves]
    return out
