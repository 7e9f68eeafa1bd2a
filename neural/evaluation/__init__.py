"""How a policy is evaluated: least squares, Monte Carlo or a network's residual."""

from .actor import Ascent, GreedyFit
from .least_squares import LeastSquares
from .monte_carlo import MonteCarlo
from .residual import NoiseSchedule, Residual
from .steppers import EulerMaruyama, Heun

__all__ = [
    "Ascent",
    "EulerMaruyama",
    "GreedyFit",
    "Heun",
    "LeastSquares",
    "MonteCarlo",
    "NoiseSchedule",
    "Residual",
]
