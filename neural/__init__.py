"""Learned value functions and policies for Hamilton-Jacobi-Bellman equations."""

from .evaluation import (
    EulerMaruyama,
    Heun,
    LeastSquares,
    MonteCarlo,
    NoiseSchedule,
    Residual,
)
from .generator import generator_autograd, generator_taylor
from .linear_quadratic import equilibrium, linear_quadratic
from .networks import MLP, SINE, SOFTPLUS, TANH
from .policy_iteration import PolicyIteration
from .probe import probe
from .q_learning import LinearQuadratic, LittleQ, QLearning, TemporalDifference
from .q_networks import QNetworks
from .solution import LearnedSolution
from .solve import solve
from .storage import load
from .torch_model import as_candidate, from_torch
from .transitions import Transitions, environment_transitions, sample_transitions

__all__ = [
    "MLP",
    "SINE",
    "SOFTPLUS",
    "TANH",
    "EulerMaruyama",
    "Heun",
    "LearnedSolution",
    "LeastSquares",
    "LinearQuadratic",
    "LittleQ",
    "MonteCarlo",
    "NoiseSchedule",
    "PolicyIteration",
    "QLearning",
    "QNetworks",
    "Residual",
    "TemporalDifference",
    "Transitions",
    "as_candidate",
    "environment_transitions",
    "equilibrium",
    "from_torch",
    "generator_autograd",
    "generator_taylor",
    "linear_quadratic",
    "load",
    "probe",
    "sample_transitions",
    "solve",
]
