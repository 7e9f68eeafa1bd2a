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
from .methods.policy_iteration import PolicyIteration
from .problem import ControlProblem, Exact
from .protocol import Solution
from .report import Report
from .schemes import Hybrid, Upwind
from .sets import Box, Finite
from .simulate import Paths, simulate
from .solution import GridSolution, load
from .solve import default_method, evaluate, solve

__all__ = [
    "Box",
    "ControlProblem",
    "Dirichlet",
    "Exact",
    "Extrapolate",
    "Finite",
    "Grid",
    "GridSolution",
    "HJBError",
    "Hybrid",
    "MemoryBudgetError",
    "MethodMismatch",
    "NotConverged",
    "Paths",
    "PolicyIteration",
    "ProblemError",
    "Reflecting",
    "Report",
    "Robin",
    "Solution",
    "StabilityError",
    "StateConstraint",
    "Upwind",
    "catalogue",
    "constant",
    "default_method",
    "evaluate",
    "load",
    "namespace",
    "simulate",
    "solve",
]
