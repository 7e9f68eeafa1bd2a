"""The law of the controlled process: Kolmogorov's forward equation on the nodes.

With L the generator of the monotone scheme (rates, no discount) and m the
probabilities of the nodes, ``dm/dt = L' m``; the density is m over the volumes of the
nodes. At a rate no node is left faster than, ``P = I + L / rate`` is a stochastic
matrix and (uniformisation: Grassmann, Computers & Operations Research 4 (1977) 47)

    exp(t L') m = sum_k e^{-rate t} (rate t)^k / k! (P')^k m,

a mean of laws: nothing can become negative and nothing is lost, whatever t is, and no
step in time is made. An implicit step that stays positive whatever its length is of
first order only (Bolley and Crouzeix, RAIRO Numerical Analysis 12 (1978) 237), and
the Taylor sums of ``scipy.sparse.linalg.expm_multiply`` have terms of both signs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from .errors import ProblemError
from .grid import Grid

if TYPE_CHECKING:
    from .solution import GridSolution

Array = NDArray[np.float64]
LONG_RUN_STEPS = 100
AT_REST = 4e-16
"""Mass moved by one step of P that rounding moves as well: the law has settled."""
SMALL = 1e-14
"""Mass that may still have to move when the sum is cut short."""
TOO_MUCH = 1.01
"""A start of more mass than this is no density but counts or masses."""


def density_of(solution: GridSolution, t: float, start: Any = None) -> Array:
    """Density of the controlled process a time t after the start, (*shape).

    ``dp/dt = -div(f p) + sum_k d_k^2 (sigma_k^2 p) / 2`` with the control of the
    solution, as ``dm/dt = L' m`` for the chain of the monotone scheme and without an
    error in time. Never negative; with `node_volumes` it integrates to the mass of
    the start, to less where the process may end on the way. At Robin faces it is
    reflected, as in `simulate`.

    Parameters
    ----------
    t : float
        At least 0; costs ``rate t + 10 sqrt(rate t)`` products with L at most.
    start : point (d,), callable, array (*shape) or None
        The law at time 0: a point (split between the corners of its cell), a density
        ``p(x) -> (...)`` (scaled to mass 1 on the nodes), a density on the nodes
        (taken as it is), or None: the same density everywhere.

    Raises
    ------
    ProblemError
        A negative time; a start that is no density, or where nothing goes on.
    MethodMismatch
        A problem with a horizon or rights to stop.
    """
    problem = solution._need_problem("density")
    problem.require_only("density", "exit", "average", "jumps")
    free, volumes = solution._free_nodes(), solution.node_volumes()
    mass = start_mass(solution.grid, volumes, free, start).ravel()
    mass = transported(solution.generator(), free.ravel(), mass, t)
    return mass.reshape(solution.grid.shape) / volumes


def stationary_of(solution: GridSolution) -> Array:
    """Density of the controlled process in the long run, (*shape).

    Solves ``L' m = 0`` for the chain of the monotone scheme; integrates to 1 with the
    trapezoidal volumes of the nodes.

    Raises
    ------
    ProblemError
        A process that ends (Dirichlet face, exit), or no unique density.
    """
    solution._need_problem("stationary_density")
    if not solution._free_nodes().all():
        raise ProblemError(
            "stationary_density: the process ends on a Dirichlet face or in the exit "
            "region, so there is no stationary density."
        )
    mass = balanced(solution.generator())
    return mass.reshape(solution.grid.shape) / solution.node_volumes()


def transported(L: sp.csr_matrix, free: NDArray[np.bool_], m: Array, t: float) -> Array:
    """``exp(t L') m`` for the nodes where the process goes on, 0 elsewhere.

    Parameters
    ----------
    L : (n, n)
        Rates; what a row lacks to sum 0 (a discount at a Robin face) is ignored.
    free : bool (n,)
        Where the process goes on; what arrives elsewhere is lost.
    m : (n,)
        Probabilities of the nodes at time 0.
    t : float

    Returns
    -------
    (n,), at the cost of at most ``rate t + 10 sqrt(rate t)`` products with L; fewer
    once the law has settled.

    Raises
    ------
    ProblemError
        A time that is negative or not finite, or rates that are negative.
    """
    if not (np.isfinite(t) and t >= 0):
        raise ProblemError(f"density: t = {t!r} must be a finite time >= 0.")
    m = np.where(free, m, 0.0)
    if t == 0:
        return m
    jumps = sp.csr_matrix(L - sp.diags(L.diagonal()))
    if jumps.nnz and jumps.data.min() < -1e-12 * np.abs(jumps.data).max():
        raise ProblemError(
            "density: a rate is negative, so there is no process behind the rows; "
            "another rule on the faces or a finer grid makes them monotone."
        )
    leaving = np.asarray(jumps.sum(axis=1)).ravel()
    # Above the largest rate, so that every node may keep its mass: P cannot cycle.
    rate = 1.1 * float(leaving.max(initial=0.0))
    if rate == 0.0:
        return m
    keep = sp.diags(free.astype(float))
    step = sp.csr_matrix(
        keep @ (sp.diags(1.0 - leaving / rate) + jumps.T / rate) @ keep
    )
    return _poisson_mean(step, m, rate * t)


def _poisson_mean(step: sp.csr_matrix, m: Array, mean: float) -> Array:
    """``sum_k Poisson(k; mean) step^k m``."""
    first, weights = _poisson(mean)
    terms = first + len(weights)
    total, spent = np.zeros_like(m), 0.0
    for k in range(terms):
        if k >= first:
            total += weights[k - first] * m
            spent += weights[k - first]
        after = step @ m
        # What a step moves never grows: P is a contraction in the sum of |m|.
        moved = float(np.abs(after - m).sum())
        if moved <= AT_REST or moved * (terms - k) <= SMALL:
            break
        m = after
    return total + max(1.0 - spent, 0.0) * m


def _poisson(mean: float) -> tuple[int, Array]:
    """The first number that counts, and the probabilities from there on.

    Products away from the mode, so that nothing overflows (Fox and Glynn,
    Communications of the ACM 31 (1988) 440); what is left out is below 1e-20.
    """
    mode = int(mean)
    width = int(10.0 * np.sqrt(mean)) + 30
    first = max(mode - width, 0)
    up = np.cumprod(mean / np.arange(mode + 1.0, mode + width + 1.0))
    down = np.cumprod(np.arange(mode, first, -1.0) / mean)[::-1]
    weights = np.r_[down, 1.0, up]
    return first, weights / weights.sum()


def start_mass(
    grid: Grid, volumes: Array, free: NDArray[np.bool_], start: Any
) -> Array:
    """Probabilities of the nodes (*shape) that `GridSolution.density` starts from.

    A point is split between the corners of its cell so that its mean stays; a
    function is scaled to mass 1 on the nodes; an array is taken as it is.
    """
    if start is None:
        mass = np.where(free, volumes, 0.0)
        return mass / mass.sum()
    if not callable(start):
        given = np.asarray(start, dtype=float)
        if given.shape == grid.shape:
            return checked(given * volumes, free)
        if given.reshape(-1).shape == (grid.dimension,):
            return checked(_point(grid, given.reshape(-1)), free)
        shape = given.shape
    else:
        given = np.asarray(start(grid.nodes()), dtype=float)
        shape = given.shape
        if shape == grid.shape:
            mass = checked(given * volumes, free, np.inf)
            return mass / mass.sum()
    raise ProblemError(
        f"density: the start has shape {shape}; expected a density on the nodes "
        f"{grid.shape}, a function that gives one, or a point ({grid.dimension},)."
    )


def checked(mass: Array, free: NDArray[np.bool_], most: float = TOO_MUCH) -> Array:
    """The mass itself, where it can be that of a start."""
    total = float(mass.sum())
    if not np.isfinite(total) or mass.min() < 0 or not 0 < total <= most:
        raise ProblemError(
            f"density: the start integrates to {total:g} with a smallest node of "
            f"{mass.min():g}; a density is >= 0 and integrates to 1 (less where some "
            "paths have ended): divide by (start * solution.node_volumes()).sum()."
        )
    if not mass[free].any():
        raise ProblemError(
            "density: the process has ended everywhere the start puts mass; start "
            "inside the domain and outside the exit region."
        )
    return mass


def _point(grid: Grid, x: Array) -> Array:
    """Weights (*shape) of linear interpolation at x (d,)."""
    if not grid.domain.contains(x).all():
        raise ProblemError(f"density: the start {x} is outside {grid.domain}.")
    x = grid.domain.wrap(x)
    weights = np.ones(())
    for k, axis in enumerate(grid.axes):
        line = np.zeros(axis.size)
        last = axis.size - (1 if grid.periodic[k] else 2)
        left = int(np.clip(np.searchsorted(axis, x[k], "right") - 1, 0, last))
        share = (x[k] - axis[left]) / grid.spacing(k)[1][left]
        line[left] += 1.0 - share
        line[(left + 1) % axis.size] += share
        weights = np.multiply.outer(weights, line)
    return weights


def long_run(L: sp.csr_matrix) -> Array:
    """Probabilities (n,) with L' m = 0, by inverse iteration from two starts.

    Each step is where the chain is after an exponential time of mean 1 / rate.
    """
    n = int(L.get_shape()[0])
    rate = 1e-9 * float(np.max(np.abs(L.diagonal())))
    lu = sp.linalg.splu(
        sp.csc_matrix(rate * sp.identity(n) - L.T), permc_spec="NATURAL"
    )
    starts = (np.full(n, 1.0 / n), np.arange(1.0, n + 1) * 2.0 / (n * (n + 1)))
    found = []
    for mass in starts:
        for _ in range(LONG_RUN_STEPS):
            before, mass = mass, np.maximum(lu.solve(mass), 0.0)
            mass = mass / mass.sum()
            if np.sum(np.abs(mass - before)) < 1e-13:
                break
        found.append(mass)
    if not np.sum(np.abs(found[0] - found[1])) < 1e-8:
        raise ProblemError(
            "stationary_density: the controlled process has no unique stationary "
            "density (it may split into parts that never meet)."
        )
    return found[0]


def balanced(L: sp.csr_matrix) -> Array:
    """Probabilities (n,) with L' m = 0, by one sparse elimination.

    Raises
    ------
    ProblemError
        No unique one.
    """
    n = int(L.get_shape()[0])
    system = sp.csc_matrix(sp.vstack([L.T.tocsr()[1:], sp.csr_matrix(np.ones(n))]))
    mass = sp.linalg.spsolve(system, np.r_[np.zeros(n - 1), 1.0])
    if not np.isfinite(mass).all() or mass.min() < -1e-8:
        raise ProblemError(
            "stationary_density: the controlled process has no unique stationary "
            "density (it may split into parts that never meet)."
        )
    return np.maximum(mass, 0.0)
