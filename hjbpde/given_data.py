"""What problems give as a number or as a function of x: data of faces and exits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import ProblemError

Array = NDArray[np.float64]


def given_at(g: Any, x: Array, field: str = "") -> Array:
    """g at states x (..., d), shape (...); a number is the same at all of them.

    Raises
    ------
    ProblemError
        With a `field` to name: g is not finite somewhere.
    """
    found = np.asarray(g(x) if callable(g) else g, dtype=float)
    found = np.broadcast_to(found, x.shape[:-1])
    bad = ~np.isfinite(found)
    if field and bad.any():
        raise ProblemError(f"{field} is not finite at x = {x[bad][0]}.")
    return found
