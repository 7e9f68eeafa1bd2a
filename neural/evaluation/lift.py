"""What the network corrects: the faces' data carried inside, or the Riccati value."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hjbpde.boundary import Dirichlet
from hjbpde.problem import ControlProblem

from ..ansatz import Bump
from ..collocation import face_data, regularised_solve
from ..features import FeatureBasis, FeatureValue
from ..linear_quadratic import quadratic_value
from ..sampling import FacePoints
from ..start import expand

Array = NDArray[np.float64]
FEATURES = {1: 0, 2: 300, 3: 600}
SLOPE = {2: 1.0, 3: 0.7}


def bump_of(problem: ControlProblem, size: float) -> Bump:
    """Zero on the faces whose value is given, of the size of V elsewhere."""
    held = np.zeros((problem.dimension, 2))
    for (axis, side), rule in problem.faces.items():
        held[axis, int(side == "high")] = float(isinstance(rule, Dirichlet))
    return Bump(held, size)


def lift_of(
    problem: ControlProblem, quadratic: bool, rng: np.random.Generator
) -> tuple[FeatureValue, float]:
    """The lift, and how far it misses the data of the faces.

    Equal numbers on all faces are met exactly; functions are fitted on face states
    by random features, with weights as small as the data allow: a lift that is
    harmonic inside is singular at edges, and the network would have to undo that
    (measured: 100 times the residual). Without such faces: the Riccati value of the
    linearisation, where there is one and `quadratic` asks for it, else 0.
    """
    box = problem.domain
    assert box is not None
    given = {f: r for f, r in problem.faces.items() if isinstance(r, Dirichlet)}
    numbers = [r.g for r in given.values() if not callable(r.g)]
    flat = FeatureBasis.draw(box, 0, 1.0, rng)
    local = expand(problem, box.centre) if quadratic and not given else None
    if local is not None:
        return quadratic_value(problem, local), 0.0
    if len(numbers) == len(given) and len(set(numbers)) < 2:
        coefficients = np.zeros(flat.size)
        coefficients[0] = numbers[0] if numbers else 0.0
        return FeatureValue(flat, coefficients), 0.0
    return _fitted(problem, given, rng)


def _fitted(
    problem: ControlProblem,
    given: dict[tuple[int, str], Dirichlet],
    rng: np.random.Generator,
) -> tuple[FeatureValue, float]:
    box, d = problem.domain, problem.dimension
    assert box is not None
    n = FEATURES.get(d, 1000)
    basis = FeatureBasis.draw(box, n, SLOPE.get(d, 0.5), rng)
    per_face = max(4, 3 * basis.size // len(given))

    def face_values() -> tuple[Array, Array]:
        xs, gs = [], []
        for face, rule in given.items():
            x = FacePoints.draw(box, face, per_face, rng).x
            xs.append(x)
            gs.append(face_data(rule.g, x, face))
        return np.concatenate(xs), np.concatenate(gs)

    x, data = face_values()
    weights = regularised_solve(basis.at(x).values(), data[:, None], 1e-12)
    lift = FeatureValue(basis, weights[:, 0].copy())
    x, data = face_values()
    return lift, float(np.abs(lift.value(x) - data).max())
