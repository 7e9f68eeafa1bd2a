"""The same problem with its artificial faces farther off: what they do to V.

An artificial face cuts a problem that goes on beyond it. Where V comes from outside, no
closure of the face can know it; the same scheme on a larger box does. What faces there
do in their turn is seen by closing them in another way.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from ..grid import Grid
from ..problem import ControlProblem
from ..sets import Box

Array = NDArray[np.float64]
NEAR = 0.5
"""Share of the box added beyond every artificial face."""
FAR = 1.5
"""The same where what lies beyond these is felt as well."""
MOST_RATIO = 1e12
"""Of what larger and smaller boxes change, told from no change at all."""
HALVING = {1: 8}
"""Cells of larger boxes with growing steps are a multiple of this, of 4 in the plane
and in space, by dimension: so often are they halved."""


def farther(
    problem: ControlProblem,
    grid: Grid,
    share: float = NEAR,
    within_sign: bool = False,
    growth: float | None = None,
) -> tuple[ControlProblem, Grid, tuple[slice, ...]]:
    """A problem on a larger box, a grid on it, and where the nodes of `grid` are in it.

    The user's functions must make sense there: who calls this is ready for errors.
    Wealth and prices make none beyond 0: `within_sign`, faces go at most 3/4 of their
    way there. Steps beyond mirror those inside; with a `growth` each is so many times
    the one before.
    """
    axes, cut = [], []
    for k, axis in enumerate(grid.axes):
        added: list[Array] = []
        for side, steps, width, most in _sides(axis, share, within_sign):
            if grid.periodic[k] or problem.faces.get((k, side)) is not None:
                added.append(np.empty(0))
            elif growth is None:
                added.append(_beyond(steps, width, most))
            else:
                # All cells together halve often: coarser grids keep the same nodes.
                cells = axis.size - 1 + added[0].size if added else 0
                far = min(width, most)
                multiple = HALVING.get(grid.dimension, 4)
                step = float(steps[0])
                added.append(_growing(step, growth, far, cells, multiple))
        low, high = added
        axes.append(np.concatenate([axis[0] - low[::-1], axis, axis[-1] + high]))
        cut.append(slice(low.size, low.size + axis.size))
    low, high = (
        np.array(side, dtype=float) for side in (grid.domain.low, grid.domain.high)
    )
    for k in range(grid.dimension):
        if not grid.periodic[k]:
            low[k], high[k] = axes[k][0], axes[k][-1]
    domain = Box(low, high, periodic=grid.periodic)
    wider = replace(problem, domain=domain, suggested_grid=None)
    return wider, Grid.from_axes(axes, domain), tuple(cut)


def left_beyond(near: Array, far: Array) -> float:
    """The share of what faces do that is left on the larger of two boxes.

    With g_1, g_2 what boxes with faces farther by `NEAR` and `FAR` change, three times
    as far, and an influence that decays geometrically with the distance: t^3 where
    ``g_2 / g_1 = 1 + t + t^2``; 1 and more where it does not decay. The ratio is that
    of all nodes: where a change has a zero its own says nothing.
    """
    ratio = max(
        float(norm(far)) / max(float(norm(near)), 1e-300) for norm in (np.sum, np.max)
    )
    # Where the first changes nothing the second is all that is known.
    ratio = min(max(ratio, 1.0), MOST_RATIO)
    return float(np.sqrt(ratio - 0.75) - 0.5) ** 3


def _sides(
    axis: Array, share: float, within_sign: bool
) -> Iterator[tuple[str, Array, float, float]]:
    """Either side of an axis: its steps from the face inward, and how far at most."""
    steps, width = np.diff(axis), share * (axis[-1] - axis[0])
    room = 1.0 - 0.25 ** (share / FAR)
    for side, face, seen in (("low", axis[0], steps), ("high", -axis[-1], steps[::-1])):
        yield side, seen, width, room * face if within_sign and face >= 0 else np.inf


def _beyond(steps: Array, width: float, most: float) -> Array:
    """Distances of new nodes to a face, over `width`: the mirror image of those inside.

    `steps` are those of the axis as seen from the face; `most` bounds the distances.
    """
    times = int(np.ceil(width / steps.sum()))
    far = np.cumsum(np.concatenate([steps, steps[::-1]] * times))
    far = far[: 1 + int(np.searchsorted(far, width * (1.0 - 1e-9)))]
    return far[far <= most]


def _growing(
    step: float, growth: float, width: float, cells: int, multiple: int
) -> Array:
    """Distances of new nodes to a face, the last `width`: each step so many times the
    one before, `growth` or less.

    With `cells` they are a multiple of `multiple`.
    """
    if width <= step:
        return np.empty(0)
    count = int(np.ceil(np.log1p(width / step * (1.0 - 1.0 / growth)) / np.log(growth)))
    count += -(cells + count) % multiple
    powers = np.arange(1, count + 1)

    def excess(ratio: float) -> float:
        return float(step * (ratio**powers).sum()) - width

    # Below 1/2 they would never get there.
    ratio: Any = brentq(excess, 0.25, growth * (1.0 + 1e-9))
    return np.cumsum(step * float(ratio) ** powers, dtype=np.float64)
