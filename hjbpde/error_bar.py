"""How wrong the returned value can be, node by node.

Parts, added: *discretisation* (distance to a better value on the same grid plus that
value's own distance to its limit, seen on nested grids), *truncation* (how strongly
artificial faces are felt times how wrong their closure can be) and *algebraic*
(residual bound, round-off). The first two are estimates, the third is rigorous for a
monotone scheme: ``|V - V_h| <= max|R_h(V)| / min rho``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d

from .closure import slope_error
from .face_response import FaceResponse, SlopeResponse
from .faces import Faces
from .grid import Grid
from .methods.state import GridState
from .prolongation import prolonged

Array = NDArray[np.float64]
SAFETY = 1.25
"""Factor on differences of one grid, or with an observed order (Roache's 1.25)."""
NESTED_SAFETY = 1.5
"""Factor on differences between grids when the order was not observed."""
KINK_SAFETY = 2.0
"""Factor on differences between grids that see a kink, whose order is no clean one."""
TRUNCATION_SAFETY = 2.0
"""Factor on the truncation part, which rests on slopes at a few layers inside."""
SERIES = 8
"""Terms of the feedback between faces and their closure."""
MOST_SHARE = 0.98
"""Largest ratio of two terms that is believed."""


@dataclass(frozen=True)
class ErrorBar:
    """The bar (*shape) in the units of V, and its parts' largest entries."""

    total: Array
    parts: dict[str, float]
    observed_order: float | None
    notes: tuple[str, ...] = ()
    truncation: Array | None = None
    """The truncation part (*shape) in `total`."""


def neighbour_maximum(values: Array, grid: Grid) -> Array:
    """Largest value among a node and its neighbours, diagonal ones included.

    A difference of two solutions vanishes where it changes sign although the error
    does not: the maximum over the neighbours does not.
    """
    out = values
    for axis, periodic in enumerate(grid.periodic):
        mode = "wrap" if periodic else "nearest"
        out = maximum_filter1d(out, 3, axis=axis, mode=mode)
    return out


def sawtooth(V: Array, grid: Grid) -> Array:
    """Size of node-to-node oscillation, ``|fourth difference of V| / 16``.

    An oscillation of amplitude A counts A, a smooth V its h^4. Nested grids keep
    every second node and do not see it; central schemes make it where drift wins.
    """
    out = np.zeros_like(V)
    for axis, periodic in enumerate(grid.periodic):
        n = V.shape[axis]
        if n < 5:
            continue
        if periodic:
            wrapped = np.concatenate(
                [V.take([-2, -1], axis), V, V.take([0, 1], axis)], axis
            )
            saw = np.abs(np.diff(wrapped, 4, axis=axis)) / 16.0
        else:
            inner = np.abs(np.diff(V, 4, axis=axis)) / 16.0
            near = np.clip(np.arange(n) - 2, 0, n - 5)
            saw = inner.take(near, axis)
        out = np.maximum(out, saw)
    return neighbour_maximum(out, grid)


def coarse_difference(fine: Array, coarse: Array, grid: Grid) -> Array:
    """|fine - coarse| on the nodes the coarser grid keeps, neighbours' maximum."""
    index = np.ix_(*[grid.kept(k) for k in range(grid.dimension)])
    return neighbour_maximum(np.abs(fine[index] - coarse), grid.coarsened())


@dataclass(frozen=True)
class NestedEstimate:
    """Distance of a value to its limit h -> 0, and the order it was seen at."""

    bar: Array
    order: float | None


def nested_estimate(
    values: list[Array],
    grids: list[Grid],
    highest: float,
    unseen: float = 1.0,
    lowest: float = 1.0,
) -> NestedEstimate:
    """Richardson's estimate with the order observed locally.

    `values` from coarse to fine. With differences ``d2 = |V_4h - V_2h|`` and
    ``d1 = |V_2h - V_h|`` the order is ``p = log2(d2 / d1)``, capped to
    [lowest, highest], and the error of V_h about ``d1 / (2^p - 1)`` (Roache, J. Fluids
    Eng. 116 (1994) 405, equation 5). A d1 below ``d2 / 2^highest`` is a coincidence
    (a kink that lies alike on two grids) and is raised to it. With two grids p is
    `unseen`.
    """
    fine = grids[-1]
    if len(values) < 2:
        return NestedEstimate(np.zeros(fine.shape), None)
    near = coarse_difference(values[-1], values[-2], fine)
    order: Array | float = unseen
    seen = None
    if len(values) > 2:
        far = coarse_difference(values[-2], values[-3], grids[-2])
        far = prolonged(neighbour_maximum(far, grids[-3]), grids[-2])
        wide = neighbour_maximum(near, grids[-2])
        tiny = 1e-14 * float(np.max(np.abs(values[-1]))) + 1e-300
        near = np.maximum(near, far / 2.0**highest)
        ratio = (far + tiny) / (neighbour_maximum(wide, grids[-2]) + tiny)
        order = np.clip(np.log2(ratio), lowest, highest)
        order = -neighbour_maximum(-np.asarray(order), grids[-2])
        seen = float(np.median(np.clip(np.log2(ratio), 0.0, 8.0)))
    safety = NESTED_SAFETY if seen is None else SAFETY
    safety = KINK_SAFETY if highest <= 2.0 else safety
    bar = safety * near / (2.0**order - 1.0)
    return NestedEstimate(prolonged(bar, fine), seen)


def truncation_bar(state: GridState, V: Array) -> Array:
    """How far wrong closures of artificial faces can move V, on every node.

    An error dg of the outward slope at the faces moves V by z, ``M z = w 2h |dg|``
    with M the rows under the computed policy and w the weight of the ghost. dg is
    what the continuation of slopes misses where V is known, at layers inside, plus
    what z itself makes the continuation miss: a geometric series, summed to its tail.
    Jumps beyond the faces feel dg, too, and how V may bend there.

    Without discount slopes do not tell whether who leaves ever comes back to where the
    process ends, and the closure takes it that everybody does: there max|V| times the
    probability of coming to such a face is added.
    """
    if not state.faces.artificial or state.under is None:
        return np.zeros(state.grid.shape)
    response, beyond = FaceResponse(state), None
    if state.off_axes is not None:
        none = [np.zeros_like(push) for push in response.pushes]
        beyond = response.to(none, state.off_axes.miss(V))
    bar = closure_bar(response, slopes_missed(state.faces, V), V, beyond)
    if float(np.min(state.tables.rho)) == 0.0 and state.faces.fixed_mask is not None:
        bar = bar + float(np.max(np.abs(V))) * response.reached()
    return bar


def slopes_missed(faces: Faces, V: Array) -> list[Array]:
    """How wrong the slopes at artificial faces can be, by what is known inside."""
    grid = faces.grid
    return [_line_maximum(slope_error(grid, face, V)) for face in faces.artificial]


def closure_bar(
    response: SlopeResponse, miss: list[Array], V: Array, beyond: Array | None = None
) -> Array:
    """The same for any scheme that tells what errors of the slopes do to its V.

    `miss` are these errors, `beyond` (*shape) how far V is moved by what else is wrong
    beyond the faces.
    """
    total = part = response.to(miss) + (0.0 if beyond is None else beyond)
    share = 0.0
    for _ in range(SERIES):
        again = [_line_maximum(s) for s in response.returned(V, part)]
        before, part = part, response.to(again)
        size = float(np.max(before))
        share = min(float(np.max(part)) / size, MOST_SHARE) if size > 0 else 0.0
        total = total + part
        if share * np.max(part) <= 1e-2 * np.max(total):
            break
    return TRUNCATION_SAFETY * (total + part * share / (1.0 - share))


def _line_maximum(values: Array) -> Array:
    out = np.asarray(values)
    for axis in range(out.ndim):
        out = maximum_filter1d(out, 3, axis=axis, mode="nearest")
    return out
