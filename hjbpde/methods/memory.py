"""What a solve in progress depends on, as arrays: for checkpoints.

The engines matter as well: which of them is in use, and along which axes their coarser
grids were chosen when they saw their first rows. With both, and with the value, the
policy and the slopes at artificial faces, the next step has the same bits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..coefficients import Coefficients
from .state import GridState

Array = NDArray[Any]
SLOPE = ("C", "slope", "geometric", "damping")


def memory_of(state: GridState) -> dict[str, Array]:
    """V, the policy, artificial faces and engines; what more a later step reads."""
    out = {"V": state.V.copy(), "a": state.a.copy()}
    out["ladder"] = np.array(json.dumps(state.ladder.memory()))
    for i, face in enumerate(state.faces.artificial):
        for name in SLOPE:
            out[f"face{i}.{name}"] = np.array(getattr(face, name))
    return out


def recall(state: GridState, memory: Mapping[str, Array]) -> None:
    """Bring a state that has just been made to where `memory` left it."""
    state.V, state.a = memory["V"].copy(), memory["a"].copy()
    state.ladder.recall(json.loads(str(memory["ladder"])))
    for i, face in enumerate(state.faces.artificial):
        for name in SLOPE:
            setattr(face, name, plain(memory[f"face{i}.{name}"]))


def result_of(state: GridState) -> dict[str, Array]:
    """The memory of a grid that is solved, with what error bars read of it."""
    out = memory_of(state)
    out["bounds"] = np.array(state.bounds)
    out["status"] = np.array(state.status)
    for name in ("least", "most", "amplification"):
        if getattr(state, name) is not None:
            out[name] = np.array(getattr(state, name))
    if state.under is not None:
        for name, values in vars(state.under).items():
            if values is not None:
                out[f"under.{name}"] = np.array(values)
    return out


def recall_result(state: GridState, memory: Mapping[str, Array]) -> None:
    """The inverse of `result_of`."""
    recall(state, memory)
    state.bounds = [float(bound) for bound in memory["bounds"]]
    state.status = str(memory["status"])
    for name in ("least", "most", "amplification"):
        if name in memory:
            setattr(state, name, plain(memory[name]))
    names = [name for name in memory if name.startswith("under.")]
    if names:
        fields = {name.removeprefix("under."): memory[name] for name in names}
        state.under = Coefficients(**fields)


def plain(values: Array) -> Any:
    """A scalar where the array has no axes."""
    return values.copy() if values.ndim else values.item()
