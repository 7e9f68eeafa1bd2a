"""What a problem's functions are, found out by evaluating them.

`probe` finds the structure the kernels can use; structure is a claim, checked again at
every node by the tabulator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .coefficients import Coefficients, evaluate, same_noise
from .errors import ProblemError
from .grid import Grid
from .problem import ControlProblem
from .sets import Box, Finite

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Structure:
    """Which closed forms hold."""

    affine_drift: bool
    quadratic_payoff: bool
    free_noise: bool
    note: str = ""

    @property
    def closed_form(self) -> bool:
        """Whether the maximiser is closed-form in every regime."""
        return self.affine_drift and self.quadratic_payoff and self.free_noise


@dataclass(frozen=True)
class QuadraticFit:
    """The coefficients found at points, and which of the claims held there."""

    structure: Structure
    f0: Array
    B: Array
    D: Array
    r0: Array
    r1: Array
    R: Array
    pairs: Array | None = None


def control_range(problem: ControlProblem, x: Array) -> tuple[Array, Array]:
    """Bounds of a control box at x (n, d), both (m, n)."""
    controls = problem.controls
    assert isinstance(controls, Box)
    low, high = controls.bounds_at(x)
    m = problem.n_controls
    low = np.broadcast_to(np.asarray(low, float), (len(x), m)).T
    high = np.broadcast_to(np.asarray(high, float), (len(x), m)).T
    bad = np.flatnonzero((~(low <= high)).any(axis=0))
    if bad.size:
        n = int(bad[0])
        raise ProblemError(
            f"the control box is reversed at x = {x[n]}: low {low[:, n]}, "
            f"high {high[:, n]}."
        )
    return low, high


def base_and_step(low: Array, high: Array) -> tuple[Array, Array]:
    """A control inside the box and a step that stays inside, both (m, n)."""
    finite_low, finite_high = np.isfinite(low), np.isfinite(high)
    lo, hi = np.where(finite_low, low, 0.0), np.where(finite_high, high, 0.0)
    both = finite_low & finite_high
    base = np.where(both, 0.5 * (lo + hi), 0.0)
    base = np.where(finite_low & ~finite_high, lo + 1.0, base)
    base = np.where(finite_high & ~finite_low, hi - 1.0, base)
    inside = both & (lo <= 0) & (hi >= 0)
    room = np.where(inside, np.minimum(hi, -lo), 0.0)
    use_zero = inside & (room >= 0.2 * (hi - lo))
    base = np.where(use_zero, 0.0, base)
    step = np.where(both, 0.2 * (hi - lo), 0.5)
    return base, np.where(step > 0, step, 0.0)


def random_control(low: Array, high: Array, rng: np.random.Generator) -> Array:
    """An admissible control at every point, (m, n); infinite sides cut at 2."""
    base, step = base_and_step(low, high)
    spread = np.where(np.isfinite(low) & np.isfinite(high), 2.4, 4.0) * step
    return np.clip(base + spread * (2 * rng.random(base.shape) - 1), low, high)


def probe(
    problem: ControlProblem, grid: Grid, seed: int = 0, opposed: int = 0
) -> tuple[Structure, QuadraticFit | None]:
    """Check the functions on a sample of nodes and find their structure.

    With a control box also the coefficients found on that sample. The last `opposed`
    controls minimise.

    Raises
    ------
    ProblemError
        As `evaluate`; also a function that gives two answers to one question.
    """
    rng = np.random.default_rng(seed)
    n = min(64, grid.size)
    interior = [rng.integers(1, max(s - 1, 2), size=n) for s in grid.shape]
    x = np.stack([ax[i] for ax, i in zip(grid.axes, interior, strict=True)], -1)
    controls = problem.controls
    if controls is None:
        a = np.zeros((n, 0))
    elif isinstance(controls, Finite):
        a = controls.sample(rng, n)
    else:
        low, high = control_range(problem, x)
        a = np.ascontiguousarray(random_control(low, high, rng).T)
    _check_pure(problem, x, a)
    if controls is None:
        return Structure(True, True, True), None
    if isinstance(controls, Finite):
        return Structure(False, False, False, "finite control set"), None
    fit = fit_quadratic(problem, x, low, high, rng, opposed=opposed)
    return fit.structure, fit


def fit_quadratic(
    problem: ControlProblem,
    x: Array,
    low: Array,
    high: Array,
    rng: np.random.Generator,
    skip: NDArray[np.bool_] | None = None,
    opposed: int = 0,
) -> QuadraticFit:
    """Coefficients by differences in a, checked at one random admissible control.

    x (n, d), low and high (m, n). Exact for affine drift and quadratic payoff. The
    last `opposed` controls minimise: the payoff must be convex in them.
    """
    m, n = low.shape
    base, step = base_and_step(low, high)

    def at(a: Array) -> Coefficients:
        return evaluate(problem, x, np.ascontiguousarray(a.T), skip)

    def moved(*axes: int, back: bool = False) -> Coefficients:
        a = base.copy()
        for i in axes:
            a[i] = a[i] - step[i] if back else a[i] + step[i]
        return at(a)

    safe = np.where(step > 0, step, 1.0)
    here = at(base)
    up = [moved(i) for i in range(m)]
    down = [moved(i, back=True) for i in range(m)]
    B = np.empty((x.shape[1], m, n))
    slope, R = np.empty((m, n)), np.zeros((m, m, n))
    for i in range(m):
        B[:, i] = (up[i].f - down[i].f) / (2 * safe[i])
        slope[i] = (up[i].r - down[i].r) / (2 * safe[i])
        R[i, i] = -((up[i].r - here.r) + (down[i].r - here.r)) / safe[i] ** 2
    for i in range(m):
        for j in range(i):
            both = moved(i, j)
            cross = (both.r - up[i].r) - (up[j].r - here.r)
            R[i, j] = R[j, i] = -cross / (safe[i] * safe[j])
    size = np.abs(here.r) + sum(np.abs(c.r) for c in (*up, *down)) + 1e-300
    R[np.abs(R) * (safe[:, None] * safe[None, :]) < 1e-11 * size] = 0.0
    slope[np.abs(slope) * safe < 1e-13 * size] = 0.0
    reach = np.abs(here.f) + sum(np.abs(c.f) for c in (*up, *down))
    B[np.abs(B) * safe[None] < 1e-13 * reach[:, None]] = 0.0
    r1 = slope + np.einsum("ijn,jn->in", R, base)
    quadratic = 0.5 * np.einsum("in,ijn,jn->n", base, R, base)
    r0 = here.r - (slope * base).sum(0) - quadratic
    f0 = here.f - np.einsum("imn,mn->in", B, base)
    fit = QuadraticFit(
        Structure(True, True, True), f0, B, here.D, r0, r1, R, here.pairs
    )
    found = _checked(fit, at, random_control(low, high, rng), size, here)
    if not found.structure.quadratic_payoff or bends_well(found.R, opposed):
        return found
    notes = [text for text in (found.structure.note, "payoff not concave in a") if text]
    structure = replace(found.structure, quadratic_payoff=False, note=", ".join(notes))
    return replace(found, structure=structure)


def bends_well(R: Array, opposed: int = 0) -> bool:
    """Whether R (m, m, n) is positive semidefinite, and negative where opposed."""
    cut = len(R) - opposed
    for own in (R[:cut, :cut], -R[cut:, cut:]):
        if len(own) and (np.einsum("iin->in", own) < 0).any():
            return False
        if len(own) > 1 and (np.linalg.eigvalsh(own.transpose(2, 0, 1)) < -1e-12).any():
            return False
    return True


def _checked(
    fit: QuadraticFit,
    at: Callable[[Array], Coefficients],
    a: Array,
    size: Array,
    here: Coefficients,
) -> QuadraticFit:
    truth = at(a)
    f = fit.f0 + np.einsum("imn,mn->in", fit.B, a)
    Ra = np.einsum("ijn,jn->in", fit.R, a)
    r = fit.r0 + ((fit.r1 - 0.5 * Ra) * a).sum(0)
    f_scale = np.abs(truth.f) + np.abs(fit.f0) + np.abs(fit.B).max(1, initial=0.0)
    affine = bool((np.abs(f - truth.f) <= 1e-9 * f_scale + 1e-300).all())
    gap = np.abs(r - truth.r)
    quadratic = bool((gap <= 1e-9 * (size + np.abs(truth.r))).all())
    free = bool(same_noise((here.D, here.pairs), (truth.D, truth.pairs)).all())
    notes = []
    if not affine:
        notes.append("drift not affine in a")
    if not quadratic:
        notes.append("payoff not quadratic in a")
    if not free:
        notes.append("noise depends on a")
    structure = Structure(affine, quadratic, free, ", ".join(notes))
    return replace(fit, structure=structure)


def _check_pure(problem: ControlProblem, x: Array, a: Array) -> None:
    x_kept, a_kept = x.copy(), a.copy()
    first = evaluate(problem, x, a)
    if not (np.array_equal(x, x_kept) and np.array_equal(a, a_kept)):
        raise ProblemError(
            "a user function writes into its arguments (x or a); work on a copy."
        )
    half = slice(0, max(1, len(x) // 2))
    second = evaluate(problem, x[half].copy(), a[half].copy())
    for field, one, two in (
        ("drift", first.f[:, half], second.f),
        ("diffusion", first.D[:, half], second.D),
        ("reward or cost", first.r[half], second.r),
    ):
        gap = np.abs(one - two)
        if (gap > 1e-9 * (1 + np.abs(one))).any():
            raise ProblemError(
                f"'{field}' is not a function of (x, a): two calls with the same "
                f"arguments differ by {gap.max():.3g}. It must not use randomness, "
                "hidden state or the other points of the batch."
            )
