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


def _known_value(d: int) -> tuple[Callable[[Any], Any], ...]:
    """V*, grad V* and lap V* of the default problem, as array code."""
    i = np.arange(d, dtype=float)
    bend, pace, phase = 1 - 0.05 * i, 1 + 0.2 * i, 0.3 * i

    def parts(x: Any) -> tuple[Any, Any, Any, Any]:
        c, w, s = (constant(v, like=x) for v in (bend, pace, phase))
        return namespace(x), c, w, w * x + s

    def value(x: Any) -> Any:
        xp, c, _, angle = parts(x)
        v = xp.sum(-0.5 * c * x * x + 0.2 * xp.sin(angle), axis=-1)
        return v + 0.15 * xp.sin(x[..., 0]) * xp.cos(x[..., 1]) if d > 1 else v

    def gradient(x: Any) -> Any:
        xp, c, w, angle = parts(x)
        p = -c * x + 0.2 * w * xp.cos(angle)
        if d == 1:
            return p
        first = 0.15 * xp.cos(x[..., 0]) * xp.cos(x[..., 1])
        second = -0.15 * xp.sin(x[..., 0]) * xp.sin(x[..., 1])
        rest = [xp.zeros_like(first)] * (d - 2)
        return p + xp.stack((first, second, *rest), axis=-1)

    def laplacian(x: Any) -> Any:
        xp, c, w, angle = parts(x)
        q = xp.sum(-c - 0.2 * w * w * xp.sin(angle), axis=-1)
        return q - 0.3 * xp.sin(x[..., 0]) * xp.cos(x[..., 1]) if d > 1 else q

    return value, gradient, laplacian


def _known_drift(d: int) -> Callable[[Any], Any]:
    def free_drift(x: Any) -> Any:
        xp = namespace(x)
        f = -0.5 * x + 0.3 * xp.sin(x)
        return f + 0.2 * xp.roll(x, -1, axis=-1) if d > 1 else f

    return free_drift


def manufactured(
    *,
    dimension: int = 1,
    sigma: float = 0.3,
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
    faces), a rule, or None for artificial faces.
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
    v, p, q = own if value is not None else _known_value(d)
    f0 = free_drift or _known_drift(d)
    assert v is not None and p is not None and q is not None

    def drift(x: Any, a: Any) -> Any:
        return f0(x) + a

    def reward(x: Any, a: Any) -> Any:
        xp = namespace(x)
        slope = p(x)
        source = discount * v(x) - xp.sum((f0(x) + slope) * slope, axis=-1)
        source = source - 0.5 * sigma**2 * q(x)
        return source - 0.25 * xp.sum(a * a, axis=-1)

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
        diffusion=sigma,
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
