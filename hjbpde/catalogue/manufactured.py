"""A nonlinear problem built backwards from its value, in any dimension."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..arrays import constant, namespace
from ..boundary import Dirichlet
from ..errors import ProblemError
from ..grid import Grid
from ..problem import ControlProblem, Exact
from ..sets import Box

Jet = Callable[[Any], tuple[Any, Any, Any]]


def _total(x: Any) -> Any:
    """Sum over the last axis, one component after the other (d is small)."""
    out = x[..., 0]
    for k in range(1, x.shape[-1]):
        out = out + x[..., k]
    return out


def _known_jet(d: int) -> Jet:
    """V*, grad V* and lap V* of the default problem at once, as array code."""
    i = np.arange(d, dtype=float)
    bend, pace, phase = 1 - 0.05 * i, 1 + 0.2 * i, 0.3 * i

    def jet(x: Any) -> tuple[Any, Any, Any]:
        xp = namespace(x)
        c, w, s = (constant(v, like=x) for v in (bend, pace, phase))
        angle, fall = w * x + s, c * x
        wave = 0.2 * xp.sin(angle)
        v = _total(wave - 0.5 * fall * x)
        p = 0.2 * w * xp.cos(angle) - fall
        q = _total(-c - w * w * wave)
        if d == 1:
            return v, p, q
        one, two = x[..., 0], x[..., 1]
        sine, cosine = 0.15 * xp.sin(one), xp.cos(two)
        coupling = sine * cosine
        first = 0.15 * xp.cos(one) * cosine
        second = -sine * xp.sin(two)
        rest = [xp.zeros_like(first)] * (d - 2)
        p = p + xp.stack((first, second, *rest), axis=-1)
        return v + coupling, p, q - 2.0 * coupling

    return jet


def _known_mixed(x: Any) -> Any:
    """V*_01, the only mixed derivative of the default value."""
    xp = namespace(x)
    return -0.15 * xp.cos(x[..., 0]) * xp.sin(x[..., 1])


def _noise(d: int, sigma: float, correlation: float) -> Any:
    """sigma, or sigma times a root of the matrix with one correlation for all pairs."""
    if correlation == 0:
        return sigma
    if d < 2 or not -1 / (d - 1) < correlation < 1:
        raise ProblemError(
            f"manufactured: correlation = {correlation} in {d} dimensions; give two "
            "states or more and a number above -1 / (dimension - 1) and below 1."
        )
    together = np.full((d, d), correlation) + (1 - correlation) * np.eye(d)
    return sigma * np.linalg.cholesky(together)


def _known_drift(d: int) -> Callable[[Any], Any]:
    def free_drift(x: Any) -> Any:
        xp = namespace(x)
        f = -0.5 * x + 0.3 * xp.sin(x)
        return f + 0.2 * xp.roll(x, -1, axis=-1) if d > 1 else f

    return free_drift


def _jet_of(value: Any, gradient: Any, laplacian: Any) -> Jet:
    return lambda x: (value(x), gradient(x), laplacian(x))


def manufactured(
    *,
    dimension: int = 1,
    sigma: float = 0.3,
    correlation: float = 0.0,
    discount: float = 0.2,
    half_width: float = 2.0,
    boundary: Any = "exact",
    value: Callable[[Any], Any] | None = None,
    gradient: Callable[[Any], Any] | None = None,
    laplacian: Callable[[Any], Any] | None = None,
    free_drift: Callable[[Any], Any] | None = None,
) -> ControlProblem:
    """Manufactured: nonlinear drift, known non-separable value and control.

    ``f = f0(x) + a``, noise ``sigma I``, reward ``S(x) - |a|^2/4``, so that
    ``a* = 2 grad V*`` and ``S = rho V* - f0 . grad V* - |grad V*|^2 - sigma^2/2
    lap V*`` makes the HJB exact. Default V* and f0 are those of the reference table
    (quadratic, sines and a coupling of the first two states). Give your own
    ``value``, ``gradient``, ``laplacian`` (and ``free_drift``) as array code.
    ``boundary`` is "exact" (Dirichlet V*, which gives the answer away on the
    faces), a rule, or None for artificial faces. ``correlation`` of the noise between
    every two axes needs the default V*; S then also pays its mixed derivatives.
    """
    d = dimension
    if int(d) != d or d < 1:
        raise ProblemError(f"manufactured: dimension must be 1 or more, got {d}.")
    own = (value, gradient, laplacian)
    if any(f is None for f in own) and any(f is not None for f in own):
        raise ProblemError(
            "manufactured: give value, gradient and laplacian together; the source "
            "term needs all three."
        )
    if value is not None and correlation:
        raise ProblemError(
            "manufactured: correlation needs the default value, whose mixed "
            "derivatives are known; put them into a reward of your own."
        )
    noise = _noise(int(d), sigma, correlation)
    jet = _known_jet(d) if value is None else _jet_of(*own)
    f0 = free_drift or _known_drift(d)

    def v(x: Any) -> Any:
        return jet(x)[0]

    def p(x: Any) -> Any:
        return jet(x)[1]

    def drift(x: Any, a: Any) -> Any:
        return f0(x) + a

    def reward(x: Any, a: Any) -> Any:
        level, slope, bend = jet(x)
        source = discount * level - 0.5 * sigma**2 * bend
        if correlation:
            source = source - correlation * sigma**2 * _known_mixed(x)
        return source - _total((f0(x) + slope) * slope + 0.25 * a * a)

    if isinstance(boundary, str):
        if boundary != "exact":
            raise ProblemError(
                f"manufactured: boundary must be 'exact', a rule or None; "
                f"got {boundary!r}."
            )
        boundary = Dirichlet(v)
    domain = Box([-half_width] * d, [half_width] * d)
    nodes = {1: 801, 2: 201, 3: 49, 4: 25}.get(d, 9)
    return ControlProblem(
        drift=drift,
        diffusion=noise,
        reward=reward,
        controls=Box([-np.inf] * d, [np.inf] * d),
        domain=domain,
        discount=discount,
        boundary=boundary,
        exact=Exact(
            value=v,
            gradient=p,
            control=lambda x: 2.0 * p(x),
            source="by construction: the reward is chosen to make the HJB exact",
        ),
        name="manufactured",
        suggested_grid=Grid(domain, (nodes,) * d),
    )
