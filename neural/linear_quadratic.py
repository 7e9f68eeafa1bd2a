"""The linear-quadratic approximation: what a problem's value is with no training."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hjbpde.errors import MethodMismatch, ProblemError
from hjbpde.problem import ControlProblem
from hjbpde.report import Report

from .features import FeatureBasis, FeatureValue
from .solution import LearnedSolution
from .start import Expansion, expand

Array = NDArray[np.float64]
ITERATIONS = 50


def linear_quadratic(problem: ControlProblem, *, at: Any = None) -> LearnedSolution:
    """V of the linear-quadratic problem that touches `problem` at one state.

    With z = x - at, drift expanded to first and cost to second order,
    ``V = +-(z'P z/2 + p.z + c)`` where P solves the Riccati equation discounted by
    ``A - rho I/2``, ``(rho - (A - BK)') p = q + P f0 - K's`` and
    ``rho c = l0 + s.u0 + u0'R u0/2 + p.(f0 + B u0) + tr(sigma sigma'P)/2``. It is
    the baseline of every table: a learned value earns its time only below it.

    Parameters
    ----------
    at : (d,), optional
        The state; default the centre of the domain. See `equilibrium` for the other
        natural choice.

    Returns
    -------
    Solution whose policy is the greedy one of this V.

    Raises
    ------
    ProblemError
        A state outside the domain or of the wrong shape. MethodMismatch: no such
        approximation exists (control in the noise, cost not convex in the control,
        controls not a box, no stabilising root).

    Source: Yong and Zhou, Stochastic Controls (1999), chapter 6.
    """
    assert problem.domain is not None
    began = time.perf_counter()
    point = problem.domain.centre if at is None else np.asarray(at, dtype=float)
    if point.shape != (problem.dimension,):
        raise ProblemError(
            f"linear_quadratic: at has shape {point.shape}; expected "
            f"({problem.dimension},), one state."
        )
    if not problem.domain.contains(point[None], 1e-12).all():
        raise ProblemError(
            f"linear_quadratic: at = {point} is outside {problem.domain}."
        )
    model = quadratic_value(problem, _expansion(problem, point))
    spent = {"expansion": time.perf_counter() - began}
    where = np.array2string(point, precision=4, separator=", ")
    report = Report(
        status="converged",
        method=f"linear-quadratic approximation at {where}",
        seconds=spent,
        checks=("not trained: the baseline that a learned value has to beat",),
    )
    region = problem.domain.inner(0.75, problem.artificial_axes)
    return LearnedSolution(problem, problem.domain, region, report, model)


def equilibrium(problem: ControlProblem) -> Array:
    """The state (d,) at which the linear-quadratic policy expanded there rests.

    Newton steps ``z = -(A - BK)^-1 (f0 + B u0)``, each from a new expansion, kept
    inside the inner 95 % of the domain. ProblemError where they do not settle.
    """
    assert problem.domain is not None
    inner, half = problem.domain.inner(0.95), 0.5 * problem.domain.width
    at, control = problem.domain.centre, None
    for _ in range(ITERATIONS):
        local = _expansion(problem, at, control)
        move = -np.linalg.solve(local.closed, local.push)
        new = np.clip(at + move, np.asarray(inner.low), np.asarray(inner.high))
        control = local.offset - local.gain @ (new - at)
        settled = np.abs((new - at) / half).max() < 1e-8
        at = new
        if settled:
            return at
    raise ProblemError(
        "equilibrium: the closed-loop rest point did not settle inside the domain; "
        "give linear_quadratic(problem, at=...) a state instead."
    )


def quadratic_value(problem: ControlProblem, local: Expansion) -> FeatureValue:
    """The expansion's value in the problem's sense, as a basis without features."""
    box = problem.domain
    assert box is not None
    d, half = box.dimension, 0.5 * box.width
    shift = box.centre - local.at
    slope = local.P @ shift + local.p
    level = local.c + 0.5 * shift @ local.P @ shift + local.p @ shift
    bend = local.P * half[:, None] * half
    i, j = np.triu_indices(d)
    pairs = bend[i, j] * np.where(i == j, 1.0, 2.0)
    basis = FeatureBasis(box.centre, half, np.zeros((0, d)), np.zeros(0))
    return FeatureValue(basis, -problem.sign * np.r_[level, slope * half, pairs])


def _expansion(
    problem: ControlProblem, at: Array, control: Array | None = None
) -> Expansion:
    local = expand(problem, at, control)
    if local is None:
        raise MethodMismatch(
            "linear_quadratic: the problem has no such approximation: it needs a box "
            "of controls that enter the drift and not the noise, a cost convex in the "
            "control, and a stabilising root of the Riccati equation."
        )
    return local
