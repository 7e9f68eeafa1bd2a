"""The maximising control at given points, gradients and curvatures."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .errors import ProblemError
from .game_tables import GameTables, game_tables_at
from .improvement import SmoothSlopes, greedy, initial_policy
from .point_tables import KeptTables, tables_at
from .problem import ControlProblem
from .sets import Finite
from .state_constraint import hold_greedy

Array = NDArray[np.float64]


def greedy_control(
    problem: ControlProblem,
    x: Array,
    p: Array,
    hess: Array | None = None,
    start: Array | None = None,
    kept: KeptTables | None = None,
    strict: bool = True,
) -> Array:
    """argmax_a { r + f . p + tr(sigma sigma^T hess)/2 } (argmin with cost).

    On a face with StateConstraint among the controls that lead across none.

    Parameters
    ----------
    x, p : (n, d)
        States and the gradient of V there.
    hess : (n, d, d), optional
        Needed where the noise depends on the control (else 0 is taken); only its
        diagonal is felt, as noise that does so is independent between axes.
    start : (n, m), optional
        A control to improve on, e.g. that of the nearest node.
    kept : KeptTables, optional
        Of the same problem, for points that are asked about again and again.
    strict : bool
        Whether a state whose face admits no control is an error; otherwise its control
        is that of the set alone.

    Returns
    -------
    (n, m), inside the control set.

    Raises
    ------
    ProblemError
        A gradient that is not finite; a state whose face admits no control, named.
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
    tables = tables_at(problem, x) if kept is None else kept.at(x)
    a = initial_policy(tables, n)
    if start is not None:
        a = np.ascontiguousarray(start.T, dtype=float).copy()
    greedy(tables, slopes, a, scan=start is None)
    return hold_greedy(problem, x, p, hess, np.ascontiguousarray(a.T), strict)


def greedy_pair(
    problem: ControlProblem,
    x: Array,
    p: Array,
    hess: Array | None = None,
    start: Array | None = None,
) -> Array:
    """Both players' controls at x (n, d), a answered by b; as `greedy_control`.

    start (n, m + mb) is improved on; finite sets are met.
    """
    tables, m = game_tables_at(problem, x), problem.n_controls
    u = initial_policy(tables, len(x)).T if start is None else start
    sets = (problem.controls, u[:, :m]), (problem.adversary, u[:, m:])
    parts = [s.clip(part) if isinstance(s, Finite) else part for s, part in sets]
    return _played(tables, problem, (p, hess), np.concatenate(parts, axis=-1))


def greedy_reply(
    problem: ControlProblem, x: Array, p: Array, hess: Array | None, a: Array
) -> Array:
    """The adversary's best reply at x (n, d) to the controls a (n, m), (n, mb)."""
    tables = game_tables_at(problem, x).holding()
    first = initial_policy(tables, len(x)).T[:, a.shape[1] :]
    if isinstance(problem.adversary, Finite):
        first = np.repeat(problem.adversary.points[:1], len(x), axis=0)
    both = np.concatenate([a, first], axis=1)
    return _played(tables, problem, (p, hess), both)[:, a.shape[1] :]


def _played(
    tables: GameTables,
    problem: ControlProblem,
    derivatives: tuple[Array, Array | None],
    start: Array,
) -> Array:
    """The choices (n, m + mb) of a game at a gradient (n, d), improved from `start`."""
    p, hess = derivatives
    n, d = p.shape
    q = np.zeros((d, n)) if hess is None else np.einsum("nii->in", hess)
    slopes = SmoothSlopes(problem.sign * p.T, problem.sign * np.asarray(q))
    u = np.array(start.T, order="C")
    greedy(tables, slopes, u)
    return np.ascontiguousarray(u.T)
