"""Generation as control: the reverse of a forward process steered by its score.

With X_t = Y_{T-t}, mu(x, t) = -f(x, T - t) and Sigma(t) = sigma(T - t),

    dX = (mu + Sigma u) dt + Sigma dW,
    J(u; x, t) = E[ int_t^T (|u|^2 / 2 - div mu) ds - log p_data(X_T) ],

the value is V(x, t) = -log p_{T-t}(x) and the optimal control is
``u* = -Sigma' grad V = sigma(T - t)' grad log p_{T-t}``, the score (equation 3 of the
article; Berner, Richter and Ullrich, TMLR 2024, arXiv 2211.01364, Theorem 2.2).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hjbpde.errors import ProblemError
from hjbpde.real_numbers import real_array

from .forward_process import ForwardProcess, OrnsteinUhlenbeck, linear
from .mixture import GaussianMixture, Samples, plane_modes, three_modes
from .options import check_number

Array = NDArray[np.float64]
Score = Callable[[Array, float], Array]
"""grad log p_t at (y (n, d), forward time t), shape (n, d)."""


@dataclass(frozen=True, eq=False)
class ReverseDiffusion:
    """A forward process on [0, horizon] and the law it starts from.

    Parameters
    ----------
    target : GaussianMixture or Samples
        p_data.
    process : OrnsteinUhlenbeck, VariancePreserving or GeneralForward
    horizon : float
        T > 0.
    """

    target: GaussianMixture | Samples
    process: ForwardProcess = field(default_factory=OrnsteinUhlenbeck)
    horizon: float = 3.0

    def __post_init__(self) -> None:
        kinds = {"target": GaussianMixture | Samples, "process": ForwardProcess}
        for name, kind in kinds.items():
            if not isinstance(getattr(self, name), kind):
                wanted = " or ".join(k.__name__ for k in kind.__args__)
                given = type(getattr(self, name)).__name__
                raise ProblemError(
                    f"ReverseDiffusion: {name} is a {given}; give a neural.{wanted}."
                )
        check_number("ReverseDiffusion", "horizon", self.horizon)
        limit = getattr(self.process, "horizon", self.horizon)
        if self.horizon > limit:
            raise ProblemError(
                f"ReverseDiffusion: horizon {self.horizon:g} is beyond {limit:g}, "
                "where the process's noise schedule ends."
            )

    @property
    def dimension(self) -> int:
        """d."""
        return self.target.dimension

    def law(self, t: float) -> GaussianMixture:
        """The law of Y_t, forward time t.

        Raises
        ------
        ProblemError
            A process without exact marginals, or a target known by samples only.
        """
        process = linear(self.process, "the exact score")
        if not isinstance(self.target, GaussianMixture):
            raise ProblemError(
                "the exact score needs a target with a density, a GaussianMixture; "
                "samples alone have none."
            )
        time = real_array(t, "t")
        if time.ndim or not (np.isfinite(time) and time >= 0.0):
            raise ProblemError(f"t = {t} is not one forward time >= 0.")
        return self.target.at(process, float(time))

    def score(self, y: Array, t: float) -> Array:
        """grad log p_t at y (n, d), forward time t."""
        return self.law(t).score(self._points("score: y", y))

    def value(self, x: Array, t: float) -> Array:
        """V = -log p_{T-t} at x (..., d), reverse time t, shape (...)."""
        law = self.law(self._forward(t))
        return -law.log_density(self._points("value: x", x))

    def control(self, x: Array, t: float) -> Array:
        """u* at x (n, d), reverse time t, shape (n, d)."""
        return self.noise(t) * self.score(x, self._forward(t))

    def noise(self, t: float) -> float:
        """Sigma at reverse time t."""
        return float(self.process.noise(self._forward(t)))

    def _forward(self, t: Any) -> float:
        """Forward time of the reverse time t."""
        time = real_array(t, "t")
        if time.ndim:
            raise ProblemError(f"t = {t} is not one reverse time.")
        return self.horizon - float(time)

    def _points(self, what: str, given: Any) -> Array:
        """Points (..., d) as float64, their dimension checked."""
        y = real_array(given, what)
        if y.ndim == 0 or y.shape[-1] != self.dimension:
            raise ProblemError(
                f"{what} has shape {y.shape}; give points (..., {self.dimension})."
            )
        return y

    def start(self, n: int, rng: np.random.Generator) -> Array:
        """n draws of Y_T, exact where the marginals are, (n, d)."""
        process = linear(self.process, "drawing X_0")
        y = process.fade(self.horizon) * self.target.sample(n, rng)
        return y + process.spread(self.horizon) * rng.standard_normal(y.shape)


def reverse_diffusion(*, dimension: int = 1, horizon: float = 3.0) -> ReverseDiffusion:
    """Three modes on the line or in the plane under an Ornstein-Uhlenbeck process."""
    if dimension not in (1, 2):
        raise ProblemError(
            f"reverse_diffusion: dimension = {dimension}; the examples have 1 or 2. "
            "Build ReverseDiffusion(GaussianMixture(...)) for others."
        )
    target = three_modes() if dimension == 1 else plane_modes()
    return ReverseDiffusion(target, OrnsteinUhlenbeck(), horizon)


def sample(
    problem: ReverseDiffusion, score: Score, n: int, steps: int, seed: int
) -> Array:
    """n draws (n, d) of X_T under ``u = sigma score``, Euler-Maruyama.

    Steps grow quadratically away from forward time 0, where the score is steepest.
    """
    rng = np.random.default_rng(seed)
    x = problem.start(n, rng)
    times = problem.horizon * np.linspace(1.0, 0.0, steps + 1) ** 2
    for now, then in pairwise(times):
        h, s = now - then, float(problem.process.noise(now))
        drift = -problem.process.drift(x, now) + s**2 * score(x, float(now))
        x = x + h * drift + s * np.sqrt(h) * rng.standard_normal(x.shape)
    return x
