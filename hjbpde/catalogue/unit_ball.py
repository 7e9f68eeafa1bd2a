"""A static problem in the unit ball, with a quadratic answer."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..arrays import namespace
from ..boundary import Reflecting
from ..errors import ProblemError
from ..events import Exit
from ..grid import Grid
from ..problem import ControlProblem, Exact
from ..sets import Box


def unit_ball(
    *,
    dimension: int = 2,
    gain: float = 1.0,
    state_cost: float = 1.0,
    control_cost: float = 0.5,
    discount: float = 0.3,
) -> ControlProblem:
    """Unit ball: steer to stay inside cheaply; leaving ends the process at k.

    ``dX = beta u dt + sqrt 2 dW``, running cost ``p |x|^2 + q |u|^2 - 2 k d``, exit
    value k on the sphere, discount gamma. ``V = k |x|^2`` with ``k = (sqrt(gamma^2
    q^2 + 4 p q beta^2) - gamma q) / (2 beta^2)``, ``u* = -beta k x / q``.

    Source: Zhou, Han and Lu, SIAM J. Sci. Comput. 43 (2021) A4043, section 5.1.
    """
    if gain == 0 or min(state_cost, control_cost, discount) <= 0:
        raise ProblemError(
            "unit-ball: gain must not be 0, costs and discount must be positive."
        )
    d, b, p, q = dimension, gain, state_cost, control_cost
    root = np.sqrt((discount * q) ** 2 + 4 * p * q * b * b)
    k = (root - discount * q) / (2 * b * b)
    reach = 4.0 * abs(b) * k / q

    def squared(x: Any) -> Any:
        return namespace(x).sum(x * x, axis=-1)

    domain = Box([-1.2] * d, [1.2] * d)
    return ControlProblem(
        drift=lambda x, a: b * a,
        diffusion=float(np.sqrt(2.0)),
        cost=lambda x, a: p * squared(x) + q * squared(a) - 2.0 * k * d,
        controls=Box([-reach] * d, [reach] * d),
        domain=domain,
        discount=discount,
        exit=Exit(lambda x: 1.0 - squared(x) ** 0.5, lambda x: k * squared(x)),
        boundary=Reflecting(),
        exact=Exact(
            value=lambda x: k * squared(x),
            gradient=lambda x: 2 * k * x,
            control=lambda x: -b * k / q * x,
            source="Zhou, Han and Lu (2021), section 5.1",
        ),
        name="unit-ball",
        suggested_grid=Grid(domain, (81,) * d if d <= 2 else (33,) * d),
    )
