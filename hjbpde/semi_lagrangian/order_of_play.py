"""What the order of the two players is worth."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import HJBError
from ..faces import Faces
from ..game_tables import tabulate_game
from ..grid import Grid
from ..methods.stationary_game import MATTERS, gap_of, payoff_size
from ..problem import ControlProblem

Array = NDArray[np.float64]


def weighed(
    problem: ControlProblem, grid: Grid, V: Array, u: Array
) -> tuple[float, bool, str]:
    """Isaacs' gap of the Hamiltonian at V (*shape), maximised, under policies u.

    Whether it matters against the payoff, and a note: NaN where the Hamiltonian of
    finite differences does not take the problem, as with correlated noise that depends
    on the controls.
    """
    try:
        tables = tabulate_game(problem, grid, Faces.of(problem, grid))
    except HJBError as cause:
        return np.nan, False, f"the order of play was not weighed: {cause}"
    policies = np.ascontiguousarray(u.reshape(grid.size, -1).T)
    gap = gap_of(problem, grid, tables, V, policies)
    return gap, gap > MATTERS * payoff_size(tables, policies), ""
