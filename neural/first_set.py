"""The first, rough set on which one stops, found without a start."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from hjbpde.boundary import Dirichlet
from hjbpde.errors import MethodMismatch
from hjbpde.sets import Box

from .ends import face_data
from .free_boundary import Labels, joined, sampled_surface
from .level_set import LevelSet
from .stopping_payoff import Owners, Payoffs
from .stopping_penalty import penalised
from .stopping_set import StoppingSet
from .stopping_sketch import NODES, sketch
from .time_state import TimedProblem

Array = NDArray[np.float64]
MOST = 8
"""States in which a set was measured to be found; time is none of them."""


def first_set(payoffs: Payoffs, n: int, rng: np.random.Generator) -> StoppingSet:
    """Where a rough chain stops (`neural.stopping_sketch`), by n states of its surface.

    In five states and more, where stopping at a finite rate says so
    (`neural.stopping_penalty`), as the level of a smooth function.

    With a horizon the surface at the end is known: there one stops where psi is what
    the end pays and waiting a moment before it would lose.

    Raises
    ------
    MethodMismatch
        More states than was measured to work.
    """
    d = payoffs.box.dimension
    if d not in NODES:
        _check_count(payoffs, d)
        rough = penalised(payoffs, rng)
        found = LevelSet.parting(payoffs.box, rough.labels, n, rng)
        if found.everywhere:
            # The doubt that helps a surface to begin must not decide there is none.
            rough = replace(rough, doubt=0.0)
            found = LevelSet.parting(payoffs.box, rough.labels, n, rng)
        return found
    found = sampled_surface(payoffs.box, sketch(payoffs).labels, n, rng)
    if not isinstance(payoffs.problem, TimedProblem) or not len(found.states):
        return found
    end = _last_surface(payoffs.box, partial(_stops_at_end, payoffs), n, rng)
    return joined(found, end) if len(end.states) else found


def _check_count(payoffs: Payoffs, d: int) -> None:
    """Refuse more states than a level set was measured in, or time among them."""
    if isinstance(payoffs.problem, TimedProblem) or d > MOST:
        raise MethodMismatch(
            f"neural.solve finds where to stop in at most {MOST} states, "
            f"with a horizon in {max(NODES)}, time included; this problem has {d}. "
            "evaluation=neural.MonteCarlo(...) takes more."
        )


def _stops_at_end(payoffs: Payoffs, x: Array) -> tuple[NDArray[np.bool_], Owners]:
    """Whether one stops just before the horizon, x (n, d) being states there."""
    face = (x.shape[1] - 1, "high")
    rule = payoffs.problem.faces[face]
    assert isinstance(rule, Dirichlet)
    data = face_data(rule.g, x, face)
    stops, owners = np.zeros(len(x), bool), np.zeros(len(x), np.int64)
    slack = 1e-9 * (1e-300 + np.abs(data).max(initial=0.0))
    for k, side in enumerate(payoffs.sides):
        equal = side * (data - payoffs.of(k, x)) <= slack
        here = equal & (payoffs.loss_of_waiting(k, x) > slack)
        stops |= here
        owners[here] = k
    return stops, owners


def _last_surface(
    box: Box, labels: Labels, n: int, rng: np.random.Generator
) -> StoppingSet:
    """The surface at the horizon, where it is known and stays."""
    last = float(np.asarray(box.high)[-1])

    def at_end(x: Array) -> tuple[NDArray[np.bool_], Owners]:
        x = x.copy()
        x[:, -1] = last
        return labels(x)

    found = sampled_surface(box, at_end, max(8, n // 8), rng)
    states, normals = found.states.copy(), found.normals.copy()
    states[:, -1], normals[:, -1] = last, 0.0
    size = np.maximum(np.linalg.norm(normals, axis=1), 1e-300)[:, None]
    return replace(found, states=states, normals=normals / size)
