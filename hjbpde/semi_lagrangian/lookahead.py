"""One step ahead: where the process is after a time delta, and what was paid.

    Q(x, a) = phi r(m, a) + exp(-rho delta) mean_b V(x_b)
    x_b = x + delta f(m, a) +- sqrt(k delta) sigma_j(m, a),  m = x + delta f(x, a) / 2

with phi = (1 - exp(-rho delta)) / rho, k columns sigma_j of noise and 2 k branches,
equally likely (Camilli and Falcone, RAIRO M2AN 29 (1995) 97): mean and covariance of
the step are those of the process up to O(delta^2). Without noise the midpoint makes one
step exact to O(delta^3).

Where a branch would leave through a face that carries data (or may not be crossed) the
whole step of that node is shortened until it ends there. Through a face with a slope p
the value beyond is ``V(mirrored) + 2 d p`` at distance d.

A branch that meets the surface of an exit region shortens the step in the same way and
takes the value there (see `exits`).

Where the process switches between modes the rate of leaving discounts as well, and what
the other modes are worth is a payoff (see `switching`); so are jumps (see `jumping`).

In time the midpoint is one too: drift, noise, payoff and discount at t + delta / 2. A
step that is shortened ends between t and t + delta; there V is linear in time.
"""

from __future__ import annotations

from copy import copy

import numpy as np
from numpy.typing import NDArray

from ..coefficients import Motion, discount_of, motion
from ..faces import FaceNodes, Faces
from ..problem import ControlProblem
from .exits import MOST_SAMPLES, Surface
from .jumping import Jumped
from .lattice import Lattice
from .step import Reading, Step
from .switching import Switching

Array = NDArray[np.float64]
STILL = 1e-9
"""Share of the step below which a shortened step counts as no step at all."""

ROUNDING = 1e-9
"""Share of sqrt(time) by which a branch ends beyond a surface rather than before."""

RESTING = 1e-12
"""Share of the fastest drift that counts as none on a wall."""


Tied = tuple[NDArray[np.intp], Array, Array]
"""Rows, points and weights of values that slopes are tied to by Robin rules."""


class Lookahead:
    """Steps of one problem on one grid.

    Parameters
    ----------
    delta : float
        Length of a step.
    width : {2, 4}
        Nodes an axis that a reading takes.
    midpoint : bool
        Whether drift, noise and payoff are taken half a step ahead.
    columns : list of int
        Columns of the diffusion that are not 0 everywhere.
    switching : Switching, optional
        The mode that the problem is held in, and the rates of leaving it.

    `toll` is charged per unit of time, as a long-run average is. Where `perishing`, a
    control that crosses a wall at once is worth 0 and admissible: nobody may be saved.
    """

    def __init__(
        self,
        problem: ControlProblem,
        faces: Faces,
        delta: float,
        width: int,
        midpoint: bool,
        columns: list[int],
        switching: Switching | None = None,
    ) -> None:
        self.switching = switching
        self.bends: list[Array] | None = None
        self.toll, self.perishing = 0.0, False
        self.problem = self.halfway = self.later = problem
        self.faces, self.grid = faces, faces.grid
        self.delta, self.midpoint, self.columns = delta, midpoint, columns
        self.lattice = Lattice.of(self.grid, width)
        fixed = faces.fixed_mask
        free = np.ones(self.grid.size, bool) if fixed is None else ~fixed.ravel()
        self.free = np.flatnonzero(free)
        self.x = self.grid.nodes_of(self.free)
        self.low = np.asarray(self.grid.domain.low, float)
        self.high = np.asarray(self.grid.domain.high, float)
        self.walls = [f for f in faces.faces if f.fixed or f.inward_only]
        self.sloped = [f for f in faces.faces if not (f.fixed or f.inward_only)]
        self.surface, self.close = None, dict[int, NDArray[np.intp]]()
        if problem.exit is not None:
            self.surface = Surface.of(problem, self.grid, width)

    @property
    def mode(self) -> int:
        """The number of its mode, 0 where there are none."""
        return 0 if self.switching is None else self.switching.mode

    def step(self, a: Array) -> Step:
        """The step from every free node under controls a (n, m)."""
        x = self.x
        here = self._motion(self.problem, x, a)
        time = self._until_end(x, here, np.full(len(x), self.delta))
        if self.midpoint:
            middle = x + 0.5 * time[:, None] * here.f
            middle = self.inside(middle)
            ahead = self._held(x, here, self._motion(self.halfway, middle, a))
            time = self._until_end(x, ahead, time)
        else:
            middle, ahead = x, here
        return self._landed(x, ahead, time, middle)

    def held(self, problems: list[ControlProblem], delta: float) -> Lookahead:
        """The same for steps of length delta, the problem held at their start, middle
        and end.
        """
        out = copy(self)
        out.problem, out.halfway, out.later = problems
        out.delta = delta
        return out

    def motion_under(self, a: Array) -> Motion:
        """Drift, active columns of the noise and payoff of a policy on free nodes."""
        return self._motion(self.problem, self.x, a)

    def _motion(self, problem: ControlProblem, x: Array, a: Array) -> Motion:
        found = motion(problem, x, a)
        return Motion(found.f, found.sigma[:, :, self.columns], found.r)

    def inside(self, x: Array) -> Array:
        """The nearest points of the domain, periodic coordinates wrapped."""
        wrapped = self.grid.domain.wrap(x)
        return np.where(self.grid.periodic, wrapped, np.clip(x, self.low, self.high))

    def _outward(self, face: FaceNodes, x: Array, v: Array) -> tuple[Array, Array]:
        """Distance to a face and the outward component of v (n, d)."""
        k = face.axis
        if face.side == "high":
            return self.high[k] - x[:, k], v[:, k]
        return x[:, k] - self.low[k], -v[:, k]

    def _held(self, x: Array, here: Motion, ahead: Motion) -> Motion:
        """On a wall, the motion half a step ahead without what would cross it."""
        f, sigma = ahead.f.copy(), ahead.sigma.copy()
        for face in self.walls:
            distance, speed = self._outward(face, x, here.f)
            on, k = distance <= 0.0, face.axis
            sigma[on, k] = here.sigma[on, k]
            slack = RESTING * float(np.max(np.abs(speed), initial=0.0))
            stays = on & (speed <= slack)
            inward = np.minimum if face.side == "high" else np.maximum
            f[stays, k] = inward(f[stays, k], 0.0)
        return Motion(f, sigma, ahead.r)

    def continued(self, V: Array, problem: ControlProblem | None = None) -> Array:
        """V as it is read: continued beyond the surface of an exit region.

        With the data of `problem`, by default that held at the end of the step.
        """
        if self.surface is None:
            return V
        return self.surface.continued(V, self.surface.beyond(problem or self.later))

    def _until_end(self, x: Array, go: Motion, time: Array) -> Array:
        """The step shortened to the first branch that meets a wall or leaves."""
        time = self._until_wall(x, go, time)
        if self.surface is None:
            return time
        share = (1.0 + ROUNDING) * self._met(x, go, time).min(axis=1)
        # However close to the surface, the process may still run: it is not stuck.
        left = np.maximum(time * share**2, 2.0 * STILL * self.delta)
        return np.minimum(time, left)

    def _met(self, x: Array, go: Motion, time: Array) -> Array:
        """Shares of sqrt(time) at which branches (n, branches) meet the surface."""
        assert self.surface is not None
        arms, drift = self._arms(go, time), time[:, None] * go.f
        n, branches, d = arms.shape
        cells = np.array([float(np.min(np.diff(axis))) for axis in self.grid.axes])
        longest = (np.abs(drift)[:, None] + np.abs(arms)) / cells
        samples = max(int(np.ceil(np.max(longest, initial=0.0) - 1e-9)), 1)
        found = np.full((n, branches), 2.0)
        if samples not in self.close:
            close = self.surface.near(samples).ravel()[self.free]
            self.close[samples] = np.flatnonzero(close)
        near = self.close[samples]
        start = np.repeat(x[near], branches, 0)
        drift, arms = np.repeat(drift[near], branches, 0), arms[near].reshape(-1, d)

        def path(share: Array, rows: NDArray[np.intp]) -> Array:
            s = share[:, None]
            return self.inside(start[rows] + s * s * drift[rows] + s * arms[rows])

        met = self.surface.met(path, len(start), min(samples, MOST_SAMPLES))
        found[near] = met.reshape(-1, branches)
        return found

    def _arms(self, go: Motion, time: Array) -> Array:
        """What the noise adds on every branch, (n, branches, d)."""
        k = len(self.columns)
        if not k:
            return np.zeros((len(time), 1, self.grid.dimension))
        arms = np.sqrt(k * time)[:, None, None] * go.sigma.transpose(0, 2, 1)
        return np.concatenate([arms, -arms], axis=1)

    def _until_wall(self, x: Array, go: Motion, time: Array) -> Array:
        """The step shortened so that every branch ends on this side of the walls.

        With u = sqrt(t): ``v u^2 + s u <= distance``, the smaller root.
        """
        k = max(len(self.columns), 1)
        for face in self.walls:
            distance, v = self._outward(face, x, go.f)
            distance = np.maximum(distance, 0.0)
            # A control that just rests on the wall may miss by its rounding.
            slack = RESTING * float(np.max(np.abs(v), initial=0.0))
            v = np.where((distance == 0.0) & (v <= slack), np.minimum(v, 0.0), v)
            s = np.sqrt(k) * np.abs(go.sigma[:, face.axis]).max(axis=1, initial=0.0)
            under = s * s + 4.0 * v * distance
            crosses = (under >= 0.0) & ((v > 0.0) | (s > 0.0))
            bottom = s + np.sqrt(np.maximum(under, 0.0))
            # From the wall itself outwards there is no way at all: u = 0.
            u = 2.0 * distance / np.where(bottom > 0.0, bottom, 1.0)
            time = np.where(crosses, np.minimum(time, u * u), time)
        return time

    def _landed(self, x: Array, go: Motion, time: Array, middle: Array) -> Step:
        n, d = x.shape
        lost = time <= STILL * self.delta
        decay, paid, elsewhere, readings = self._passing(middle, time)
        gain = np.where(lost, -np.inf, paid * (go.r - self.toll) + elsewhere)
        if self.perishing:
            gain, decay = np.where(lost, 0.0, gain), np.where(lost, 0.0, decay)
        centre, extra = x + time[:, None] * go.f, np.zeros(n)
        tied: list[Tied] = []
        for face in self.sloped:
            if not face.artificial:
                extra += self._clamp(face, centre, tied)
        # Mirrors and walls move points through a flat view of them.
        points = np.ascontiguousarray(centre[:, None] + self._arms(go, time))
        for face in self.sloped:
            extra += self._mirror(face, points, tied)
        flat = points.reshape(-1, d)
        np.clip(flat, *self._limits, out=flat)
        share, runs = time / self.delta, None
        if self.surface is not None:
            runs = self._running(points)
            extra += self._left(points, runs, share)
        readings += [
            Reading(rows, at, weights * decay[rows], self.mode)
            for rows, at, weights in tied
        ]
        gain = gain + decay * extra
        return Step(gain, decay, points, readings, share, runs, self.mode)

    def leaving(self, x: Array) -> Array:
        """The rate at which the process leaves x (n, d) for elsewhere, (n,)."""
        out = np.zeros(len(x))
        if self.switching is not None:
            out = out + self.switching.rates(x).sum(axis=1)
        if self.halfway.jumps is not None:
            out = out + self.halfway.jumps.rate_at(x)
        return out

    def _passing(self, x: Array, time: Array) -> tuple[Array, Array, Array, list]:
        """``exp(-c t)``, its integral, and what is paid elsewhere: gain and readings.

        c is the discount at x (n, d), half way, and the rate of leaving.
        """
        c, gain = discount_of(self.halfway, x) + self.leaving(x), np.zeros(len(x))
        rate = c * time
        paid = np.where(rate > 1e-12, -np.expm1(-rate) / np.where(c > 0, c, 1), time)
        readings: list[Reading] = []
        if self.switching is not None:
            readings = self.switching.readings(x, self.switching.rates(x), paid)
        if self.halfway.jumps is not None:
            end = Jumped.of(
                self.halfway, x, self.faces, self.surface, self.lattice, self.bends
            )
            gain, weights = paid * end.gain, paid[end.rows] * end.rates
            readings.append(Reading(end.rows, end.points, weights, self.mode, 0.5))
        return np.exp(-rate), paid, gain, readings

    def _running(self, points: Array) -> NDArray[np.bool_]:
        """Which branches (n, branches) end where the process runs on."""
        n, branches, d = points.shape
        assert self.surface is not None
        phi = self.surface.phi(self.inside(points.reshape(-1, d)))
        return (phi > 0).reshape(n, branches)

    def _left(self, points: Array, runs: NDArray[np.bool_], share: Array) -> Array:
        """g on branches that left, at that time (linear in time): their part, (n,)."""
        surface, (n, branches, d) = self.surface, points.shape
        assert surface is not None
        out = np.flatnonzero(~runs.ravel())
        x = self.inside(points.reshape(-1, d)[out])
        g = surface.value(self.problem, x)
        if self.problem is not self.halfway:
            passed = 2.0 * share[out // branches]
            g = g + passed * (surface.value(self.halfway, x) - g)
        return np.asarray(np.bincount(out // branches, g / branches, n), float)

    @property
    def _limits(self) -> tuple[Array, Array]:
        open_ended = np.asarray(self.grid.periodic)
        low = np.where(open_ended, -np.inf, self.low)
        return low, np.where(open_ended, np.inf, self.high)

    def _clamp(self, face: FaceNodes, centre: Array, tied: list[Tied]) -> Array:
        """Drift through a true face with a slope slides along it."""
        distance, _ = self._outward(face, centre, centre)
        over = np.maximum(-distance, 0.0)
        centre[:, face.axis] += over if face.side == "low" else -over
        return self._sloped(face, centre, over, np.arange(len(centre)), tied)

    def _mirror(self, face: FaceNodes, points: Array, tied: list[Tied]) -> Array:
        """Branches beyond a face with a slope are mirrored; what that adds, (n,)."""
        n, branches, d = points.shape
        flat = points.reshape(-1, d)
        distance, _ = self._outward(face, flat, flat)
        out = np.flatnonzero(distance < 0.0)
        if not out.size:
            return np.zeros(n)
        over, k = -distance[out], face.axis
        at = flat[out]
        at[:, k] = self.low[k] if face.side == "low" else self.high[k]
        flat[out, k] += 2.0 * over if face.side == "low" else -2.0 * over
        added = self._sloped(face, at, 2.0 * over / branches, out // branches, tied)
        return np.asarray(np.bincount(out // branches, added, n), float)

    def _sloped(
        self,
        face: FaceNodes,
        at: Array,
        reach: Array,
        rows: NDArray[np.intp],
        tied: list[Tied],
    ) -> Array:
        """``reach * p`` at points `at` of the face; values it is tied to are noted."""
        if face.kappa != 0.0:
            far = reach > 0.0
            tied.append((rows[far], at[far], -reach[far] * face.kappa))
        slope = np.asarray(face.slope, float)
        if not slope.any():
            return np.zeros(len(at))
        if slope.size > 1:
            rest = np.delete(at, face.axis, axis=1)
            slope = self.lattice.without(face.axis).read(slope, rest)
        return reach * slope
