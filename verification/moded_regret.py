"""What a policy costs that switches between modes with the problem."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

import hjbpde as hjb
from hjbpde import Box, Grid, HJBError

from .regret import Losses, Regret, within
from .stationary_regret import Contest
from .strategy import OPERATOR, switching
from .subject import Subject

Array = NDArray[np.float64]


def moded_losses(subject: Subject, grid: Grid, region: Box) -> Losses:
    """The regret in every mode, as `stationary_losses`.

    All modes are solved together, with the candidate's policies in all of them: what
    a bad policy costs in one mode is felt in the others.
    """
    problem, inside = subject.problem, within(grid, region)
    n = problem.modes.n
    try:
        best = hjb.solve(problem, grid, OPERATOR)
    except HJBError as cause:
        nothing = np.zeros((n, *grid.shape, problem.n_controls))
        lost = Regret(grid, inside, nothing, None, nothing, None, None, str(cause))
        return Losses(lost.by_mode(), None)
    own = switching(subject, grid, inside, best.control)
    found = Contest(problem, grid, inside, best).regret(own, best.control)
    return Losses(found.by_mode(), None)
