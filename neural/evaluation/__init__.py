"""How a policy is evaluated: by linear least squares or by Monte Carlo."""

from .least_squares import LeastSquares

__all__ = ["LeastSquares"]
