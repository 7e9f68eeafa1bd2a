"""Learned value functions and policies for Hamilton-Jacobi-Bellman equations."""

from .diagnose import Diagnosis, Finding, diagnose
from .environment import environment_transitions
from .evaluation import (
    Ascent,
    EulerMaruyama,
    GreedyFit,
    Heun,
    LeastSquares,
    MonteCarlo,
    NoiseSchedule,
    Residual,
)
from .fokker_planck import Marginals, fokker_planck
from .forward_process import GeneralForward, OrnsteinUhlenbeck, VariancePreserving
from .generator import generator_autograd, generator_taylor
from .identity import Identity, identity
from .linear_quadratic import equilibrium, linear_quadratic
from .mixture import GaussianMixture, Samples
from .networks import MLP, SINE, SOFTPLUS, TANH
from .policy_iteration import PolicyIteration
from .probe import probe
from .q_learning import LinearQuadratic, LittleQ, QLearning, TemporalDifference
from .q_networks import QNetworks
from .reverse_diffusion import ReverseDiffusion, reverse_diffusion
from .score_control import LearnedScore, ScoreControl
from .score_module import as_score
from .score_storage import load_score
from .solution import LearnedSolution
from .solve import solve
from .storage import load
from .timed_solution import TimedLearnedSolution
from .torch_model import as_candidate, from_torch
from .transitions import Transitions, sample_transitions

__all__ = [
    "MLP",
    "SINE",
    "SOFTPLUS",
    "TANH",
    "Ascent",
    "Diagnosis",
    "EulerMaruyama",
    "Finding",
    "GaussianMixture",
    "GeneralForward",
    "GreedyFit",
    "Heun",
    "Identity",
    "LearnedScore",
    "LearnedSolution",
    "LeastSquares",
    "LinearQuadratic",
    "LittleQ",
    "Marginals",
    "MonteCarlo",
    "NoiseSchedule",
    "OrnsteinUhlenbeck",
    "PolicyIteration",
    "QLearning",
    "QNetworks",
    "Residual",
    "ReverseDiffusion",
    "Samples",
    "ScoreControl",
    "TemporalDifference",
    "TimedLearnedSolution",
    "Transitions",
    "VariancePreserving",
    "as_candidate",
    "as_score",
    "diagnose",
    "environment_transitions",
    "equilibrium",
    "fokker_planck",
    "from_torch",
    "generator_autograd",
    "generator_taylor",
    "identity",
    "linear_quadratic",
    "load",
    "load_score",
    "probe",
    "reverse_diffusion",
    "sample_transitions",
    "solve",
]
