"""Hamilton-Jacobi-Bellman equations on grids, with an error bar."""

from . import catalogue
from .arrays import constant, namespace
from .boundary import Dirichlet, Extrapolate, Reflecting, Robin, StateConstraint
from .characteristics import (
    Hamiltonian,
    ImplicitMidpoint,
    Rays,
    StoermerVerlet,
    characteristics,
)
from .errors import (
    HJBError,
    MemoryBudgetError,
    MethodMismatch,
    NotConverged,
    ProblemError,
    StabilityError,
)
from .events import Exit, Impulse, Modes, Stop
from .fit import default_method
from .game_solution import GameSolution, StationaryGameSolution
from .grid import Grid
from .impulse_solution import ImpulseSolution
from .jumps import Jumps
from .loading import load
from .methods.constraint import Tube
from .methods.explicit import ExplicitMarching
from .methods.filtering import Filtered
from .methods.hamiltonians import Godunov, LaxFriedrichs
from .methods.marching import Marching
from .methods.policy_iteration import PolicyIteration
from .methods.sweeping import Sweeping
from .moded_solution import ModedSolution
from .one_sided import ENO2, WENO3, WENO5, End, FirstOrder
from .problem import ControlProblem, Exact
from .protocol import Solution
from .report import Report
from .schemes import Hybrid, Upwind
from .semi_lagrangian.method import SemiLagrangian
from .sets import Box, Finite
from .simulate import Paths, simulate
from .solution import GridSolution
from .solve import evaluate, solve
from .timed_moded_solution import TimedModedSolution
from .timed_solution import TimedSolution

__all__ = [
    "ENO2",
    "WENO3",
    "WENO5",
    "Box",
    "ControlProblem",
    "Dirichlet",
    "End",
    "Exact",
    "Exit",
    "ExplicitMarching",
    "Extrapolate",
    "Filtered",
    "Finite",
    "FirstOrder",
    "GameSolution",
    "Godunov",
    "Grid",
    "GridSolution",
    "HJBError",
    "Hamiltonian",
    "Hybrid",
    "ImplicitMidpoint",
    "Impulse",
    "ImpulseSolution",
    "Jumps",
    "LaxFriedrichs",
    "Marching",
    "MemoryBudgetError",
    "MethodMismatch",
    "ModedSolution",
    "Modes",
    "NotConverged",
    "Paths",
    "PolicyIteration",
    "ProblemError",
    "Rays",
    "Reflecting",
    "Report",
    "Robin",
    "SemiLagrangian",
    "Solution",
    "StabilityError",
    "StateConstraint",
    "StationaryGameSolution",
    "StoermerVerlet",
    "Stop",
    "Sweeping",
    "TimedModedSolution",
    "TimedSolution",
    "Tube",
    "Upwind",
    "catalogue",
    "characteristics",
    "constant",
    "default_method",
    "evaluate",
    "load",
    "namespace",
    "simulate",
    "solve",
]
