"""What the network corrects: the given data carried inside, or the Riccati value."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hjbpde.boundary import Dirichlet
from hjbpde.problem import ControlProblem
from hjbpde.sets import Box

from ..ansatz import Bump
from ..collocation import LEVELS
from ..ends import face_data
from ..exit_region import exit_states, exit_value
from ..features import FeatureBasis, FeatureValue
from ..linear_quadratic import quadratic_value
from ..sampling import FacePoints, on_levels
from ..start import expand
from ..tikhonov import regularised_solve
from ..time_state import TimedProblem
from .vanishing import vanishing

Array = NDArray[np.float64]
FEATURES = {1: 0, 2: 300, 3: 600}
SLOPE = {2: 1.0, 3: 0.7}
PROFILE = {1: (100, 4.0), 2: (400, 1.0), 3: (600, 0.7)}
"""Features and slopes for terminal data, which are fitted in x alone."""


def bump_of(
    given: ControlProblem,
    problem: ControlProblem,
    size: float,
    rng: np.random.Generator,
) -> Bump:
    """Zero where V is given: on faces, and on the surface of an exit if it is smooth.

    Elsewhere of the size of V. `problem` is `given`, or with a horizon its form in
    (x, t); the surface does not move.
    """
    held = np.zeros((problem.dimension, 2))
    for (axis, side), rule in problem.faces.items():
        held[axis, int(side == "high")] = float(isinstance(rule, Dirichlet))
    region = None if given.exit is None else vanishing(given, rng)
    if region is not None and isinstance(problem, TimedProblem):
        region = _constant_in_time(region, problem)
    return Bump(held, size, region)


def lift_of(
    problem: ControlProblem, quadratic: bool, rng: np.random.Generator
) -> tuple[FeatureValue, float]:
    """The lift, and how far it misses the data of the faces and of an exit.

    Equal numbers everywhere are met exactly; functions are fitted on states of the
    faces by random features, with weights as small as the data allow: a lift that is
    harmonic inside is singular at edges, and the network would have to undo that
    (measured: 100 times the residual). Terminal data alone are continued unchanged
    in time. Without data: the Riccati value of the linearisation, where there is one
    and `quadratic` asks for it, else 0.
    """
    box = problem.domain
    assert box is not None
    given = {f: r for f, r in problem.faces.items() if isinstance(r, Dirichlet)}
    values = [r.g for r in given.values()]
    if problem.exit is not None:
        values.append(problem.exit.value)
    numbers = [g for g in values if not callable(g)]
    flat = FeatureBasis.draw(box, 0, 1.0, rng)
    local = expand(problem, box.centre) if quadratic and not values else None
    if local is not None:
        return quadratic_value(problem, local), 0.0
    if len(numbers) == len(values) and len(set(numbers)) < 2:
        coefficients = np.zeros(flat.size)
        coefficients[0] = numbers[0] if numbers else 0.0
        return FeatureValue(flat, coefficients), 0.0
    if isinstance(problem, TimedProblem) and len(values) == 1:
        return _profile(problem, box, rng)
    return _fitted(problem, given, rng)


def _profile(
    problem: TimedProblem, box: Box, rng: np.random.Generator
) -> tuple[FeatureValue, float]:
    """Features of x alone through the terminal data, the same at every time."""
    d = box.dimension - 1
    count, slope = PROFILE.get(d, (1000, 0.5))
    space = Box(np.asarray(box.low)[:-1], np.asarray(box.high)[:-1])
    basis = FeatureBasis.draw(space, count, slope, rng)
    last = d, "high"
    rule = problem.faces[last]
    assert isinstance(rule, Dirichlet)

    def drawn() -> tuple[Array, Array]:
        x = FacePoints.draw(box, last, 3 * basis.size, rng).x
        return x[:, :-1], face_data(rule.g, x, last)

    x, data = drawn()
    weights = regularised_solve(basis.at(x).values(), data[:, None], 1e-12)[:, 0]
    off = FeatureValue(basis, weights)
    x, data = drawn()
    return _constant_in_time(off, problem), float(np.abs(off.value(x) - data).max())


def _constant_in_time(value: FeatureValue, problem: TimedProblem) -> FeatureValue:
    """A value of x as one of (x, t)."""
    box = problem.domain
    assert box is not None
    d, n = box.dimension - 1, len(value.basis.bias)
    wide = np.hstack([value.basis.weights, np.zeros((n, 1))])
    basis = FeatureBasis(box.centre, 0.5 * box.width, wide, value.basis.bias)
    flat, linear, bent = np.split(value.coefficients, [n + 1, n + 1 + d])
    i, j = np.triu_indices(d + 1)
    quadratic = np.zeros(len(i))
    quadratic[(i < d) & (j < d)] = bent
    return FeatureValue(basis, np.r_[flat, linear, 0.0, quadratic])


def _fitted(
    problem: ControlProblem,
    given: dict[tuple[int, str], Dirichlet],
    rng: np.random.Generator,
) -> tuple[FeatureValue, float]:
    box, d = problem.domain, problem.dimension
    assert box is not None
    n = FEATURES.get(d, 1000)
    basis = FeatureBasis.draw(box, n, SLOPE.get(d, 0.5), rng)
    parts = len(given) + (problem.exit is not None)
    each = max(4, 3 * basis.size // parts)

    def given_values() -> tuple[Array, Array]:
        xs, gs = [], []
        for face, rule in given.items():
            x = FacePoints.draw(box, face, each, rng).x
            if isinstance(problem, TimedProblem) and face[0] < d - 1:
                x = on_levels(box, x, LEVELS)
            xs.append(x)
            gs.append(face_data(rule.g, x, face))
        if problem.exit is not None:
            xs.append(exit_states(problem, each, rng))
            gs.append(exit_value(problem, xs[-1]))
        return np.concatenate(xs), np.concatenate(gs)

    x, data = given_values()
    weights = regularised_solve(basis.at(x).values(), data[:, None], 1e-12)
    lift = FeatureValue(basis, weights[:, 0].copy())
    x, data = given_values()
    return lift, float(np.abs(lift.value(x) - data).max())
