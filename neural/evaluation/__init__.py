"""How a policy is evaluated: by linear least squares or by Monte Carlo."""

from .least_squares import LeastSquares
from .monte_carlo import MonteCarlo
from .rollout import EulerMaruyama, Heun

__all__ = ["EulerMaruyama", "Heun", "LeastSquares", "MonteCarlo"]
