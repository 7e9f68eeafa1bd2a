"""A user's own score network, asked with NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hjbpde.errors import HJBError, ProblemError
from hjbpde.real_numbers import real_array

from .networks import refuse_training_mode
from .reverse_diffusion import ReverseDiffusion

Array = NDArray[np.float64]
Score = Callable[[Array, float], Array]


def as_score(module: Any, problem: ReverseDiffusion) -> Score:
    """`module` as a function (y (n, d), forward time t) -> (n, d) on NumPy arrays.

    Parameters
    ----------
    module : torch.nn.Module, LearnedScore or callable
        A module is called as ``module(y, t)`` with y (n, d) and t (n,), both of its
        own dtype and device, and returns grad log p_t (n, d) - not the noise
        ``eps = -s(t) grad log p_t`` that many networks are trained to predict. A
        function takes and returns NumPy arrays.

    Raises
    ------
    ProblemError
        Neither of these, an output of another shape or not finite, a failing module.
    """
    score = getattr(module, "score", None)
    if not isinstance(module, torch.nn.Module):
        function = score if callable(score) else module
        if not callable(function):
            raise ProblemError(
                f"as_score: {type(module).__name__} is neither a torch module nor a "
                "function of (y, t)."
            )
        return _Checked(function)
    refuse_training_mode("as_score", module)
    function = _Checked(_module_function(module))
    function(np.zeros((2, problem.dimension)), 0.5 * problem.horizon)
    return function


class _Checked:
    """A score whose answers are checked."""

    def __init__(self, function: Callable[[Array, float], Any]) -> None:
        self.function = function

    def __call__(self, y: Array, t: float) -> Array:
        """The score at y (n, d)."""
        try:
            out = self.function(y, t)
        except HJBError:
            raise
        except Exception as cause:
            raise ProblemError(
                f"as_score: the score failed on states {y.shape}, t = {t:g}: "
                f"{type(cause).__name__}: {cause}. A module is called with y (n, d) "
                "and t (n,)."
            ) from cause
        out = real_array(out, "as_score: what the score returned")
        if out.shape != y.shape:
            raise ProblemError(
                f"as_score: the score returned shape {out.shape} for states {y.shape}; "
                "it must return one vector a state."
            )
        if not np.isfinite(out).all():
            where = int(np.flatnonzero(~np.isfinite(out).all(-1))[0])
            raise ProblemError(
                f"as_score: the score is not finite at y = {y[where]}, t = {t:g}."
            )
        return out


def _module_function(module: torch.nn.Module) -> Callable[[Array, float], Array]:
    first = next((p for p in module.parameters() if p.is_floating_point()), None)
    dtype = torch.float64 if first is None else first.dtype
    device = torch.device("cpu") if first is None else first.device

    def score(y: Array, t: float) -> Array:
        states = torch.as_tensor(y, dtype=dtype, device=device)
        times = torch.full((len(y),), float(t), dtype=dtype, device=device)
        with torch.no_grad():
            out = module(states, times)
        if not isinstance(out, torch.Tensor) or not out.is_floating_point():
            kind = out.dtype if isinstance(out, torch.Tensor) else type(out).__name__
            raise ProblemError(
                f"as_score: the module returned {kind}; it must return one float "
                "tensor (n, d), the score of every state."
            )
        return out.double().cpu().numpy()

    return score
