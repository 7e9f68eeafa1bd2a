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

In time the midpoint is one too: drift, noise, payoff and discount at t + delta / 2. A
step that is shortened ends between t and t + delta; there V is linear in time.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from ..faces import FaceNodes, Faces
from ..probe import Motion, discount_of, motion
from ..problem import ControlProblem
from .exits import MOST_SAMPLES, Surface
from .lattice import Lattice

Array = NDArray[np.float64]
STILL = 1e-9
"""Share of the step below which a shortened step counts as no step at all."""

ROUNDING = 1e-9
"""Share of sqrt(time) by which a branch ends beyond a surface rather than before."""

RESTING = 1e-12
"""Share of the fastest drift that counts as none on a wall."""


@dataclass(frozen=True, eq=False)
class Step:
    """What a step from n nodes reads: ``gain + decay * mean(V(points))``.

    points (n, branches, d); gain (n,) is -inf where the control is inadmissible. Where
    Robin rules tie slopes to values, `tied` lists (rows, points, weights) to add.
    share (n,) is how much of the step was taken, 1 unless it was shortened. `runs`
    (n, branches) are the branches that read V at all; what others took is in `gain`.
    """

    gain: Array
    decay: Array
    points: Array
    tied: list[tuple[NDArray[np.intp], Array, Array]]
    share: Array
    runs: NDArray[np.bool_] | None = None

    def value(self, V: Array, lattice: Lattice, now: Array | None = None) -> Array:
        """The discounted payoff of the step and what follows it, (n,).

        V is read where the step ends; with `now`, the values where it starts, a
        shortened step reads what lies between both in time.
        """
        after = self._after(V, lattice)
        early = np.flatnonzero(self.share < 1.0)
        if now is not None and early.size:
            share, sooner = self.share[early], self.taken(early)._after(now, lattice)
            after[early] = share * after[early] + (1.0 - share) * sooner
        return self.gain + self.decay * after

    def _after(self, V: Array, lattice: Lattice) -> Array:
        """mean(V(points)) and what Robin rules add, (n,)."""
        n, branches, d = self.points.shape
        after = lattice.read(V, self.points.reshape(-1, d)).reshape(n, branches)
        after = (
            after.mean(axis=1)
            if self.runs is None
            else (np.where(self.runs, after, 0.0).mean(axis=1))
        )
        for rows, points, weights in self.tied:
            after = after + np.bincount(rows, weights * lattice.read(V, points), n)
        return after

    def taken(self, rows: NDArray[np.intp]) -> Step:
        """The step of some of the nodes, `rows` increasing."""
        tied = []
        for old, points, weights in self.tied:
            own = np.isin(old, rows)
            number = np.searchsorted(rows, old[own])
            tied.append((number, points[own], weights[own]))
        runs = None if self.runs is None else self.runs[rows]
        return Step(
            self.gain[rows],
            self.decay[rows],
            self.points[rows],
            tied,
            self.share[rows],
            runs,
        )

    def matrix(self, lattice: Lattice, size: int) -> sp.csr_matrix:
        """The rows (n, size) of ``decay * mean(V(points))``."""
        n, branches, d = self.points.shape
        index, weight = lattice.stencils(self.points.reshape(-1, d))
        share = np.repeat(self.decay / branches, branches)
        if self.runs is not None:
            share = share * self.runs.ravel()
        weight *= share[:, None]
        start = np.arange(n + 1) * (branches * lattice.corners)
        out = sp.csr_matrix((weight.ravel(), index.ravel(), start), shape=(n, size))
        for rows, points, weights in self.tied:
            index, part = lattice.stencils(points)
            part *= (weights * self.decay[rows])[:, None]
            at = np.repeat(rows, lattice.corners)
            more = sp.csr_matrix((part.ravel(), (at, index.ravel())), shape=(n, size))
            out = sp.csr_matrix(out + more)
        out.sum_duplicates()
        return out


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
    """

    def __init__(
        self,
        problem: ControlProblem,
        faces: Faces,
        delta: float,
        width: int,
        midpoint: bool,
        columns: list[int],
    ) -> None:
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
        return self._landed(x, ahead, time, discount_of(self.halfway, middle))

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

    def _landed(self, x: Array, go: Motion, time: Array, rho: Array) -> Step:
        n, d = x.shape
        lost = time <= STILL * self.delta
        rate = rho * time
        decay = np.exp(-rate)
        paid = np.where(
            rate > 1e-12, -np.expm1(-rate) / np.where(rho > 0, rho, 1), time
        )
        gain = np.where(lost, -np.inf, paid * go.r)
        centre, extra = x + time[:, None] * go.f, np.zeros(n)
        tied: list[tuple[NDArray[np.intp], Array, Array]] = []
        for face in self.sloped:
            if not face.artificial:
                extra += self._clamp(face, centre, tied)
        points = centre[:, None] + self._arms(go, time)
        for face in self.sloped:
            extra += self._mirror(face, points, tied)
        flat = points.reshape(-1, d)
        np.clip(flat, *self._limits, out=flat)
        share, runs = time / self.delta, None
        if self.surface is not None:
            runs = self._running(points)
            extra += self._left(points, runs, share)
        return Step(gain + decay * extra, decay, points, tied, share, runs)

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

    def _clamp(self, face: FaceNodes, centre: Array, tied: list) -> Array:
        """Drift through a true face with a slope slides along it."""
        distance, _ = self._outward(face, centre, centre)
        over = np.maximum(-distance, 0.0)
        centre[:, face.axis] += over if face.side == "low" else -over
        return self._sloped(face, centre, over, np.arange(len(centre)), tied)

    def _mirror(self, face: FaceNodes, points: Array, tied: list) -> Array:
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
        tied: list,
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
