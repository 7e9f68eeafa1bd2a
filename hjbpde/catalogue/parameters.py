"""What the builders ask of their parameters."""

from __future__ import annotations

import numpy as np

from ..errors import ProblemError


def require_positive(name: str, **numbers: float) -> None:
    """Refuse parameters of the problem `name` that are not finite and positive.

    Raises
    ------
    ProblemError
        Naming the problem and the first such parameter.
    """
    for label, number in numbers.items():
        if not (np.isfinite(number) and number > 0):
            raise ProblemError(f"{name}: {label} must be positive, got {number!r}.")
