"""Choices that a candidate's value does not tell apart.

Where the value is flat, or exactly on a kink, many controls are greedy. In continuous
time it hardly matters which is taken, but on nodes one of them may rest for ever where
another leaves, or let the scheme's own spreading carry paths across a free boundary.
A greedy strategy is any maximiser; it is given the best player's where that is one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .residual import hamiltonian, rate_of
from .subject import Subject

Array = NDArray[np.float64]

TIE = 1e-6
"""Controls tie where the value says that less than this share of it is between them."""


def controls_toward(subject: Subject, x: Array, best: Array) -> tuple[Array, Array]:
    """The candidate's controls at x (n, d), `best` (n, m) where they tie; and moved."""
    own, moved = subject.control(x)
    if not subject.is_greedy or not own.shape[1]:
        return own, moved
    truthful = subject.by_its_value()

    def all_controls(a: Array) -> Array:
        if subject.problem.adversary is None:
            return a
        return np.concatenate([a, truthful.reply(x, a)[0]], axis=1)

    joint = all_controls(own), all_controls(best)
    return _toward(subject, x, (own, best), joint), moved


def replies_toward(
    subject: Subject, x: Array, a: Array, best: Array
) -> tuple[Array, Array]:
    """The candidate's replies to a (n, m), `best` (n, mb) where they tie; and moved."""
    own, moved = subject.reply(x, a)
    if not subject.replies_greedily:
        return own, moved
    pair = tuple(np.concatenate([a, b], axis=1) for b in (own, best))
    return _toward(subject, x, (own, best), pair), moved


def _toward(
    subject: Subject, x: Array, choices: tuple[Array, Array], joint: tuple[Array, ...]
) -> Array:
    """The second choice where all controls (n, m + mb) with it are worth the same."""
    (own, best), one = choices, subject.joint
    good = np.array(np.isfinite(np.concatenate(joint, axis=1)).all(axis=1))
    known, p, _ = subject.derivatives(x[good])
    good[good] = known
    curve = np.zeros_like(p)
    if callable(subject.problem.diffusion):
        curve = subject.curvature(x[good])
    values = [hamiltonian(one, x[good], u[good], p, curve) for u in joint]
    apart = np.abs(values[0] - values[1]) / rate_of(one, x[good], joint[1][good])
    size = float(np.abs(subject.value(x[good])).max(initial=0.0))
    out, tie = own.copy(), np.zeros(len(x), bool)
    tie[good] = apart <= TIE * size
    out[tie] = best[tie]
    return out
