"""What closes an artificial face: V bends there as given data do."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hjbpde.boundary import Dirichlet
from hjbpde.problem import ControlProblem
from hjbpde.sets import Box

from .ends import face_data
from .sampling import FacePoints

if TYPE_CHECKING:
    from .collocation import LinearTables

Array = NDArray[np.float64]
Policy = Callable[[Array], Array]


def bends_as(
    growth: tuple[Array, Array], points: FacePoints, tables: LinearTables, half: float
) -> Array:
    """Rows ``r_n V_nn = r_nn V_n`` for first and second outward derivatives of r."""
    slope, bend = growth
    unit = np.zeros(points.x.shape[1])
    unit[points.axis] = points.sign * half
    second = 2.0 * tables.curvature(unit[None, :, None])
    size = np.hypot(slope, bend)
    size = np.where(size > 0, size, 1.0)[:, None]
    return (slope[:, None] * second - bend[:, None] * tables.along(unit)) / size


def terminal_slopes(problem: ControlProblem, points: FacePoints) -> tuple[Array, Array]:
    """Outward derivatives of the terminal data per half width; 1 and 0 where flat."""
    assert problem.domain is not None
    face = (problem.dimension - 1, "high")
    rule = problem.faces[face]
    assert isinstance(rule, Dirichlet)
    slope, bend = _one_sided(
        lambda x: face_data(rule.g, x, face), points, problem.domain
    )
    flat = (
        np.hypot(slope, bend) <= 1e-9 * np.abs(face_data(rule.g, points.x, face)).max()
    )
    return np.where(flat, 1.0, slope), np.where(flat, 0.0, bend)


def payoff_slopes(
    problem: ControlProblem, points: FacePoints, policy: Policy
) -> tuple[Array, Array]:
    """First and second outward derivative of r(x, a) at fixed a, per half width.

    Fixed: at a maximiser the derivative of the HJB equation does not see a move.
    """
    a = policy(points.x)
    assert problem.domain is not None
    return _one_sided(
        lambda x: np.asarray(problem.payoff_at(x, a)), points, problem.domain
    )


def _one_sided(
    function: Callable[[Array], Array], points: FacePoints, box: Box
) -> tuple[Array, Array]:
    """First and second outward derivative per half width, from inside the box."""
    h = 0.004
    values = [function(points.inside(box, 0.5 * h * step)) for step in range(4)]
    r0, r1, r2, r3 = values
    # One-sided, exact for cubics: no user function is called outside the box.
    slope = (11 * r0 - 18 * r1 + 9 * r2 - 2 * r3) / (6 * h)
    bend = (2 * r0 - 5 * r1 + 4 * r2 - r3) / h**2
    return slope, bend
