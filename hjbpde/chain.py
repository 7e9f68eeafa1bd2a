"""The Markov decision problem that a monotone scheme is.

The scheme's rows ``c V = L V + r`` (L rates to the neighbours, c the discount) are, for
every step dt, exactly the discrete Bellman equation

    V(x) = max_a { r(x, a) (1 - e^{-c dt}) / c + e^{-c dt} sum_y P_a(x, y) V(y) }

with ``P = I + L (e^{c dt} - 1) / c``: probabilities as long as no rate is above
``c / (e^{c dt} - 1)``. For c dt -> 0 these are ``r dt``, ``e^{-rho dt}`` and
``I + dt L`` (Kushner and Dupuis, Numerical Methods for Stochastic Control Problems in
Continuous Time, 2nd ed., section 5.2; there with 1 + c dt for e^{c dt}).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from .errors import ProblemError
from .improvement import MonotoneStencil
from .mdp import MDP
from .sets import Box, Finite

if TYPE_CHECKING:
    from .solution import GridSolution

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Rows:
    """One action's rates (N, N), discount c (N) and payoff r (N, -inf: forbidden)."""

    rates: sp.csr_matrix
    c: Array
    payoff: Array
    fixed: NDArray[np.bool_]

    @property
    def largest(self) -> Array:
        """The rate at which every state is left."""
        return -np.asarray(self.rates.diagonal(), dtype=float)


def mdp_of(
    solution: GridSolution, controls: Any = None, dt: float | None = None
) -> MDP:
    """The Markov chain of the solution's monotone scheme, as an `MDP`.

    Parameters
    ----------
    controls : None, int or array (A, m)
        None: one action, the computed policy. An array: these controls in every state.
        A number: that many along every axis of the control box (all of a finite set).
        Controls that leave the domain at a state-constrained face are forbidden there.
    dt : float, optional
        Time per step; default: the largest that keeps every probability >= 0.

    Returns
    -------
    MDP
        It always maximises: with ``cost=`` its value is ``-V``. States are the nodes in
        C order; fixed nodes (Dirichlet faces, exit) pay their data and end.

    Raises
    ------
    ProblemError
        A step that is too long (the longest is named), controls of the wrong shape, or
        a boundary rule that feeds back more than the discount takes.
    """
    actions = [None] if controls is None else list(_points(solution, controls))
    rows = [_rows_of(solution, a) for a in actions]
    longest = min(_longest(part) for part in rows)
    dt = longest if dt is None else float(dt)
    if not 0.0 < dt <= longest * (1 + 1e-12):
        raise ProblemError(
            f"as_mdp: the step dt is {dt:g}; it must be positive and at most "
            f"{longest:.6g}, beyond which a probability would be negative."
        )
    steps = [_step(part, dt) for part in rows]
    return MDP(
        transition=[P for P, _, _ in steps],
        reward=np.stack([reward for _, reward, _ in steps], axis=1),
        discount=np.stack([gamma for _, _, gamma in steps], axis=1),
        dt=dt,
    )


def _points(solution: GridSolution, controls: Any) -> Array:
    problem = solution.problem
    if problem is None or problem.controls is None:
        raise ProblemError("as_mdp: the solution has no problem, or it no controls.")
    m = problem.n_controls
    if isinstance(controls, int | np.integer):
        if isinstance(problem.controls, Finite):
            return np.asarray(problem.controls.points)
        box = problem.controls
        finite = not box.varies and np.isfinite(np.r_[box.low, box.high]).all()
        if controls < 2 or not finite:
            raise ProblemError(
                "as_mdp: a number of controls needs a bounded, constant control box "
                "and must be 2 or more; give the controls themselves, shape (A, m)."
            )
        return _lattice(box, int(controls))
    points = np.asarray(controls, dtype=float)
    if points.ndim != 2 or points.shape[1] != m or not np.isfinite(points).all():
        raise ProblemError(
            f"as_mdp: controls have shape {points.shape}; expected finite (A, {m})."
        )
    return points


def _lattice(box: Box, n: int) -> Array:
    low, high = np.asarray(box.low), np.asarray(box.high)
    lines = [np.linspace(a, b, n) for a, b in zip(low, high, strict=True)]
    return np.stack(np.meshgrid(*lines, indexing="ij"), -1).reshape(-1, len(lines))


def _rows_of(solution: GridSolution, a: Array | None) -> _Rows:
    if a is not None:
        shape = (*solution.grid.shape, len(a))
        solution = replace(solution, control=np.broadcast_to(a, shape).copy())
    state = solution._state("as_mdp")
    under = state.tables.under(state.a)
    stencil = MonotoneStencil.of(state.faces, state.scheme, state.V)
    allowed = stencil.value(under, slice(None)) > -np.inf
    rows, rhs = state.folded(under)
    fixed = np.zeros(rhs.size, bool)
    if state.faces.fixed_mask is not None:
        fixed = state.faces.fixed_mask.ravel()
    return _Rows(
        rows.generator(), rows.c, np.where(allowed | fixed, rhs, -np.inf), fixed
    )


def _longest(part: _Rows) -> float:
    """The largest dt with rate * (e^{c dt} - 1) / c <= 1 at every free node."""
    free = ~part.fixed
    c, rate = part.c[free], np.maximum(part.largest[free], 1e-300)
    if c.size and c.min() < 0:
        raise ProblemError(
            "as_mdp: a Robin face gains more than the discount takes, so the rows are "
            "no Markov chain."
        )
    ratio = np.minimum(c / rate, 1e12)
    steps = np.where(ratio > 1e-12, np.log1p(ratio) / np.maximum(c, 1e-300), 1 / rate)
    return float(steps.min(initial=np.inf)) if c.size else 1.0


def _step(part: _Rows, dt: float) -> tuple[sp.csr_matrix, Array, Array]:
    """P (N, N), reward and discount per step (N)."""
    c = np.where(part.fixed, 0.0, part.c)
    small = np.maximum(c, 1e-300)
    grown = np.where(c > 0, np.expm1(c * dt) / small, dt)
    paid = np.where(c > 0, -np.expm1(-c * dt) / small, dt)
    n = c.size
    P = sp.csr_matrix(sp.identity(n) + sp.diags(grown) @ part.rates)
    # The longest step leaves rounding of either sign on the diagonal.
    P.data[np.abs(P.data) < 1e-14] = 0.0
    P = sp.csr_matrix(sp.diags((~part.fixed).astype(float)) @ P)
    P.eliminate_zeros()
    reward = np.where(part.fixed, part.payoff, paid * part.payoff)
    return P, reward, np.where(part.fixed, 0.0, np.exp(-c * dt))
