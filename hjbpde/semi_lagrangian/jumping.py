"""Where jumps take the process within a step, and what it is worth there.

Until the first jump the process follows its step, so that with rate lambda

    V(x) = E[ int_0^delta e^{-c s} (r + lambda sum_j w_j V(. + delta_j))(X_s) ds
                + e^{-c delta} V(X_delta) ],        c = rho + lambda

exactly, as for modes (see `switching`); the integrand is taken half way. What lies
beyond a face is said by its rule (see `hjbpde.landing`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..faces import FaceNodes, Faces
from ..landing import beyond, landing
from ..problem import ControlProblem
from .exits import Surface
from .lattice import Lattice

Array = NDArray[np.float64]


@dataclass(eq=False)
class Jumped:
    """Jumps from states: rows (q,), where V is read (q, d) and at which rate (q,).

    gain (n,) is paid per unit of time for what is known of jumps out of the domain.
    """

    rows: NDArray[np.intp]
    points: Array
    rates: Array
    gain: Array

    @classmethod
    def of(
        cls,
        problem: ControlProblem,
        x: Array,
        faces: Faces,
        surface: Surface | None,
        lattice: Lattice,
        bends: Sequence[Array] | None,
    ) -> Jumped:
        """All jumps from x (n, d).

        `bends`, of every artificial face, are second derivatives that V may have
        beyond it; by default it goes on straight.

        Raises
        ------
        ProblemError
            As `hjbpde.jumps.Jumps`; a jump across a face that admits none.
        """
        jumps = problem.jumps
        moves = jumps.displacements_at(x)
        rates = jumps.rate_at(x)[:, None] * jumps.weights_at(x, moves.shape[1])
        rows, atom = np.nonzero(rates > 0)
        y = (x[:, None] + moves)[rows, atom]
        land = landing(problem, y)
        land.check(problem, x[rows], y)
        out = cls(rows, land.x, rates[rows, atom], np.zeros(len(x)))
        number = 0
        for face in faces.faces:
            bend = None
            if face.artificial:
                bend, number = None if bends is None else bends[number], number + 1
            depth = land.over.get((face.axis, face.side))
            if depth is not None and not face.fixed:
                depth = np.where(land.ended, 0.0, depth)
                out._continue(face, depth, bend, lattice.without(face.axis))
        if surface is not None:
            out._end(problem, surface, land.ended)
        return out

    def _continue(
        self, face: FaceNodes, depth: Array, bend: Array | None, along: Lattice
    ) -> None:
        """V goes on by `depth` (q,) beyond a face with a slope."""
        far = np.flatnonzero(depth)
        s, rate = depth[far], self.rates[far]
        kept, length = beyond(face.kappa, s)
        rest = np.delete(self.points[far], face.axis, axis=1)
        paid = rate * length * _on_face(face.slope, rest, along)
        if bend is not None:
            paid += rate * 0.5 * s**2 * _on_face(bend, rest, along)
        self.gain += np.bincount(self.rows[far], paid, len(self.gain))
        self.rates[far] = rate * kept

    def _end(
        self, problem: ControlProblem, surface: Surface, ended: NDArray[np.bool_]
    ) -> None:
        """Jumps into the exit region take its value where they land."""
        inside = (surface.phi(self.points) <= 0) & ~ended
        paid = self.rates[inside] * surface.value(problem, self.points[inside])
        self.gain += np.bincount(self.rows[inside], paid, len(self.gain))
        left = ~inside
        self.rows, self.points = self.rows[left], self.points[left]
        self.rates = self.rates[left]


def _on_face(values: object, rest: Array, along: Lattice) -> Array:
    """Values on a face's nodes, or one number, at points of the face."""
    known = np.asarray(values, float)
    if known.size == 1:
        return np.full(len(rest), float(known.ravel()[0]))
    return along.read(known, rest)
