"""The bounded-velocity follower: stay near 0 in the long run, at a bounded speed."""

from __future__ import annotations

from typing import Any

from ..arrays import namespace
from ..boundary import Robin
from ..errors import ProblemError
from ..grid import Grid
from ..problem import ControlProblem, Exact
from ..sets import Box
from .parameters import require_positive


def bounded_follower(
    *,
    bound: float = 1.0,
    sigma: float = 0.6,
    half_width: float = 3.0,
    boundary: Any = "exact",
) -> ControlProblem:
    """Bounded-velocity follower: steer at |a| <= M towards 0; a long-run average.

    ``dX = a dt + sigma dW``, cost ``x^2`` a unit of time, the average of which is made
    least: ``average = inf_a { x^2 + a V' } + sigma^2 V'' / 2`` on the line. With V even
    and V'(0) = 0 ::

        a* = -M sign x
        V' = x^2 / M + sigma^2 x / M^2,    V = x^3 / (3 M) + sigma^2 x^2 / (2 M^2)
                                                                       for x >= 0
        average = sigma^4 / (2 M^2)

    The state has the density ``(M / sigma^2) exp(-2 M |x| / sigma^2)``, whose second
    moment is the average; any other multiple of it would let V' grow exponentially.

    ``boundary`` at both ends is "exact" (Robin data: V' above), any rule, or None
    (artificial).

    Source: Benes, Shepp and Witsenhausen, Stochastics 4 (1980) 39, for the discounted
    problem; the average follows from the equation above.
    """
    require_positive("bounded-follower", bound=bound, sigma=sigma)
    require_positive("bounded-follower", half_width=half_width)
    pull = sigma**2 / bound**2

    def value(x: Any) -> Any:
        away = namespace(x).abs(x[..., 0])
        return away**3 / (3.0 * bound) + 0.5 * pull * away**2

    def gradient(x: Any) -> Any:
        return namespace(x).sign(x) * x**2 / bound + pull * x

    def control(x: Any) -> Any:
        return -bound * namespace(x).sign(x)

    if isinstance(boundary, str):
        if boundary != "exact":
            raise ProblemError(
                "bounded-follower: boundary must be 'exact', a rule or None; got "
                f"{boundary!r}."
            )
        boundary = Robin(0.0, 1.0, half_width**2 / bound + pull * half_width)
    domain = Box(-half_width, half_width)
    average = 0.5 * sigma**2 * pull
    return ControlProblem(
        drift=lambda x, a: a,
        diffusion=sigma,
        cost=lambda x, a: x[..., 0] ** 2,
        controls=Box(-bound, bound),
        domain=domain,
        boundary=boundary,
        average=True,
        exact=Exact(
            value,
            gradient,
            control,
            source="Benes, Shepp and Witsenhausen (1980), in the long run",
            average=average,
        ),
        name="bounded-follower",
        suggested_grid=Grid(domain, 401),
    )
