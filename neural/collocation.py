"""The linear system of one policy: (rho - L^a) V = r inside, the rules on faces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hjbpde.boundary import (
    Dirichlet,
    Extrapolate,
    Face,
    Reflecting,
    Robin,
    StateConstraint,
)
from hjbpde.problem import ControlProblem
from hjbpde.sets import Box

from .closing import bends_as, payoff_slopes, terminal_slopes
from .constrained_face import equation_rows
from .ends import Ends, face_data
from .exit_region import exit_states, exit_value, running, running_states
from .features import FeatureBasis, FeatureTables, FeatureValue
from .sampling import FacePoints, interior_points, on_levels
from .stopping_set import SettledExit
from .tikhonov import regularised_solve
from .time_state import TimedProblem
from .value_model import row_scale

Array = NDArray[np.float64]
Policy = Callable[[Array], Array]

THIN = 100.0
"""Decay of a face's influence over half the box that leaves it no say inside."""
STEADY = 5.0
"""The same for artificial faces under constant noise, whose only mode is that layer.

The closing rule is a guess about the payoff's growth; left out, a smooth fit finds V
alone and gains three to six digits (measured at decays of 5 to 50). Under noise that
varies, other modes are smooth and the rule is kept up to THIN.
"""
INWARD = 0.25
"""Share of states drawn towards the centre from 4 dimensions on, where they would
else all lie near faces and the level of V, decided where paths stay, drifts away
(measured beside artificial faces: 15 times the error of V in 10-D, 2 to 13 in 4-D)."""
OUTWARD = {4: 0.4}
"""By dimension, how far the coordinates lean towards the faces, where a fit would else
swing in the corners (measured in 4-D: a third to a tenth of the error on the whole box,
where V is given on the faces, and no more inside)."""
FACE_SHARE = 0.25
"""Points on a face, as a share of the number of features, times 1 / d."""
LEVELS, HELD_OUT_LEVELS = 32, 9
"""Times shared by the states of a problem with a horizon: 32 Chebyshev levels resolve
what features of the default scales do; the held-out ones lie between."""


class LinearTables(Protocol):
    """Operators on a value at n states as rows, linear in its weights."""

    def values(self) -> Array:
        """V: (n, columns)."""
        ...

    def along(self, direction: Array) -> Array:
        """direction . grad V, direction (n, d) or (d,): (n, columns)."""
        ...

    def curvature(self, sigma: Array) -> Array:
        """1/2 tr(sigma sigma' hess V), sigma (n, d, k) or (1, d, k)."""
        ...


@dataclass(frozen=True, eq=False)
class FaceTables:
    """One face of the system: its points and the features there."""

    face: Face
    points: FacePoints
    tables: LinearTables
    partner: LinearTables | None = None
    is_exit: bool = False


@dataclass(frozen=True, eq=False)
class Collocation:
    """Points, features on them, and everything a new policy does not change."""

    problem: ControlProblem
    x: Array
    tables: FeatureTables
    values: Array
    curvature: Array | None
    held_out: Array
    faces: tuple[FaceTables, ...]
    ends: Ends

    @classmethod
    def build(
        cls,
        problem: ControlProblem,
        basis: FeatureBasis,
        ratio: float,
        rng: np.random.Generator,
    ) -> Collocation:
        """Draw points for `basis`, ``ratio`` of them a feature."""
        box = problem.domain
        assert box is not None
        inward = INWARD if box.dimension >= 4 else 0.0
        outward = OUTWARD.get(box.dimension, 0.0)
        n, n_held_out = round(ratio * basis.size), max(64, basis.size // 3)
        x = interior_points(box, n, rng, inward, outward)
        held_out = box.sample(rng, n_held_out)
        if problem.exit is not None:
            within = getattr(problem.exit, "within", None) or box
            spread = partial(
                interior_points, within, rng=rng, inward=inward, outward=outward
            )
            x = running_states(problem, spread, n)
            # Uniform states of a box in many dimensions may all have ended.
            many = box.dimension >= 5
            again = spread if many else partial(within.sample, rng)
            held_out = running_states(problem, again, n_held_out)
        if isinstance(problem, TimedProblem):
            x, held_out = (
                on_levels(box, x, LEVELS),
                on_levels(box, held_out, HELD_OUT_LEVELS),
            )
        held_out = np.concatenate(
            [held_out, constrained_states(problem, n_held_out, rng)]
        )
        tables = basis.at(x)
        noise = None
        if not callable(problem.diffusion):
            nothing = np.zeros((1, problem.n_controls))
            sigma = np.asarray(problem.diffusion_at(x[:1], nothing))
            noise = tables.curvature(sigma)
        n_face = max(4, round(FACE_SHARE * basis.size / box.dimension))
        faces = [
            FaceTables(face, points, basis.at(points.x))
            for face in problem.faces
            for points in [face_points(problem, face, n_face, rng)]
        ]
        faces += _periodic_pairs(problem, basis, n_face, rng)
        if problem.exit is not None:
            faces = [f for f in faces if len(f.points.x)]
            faces.append(exit_rows(problem, basis, n_face * 2 * box.dimension, rng))
        ends = Ends.of(problem, held_out, rng)
        return cls(
            problem, x, tables, tables.values(), noise, held_out, tuple(faces), ends
        )

    def solve(
        self, policy: Policy, a: Array, lam: float, near: FeatureValue | None = None
    ) -> PolicyFit:
        """Weights of V and of the survival w ((rho - L)w = 1) under a policy.

        `a` (n, m) are the policy's controls at `x`; `policy` is asked on the faces.
        Where `near`, a value close to V, spans decades, errors count relative to it.
        """
        problem, x = self.problem, self.x
        drift = np.asarray(problem.drift_at(x, a))
        bend = self.curvature
        if bend is None:
            bend = self.tables.curvature(np.asarray(problem.diffusion_at(x, a)))
        rho = np.asarray(problem.discount_at(x))
        rows = rho[:, None] * self.values - self.tables.along(drift) - bend
        payoff = np.asarray(problem.payoff_at(x, a))
        weight = importance(near, x, x) / row_scale(problem, x, a)
        pace = rho.mean() or row_scale(problem, x, a).mean()
        matrices = [rows * weight[:, None]]
        sides = [np.stack((payoff * weight, weight), -1)]
        open_faces = []
        for face in self.faces:
            found = face_rows(problem, face, policy)
            if found.rows is not None:
                repeat = len(found.data) // len(face.points.x)
                more = np.tile(importance(near, face.points.x, x), repeat)
                matrices.append(found.rows * more[:, None])
                later = found.later
                if later is None:
                    # Any positive data keep w > 0; 1/rho makes no boundary layer.
                    held = face.is_exit or isinstance(
                        problem.faces.get(face.face), Dirichlet
                    )
                    later = np.full_like(found.data, float(held) / pace)
                sides.append(np.stack((found.data * more, later), -1))
            if found.is_open:
                open_faces.append(face)
        c = regularised_solve(np.vstack(matrices), np.vstack(sides), lam)
        basis = self.tables.basis
        value, survival = (FeatureValue(basis, c[:, i].copy()) for i in (0, 1))
        return PolicyFit(value, survival, tuple(open_faces))


@dataclass(frozen=True, eq=False)
class PolicyFit:
    """V of one policy, its discounted time w, and the faces that matter."""

    value: FeatureValue
    survival: FeatureValue
    open_faces: tuple[FaceTables, ...]


def importance(near: FeatureValue | None, at: Array, over: Array) -> Array:
    """Weights (n,) at states `at`: sqrt(sup|V| / |V|), the sup over states `over`.

    All 1 unless V keeps one sign and spans a factor of 8: only then is there a
    scale at every state, and a policy that depends on V's relative slope there. The
    square root, because fully relative weights let the large end go wrong.
    """
    if near is None:
        return np.ones(len(at))
    values = near.value(over)
    low, high = np.abs(values).min(), np.abs(values).max()
    if values.min() * values.max() <= 0 or high < 8 * low:
        return np.ones(len(at))
    return np.sqrt(high / np.clip(np.abs(near.value(at)), 1e-6 * high, None))


def face_points(
    problem: ControlProblem,
    face: Face,
    n: int,
    rng: np.random.Generator,
    levels: int = LEVELS,
) -> FacePoints:
    """Points of a face where the process runs; with a horizon, at few times."""
    box = problem.domain
    assert box is not None
    points = FacePoints.draw(box, face, n, rng)
    x = points.x
    if isinstance(problem, TimedProblem) and points.axis < problem.dimension - 1:
        x = on_levels(box, x, levels)
    if problem.exit is not None:
        x = x[running(problem, x)]
    return FacePoints(points.axis, points.sign, x)


def constrained_states(
    problem: ControlProblem, n: int, rng: np.random.Generator
) -> Array:
    """Held-out states on the faces with a state constraint, n^(1 - 1/d) on each."""
    few = max(1, round(n ** (1.0 - 1.0 / problem.dimension)))
    found = [
        face_points(problem, face, few, rng, HELD_OUT_LEVELS).x
        for face, rule in problem.faces.items()
        if isinstance(rule, StateConstraint)
    ]
    return np.concatenate([np.empty((0, problem.dimension)), *found])


def exit_rows(
    problem: ControlProblem, basis: FeatureBasis, n: int, rng: np.random.Generator
) -> FaceTables:
    """V = g at n states of an exit's surface."""
    x = exit_states(problem, n, rng)
    points = FacePoints(-1, 0.0, x)
    return FaceTables((-1, "exit"), points, basis.at(x), is_exit=True)


def _periodic_pairs(
    problem: ControlProblem, basis: FeatureBasis, n: int, rng: np.random.Generator
) -> list[FaceTables]:
    box = problem.domain
    assert box is not None
    return [
        FaceTables((low.axis, "low"), low, basis.at(low.x), basis.at(other))
        for low, other in periodic_points(box, n, rng)
    ]


def periodic_points(
    box: Box, n: int, rng: np.random.Generator
) -> list[tuple[FacePoints, Array]]:
    """n states on the low face of every periodic axis, and the same on the high."""
    pairs = []
    for axis, periodic in enumerate(box.periodic_axes):
        if periodic:
            low = FacePoints.draw(box, (axis, "low"), n, rng)
            other = low.x.copy()
            other[:, axis] = np.asarray(box.high)[axis]
            pairs.append((low, other))
    return pairs


@dataclass(frozen=True, eq=False)
class FaceRows:
    """Rows of one face, linear in the weights of V.

    Parameters
    ----------
    rows : (n, columns) or None
        None where the face has no say.
    data : (n,)
    later : (n,), optional
        The data of the discounted time w, where the rows are the equation's.
    is_open : bool
        Whether the face is artificial and matters.
    """

    rows: Array | None
    data: Array
    later: Array | None = None
    is_open: bool = False


def face_rows(problem: ControlProblem, face: FaceTables, policy: Policy) -> FaceRows:
    """What one face asks of V under a policy."""
    points, tables = face.points, face.tables
    if face.is_exit:
        return FaceRows(tables.values(), exit_value(problem, points.x))
    assert problem.domain is not None
    half = 0.5 * problem.domain.width[points.axis]
    unit = np.zeros(problem.dimension)
    unit[points.axis] = points.sign
    n = len(points.x)
    if face.partner is not None:
        same = tables.values() - face.partner.values()
        smooth = half * (tables.along(unit) - face.partner.along(unit))
        return FaceRows(np.vstack([same, smooth]), np.zeros(2 * n))
    rule = problem.faces[face.face]
    if isinstance(rule, Dirichlet):
        return FaceRows(tables.values(), face_data(rule.g, points.x, face.face))
    if isinstance(rule, StateConstraint):
        return FaceRows(*equation_rows(problem, points, tables, policy(points.x)))
    if isinstance(rule, Reflecting | Robin):
        rate = influence_rate(problem, points, policy(points.x))
        if np.median(rate) > THIN:
            # A layer of half / rate that no smooth feature resolves; its height is
            # that thin too, and forcing it would spoil the fit everywhere.
            return FaceRows(None, np.zeros(n))
    if isinstance(rule, Reflecting):
        return FaceRows(half * tables.along(unit), np.zeros(n))
    if isinstance(rule, Robin):
        size = abs(rule.alpha) + abs(rule.beta) / half
        row = rule.alpha * tables.values() + rule.beta * tables.along(unit)
        return FaceRows(row / size, face_data(rule.g, points.x, face.face) / size)
    if isinstance(rule, Extrapolate):
        return FaceRows(
            half**2 * 2.0 * tables.curvature(unit[None, :, None]), np.zeros(n)
        )
    if isinstance(problem, TimedProblem):
        # The data at T continue smoothly: with the rule by the payoff's growth the
        # heat equation lost one to three digits (measured), it gained none.
        pace = 1.0 / problem.domain.width[-1]
        felt = np.median(influence_rate(problem, points, policy(points.x), pace))
        if (
            isinstance(problem.exit, SettledExit)
            and points.axis < problem.dimension - 1
        ):
            closing = bends_as(terminal_slopes(problem, points), points, tables, half)
            return FaceRows(closing, np.zeros(n), is_open=bool(felt <= STEADY))
        return FaceRows(None, np.zeros(n), is_open=bool(felt <= STEADY))
    closing = _closing_rows(problem, points, tables, policy)
    return FaceRows(closing, np.zeros(n), is_open=closing is not None)


def influence_rate(
    problem: ControlProblem, points: FacePoints, a: Array, pace: float = 0.0
) -> Array:
    """Decay, over half the box, of what data on a face do inside it.

    The root of ``D k^2 - f_in k - rho = 0`` with D half the normal variance, f_in
    the drift away from the face and `pace` added to rho, times half the width.
    """
    assert problem.domain is not None
    axis = points.axis
    half = 0.5 * problem.domain.width[axis]
    inward = -points.sign * np.asarray(problem.drift_at(points.x, a))[:, axis] / half
    sigma = np.asarray(problem.diffusion_at(points.x, a))[:, axis] / half
    D = np.maximum(0.5 * (sigma**2).sum(-1), 1e-12)
    rho = np.asarray(problem.discount_at(points.x)) + pace
    return (inward + np.sqrt(inward**2 + 4 * D * rho)) / (2 * D)


def _closing_rows(
    problem: ControlProblem, points: FacePoints, tables: LinearTables, policy: Policy
) -> Array | None:
    """An artificial face: V bends as the payoff does, r_n V_nn = r_nn V_n.

    Exact for power and exponential growth, blind to constants. Left out where the
    drift comes in so fast that the face has no say: a smooth fit then finds V alone.
    """
    a = policy(points.x)
    limit = THIN if callable(problem.diffusion) else STEADY
    if np.median(influence_rate(problem, points, a)) > limit:
        return None
    slope, bend = payoff_slopes(problem, points, policy)
    assert problem.domain is not None
    half = 0.5 * problem.domain.width[points.axis]
    return bends_as((slope, bend), points, tables, half)
