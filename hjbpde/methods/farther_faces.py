"""The same problem with its artificial faces farther off: what they do to V.

An artificial face cuts a problem that goes on beyond it. Where V comes from outside, no
closure of the face can know it; the same scheme on a larger box does. What faces there
do in their turn is seen by closing them in another way.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..grid import Grid
from ..problem import ControlProblem
from ..sets import Box

NEAR = 0.5
"""Share of the box added beyond every artificial face."""
FAR = 1.5
"""The same where what lies beyond these is felt as well."""


def farther(
    problem: ControlProblem, grid: Grid, share: float = NEAR
) -> tuple[ControlProblem, Grid, tuple[slice, ...]]:
    """A problem on a larger box, a grid on it, and where the nodes of `grid` are in it.

    The user's functions must make sense there: who calls this is ready for errors.
    """
    axes, cut = [], []
    for k, axis in enumerate(grid.axes):
        cells = int(np.ceil(share * (axis.size - 1)))
        artificial = [
            not grid.periodic[k] and problem.faces.get((k, side)) is None
            for side in ("low", "high")
        ]
        before, after = (cells if one else 0 for one in artificial)
        low = axis[0] + (axis[1] - axis[0]) * np.arange(-before, 0)
        high = axis[-1] + (axis[-1] - axis[-2]) * np.arange(1, after + 1)
        axes.append(np.concatenate([low, axis, high]))
        cut.append(slice(before, before + axis.size))
    low, high = (
        np.array(side, dtype=float) for side in (grid.domain.low, grid.domain.high)
    )
    for k in range(grid.dimension):
        if not grid.periodic[k]:
            low[k], high[k] = axes[k][0], axes[k][-1]
    domain = Box(low, high, periodic=grid.periodic)
    wider = replace(problem, domain=domain, suggested_grid=None)
    return wider, Grid.from_axes(axes, domain), tuple(cut)
