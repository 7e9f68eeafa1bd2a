"""What semi-Lagrangian solves in progress depend on, as arrays: for checkpoints.

Steps, searches and obstacles follow from the problem; the rest is values, policies and
what is known of the faces.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..faces import Faces
from ..methods.memory import plain

Array = NDArray[Any]


def memory_of_faces(faces: Faces) -> dict[str, Array]:
    """All numbers of all faces, and the data on fixed nodes."""
    out = {
        f"face{i}.{name}": np.array(value)
        for i, face in enumerate(faces.faces)
        for name, value in vars(face).items()
    }
    if faces.fixed_values is not None:
        out["fixed"] = faces.fixed_values.copy()
    return out


def recall_faces(faces: Faces, memory: Mapping[str, Array]) -> None:
    """The inverse of `memory_of_faces`."""
    for i, face in enumerate(faces.faces):
        for name in vars(face):
            setattr(face, name, plain(memory[f"face{i}.{name}"]))
    if faces.fixed_values is not None:
        faces.fixed_values = memory["fixed"].copy()


def prefixed(prefix: str, memory: Mapping[str, Array]) -> dict[str, Array]:
    """The same under names that begin so."""
    return {f"{prefix}{name}": values for name, values in memory.items()}


def under(prefix: str, memory: Mapping[str, Array]) -> dict[str, Array]:
    """The inverse of `prefixed`: what is kept under names that begin so."""
    return {
        name.removeprefix(prefix): values
        for name, values in memory.items()
        if name.startswith(prefix)
    }
