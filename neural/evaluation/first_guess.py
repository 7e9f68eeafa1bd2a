"""What the value network is first fitted to, and the link through which it speaks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hjbpde.sets import Box

from ..ends import Ends
from ..networks import MLP
from ..value_network import Link, ValueNetwork

Array = NDArray[np.float64]


def first_guess(
    net: MLP, box: Box, x: Array, targets: Array, ends: Ends, noisy: bool = False
) -> tuple[ValueNetwork, Array]:
    """Quadratic regression of the first, noisiest targets (n,) at x (n, d); the model.

    A network would follow the noise of plain Monte Carlo; the few coefficients of a
    quadratic average it away. Where V is given at ends it may be next to 0 there, and
    the logarithm of V is then no smooth function: the link is the one under which a
    quadratic is closer to the targets. Where these are mostly noise (an exit at a
    random time) the link spans the regression instead: spanning the noise, it would
    leave V itself a tenth of the network's output.
    """
    half = 0.5 * box.width
    z = (x - box.centre) / half
    i, j = np.triu_indices(z.shape[1])
    rows = np.hstack([np.ones((len(z), 1)), z, z[:, i] * z[:, j]])
    found = []
    spanned = rows @ np.linalg.lstsq(rows, targets, rcond=None)[0] if noisy else targets
    for link in _links(np.concatenate([spanned, ends.data]), bool(len(ends.data))):
        model = ValueNetwork(net, box.centre, half, link)
        u = link.inverse(targets)
        smooth = model.linked(rows @ np.linalg.lstsq(rows, u, rcond=None)[0])
        found.append((float(((smooth - targets) ** 2).mean()), model, smooth))
    _, model, smooth = min(found, key=lambda guess: guess[0])
    return model, smooth


def _links(values: Array, has_ends: bool) -> list[Link]:
    link = Link.fitting(values)
    if not (link.exponential and has_ends):
        return [link]
    low, high = float(values.min()), float(values.max())
    return [Link(0.5 * (low + high), 0.5 * (high - low)), link]
