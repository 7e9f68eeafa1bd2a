"""What moving at once is worth by a candidate's own value, and where to."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .subject import Subject

Array = NDArray[np.float64]

PAIRS = 2**20
"""Pairs of state and target compared at once."""


def best_move(subject: Subject, x: Array) -> tuple[Array, Array]:
    """``M V = sup_y { V(y) - c(x, y) }`` at x (n, d), and y: (n,) and (n, d).

    With cost ``inf_y { V(y) + c(x, y) }``. Every target has to be asked about, but
    targets that all states share only once.
    """
    impulse, sign = subject.problem.impulse, subject.problem.sign
    worth, target = np.full(len(x), np.nan), np.full(x.shape, np.nan)
    if not len(x):
        return worth, target
    shared = impulse.targets_from(x[:1])
    n = shared.shape[1]
    known = (
        None
        if callable(impulse.targets)
        else subject.value(wrapped(subject, shared[0]))
    )
    step = max(1, PAIRS // n)
    for start in range(0, len(x), step):
        block = slice(start, start + step)
        y = shared if known is not None else impulse.targets_from(x[block])
        reached = known
        if reached is None:
            flat = wrapped(subject, y.reshape(-1, x.shape[1]))
            reached = subject.value(flat).reshape(y.shape[:2])
        gain = sign * reached - impulse.costs(x[block], y)
        choice = np.where(np.isnan(gain), -np.inf, gain).argmax(axis=1)
        rows = np.arange(len(choice))
        worth[block] = sign * gain[rows, choice]
        target[block] = y[rows if len(y) > 1 else 0, choice]
    return worth, target


def nearest_target(subject: Subject, x: Array, wanted: Array) -> Array:
    """The problem's targets nearest to those wanted from x (n, d); NaN stays."""
    out = np.full(x.shape, np.nan)
    rows = np.flatnonzero(np.isfinite(wanted).all(axis=1))
    for n in rows:
        listed = subject.problem.impulse.targets_from(x[n : n + 1])[0]
        out[n] = listed[((listed - wanted[n]) ** 2).sum(axis=1).argmin()]
    return out


def wrapped(subject: Subject, y: Array) -> Array:
    """Targets inside the domain, along periodic axes too."""
    domain = subject.problem.domain
    assert domain is not None
    return domain.wrap(y)
