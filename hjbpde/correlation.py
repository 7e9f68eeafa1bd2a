"""What noise correlated between axes adds to rows, residuals and payoffs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from .faces import Faces
from .kernels.selling import add_rates
from .offsets import OffsetStencil

Array = NDArray[np.float64]


@dataclass(eq=False)
class Correlation:
    """What correlated noise adds to the rows of one grid.

    axis : (d, N), the noise D' that is left to the axes
    own : (d, N), the rest of D, carried along the offsets
    rates : (N, N), rates to the nodes along the offsets
    lost : (N), what Robin faces take at the mirrored ends of arms
    slopes : for every face a matrix (N, nodes of the face): slopes to payoff
    fourth : (N, N), what makes them fourth order where both nodes either way exist
    pairs : (pairs, N), the entries of D off its diagonal
    missing : (pairs, N), what of them is left out where offsets would be too long
    rough : (N), nodes with arms that meet a face, or with long ones near it
    """

    axis: Array
    own: Array
    rates: sp.csr_matrix
    lost: Array
    slopes: list[sp.csr_matrix]
    fourth: sp.csr_matrix
    pairs: Array
    missing: Array
    rough: NDArray[np.bool_]
    reach: int

    @classmethod
    def of(cls, faces: Faces, D: Array, pairs: Array) -> Correlation:
        """The rates for half the covariance: diagonal D (d, .), `pairs` (., .).

        Raises
        ------
        ProblemError
            An unevenly spaced axis, or `Extrapolate` on a face of one.
        StabilityError
            Four correlated axes that are not diagonally dominant.
        """
        parts = OffsetStencil(faces, D, pairs)
        axis, missing, reach = parts.build()
        return cls(
            axis, parts.D - axis, parts.rates.matrix(), parts.lost,
            [entries.matrix() for entries in parts.slopes], parts.fourth.matrix(),
            parts.all_pairs, missing, parts.rough, reach,
        )  # fmt: skip

    def add_to(self, out: Array, V: Array, faces: Faces) -> None:
        """out += rates on V (N,) and payoff of the faces' slopes, less what is lost."""
        add_rates(self.rates.indptr, self.rates.indices, self.rates.data, V, out)
        out += self.payoff(faces) - self.lost * V

    def payoff(self, faces: Faces) -> Array:
        """What the slopes of the faces add to the payoff, (N,)."""
        out = np.zeros(self.lost.size)
        for face, matrix in zip(faces.faces, self.slopes, strict=True):
            if matrix.nnz and np.any(face.slope):
                out += matrix @ faces.on_face(face, face.slope)
        return out

    @property
    def note(self) -> str:
        """What the report says."""
        text = (
            "noise correlated between axes: moves along offsets of up to "
            f"{self.reach} steps (7-point stencil where it is monotone, Selling's "
            "decomposition elsewhere)"
        )
        low = np.abs(self.missing).max(axis=0)
        if low.any():
            size = np.max(low / np.maximum((self.axis + self.own).sum(0), 1e-300))
            text += (
                f"; nearly degenerate noise on {100 * np.mean(low > 0):.2g} % of the "
                f"nodes, whose covariances were lowered by up to {size:.2g} of the "
                "noise to keep the offsets short"
            )
        return text
