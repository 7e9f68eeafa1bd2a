"""Problem x grid -> tables: the only place user functions meet the nodes.

Where drift is affine in a, payoff quadratic in a and the noise free of a,

    f = f0 + B a,   r = r0 + r1 . a - a' R a / 2,

the tables are those coefficients (constants stored once) and the maximiser is
closed-form. The structure is checked at every node against one random control.
Elsewhere `GeneralTables` evaluates the functions at whole arrays of controls.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .coefficients import discount_of, evaluate, half_covariance, same_noise
from .errors import ProblemError
from .faces import Faces
from .grid import Grid
from .jump_rates import JumpTable
from .probe import (
    QuadraticFit,
    base_and_step,
    control_range,
    fit_quadratic,
    probe,
    random_control,
)
from .problem import ControlProblem
from .sets import Box, Finite
from .table_checks import check_bounded, check_free_pairs, check_noiseless
from .tables import BLOCK, GeneralTables, QuadraticTables, Tables, joined_pairs

Array = NDArray[np.float64]


def tabulate(
    problem: ControlProblem, grid: Grid, faces: Faces, seed: int = 0, opposed: int = 0
) -> Tables:
    """Tables of the problem on every node, closed-form where the structure holds.

    The last `opposed` controls minimise what the others maximise.

    Raises
    ------
    ProblemError
        As `probe.evaluate`; an infinite control box without closed form.
    """
    x = grid.nodes().reshape(-1, grid.dimension)
    skip = None if faces.fixed_mask is None else faces.fixed_mask.ravel()
    tables = _without_jumps(problem, grid, faces, (x, skip), (seed, opposed))
    jumps = JumpTable.of(problem, x, skip)
    return tables if jumps is None else replace(tables, jumps=jumps)


def _without_jumps(
    problem: ControlProblem,
    grid: Grid,
    faces: Faces,
    nodes: tuple[Array, NDArray[np.bool_] | None],
    probing: tuple[int, int],
) -> Tables:
    """Tables on nodes x (N, d), of which some in a mask may be skipped.

    `probing`: the seed, and how many controls are opposed.
    """
    (x, skip), (seed, opposed) = nodes, probing
    structure, sample = probe(problem, grid, seed, opposed)
    if structure.closed_form:
        rng = np.random.default_rng([seed, 1])
        tables, note = None, ""
        if sample is not None and isinstance(problem.controls, Box):
            tables = _constant_coefficients(problem, x, skip, sample, rng)
        if tables is None:
            tables, note = _quadratic(problem, x, skip, rng, opposed)
        if tables is not None:
            check_bounded(tables, x, opposed)
            check_noiseless(grid, faces, tables.D)
            return tables
    else:
        note = structure.note
    return general_tables(problem, x, skip, note)


def _constant_coefficients(
    problem: ControlProblem,
    x: Array,
    skip: NDArray[np.bool_] | None,
    sample: QuadraticFit,
    rng: np.random.Generator,
) -> QuadraticTables | None:
    """Tables with constant B, r1, R and box, or None where that does not hold.

    Two evaluations a node: one for f0 and r0, one at a random control as check.
    """
    controls = problem.controls
    B, r1, R = (_shared(t, None) for t in (sample.B, sample.r1, sample.R))
    if not isinstance(controls, Box) or controls.varies or callable(problem.discount):
        return None
    if any(t.shape[-1] > 1 for t in (B, r1, R)):
        return None
    low, high = (np.array(side)[:, None] for side in (controls.low, controls.high))
    base, _ = base_and_step(low, high)
    n, d = x.shape
    f0, D, r0 = np.empty((d, n)), np.empty((d, n)), np.empty(n)
    pairs: list[tuple[int, Array | None]] = []
    fixed = not callable(problem.diffusion)
    for start in range(0, n, BLOCK):
        cut = slice(start, min(start + BLOCK, n))
        size = cut.stop - cut.start
        hidden = None if skip is None else skip[cut]
        a = np.repeat(base, size, axis=1)
        here = evaluate(problem, x[cut], np.ascontiguousarray(a.T), hidden)
        f0[:, cut], r0[cut] = here.f - B[..., 0] @ a, here.r
        r0[cut] -= ((r1 - 0.5 * R[..., 0] @ a) * a).sum(0)
        pairs.append((size, here.pairs))
        if fixed:
            D[:, :1] = here.D[:, :1]
        else:
            D[:, cut] = here.D
        lows, highs = np.repeat(low, size, 1), np.repeat(high, size, 1)
        a = random_control(lows, highs, rng)
        truth = evaluate(problem, x[cut], np.ascontiguousarray(a.T), hidden)
        f = f0[:, cut] + B[..., 0] @ a
        r = r0[cut] + ((r1 - 0.5 * R[..., 0] @ a) * a).sum(0)
        keep = slice(None) if hidden is None else ~hidden
        if not (
            _close(f, truth.f, here.f, keep)
            and _close(r, truth.r, here.r, keep)
            and _close(here.D, truth.D, truth.D, keep)
            and same_noise((here.D, here.pairs), (truth.D, truth.pairs))[keep].all()
        ):
            return None
    D = D[:, :1].copy() if fixed else _shared(D, None if skip is None else ~skip)
    rho, joined = discount_of(problem, x[:1]), joined_pairs(pairs)
    if fixed and joined is not None:
        joined = joined[:, :1].copy()
    return QuadraticTables(f0, B, D, r0, r1, R, low, high, rho, pairs=joined)


def _close(one: Array, two: Array, other: Array, keep: Any) -> bool:
    scale = 1.0 + np.abs(two) + np.abs(other)
    return bool((np.abs(one - two) <= 1e-9 * scale)[..., keep].all())


def _quadratic(
    problem: ControlProblem,
    x: Array,
    skip: NDArray[np.bool_] | None,
    rng: np.random.Generator,
    opposed: int = 0,
) -> tuple[QuadraticTables | None, str]:
    n, d, m = len(x), x.shape[1], problem.n_controls
    shapes = ((d,), (d, m), (d,), (), (m,), (m, m), (m,), (m,), ())
    parts = [np.empty((*shape, n)) for shape in shapes]
    pairs: list[tuple[int, Array | None]] = []
    for start in range(0, n, BLOCK):
        cut = slice(start, min(start + BLOCK, n))
        hidden = None if skip is None else skip[cut]
        if m:
            low, high = control_range(problem, x[cut])
        else:
            low = high = np.zeros((0, len(x[cut])))
        fit = fit_quadratic(problem, x[cut], low, high, rng, hidden, opposed)
        if not fit.structure.closed_form:
            return None, f"{fit.structure.note} near x = {x[cut][0]}"
        rho = discount_of(problem, x[cut])
        found = (fit.f0, fit.B, fit.D, fit.r0, fit.r1, fit.R, low, high, rho)
        pairs.append((cut.stop - cut.start, fit.pairs))
        for part, values in zip(parts, found, strict=True):
            part[..., cut] = values
    keep = None if skip is None else ~skip
    f0, B, D, r0, r1, R, low, high, rho = parts
    small = [_shared(t, keep) for t in (B, D, r1, R, low, high, rho)]
    B, D, r1, R, low, high, rho = small
    joined = joined_pairs(pairs)
    if joined is not None:
        joined = _shared(joined, keep)
    tables = QuadraticTables(f0, B, D, r0, r1, R, low, high, rho, pairs=joined)
    return tables, ""


def _shared(table: Array, keep: NDArray[np.bool_] | None) -> Array:
    """The table with one column where all columns agree to round-off.

    Dirichlet nodes do not count: their rows are never used.
    """
    seen = table if keep is None else table[..., keep]
    if seen.shape[-1] == 0 or table.size == 0:
        return np.ascontiguousarray(table[..., :1])
    first = seen[..., :1]
    with np.errstate(invalid="ignore"):
        gap = np.where(seen == first, 0.0, np.abs(seen - first))
    # Differences in a carry round-off of the payoff's size, hence not exact zero.
    if (gap <= 1e-11 * np.abs(first)).all():
        return np.ascontiguousarray(np.median(seen, axis=-1, keepdims=True))
    return table


def general_tables(
    problem: ControlProblem, x: Array, skip: NDArray[np.bool_] | None, note: str
) -> GeneralTables:
    """Tables that keep the functions, for controls searched node by node."""
    n, m = len(x), problem.n_controls
    low = high = np.zeros((m, 1))
    if isinstance(problem.controls, Box):
        low, high = control_range(problem, x)
        if problem.best_control is None and not (
            np.isfinite(low).all() and np.isfinite(high).all()
        ):
            raise ProblemError(
                f"the control box is infinite, but no closed form holds ({note}): "
                "give finite bounds, or best_control(x, p, hess)."
            )
        if np.all(low == low[:, :1]) and np.all(high == high[:, :1]):
            low, high = low[:, :1].copy(), high[:, :1].copy()
    rho = np.empty(n)
    for start in range(0, n, BLOCK):
        rho[start : start + BLOCK] = discount_of(problem, x[start : start + BLOCK])
    out = GeneralTables(problem, x, low, high, _shared(rho, None), skip, note)
    if x.shape[1] == 1 or problem.diffusion is None:
        return out
    return replace(out, covariance=_free_covariance(out))


def _free_covariance(tables: GeneralTables) -> tuple[Array, Array] | None:
    """D and its pairs on the nodes, None where the axes' noises are independent.

    Two controls a node; correlated noise that depends on them is refused.
    """
    problem, n, rng = tables.problem, len(tables.x), np.random.default_rng(2)
    diagonal, pairs = [], []
    for start in range(0, n, BLOCK):
        cut = slice(start, min(start + BLOCK, n))
        x, hidden = tables.x[cut], None if tables.skip is None else tables.skip[cut]
        one, two = (_sampled(tables, cut, rng) for _ in range(2))
        D, pair = half_covariance(problem, x, one, hidden)
        other = half_covariance(problem, x, two, hidden)
        check_free_pairs((D, pair), other, x, two)
        diagonal.append(D)
        pairs.append((len(x), pair))
    joined = joined_pairs(pairs)
    return None if joined is None else (np.concatenate(diagonal, axis=1), joined)


def _sampled(tables: GeneralTables, cut: slice, rng: np.random.Generator) -> Array:
    """Random admissible controls (n, m) on some nodes."""
    controls, n = tables.problem.controls, len(tables.x[cut])
    if isinstance(controls, Finite):
        return controls.sample(rng, n)
    low, high = (
        np.broadcast_to(side if side.shape[1] == 1 else side[:, cut], (len(side), n))
        for side in (tables.low, tables.high)
    )
    return np.ascontiguousarray(random_control(low, high, rng).T)


def fixed_policy_tables(
    problem: ControlProblem, grid: Grid, faces: Faces, a: Array
) -> QuadraticTables:
    """Tables of a fixed policy a (N, m): no control is left to choose."""
    x = grid.nodes().reshape(-1, grid.dimension)
    skip = None if faces.fixed_mask is None else faces.fixed_mask.ravel()
    low = high = np.zeros((0, 1))
    general = GeneralTables(problem, x, low, high, np.zeros(1), skip)
    under = general.under(np.ascontiguousarray(a.T))
    check_noiseless(grid, faces, under.D)
    d = x.shape[1]
    rho = discount_of(problem, x)
    empty = np.zeros((0, 1))
    return QuadraticTables(
        under.f,
        np.zeros((d, 0, 1)),
        _shared(under.D, None if skip is None else ~skip),
        under.r,
        empty,
        np.zeros((0, 0, 1)),
        low,
        high,
        _shared(rho, None),
        pairs=under.pairs,
        jumps=JumpTable.of(problem, x, skip),
    )
