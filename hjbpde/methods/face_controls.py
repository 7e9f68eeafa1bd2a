"""Controls where no row asks for one: on faces that carry data, and at the horizon."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..improvement import MonotoneStencil, improve
from .state import GridState

Array = NDArray[np.float64]


def greedy_everywhere(state: GridState) -> Array:
    """The greedy control of V on all nodes, (m, N); `state` is left as it is."""
    a = state.a.copy()
    if len(a):
        stencil = MonotoneStencil.of(state.faces, state.scheme, state.V)
        improve(state.tables, stencil, a)
    return a


def complete_ends(state: GridState) -> None:
    """Controls on data-carrying ends of a 1-D grid, which the fused sweep skips."""
    mask = state.faces.fixed_mask
    if state.grid.dimension > 1 or mask is None or not len(state.a):
        return
    fixed = mask.ravel()
    state.a[:, fixed] = greedy_everywhere(state)[:, fixed]
