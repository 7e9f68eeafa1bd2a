"""Values that are linear in their weights: random tanh features and a quadratic.

With z the state scaled to [-1, 1]^d,

    V(x) = sum_j c_j tanh(w_j . z + b_j) + c + p . z + z' Q z / 2,

so that L^a V is linear in the weights and policy evaluation is one linear
least-squares problem (Meng et al., ICML 2024, arXiv 2402.10119, call it ELM-PI).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hjbpde.sets import Box

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FeatureBasis:
    """Random directions and the box they are scaled to.

    Parameters
    ----------
    centre, half : (d,)
        The box is ``centre +- half``.
    weights : (M, d)
        Directions in scaled coordinates; bias : (M,).
    """

    centre: Array
    half: Array
    weights: Array
    bias: Array

    @classmethod
    def draw(
        cls, box: Box, n_features: int, scale: float, rng: np.random.Generator
    ) -> FeatureBasis:
        """Directions ``N(0, scale^2 / d)``; every kink plane passes through the box."""
        d = box.dimension
        weights = rng.standard_normal((n_features, d)) * (scale / np.sqrt(d))
        through = rng.uniform(-1.0, 1.0, (n_features, d))
        bias = -(weights * through).sum(-1)
        return cls(box.centre, 0.5 * box.width, weights, bias)

    @property
    def dimension(self) -> int:
        """Number of states d."""
        return self.weights.shape[1]

    @property
    def size(self) -> int:
        """Number of weights: features, constant, linear and quadratic terms."""
        d = self.dimension
        return len(self.bias) + 1 + d + d * (d + 1) // 2

    def at(self, x: Array) -> FeatureTables:
        """Features and their first two derivatives along w, at x (n, d)."""
        z = (x - self.centre) / self.half
        t = np.tanh(z @ self.weights.T + self.bias)
        slope = 1.0 - t * t
        return FeatureTables(self, z, t, slope, -2.0 * t * slope)


@dataclass(frozen=True, eq=False)
class FeatureTables:
    """A basis evaluated at n points; operators on it are matrices (n, size)."""

    basis: FeatureBasis
    z: Array
    value: Array
    slope: Array
    bend: Array

    def values(self) -> Array:
        """phi_j at every point."""
        i, j = np.triu_indices(self.basis.dimension)
        z = self.z
        one = np.ones((len(z), 1))
        return np.hstack([self.value, one, z, 0.5 * z[:, i] * z[:, j]])

    def along(self, direction: Array) -> Array:
        """direction . grad phi_j, direction (n, d) or (d,) in units of x."""
        basis = self.basis
        u = np.broadcast_to(direction / basis.half, self.z.shape)
        i, j = np.triu_indices(basis.dimension)
        z = self.z
        mixed = 0.5 * (u[:, i] * z[:, j] + z[:, i] * u[:, j])
        first = self.slope * (u @ basis.weights.T)
        return np.hstack([first, np.zeros((len(z), 1)), u, mixed])

    def curvature(self, sigma: Array) -> Array:
        """1/2 tr(sigma sigma' hess phi_j), sigma (n, d, k) or (1, d, k)."""
        basis = self.basis
        s = sigma / basis.half[:, None]
        squared = np.zeros((len(s), len(basis.bias)))
        for k in range(s.shape[-1]):
            squared += (s[..., k] @ basis.weights.T) ** 2
        i, j = np.triu_indices(basis.dimension)
        cov = np.einsum("nik,njk->nij", s, s)
        second = np.broadcast_to(0.5 * cov[:, i, j], (len(self.z), len(i)))
        flat = np.zeros((len(self.z), 1 + basis.dimension))
        return np.hstack([0.5 * squared * self.bend, flat, second])


@dataclass(frozen=True, eq=False)
class FeatureValue:
    """V(x) with its exact gradient and Hessian.

    Parameters
    ----------
    basis : FeatureBasis
    coefficients : (basis.size,)
        In the order features, constant, linear, quadratic (upper triangle).
    """

    basis: FeatureBasis
    coefficients: Array

    def _parts(self) -> tuple[Array, float, Array, Array]:
        d, M = self.basis.dimension, len(self.basis.bias)
        c = self.coefficients
        Q = np.zeros((d, d))
        Q[np.triu_indices(d)] = 0.5 * c[M + 1 + d :]
        return c[:M], float(c[M]), c[M + 1 : M + 1 + d], Q + Q.T

    def value(self, x: Array) -> Array:
        """V at x (n, d), shape (n,)."""
        c, constant, p, Q = self._parts()
        z = (x - self.basis.centre) / self.basis.half
        t = np.tanh(z @ self.basis.weights.T + self.basis.bias)
        return t @ c + constant + z @ p + 0.5 * ((z @ Q) * z).sum(-1)

    def gradient(self, x: Array) -> Array:
        """grad V at x (n, d), shape (n, d)."""
        c, _, p, Q = self._parts()
        z = (x - self.basis.centre) / self.basis.half
        t = np.tanh(z @ self.basis.weights.T + self.basis.bias)
        return (((1 - t * t) * c) @ self.basis.weights + p + z @ Q) / self.basis.half

    def hessian(self, x: Array) -> Array:
        """hess V at x (n, d), shape (n, d, d)."""
        c, _, _, Q = self._parts()
        w, half = self.basis.weights, self.basis.half
        z = (x - self.basis.centre) / half
        t = np.tanh(z @ w.T + self.basis.bias)
        bend = -2.0 * t * (1 - t * t) * c
        pairs = (w[:, :, None] * w[:, None, :]).reshape(len(w), w.shape[1] ** 2)
        hess = (bend @ pairs).reshape(len(x), *Q.shape)
        return (hess + Q) / (half[:, None] * half)

    def arrays(self) -> dict[str, Array]:
        """Everything needed to rebuild it."""
        basis = self.basis
        return {
            "centre": basis.centre,
            "half": basis.half,
            "weights": basis.weights,
            "bias": basis.bias,
            "coefficients": self.coefficients,
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> FeatureValue:
        """The inverse of `arrays`."""
        names = ("centre", "half", "weights", "bias")
        basis = FeatureBasis(*(arrays[name] for name in names))
        return cls(basis, arrays["coefficients"])
