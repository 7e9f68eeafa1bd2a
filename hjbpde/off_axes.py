"""Rates to nodes off the axes: correlated noise, jumps, or both."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from .correlation import Correlation
from .faces import Faces
from .jump_rates import JumpRates, JumpTable
from .kernels.selling import add_rates

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class OffAxes:
    """What the rows of one grid have beside rates to the neighbours on the axes."""

    faces: Faces
    correlation: Correlation | None = None
    jumps: JumpRates | None = None

    @classmethod
    def of(
        cls,
        faces: Faces,
        covariance: tuple[Array, Array] | None,
        table: JumpTable | None,
        known: JumpRates | None = None,
    ) -> OffAxes:
        """From half the covariance (D, pairs) of correlated noise and a jump table.

        `known` are the jump rates where they have been found before.
        """
        noise = None if covariance is None else Correlation.of(faces, *covariance)
        jumps = known
        if known is None and table is not None:
            jumps = JumpRates.of(faces, table)
        return cls(faces, noise, jumps)

    @property
    def _parts(self) -> list[Correlation | JumpRates]:
        return [part for part in (self.correlation, self.jumps) if part is not None]

    @cached_property
    def rates(self) -> sp.csr_matrix:
        """Rates (N, N) to other nodes."""
        total = sum((part.rates for part in self._parts[1:]), self._parts[0].rates)
        return sp.csr_matrix(total)

    @cached_property
    def lost(self) -> Array:
        """What faces take beside, (N,): a discount."""
        return np.sum([part.lost for part in self._parts], axis=0)

    @property
    def own(self) -> Array | None:
        """Noise of the axes that is carried along offsets, (d, N)."""
        return None if self.correlation is None else self.correlation.own

    @property
    def kinked(self) -> bool:
        """Whether the value has kinks for what lies off the axes."""
        return self.jumps is not None and self.jumps.kinked

    def payoff(self) -> Array:
        """What faces and exits add to the payoff now, (N,)."""
        out = np.zeros(self.faces.grid.size)
        if self.correlation is not None:
            out += self.correlation.payoff(self.faces)
        if self.jumps is not None:
            out += self.jumps.payoff()
        return out

    def add_to(self, out: Array, V: Array) -> None:
        """out += rates on V (N,) and payoff of the faces, less what is lost."""
        add_rates(self.rates.indptr, self.rates.indices, self.rates.data, V, out)
        out += self.payoff() - self.lost * V

    def pushed(self, slopes: list[Any]) -> Array:
        """Payoff (N,) of outward slopes on the artificial faces, in their order."""
        out, given = np.zeros(self.faces.grid.size), iter(slopes)
        for number, face in enumerate(self.faces.faces):
            if not face.artificial:
                continue
            slope = self.faces.on_face(face, next(given))
            for part in self._parts:
                out += part.slopes[number] @ slope
        return out

    def miss(self, V: Array) -> Array:
        """What continuing V beyond artificial faces can be wrong by, (N,)."""
        if self.jumps is None:
            return np.zeros(self.faces.grid.size)
        return self.jumps.miss(V.ravel())

    def renew(self, problem: Any) -> None:
        """Take data that move in time from `problem`, held at another time."""
        if self.jumps is not None:
            self.jumps.renew(problem)

    @property
    def notes(self) -> list[str]:
        """What the report says."""
        return [part.note for part in self._parts]
