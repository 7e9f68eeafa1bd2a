"""From a problem, with or without an adversary, to the Hamiltonian marched.

Both players' controls are tabulated together: where drift is affine in (a, b) and the
payoff a diagonal quadratic, extrema are closed-form and their order does not matter
(Isaacs' condition holds); otherwise they run over samples, in the order written.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..coefficients import evaluate
from ..errors import MemoryBudgetError, MethodMismatch
from ..faces import Faces
from ..grid import Grid
from ..held import keywords
from ..players import one_player
from ..problem import ControlProblem
from ..sets import Box, ControlSet, Finite
from ..tabulate import QuadraticTables, tabulate
from .hamiltonians import AffineHamiltonian, SampledHamiltonian
from .rates import Discount

Array = NDArray[np.float64]
SAMPLES = {1: 65, 2: 17, 3: 9}
"""Samples of a box of controls along each of its axes, by their number."""
MOST_NUMBERS = 1.5e8
"""Doubles of a table of samples beyond which it is refused."""


@dataclass(frozen=True)
class Game:
    """The Hamiltonian, the discount rate (N or 1,) or that of a calendar time, and how
    extrema are taken."""

    hamiltonian: AffineHamiltonian | SampledHamiltonian
    rho: Array | Discount
    check: str


def game_of(problem: ControlProblem, grid: Grid) -> Game:
    """Tabulate the problem for explicit marching, at the horizon first.

    Raises
    ------
    MethodMismatch
        Noise; bounds of one player that depend on x beside a Finite set.
    MemoryBudgetError
        Too many samples of both controls for the grid.
    """
    end = float(problem.horizon or 0.0)
    first, rho, check = _at(problem, grid, end)
    if not problem.depends_on_time:
        return Game(first, rho, check)

    def at_time(t: float) -> Any:
        return _at(problem, grid, t)[0]

    if "t" not in keywords(problem.discount):
        return Game(replace(first, at_time=at_time), rho, check)
    nodes = grid.nodes().reshape(-1, grid.dimension)

    def discount(t: float) -> Array:
        return np.asarray(problem.at_time(t).discount_at(nodes), dtype=float)

    return Game(replace(first, at_time=at_time), discount, check)


def _at(
    problem: ControlProblem, grid: Grid, t: float
) -> tuple[AffineHamiltonian | SampledHamiltonian, Array, str]:
    joint = one_player(problem.slice_at(t, 1.0))
    faces = Faces.of(replace(joint, boundary=None), grid)
    joint = replace(joint, boundary=None)
    sets = [s for s in (problem.controls, problem.adversary) if s is not None]
    if all(isinstance(s, Box) for s in sets):
        opposed = 0 if problem.adversary is None else problem.adversary.dimension
        tables = tabulate(joint, grid, faces, opposed=opposed)
        _refuse_noise(getattr(tables, "D", np.zeros(1)))
        if isinstance(tables, QuadraticTables) and _is_diagonal(tables.R):
            check = "extrema over the controls closed-form"
            return _affine(tables, problem.n_controls, grid), tables.rho - 1.0, check
    sampled, rho = _sampled(problem, joint, grid)
    na, nb = sampled.f.shape[:2]
    check = f"extrema over {na} x {nb} samples of the controls"
    return sampled, rho, check


def _affine(tables: QuadraticTables, m: int, grid: Grid) -> AffineHamiltonian:
    total = tables.n_controls
    sense = np.where(np.arange(total) < m, 1.0, -1.0)
    # The payoff holds -R u^2/2 for both players; the minimiser pays where R < 0.
    R = np.einsum("iin->in", tables.R) * sense[:, None]
    rows = (tables.f0, tables.B, tables.r0, tables.r1, R, tables.low, tables.high)
    return AffineHamiltonian(*rows, sense, shape=grid.shape)


def _sampled(
    problem: ControlProblem, joint: ControlProblem, grid: Grid
) -> tuple[SampledHamiltonian, Array]:
    x = grid.nodes().reshape(-1, grid.dimension)
    a, b = samples_of(problem.controls), samples_of(problem.adversary)
    n, d = x.shape
    if len(a) * len(b) * (d + 1) * n > MOST_NUMBERS:
        raise MemoryBudgetError(
            f"explicit marching: {len(a)} x {len(b)} samples of the controls on "
            f"{n} nodes need {8e-9 * len(a) * len(b) * (d + 1) * n:.1f} GB. Give the "
            "problem closed-form structure (drift affine in the controls, payoff "
            "quadratic), or hjb.Finite sets of few controls."
        )
    f, r = np.empty((len(a), len(b), d, n)), np.empty((len(a), len(b), n))
    for i, one in enumerate(a):
        for j, two in enumerate(b):
            u = np.broadcast_to(np.r_[one, two], (n, len(one) + len(two)))
            here = evaluate(joint, x, np.ascontiguousarray(u))
            _refuse_noise(here.D)
            f[i, j], r[i, j] = here.f, here.r
    rho = np.atleast_1d(np.asarray(joint.discount_at(x), dtype=float)) - 1.0
    return SampledHamiltonian(f, r, a, b), rho


def samples_of(controls: ControlSet | None) -> Array:
    """Points of a finite set, or a lattice in a box, corners included.

    Raises
    ------
    MethodMismatch
        A box that is infinite, depends on x, or has too many axes.
    """
    if controls is None:
        return np.zeros((1, 0))
    if isinstance(controls, Finite):
        return np.asarray(controls.points)
    if controls.varies or not (
        np.isfinite(controls.low).all() and np.isfinite(controls.high).all()
    ):
        raise MethodMismatch(
            "explicit marching: without closed-form extrema (drift affine, payoff "
            "diagonal quadratic in the controls) a box of controls must be finite "
            "and constant."
        )
    m = controls.dimension
    count = SAMPLES.get(m)
    if count is None:
        raise MethodMismatch(
            f"explicit marching: {m} controls without closed-form extrema cannot be "
            "sampled; give hjb.Finite controls."
        )
    lows, highs = np.asarray(controls.low), np.asarray(controls.high)
    axes = [np.linspace(lows[i], highs[i], count) for i in range(m)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, m)


def _is_diagonal(R: Array) -> bool:
    off = R.copy()
    off[np.arange(len(R)), np.arange(len(R))] = 0.0
    return not off.any()


def _refuse_noise(D: Array) -> None:
    if D.any():
        raise MethodMismatch(
            "explicit marching takes problems without noise: the largest "
            f"sigma sigma^T is {2 * float(np.max(D)):.3g}. hjb.Marching() takes noise."
        )


def isaacs_gap(game: Game, p: Array) -> float:
    """max over nodes of inf_b sup_a - sup_a inf_b at the gradient p (d, N); >= 0."""
    hamiltonian = game.hamiltonian
    if isinstance(hamiltonian, AffineHamiltonian):
        return 0.0
    payoff = hamiltonian.r + np.einsum("abkn,kn->abn", hamiltonian.f, p)
    gap = payoff.max(axis=0).min(axis=0) - payoff.min(axis=1).max(axis=0)
    return max(float(gap.max()), 0.0)
