"""Policies compared point by point, and what they give away in one instant."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .moves import moves_of
from .points import SamplePoints, few
from .reference import Instant
from .residual import hamiltonian_gap, rate_of
from .subject import Subject, subject_of

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Policies:
    """The two policies at x (n, d): relative distance (n,), and what it gives away.

    `reply` is the same for the adversary, if there is one.
    """

    x: Array
    error: Array
    gap: Array
    reply: Policies | None = None


def policies_of(instant: Instant, points: SamplePoints, seed: int) -> Policies | None:
    """Controls compared at a few of the points; None without any.

    With an adversary the controller gives away what its choice, answered best, falls
    short of the best one, and the adversary what its answer to the reference's choice
    falls short of the best answer.
    """
    problem, subject = instant.problem, instant.subject
    joint, truth = subject.joint, Subject.of(instant.reference, problem)
    if joint.n_controls == 0:
        return None
    x = few(points.x, seed)
    if problem.impulse is not None:
        # Controls matter where the state is left alone.
        x = x[np.isnan(moves_of(subject_of(instant.reference, problem), x)).any(axis=1)]
        if not len(x):
            return None
    p = truth.gradient(x)
    curve = truth.curvature(x) if callable(problem.diffusion) else np.zeros_like(p)
    mine, theirs = subject.control(x)[0], np.asarray(instant.reference.control_at(x))
    best = _answered(truth, x, theirs)
    rate = rate_of(joint, x, best)

    def lost(u: Array, v: Array) -> Array:
        gap = np.full(len(x), np.nan)
        good = np.isfinite(u).all(axis=1) & np.isfinite(v).all(axis=1)
        gap[good] = hamiltonian_gap(
            joint, x[good], u[good], v[good], p[good], curve[good]
        )
        return gap / rate

    given = lost(_answered(truth, x, mine), best)
    reply = None
    if problem.adversary is not None and not subject.lent:
        b = subject.reply(x, theirs)[0]
        theirs_too = best[:, problem.n_controls :]
        answer = np.concatenate([theirs, b], axis=1)
        reply = Policies(x, _apart(b, theirs_too), lost(best, answer))
    return Policies(x, _apart(mine, theirs), given, reply)


def _answered(truth: Subject, x: Array, a: Array) -> Array:
    """a (n, m) with the best answer to it beside it, where somebody answers."""
    if truth.problem.adversary is None:
        return a
    return np.concatenate([a, truth.reply(x, a)[0]], axis=1)


def _apart(mine: Array, theirs: Array) -> Array:
    """max_i |a_i - a_i^ref| / max |a_i^ref|, (n,); zero without controls."""
    if not mine.shape[1]:
        return np.zeros(len(mine))
    size: Any = np.maximum(np.abs(theirs).max(axis=0), 1e-300)
    return (np.abs(mine - theirs) / size).max(axis=1)
