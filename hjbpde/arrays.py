"""Array-API access: one user function for NumPy arrays and torch tensors.

User functions take their mathematics from ``namespace(x)`` and their captured
constants from ``constant(A, like=x)``; both keep dtype, device and gradient.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat import array_namespace, device
from numpy.typing import NDArray

Points = NDArray[np.float64]
"""States, shape ``(..., d)``."""
Values = NDArray[np.float64]
"""One number a node, shape of the grid."""
Policy = NDArray[np.float64]
"""Controls, shape ``(..., m)``."""


def namespace(*arrays: Any) -> Any:
    """The array-API namespace (``sin``, ``exp``, ``where``, ...) of the arguments.

    >>> import numpy as np
    >>> float(namespace(np.zeros(1)).cos(np.zeros(1))[0])
    1.0
    """
    return array_namespace(*arrays)


def constant(value: Any, *, like: Any) -> Any:
    """`value` as an array with the namespace, dtype and device of `like`."""
    return namespace(like).asarray(value, dtype=like.dtype, device=device(like))
