"""What a problem's functions give at states and controls, checked.

`evaluate` and `motion` are the only places that call drift, noise and payoff on NumPy
arrays: they check shapes and finiteness and name the function, the point and the
control at fault.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import HJBError, ProblemError
from .problem import ControlProblem
from .real_numbers import real_array

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
    return real_array(out, f"'{field}'")


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
    least = rho >= 0 if problem.may_end or problem.average else rho > 0
    bad = np.flatnonzero(~(np.isfinite(rho) & least))
    if bad.size:
        n = int(bad[0])
        raise ProblemError(
            f"'discount' is {rho[n]:g} at x = {x[n]}; a rate must be finite, and "
            "positive where the problem has no horizon, exit, right to stop, average, "
            "or noise that carries it to Dirichlet data."
        )
    return rho
