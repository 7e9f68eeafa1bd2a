"""What the value network is first fitted to, and the link through which it speaks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hjbpde.problem import ControlProblem

from ..ends import Ends, given_on_faces
from ..networks import MLP
from ..value_network import Link, ValueNetwork

Array = NDArray[np.float64]
OTHER_SIGN = 0.05
"""Share of targets whose sign an exponential link cannot take that is too many."""


def first_guess(
    net: MLP,
    problem: ControlProblem,
    x: Array,
    targets: Array,
    ends: Ends,
) -> tuple[ValueNetwork, Array]:
    """Quadratic regression of the first, noisiest targets (n,) at x (n, d); the model.

    A network would follow the noise of plain Monte Carlo; the few coefficients of a
    quadratic average it away. Where V is given at ends it may be next to 0 there, and
    the logarithm of V is then no smooth function: the link is the one under which a
    quadratic is closer to the targets. Where these are mostly noise (an exit at a
    random time) the link spans the regression instead: spanning the noise, it would
    leave V itself a tenth of the network's output. No logarithm where a face gives V
    another sign.
    """
    box, noisy = problem.domain, problem.exit is not None
    assert box is not None
    half = 0.5 * box.width
    z = (x - box.centre) / half
    i, j = np.triu_indices(z.shape[1])
    rows = np.hstack([np.ones((len(z), 1)), z, z[:, i] * z[:, j]])
    found = []
    spanned = rows @ np.linalg.lstsq(rows, targets, rcond=None)[0] if noisy else targets
    values = np.concatenate([spanned, ends.data])
    for link in _links(values, bool(len(ends.data)), given_on_faces(problem)):
        model = ValueNetwork(net, box.centre, half, link)
        u = link.inverse(targets)
        smooth = model.linked(rows @ np.linalg.lstsq(rows, u, rcond=None)[0])
        found.append((float(((smooth - targets) ** 2).mean()), model, smooth))
    _, model, smooth = min(found, key=lambda guess: guess[0])
    return model, smooth


def _links(values: Array, has_ends: bool, given: Array) -> list[Link]:
    link = Link.fitting(values)
    if link.exponential and (given * link.scale < 0).any():
        return [_spanning(np.concatenate([values, given]))]
    if not (link.exponential and has_ends):
        return [link]
    return [_spanning(values), link]


def _spanning(values: Array) -> Link:
    low, high = float(values.min()), float(values.max())
    return Link(0.5 * (low + high), 0.5 * (high - low))


def changes_sign(model: ValueNetwork, targets: Array) -> bool:
    """Whether V has come to take a sign that the link of `model` cannot give it.

    The link was chosen on the first policy's value; a better policy may turn a cost
    into a gain somewhere.
    """
    link = model.link
    return bool(link.exponential and (targets * link.scale <= 0).mean() > OTHER_SIGN)


def relinked(model: ValueNetwork, targets: Array) -> ValueNetwork:
    """The same network speaking through a linear link that spans `targets` (n,)."""
    return ValueNetwork(model.net, model.centre, model.half, _spanning(targets))
