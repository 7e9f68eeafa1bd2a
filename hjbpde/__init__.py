"""Hamilton-Jacobi-Bellman equations on grids, with an error bar."""

from . import catalogue
from .arrays import constant, namespace
from .boundary import Dirichlet, Extrapolate, Reflecting, Robin, StateConstraint
from .errors import (
    HJBError,
    MemoryBudgetError,
    MethodMismatch,
    NotConverged,
    ProblemError,
    StabilityError,
)
from .grid import Grid
from .problem import ControlProblem, Exact
from .sets import Box, Finite

__all__ = [
    "Box",
    "ControlProblem",
    "Dirichlet",
    "Exact",
    "Extrapolate",
    "Finite",
    "Grid",
    "HJBError",
    "MemoryBudgetError",
    "MethodMismatch",
    "NotConverged",
    "ProblemError",
    "Reflecting",
    "Robin",
    "StabilityError",
    "StateConstraint",
    "catalogue",
    "constant",
    "namespace",
]
