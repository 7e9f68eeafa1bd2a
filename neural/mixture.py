"""Targets of generation: Gaussian mixtures, whose scores are exact, and samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from hjbpde.errors import ProblemError
from hjbpde.real_numbers import real_array

from .forward_process import LinearForward

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class GaussianMixture:
    """``p = sum_k w_k N(mu_k, C_k)``.

    Parameters
    ----------
    weights : (K,)
        > 0; divided by their sum.
    means : (K, d)
    covariances : (K,) or (K, d, d)
        Variances of round components, or full matrices; positive definite.

    Raises
    ------
    ProblemError
        Shapes that do not fit, NaN, a covariance that is not positive definite.
    """

    weights: Any
    means: Any
    covariances: Any

    def __post_init__(self) -> None:
        w, mu, C = (
            real_array(getattr(self, name), f"GaussianMixture: {name}")
            for name in ("weights", "means", "covariances")
        )
        if mu.ndim != 2 or w.shape != (len(mu),):
            raise ProblemError(
                f"GaussianMixture: weights {w.shape} and means {mu.shape} must be (K,) "
                "and (K, d)."
            )
        d = mu.shape[1]
        if C.ndim == 1:
            C = C[:, None, None] * np.eye(d)
        if C.shape != (len(mu), d, d):
            raise ProblemError(
                f"GaussianMixture: covariances {C.shape} must be ({len(mu)},) or "
                f"({len(mu)}, {d}, {d})."
            )
        finite = all(np.isfinite(v).all() for v in (w, mu, C))
        if not finite or not (w > 0).all() or not (np.linalg.eigvalsh(C) > 0).all():
            raise ProblemError(
                "GaussianMixture: weights and covariances must be finite and positive."
            )
        for name, value in (("weights", w / w.sum()), ("means", mu)):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "covariances", C)

    @property
    def dimension(self) -> int:
        """d."""
        return self.means.shape[1]

    def at(self, process: LinearForward, t: float) -> GaussianMixture:
        """The law of Y_t: means ``fade mu_k``, covariances ``fade^2 C_k + s^2 I``."""
        fade, s = float(process.fade(t)), float(process.spread(t))
        C = fade**2 * self.covariances + s**2 * np.eye(self.dimension)
        return GaussianMixture(self.weights, fade * self.means, C)

    def _parts(self, x: Array) -> tuple[Array, Array]:
        """log(w_k N_k) (..., K) and C_k^-1 (mu_k - x), (..., K, d)."""
        gap = self.means - x[..., None, :]
        pull = np.einsum("kij,...kj->...ki", np.linalg.inv(self.covariances), gap)
        _, logdet = np.linalg.slogdet(2.0 * np.pi * self.covariances)
        logs = np.log(self.weights) - 0.5 * (logdet + (gap * pull).sum(-1))
        return logs, pull

    def log_density(self, x: Array) -> Array:
        """log p at x (..., d), shape (...)."""
        return np.asarray(logsumexp(self._parts(x)[0], axis=-1))

    def score(self, x: Array) -> Array:
        """grad log p at x (..., d), shape (..., d)."""
        logs, pull = self._parts(x)
        share = np.exp(logs - np.asarray(logsumexp(logs, axis=-1))[..., None])
        return (share[..., None] * pull).sum(-2)

    def sample(self, n: int, rng: np.random.Generator) -> Array:
        """n draws, (n, d)."""
        k = rng.choice(len(self.weights), size=n, p=self.weights)
        root = np.linalg.cholesky(self.covariances)
        noise = rng.standard_normal((n, self.dimension))
        return self.means[k] + np.einsum("nij,nj->ni", root[k], noise)


@dataclass(frozen=True, eq=False)
class Samples:
    """A target known by draws only; it has no exact density or score.

    Parameters
    ----------
    points : (n, d)
        Finite, n >= 2.
    """

    points: Any

    def __post_init__(self) -> None:
        points = real_array(self.points, "Samples: points").copy()
        if points.ndim != 2 or len(points) < 2 or not np.isfinite(points).all():
            raise ProblemError(
                f"Samples: points {points.shape} must be finite and (n, d), n >= 2."
            )
        if not points.var(axis=0).sum() > 0:
            raise ProblemError(
                "Samples: all points are the same; a point mass has no density to "
                "learn. Give draws that vary."
            )
        object.__setattr__(self, "points", points)

    @property
    def dimension(self) -> int:
        """d."""
        return self.points.shape[1]

    def sample(self, n: int, rng: np.random.Generator) -> Array:
        """n draws with replacement, (n, d)."""
        return self.points[rng.integers(len(self.points), size=n)]


def three_modes() -> GaussianMixture:
    """The 1-D example: modes at -2, 0 and 1.5."""
    return GaussianMixture([0.3, 0.4, 0.3], [[-2.0], [0.0], [1.5]], [0.16, 0.09, 0.16])


def plane_modes() -> GaussianMixture:
    """The 2-D example: three modes, one of them oblique."""
    means = [[-1.5, 0.0], [1.0, 1.2], [1.0, -1.2]]
    C = np.array([np.diag([0.16, 0.36]), [[0.25, 0.1], [0.1, 0.2]], 0.16 * np.eye(2)])
    return GaussianMixture([0.4, 0.3, 0.3], means, C)
