"""The maximising control at given points, gradients and curvatures."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .errors import ProblemError
from .game_tables import game_tables_at
from .improvement import SmoothSlopes, greedy, initial_policy
from .probe import control_range, fit_quadratic
from .problem import ControlProblem
from .sets import Box, Finite
from .tabulate import GeneralTables, QuadraticTables, Tables

Array = NDArray[np.float64]


def greedy_control(
    problem: ControlProblem,
    x: Array,
    p: Array,
    hess: Array | None = None,
    start: Array | None = None,
) -> Array:
    """argmax_a { r + f . p + tr(sigma sigma^T hess)/2 } (argmin with cost).

    Parameters
    ----------
    x, p : (n, d)
        States and the gradient of V there.
    hess : (n, d, d), optional
        Needed where the noise depends on the control (else 0 is taken); only its
        diagonal is felt, as noise that does so is independent between axes.
    start : (n, m), optional
        A control to improve on, e.g. that of the nearest node.

    Returns
    -------
    (n, m), inside the control set.
    """
    n, d = x.shape
    if problem.controls is None or n == 0:
        return np.zeros((n, problem.n_controls))
    if p.shape != (n, d) or not np.isfinite(p).all():
        raise ProblemError(
            f"greedy_control: the gradient has shape {p.shape} for points {x.shape}, "
            "or is not finite."
        )
    q = np.zeros((d, n)) if hess is None else np.einsum("nii->in", hess)
    slopes = SmoothSlopes(problem.sign * p.T, problem.sign * np.asarray(q))
    tables = tables_at(problem, x)
    a = initial_policy(tables, n)
    if start is not None:
        a = np.ascontiguousarray(start.T, dtype=float).copy()
    greedy(tables, slopes, a, scan=start is None)
    return np.ascontiguousarray(a.T)


def greedy_pair(
    problem: ControlProblem, x: Array, p: Array, hess: Array | None, start: Array
) -> Array:
    """Both players' controls at x (n, d), a answered by b; as `greedy_control`.

    start (n, m + mb) is improved on; finite sets are met.
    """
    n, d = x.shape
    q = np.zeros((d, n)) if hess is None else np.einsum("nii->in", hess)
    slopes = SmoothSlopes(problem.sign * p.T, problem.sign * np.asarray(q))
    tables = game_tables_at(problem, x)
    m, parts = problem.n_controls, []
    for controls, part in (
        (problem.controls, start[:, :m]),
        (problem.adversary, start[:, m:]),
    ):
        finite = isinstance(controls, Finite)
        parts.append(controls.clip(part) if finite else part)
    u = np.ascontiguousarray(np.concatenate(parts, axis=-1).T)
    greedy(tables, slopes, u)
    return np.ascontiguousarray(u.T)


def tables_at(
    problem: ControlProblem, x: Array, bounds: tuple[Array, Array] | None = None
) -> Tables:
    """Tables at scattered points x (n, d), closed-form where that holds.

    `bounds`, low and high (m, n), take the place of the control box.
    """
    rho, one = np.ones(1), np.zeros((problem.n_controls, 1))
    if not isinstance(problem.controls, Box):
        return GeneralTables(problem, x, one, one, rho, None)
    low, high = control_range(problem, x) if bounds is None else bounds
    low, high = np.ascontiguousarray(low), np.ascontiguousarray(high)
    fit = fit_quadratic(problem, x, low, high, np.random.default_rng(0))
    if fit.structure.closed_form:
        return QuadraticTables(
            fit.f0, fit.B, fit.D, fit.r0, fit.r1, fit.R, low, high, rho
        )
    return GeneralTables(problem, x, low, high, rho, None, fit.structure.note)
