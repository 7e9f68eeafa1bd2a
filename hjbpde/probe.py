"""What a problem's functions are, found out by evaluating them.

`evaluate` is the only place that calls them on NumPy arrays: it checks shapes and
finiteness and names the function, the point and the control at fault. `probe`
finds the structure the kernels can use; structure is a claim, checked again at
every node by the tabulator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import HJBError, ProblemError
from .grid import Grid
from .problem import ControlProblem
from .sets import Box, Finite

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Coefficients:
    """Tables of one control: drift f (d, n), noise D (d, n), payoff r (n).

    ``D`` is half the diagonal of sigma sigma^T; ``r`` is in the maximising sense.
    ``pairs`` (d (d - 1) / 2, n) are the entries above the diagonal, row by row; None
    where the axes' noises are independent.
    """

    f: Array
    D: Array
    r: Array
    pairs: Array | None = None


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


def describe_point(x: Array, a: Array) -> str:
    """A point and a control in words."""
    state = np.array2string(x, precision=6, separator=", ")
    control = np.array2string(a, precision=6, separator=", ")
    return f"x = {state}, a = {control}" if a.size else f"x = {state}"


def _call(field: str, function: Any, x: Array, a: Array) -> Array:
    try:
        with np.errstate(all="ignore"):
            out = function(x, a)
    except HJBError:
        raise
    except Exception as cause:
        raise ProblemError(
            f"'{field}' raised {type(cause).__name__}: {cause} at "
            f"{describe_point(x[0], a[0])} (called with {len(x)} points at once; it "
            "must be array code on x (n, d) and a (n, m))."
        ) from cause
    return np.asarray(out, dtype=float)


def _finite(field: str, out: Array, x: Array, a: Array, skip: Any) -> None:
    if np.isfinite(out).all():
        return
    bad = ~np.isfinite(out.reshape(len(x), -1)).all(axis=1)
    if skip is not None:
        bad &= ~skip
    if bad.any():
        n = int(np.flatnonzero(bad)[0])
        raise ProblemError(
            f"'{field}' is {np.ravel(out[n])} at {describe_point(x[n], a[n])}: not "
            "finite. Likely a logarithm, power or division outside its range; "
            "shrink the domain or the control set, or guard the function."
        )


def evaluate(
    problem: ControlProblem,
    x: Array,
    a: Array,
    skip: NDArray[np.bool_] | None = None,
    noise: Array | None = None,
) -> Coefficients:
    """Coefficients at states x (n, d) under controls a (n, m).

    Points in `skip` (Dirichlet nodes) may be non-finite and are set to 0. `noise`
    (d, 1) is D where it is known to be constant.

    Raises
    ------
    ProblemError
        Wrong shape, NaN or infinity, or an exception inside a user function.
    """
    field = "reward" if problem.reward is not None else "cost"
    f = _call("drift", problem.drift_at, x, a)
    _finite("drift", f, x, a, skip)
    pairs = None
    if noise is None:
        D, pairs = half_covariance(problem, x, a, skip)
    else:
        D = np.broadcast_to(noise, (len(noise), len(x)))
    r = problem.sign * _call(field, problem.payoff_at, x, a)
    _finite(field, r, x, a, skip)
    if skip is not None:
        f = np.where(skip[:, None], 0.0, f)
        r = np.where(skip, 0.0, r)
    return Coefficients(np.ascontiguousarray(f.T), D, r, pairs)


@dataclass(frozen=True)
class Motion:
    """What moves and pays at n points: f (n, d), sigma (n, d, k) and r (n)."""

    f: Array
    sigma: Array
    r: Array


def motion(
    problem: ControlProblem,
    x: Array,
    a: Array,
    skip: NDArray[np.bool_] | None = None,
) -> Motion:
    """Drift, the columns of the noise and payoff at x (n, d) under a (n, m).

    Unlike `evaluate` it keeps the columns, so noise may be correlated and depend on
    the control. Points in `skip` may be non-finite and are set to 0.

    Raises
    ------
    ProblemError
        As `evaluate`.
    """
    field = "reward" if problem.reward is not None else "cost"
    f = _call("drift", problem.drift_at, x, a)
    r = problem.sign * _call(field, problem.payoff_at, x, a)
    sigma = _call("diffusion", problem.diffusion_at, x, a)
    for name, out in (("drift", f), (field, r), ("diffusion", sigma)):
        _finite(name, out, x, a, skip)
    if skip is not None:
        f, r = np.where(skip[:, None], 0.0, f), np.where(skip, 0.0, r)
        sigma = np.where(skip[:, None, None], 0.0, sigma)
    return Motion(f, sigma, r)


def half_covariance(
    problem: ControlProblem, x: Array, a: Array, skip: NDArray[np.bool_] | None
) -> tuple[Array, Array | None]:
    """Diagonal (d, n) of half of sigma sigma^T, and its pairs if there are any."""
    if not callable(problem.diffusion):
        sigma = np.asarray(problem.diffusion_at(x[:1], a[:1]), dtype=float)
        D = 0.5 * np.einsum("nik,nik->in", sigma, sigma)
        pairs = _half_pairs(sigma)
        if pairs is not None:
            pairs = np.broadcast_to(pairs, (len(pairs), len(x)))
        return np.broadcast_to(D, (len(D), len(x))), pairs
    sigma = _call("diffusion", problem.diffusion_at, x, a)
    _finite("diffusion", sigma, x, a, skip)
    if skip is not None:
        sigma = np.where(skip[:, None, None], 0.0, sigma)
    return 0.5 * np.einsum("nik,nik->in", sigma, sigma), _half_pairs(sigma)


def _half_pairs(sigma: Array) -> Array | None:
    """Entries (i, j), i < j, of half of sigma sigma^T; None where none counts."""
    if (np.count_nonzero(sigma, axis=1) <= 1).all():
        # No noise moves two states: nearly all problems, and d^2 / 2 pairs to a point.
        return None
    d = sigma.shape[1]
    found, sizes = [], [np.linalg.norm(sigma[:, i], axis=1) for i in range(d)]
    for i in range(d):
        for j in range(i + 1, d):
            cross = np.einsum("nk,nk->n", sigma[:, i], sigma[:, j])
            cross[np.abs(cross) <= 1e-12 * sizes[i] * sizes[j]] = 0.0
            found.append(0.5 * cross)
    return np.stack(found) if any(pair.any() for pair in found) else None


def same_noise(
    one: tuple[Array, Array | None], two: tuple[Array, Array | None]
) -> NDArray[np.bool_]:
    """Where two controls, with their D and pairs, feel the same noise, (n,)."""
    (D, pairs), (other, others) = one, two
    near = np.all(np.abs(D - other) <= 1e-12 * (D + other), axis=0)
    if pairs is None and others is None:
        return np.asarray(near)
    zero, size = np.zeros(1), np.sum(D + other, axis=0)
    first = zero if pairs is None else pairs
    second = zero if others is None else others
    return np.asarray(near & np.all(np.abs(first - second) <= 1e-12 * size, axis=0))


def discount_of(problem: ControlProblem, x: Array) -> Array:
    """rho at x (n, d), checked to be finite and positive."""
    rho = np.asarray(problem.discount_at(x), dtype=float)
    ends = problem.exit is not None or problem.horizon is not None
    free = ends or problem.average
    least = rho >= 0 if free else rho > 0
    bad = np.flatnonzero(~(np.isfinite(rho) & least))
    if bad.size:
        n = int(bad[0])
        raise ProblemError(
            f"'discount' is {rho[n]:g} at x = {x[n]}; a rate must be finite, and "
            "positive where the problem has no horizon, exit or average."
        )
    return rho


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
