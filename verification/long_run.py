"""Long-run averages: how well they are known, and what losses are relative to.

An average may be 0, and a constant added to the payoff moves it while no policy gets
better or worse; so losses are relative to the larger of its size and the standard
deviation of the payoff in the long run under the best policy.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import spsolve

import hjbpde as hjb
from hjbpde import ControlProblem, Grid, GridSolution, HJBError, Reflecting, Robin
from hjbpde.density import balanced

from .residual import rate_of

Array = NDArray[np.float64]

NOTHING = 1e-9
"""An average and a deviation below this share of V's rate of change are none."""


@dataclass(frozen=True)
class LongRun:
    """The reference's long-run average, its bar, and what losses are relative to.

    `average` is None where the reference does not know it.
    """

    average: float | None
    error: float
    scale: float


def long_run_of(problem: ControlProblem, reference: Any, grid: Grid) -> LongRun | None:
    """The long run under the reference's policy; None without ``average=True``."""
    if not problem.average:
        return None
    average = getattr(reference, "average", None)
    error = reference.report.details.get("average_error", np.inf)
    x = grid.nodes().reshape(-1, grid.dimension)
    a = np.asarray(reference.control_at(x), dtype=float)
    middle = 0.0 if average is None else float(average)
    scale = max(abs(middle), deviation(problem, grid, a, middle))
    value = np.asarray(reference.value_at(x))
    change = float(rate_of(problem, x, a).mean()) * float(np.ptp(value))
    # Who rests where nothing is paid pays 0 for sure: then V says what is much.
    if scale <= NOTHING * change:
        scale = change
    return LongRun(average, float(error), max(scale, 1e-300))


def deviation(problem: ControlProblem, grid: Grid, a: Array, middle: float) -> float:
    """Standard deviation of the payoff in the long run under a (n, m) on the nodes.

    The root of the average of ``(r - middle)^2``; 0 where it cannot be found.
    """

    def squared(x: Array, u: Array) -> Array:
        return (np.asarray(problem.payoff_at(x, u)) - middle) ** 2

    rules = {
        face: Reflecting() if isinstance(rule, Robin) else rule
        for face, rule in problem.faces.items()
    }
    other = replace(
        problem, reward=None, cost=squared, boundary=rules, best_control=None,
        exact=None,
    )  # fmt: skip
    try:
        a = a.reshape(*grid.shape, problem.n_controls)
        found = hjb.evaluate(other, grid, a, strict=False)
    except HJBError:
        return 0.0
    if found.average is None or not found.report.converged:
        return 0.0
    return float(np.sqrt(max(found.average, 0.0)))


@dataclass(frozen=True, eq=False)
class Averages:
    """The long-run average of a policy by where the state starts, (*shape).

    `error`: half the width of what it is enclosed by; `parts`: how many sets of states
    are never left again; `best`: the best policy's average on the same grid.
    """

    by_start: Array
    error: float
    parts: int
    best: float | None = None


def averages_of(found: GridSolution) -> Averages:
    """The averages of a policy that was evaluated on a grid.

    Where the state falls into parts that never meet, each part has its own, and
    elsewhere they count with the probabilities of ending there.

    Raises
    ------
    ProblemError
        A part that mixes too slowly for its average to be found.
    """
    assert found.average is not None and found.problem is not None
    error = float(found.report.residuals[-1])
    alike = Averages(np.full(found.grid.shape, found.average), error, 1)
    if found.report.converged:
        return alike
    chain = found.as_mdp()
    P, payoff = sp.csr_matrix(chain.transition[0]), chain.reward[:, 0] / chain.dt
    parts = closed_parts(P)
    if len(parts) == 1:
        return alike
    out = averages_by_start(P, found.problem.sign * payoff, parts)
    return Averages(out.reshape(found.grid.shape), 0.0, len(parts))


def closed_parts(P: sp.csr_matrix) -> list[NDArray[np.intp]]:
    """The sets of states that a chain P (n, n) never leaves and visits for ever."""
    n, label = connected_components(P, directed=True, connection="strong")
    start, end = P.nonzero()
    left = np.unique(label[start][label[start] != label[end]])
    return [np.flatnonzero(label == k) for k in np.setdiff1d(np.arange(n), left)]


def averages_by_start(
    P: sp.csr_matrix, payoff: Array, parts: list[NDArray[np.intp]]
) -> Array:
    """Long-run averages (n,) of a payoff (n,) with the chain P by where it starts."""
    out, passing = np.zeros(len(payoff)), np.ones(len(payoff), bool)
    for part in parts:
        inner = sp.csr_matrix(P[part][:, part])
        law = np.ones(1)
        if len(part) > 1:
            law = balanced(sp.csr_matrix(inner - sp.identity(len(part))))
        out[part] = law @ payoff[part] / law.sum()
        passing[part] = False
    if passing.any():
        among = sp.csr_matrix(P[passing])
        stay = sp.identity(int(passing.sum())) - among[:, passing]
        ends = among[:, ~passing] @ out[~passing]
        out[passing] = np.asarray(spsolve(sp.csc_matrix(stay), ends))
    return out
