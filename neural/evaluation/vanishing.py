"""A smooth function that is 0 on the surface of an exit and positive inside."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from hjbpde.boundary import Reflecting
from hjbpde.events import Exit
from hjbpde.problem import ControlProblem

from ..collocation import Collocation
from ..exit_region import exit_states, running_states
from ..features import FeatureBasis, FeatureValue
from ..sampling import interior_points
from ..tikhonov import regularised_solve

Array = NDArray[np.float64]
FEATURES = {1: (20, 2.0), 2: (400, 1.0), 3: (800, 0.7)}
"""Number and slope of the features."""
SMOOTH = 1e-6
"""Largest value on the surface, over the largest inside, that counts as 0."""
STEEP = 0.02
"""Least slope on the surface over the largest: V may leave g at any rate."""


def vanishing(problem: ControlProblem, rng: np.random.Generator) -> FeatureValue | None:
    """R(x) with R = 0 where phi = 0, of order 1 inside; None where none is smooth.

    Two candidates, fitted by random features: phi itself, and the mean time w until
    a Brownian motion, reflected at the box, leaves,

        1/2 sum_i half_i^2 w_ii = -1 inside,   w = 0 where phi = 0,

    which is smooth where the surface is, whatever phi does inside (a distance has
    kinks), and leaves 0 with positive slope (Hopf's lemma; Evans, Partial
    Differential Equations, 2nd ed., section 6.4.2). Corners and holes smaller than
    the features leave None.
    """
    box = problem.domain
    assert box is not None
    count, slope = FEATURES.get(box.dimension, (1000, 0.5))
    basis = FeatureBasis.draw(box, count, slope, rng)
    for candidate in (_distance, _time_inside):
        found = candidate(problem, basis, rng)
        if _vanishes(problem, found, rng):
            return found
    return None


def _distance(
    problem: ControlProblem, basis: FeatureBasis, rng: np.random.Generator
) -> FeatureValue:
    """phi on running states and on the surface."""
    assert problem.domain is not None
    assert problem.exit is not None
    draw = partial(interior_points, problem.domain, rng=rng)
    x = running_states(problem, draw, 2 * basis.size)
    x = np.concatenate([x, exit_states(problem, basis.size, rng)])
    phi = np.asarray(problem.exit.region(x), dtype=float)
    weights = regularised_solve(basis.at(x).values(), phi[:, None], 1e-12)
    return FeatureValue(basis, weights[:, 0] / np.abs(phi).max())


def _time_inside(
    problem: ControlProblem, basis: FeatureBasis, rng: np.random.Generator
) -> FeatureValue:
    """The mean time, over its largest value."""
    box = problem.domain
    assert box is not None
    assert problem.exit is not None
    motion = ControlProblem(
        drift=lambda x, a: 0.0 * x,
        diffusion=np.diag(0.5 * box.width),
        reward=lambda x, a: 1.0 + 0.0 * x[..., 0],
        domain=box,
        exit=Exit(problem.exit.region, 0.0),
        boundary=Reflecting(),
    )
    system = Collocation.build(motion, basis, 1.7, rng)

    def nothing(x: Array) -> Array:
        return np.zeros((len(x), 0))

    time = system.solve(nothing, nothing(system.x), 1e-11).value
    top = float(np.abs(time.value(system.held_out)).max())
    return FeatureValue(basis, time.coefficients / top)


def _vanishes(
    problem: ControlProblem, found: FeatureValue, rng: np.random.Generator
) -> bool:
    """Whether `found` is 0 on the surface, leaves it, and is positive inside."""
    box = problem.domain
    assert box is not None
    surface = exit_states(problem, 500, rng)
    inside = running_states(problem, partial(box.sample, rng), 500)
    slope = np.linalg.norm(found.gradient(surface) * 0.5 * box.width, axis=1)
    return bool(
        np.abs(found.value(surface)).max() < SMOOTH
        and slope.min() > STEEP * slope.max()
        and found.value(inside).min() > -SMOOTH
    )
