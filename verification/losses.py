"""The regret of a policy at every time judged, on grids fine enough to tell."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hjbpde import Box, Grid

from .average_regret import average_losses
from .impulse_regret import impulse_losses
from .moded_regret import moded_losses
from .regret import Losses
from .stationary_regret import stationary_losses
from .subject import Subject
from .timed_regret import timed_losses

Array = NDArray[np.float64]

REFINEMENTS = 2
MOST_NODES = 2**20
STEPS = 64
"""Implicit steps to the horizon on the first grid; doubled with the nodes."""


def losses_of(
    subject: Subject,
    grid: Grid,
    region: Box,
    times: Array | None,
    allowed: float | None,
) -> Losses:
    """The regret of the subject's policy, inside `region`, at `times` if there are.

    With `allowed` the grid is refined while the regret's bar hides which side of it
    the regret is, at most `REFINEMENTS` times and up to `MOST_NODES` nodes (times
    steps): the monotone operator is first order, so its grid may have to be finer
    than the reference's.
    """

    def measured(on: Grid, steps: int) -> Losses:
        if times is not None:
            return timed_losses(subject, on, region, times, steps)
        if subject.problem.modes is not None:
            return moded_losses(subject, on, region)
        if subject.problem.average:
            return average_losses(subject, on, region)
        if subject.problem.impulse is not None:
            return impulse_losses(subject, on, region)
        return stationary_losses(subject, on, region)

    steps, losses = STEPS, measured(grid, STEPS)
    for _ in range(REFINEMENTS if allowed is not None else 0):
        assert allowed is not None
        work = grid.size * 2**grid.dimension
        work *= 1 if times is None else steps // STEPS
        if not losses.undecided(allowed) or work > MOST_NODES:
            break
        grid, steps = grid.refined(), 2 * steps
        finer = measured(grid, steps)
        if finer.missing is not None:
            break
        losses = finer
    return losses
