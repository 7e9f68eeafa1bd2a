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
from .events import Exit, Modes, Stop
from .grid import Grid
from .methods.marching import Marching
from .methods.policy_iteration import PolicyIteration
from .methods.sweeping import Sweeping
from .moded_solution import ModedSolution
from .problem import ControlProblem, Exact
from .protocol import Solution
from .report import Report
from .schemes import Hybrid, Upwind
from .sets import Box, Finite
from .simulate import Paths, simulate
from .solution import GridSolution, load
from .solve import default_method, evaluate, solve
from .timed_solution import TimedSolution

__all__ = [
    "Box",
    "ControlProblem",
    "Dirichlet",
    "Exact",
    "Exit",
    "Extrapolate",
    "Finite",
    "Grid",
    "GridSolution",
    "HJBError",
    "Hybrid",
    "Marching",
    "MemoryBudgetError",
    "MethodMismatch",
    "ModedSolution",
    "Modes",
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
    "Stop",
    "Sweeping",
    "TimedSolution",
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
