"""Where and when a path ends within a time step: the Brownian bridge to a surface.

Between two steps a path is a Brownian bridge. Seen from a surface, taken for the
plane that touches it, the distance runs from a > 0 to b (negative beyond) with
variance ``s^2``, ``s = |sigma' n|``, in unit time, and is 0 within a step h

    with probability  exp(-2 a b / (s^2 h))  (1 where b <= 0),
    at the time  h r / (1 + r),  r inverse Gaussian, mean a / |b|, shape a^2 / (s^2 h).

Looking at the steps alone misses paths that leave and come back: an error of order
1/2 in the step. With the bridge it is of order 1.

Source: Gobet, Stochastic Processes and their Applications 87 (2000) 167-197, the
continuous Euler scheme in a half-space; ESAIM: Probability and Statistics 5 (2001)
261-297 for domains with smooth boundary. Borodin and Salminen, Handbook of Brownian
Motion, 2nd ed., formula 2.2.0.2 for the hitting time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hjbpde.boundary import Dirichlet, Face
from hjbpde.problem import ControlProblem
from hjbpde.sets import Box

from ..ends import face_data
from ..exit_region import exit_value
from ..time_state import TimedProblem

Array = NDArray[np.float64]
REACH = 1e-5
"""Step of the differences of phi, as a share of the box's width."""
CALM = 1e-12
"""Variance over a step, relative to a^2 + b^2, below which drift alone decides."""
LANDINGS = 3
"""Newton steps to the surface."""
FOUND = 1e-2
"""What they must leave of phi for the foot to be believed."""


class Surface(Protocol):
    """Where the process ends."""

    def distance(self, x: Array) -> tuple[Array, Array]:
        """Of x (n, d), negative beyond, (n,); unit normals inwards at the feet."""
        ...

    def nearest(self, x: Array) -> Array:
        """The state on the surface next to x, shape (n, d)."""
        ...

    def data(self, x: Array) -> Array:
        """V at x on the surface, shape (n,)."""
        ...


@dataclass(frozen=True, eq=False)
class ExitSurface:
    """The exit region of a problem: {phi = 0}, grad phi by central differences.

    phi need not be a distance; the foot of a state is found by Newton's method along
    grad phi, and where that fails phi / |grad phi| has to do.
    """

    problem: ControlProblem
    box: Box

    def distance(self, x: Array) -> tuple[Array, Array]:
        """Of x (n, d), negative in the region, (n,); unit normals at the feet."""
        inside = self.box.clip(self.box.wrap(x))
        level, foot = self._level(inside), self.nearest(inside)
        found = np.abs(self._level(foot)) <= FOUND * np.abs(level)
        normal = self._slope(np.where(found[:, None], foot, inside))
        length = np.maximum(np.linalg.norm(normal, axis=-1), 1e-300)
        exact = np.sign(level) * np.linalg.norm(inside - foot, axis=-1)
        # At most far away: grad phi may vanish in the middle of the region.
        far = 10.0 * np.linalg.norm(self.box.width)
        rough = level / np.maximum(length, np.abs(level) / far + 1e-300)
        return np.where(found, exact, rough), normal / length[:, None]

    def nearest(self, x: Array) -> Array:
        """Newton steps from x (n, d) to the surface, as far as they get closer."""
        x = self.box.clip(self.box.wrap(x))
        level = self._level(x)
        for _ in range(LANDINGS):
            normal = self._slope(x)
            length = np.maximum((normal * normal).sum(-1), 1e-300)
            moved = self.box.clip(self.box.wrap(x - (level / length)[:, None] * normal))
            there = self._level(moved)
            closer = np.abs(there) < np.abs(level)
            x = np.where(closer[:, None], moved, x)
            level = np.where(closer, there, level)
        return x

    def data(self, x: Array) -> Array:
        """g at x, shape (n,)."""
        return exit_value(self.problem, x)

    def _level(self, x: Array) -> Array:
        phi = np.asarray(self.problem.exit.region(x), dtype=float)
        return np.broadcast_to(phi, (len(x),))

    def _slope(self, x: Array) -> Array:
        """grad phi at x, shape (n, d), from points inside the box."""
        out = np.empty_like(x)
        for i, width in enumerate(self.box.width):
            ends = [x.copy(), x.copy()]
            for end, step in zip(ends, (-REACH * width, REACH * width), strict=True):
                end[:, i] += step
            low, high = (self.box.clip(end) for end in ends)
            out[:, i] = (self._level(high) - self._level(low)) / (high - low)[:, i]
        return out


@dataclass(frozen=True, eq=False)
class FaceSurface:
    """A face of the box whose value is given."""

    box: Box
    face: Face
    rule: Dirichlet

    def distance(self, x: Array) -> tuple[Array, Array]:
        """Of x (n, d) from the face, negative beyond it; the unit vector inwards."""
        axis, side = self.face
        normal = np.zeros_like(x)
        normal[:, axis] = 1.0 if side == "low" else -1.0
        return normal[:, axis] * (x[:, axis] - self._wall), normal

    def nearest(self, x: Array) -> Array:
        """x moved onto the face."""
        out = self.box.clip(self.box.wrap(x))
        out[:, self.face[0]] = self._wall
        return out

    def data(self, x: Array) -> Array:
        """The rule's data at x, shape (n,)."""
        return face_data(self.rule.g, x, self.face)

    @property
    def _wall(self) -> float:
        axis, side = self.face
        return float(np.asarray(self.box.low if side == "low" else self.box.high)[axis])


def surfaces_of(problem: ControlProblem) -> list[Surface]:
    """The exit and the faces with a given value; the horizon is met by the steps."""
    box = problem.domain
    assert box is not None
    out: list[Surface] = [] if problem.exit is None else [ExitSurface(problem, box)]
    last = problem.dimension - 1 if isinstance(problem, TimedProblem) else None
    for face, rule in problem.faces.items():
        if isinstance(rule, Dirichlet) and face[0] != last:
            out.append(FaceSurface(box, face, rule))
    return out


@dataclass(frozen=True, eq=False)
class Move:
    """One step of n paths: from x to y = x + f h + sigma dW.

    x, f, y (n, d), sigma (n, d, k), dW (n, k), h (n,).
    """

    x: Array
    f: Array
    sigma: Array
    dW: Array
    h: Array
    y: Array

    def of(self, which: NDArray[np.intp]) -> Move:
        """The same for some of the paths."""
        parts = (self.x, self.f, self.sigma, self.dW, self.h, self.y)
        return Move(*(part[which] for part in parts))


@dataclass(frozen=True, eq=False)
class Crossing:
    """Paths that end within a step.

    Parameters
    ----------
    which : (m,)
        Their numbers among the paths of the step.
    time : (m,)
        How much of the step they still take.
    kick : (m, d)
        Their noise sigma W until then.
    value : (m,)
        V where they end.
    at_face : (m,)
        Whether that is a face of the box.
    """

    which: NDArray[np.intp]
    time: Array
    kick: Array
    value: Array
    at_face: NDArray[np.bool_]


def first_crossing(
    surfaces: list[Surface], box: Box, move: Move, rng: np.random.Generator
) -> Crossing:
    """The paths of a step that reach a surface, and the first one that they reach."""
    n = len(move.x)
    share, nearest = np.full(n, np.inf), np.full(n, -1)
    for k, surface in enumerate(surfaces):
        met = _share_of_step(surface, move, rng)
        nearest = np.where(met < share, k, nearest)
        share = np.minimum(share, met)
    which = np.flatnonzero(nearest >= 0)
    time, kick = share[which] * move.h[which], np.empty((len(which), box.dimension))
    value = np.empty(len(which))
    for k, surface in enumerate(surfaces):
        here = np.flatnonzero(nearest[which] == k)
        if len(here):
            part = move.of(which[here])
            kick[here], x = _landing(surface, part, time[here], rng)
            value[here] = surface.data(box.clip(box.wrap(x)))
    faces = np.array([isinstance(surface, FaceSurface) for surface in surfaces])
    return Crossing(which, time, kick, value, faces[nearest[which]])


def _share_of_step(surface: Surface, move: Move, rng: np.random.Generator) -> Array:
    """The share of the step until a path is at the surface, infinite where it never is.

    a and b are the distances at the two ends of the step.
    """
    a, normal = surface.distance(move.x)
    a, b = np.maximum(a, 0.0), surface.distance(move.y)[0]
    s = np.einsum("nik,ni->nk", move.sigma, normal)
    variance = (s * s).sum(-1) * move.h
    calm = variance <= CALM * (a * a + b * b)
    safe = np.where(calm, 1.0, variance)
    exponent = np.minimum(2.0 * a * np.maximum(b, 0.0) / safe, 700.0)
    met = np.where(calm, 0.0, np.exp(-exponent))
    hit = np.flatnonzero((b <= 0) | (rng.random(len(a)) < met))
    out = np.full(len(a), np.inf)
    a, b, calm, safe = a[hit], np.abs(b[hit]), calm[hit], safe[hit]
    # A mean without limit would cost the sampler its digits, and changes nothing.
    mean = a / np.maximum(b, 1e-4 * np.sqrt(safe) + 1e-300)
    r = np.where(calm, a / np.maximum(b, 1e-300), mean)
    noisy = np.flatnonzero(~calm & (a > 0))
    shape = a[noisy] ** 2 / safe[noisy]
    r[noisy] = rng.wald(np.maximum(mean[noisy], 1e-300), np.maximum(shape, 1e-300))
    out[hit] = r / (1.0 + r)
    return out


def _landing(
    surface: Surface, move: Move, time: Array, rng: np.random.Generator
) -> tuple[Array, Array]:
    """The noise until `time` (m,), both (m, d), and the state on the surface then.

    Across the plane the noise is what brings the path to it; along it, it is a bridge.
    On a curved surface it is what leads to the state itself: with the noise of the
    plane the martingale would have a mean of order h (measured: 4 times the bias).
    """
    a, normal = surface.distance(move.x)
    s = np.einsum("nik,ni->nk", move.sigma, normal)
    size = np.linalg.norm(s, axis=-1)
    unit = s / np.maximum(size, 1e-300)[:, None]
    spread = np.sqrt(time * (move.h - time) / move.h)[:, None]
    w = (time / move.h)[:, None] * move.dW + spread * rng.standard_normal(move.dW.shape)
    across = -(a + (normal * move.f).sum(-1) * time) / np.maximum(size, 1e-300)
    noisy = size * size * move.h > CALM * a * a
    gap = np.where(noisy, across - (unit * w).sum(-1), 0.0)
    drifted = move.x + move.f * time[:, None]
    kick = np.einsum("nik,nk->ni", move.sigma, w + gap[:, None] * unit)
    x = surface.nearest(drifted + kick)
    return np.where(noisy[:, None], x - drifted, kick), x
