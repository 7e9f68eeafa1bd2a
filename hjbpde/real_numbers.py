"""What users give as numbers, read as float64 or refused in words."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import ProblemError


def real_array(given: Any, what: str) -> NDArray[np.float64]:
    """`given` as a float64 array, whatever holds real numbers.

    Raises
    ------
    ProblemError
        Text, objects, complex numbers, ragged lists, or a tensor that NumPy cannot
        read because it carries a gradient or lives on another device; `what` names it.
    """
    try:
        array = np.asarray(given)
        if array.dtype.kind not in "fiub":
            raise TypeError(f"its numbers are {array.dtype}")
        return np.asarray(array, dtype=float)
    except (TypeError, ValueError, RuntimeError) as cause:
        raise ProblemError(
            f"{what} is no array of real numbers ({cause}). Give a NumPy array or a "
            "list of numbers; of a tensor x, x.detach().cpu().numpy()."
        ) from cause
