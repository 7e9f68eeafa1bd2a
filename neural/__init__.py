"""Learned value functions and policies for Hamilton-Jacobi-Bellman equations."""

from .evaluation import LeastSquares
from .policy_iteration import PolicyIteration
from .solution import LearnedSolution
from .solve import solve

__all__ = ["LearnedSolution", "LeastSquares", "PolicyIteration", "solve"]
