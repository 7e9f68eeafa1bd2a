"""The surface between stopping and going on: where it starts and how it moves.

Where going on has value W and stopping pays psi, write ``u = W - psi`` (with the
sign of the right's holder). On the best surface u and its gradient vanish (smooth
fit), so u has a valley there, of depth 0. W is smooth across the surface: under a
surface that is not the best one the valley lies beside it, and moving the surface
into the valley is Newton's step, because to first order the depth of a valley does
not feel where it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from hjbpde.sets import Box

from .level_set import LevelSet
from .stopping_payoff import Owners, Payoffs, differences
from .stopping_set import StoppingSet
from .time_state import TimedProblem
from .value_model import ValueModel, greedy_policy, row_scale

Array = NDArray[np.float64]
Labels = Callable[[Array], tuple[NDArray[np.bool_], Owners]]
"""x (n, d) -> whether one stops there, and by which right."""

CANDIDATES = 40
"""Random states drawn for every state of the surface."""
BALL = 0.03
"""Radius, in half widths, over which labels are summed to find a normal."""
DIRECTIONS = 48
NEAR, STRAY = 3, 0.6
"""Neighbours, times the dimension, and the sine of the angle to the planes of half of
them above which a state is none of the surface."""
SMOOTH = 6
"""Neighbours, times the dimension, that steps found from a network's slopes share."""
SEARCH = 31
"""Values of u a line search starts from; golden section refines."""


def sampled_surface(
    box: Box, labels: Labels, n: int, rng: np.random.Generator
) -> StoppingSet:
    """About n states between labels that differ, by bisection; in 1-D all there are."""
    half, d = 0.5 * box.width, box.dimension
    x = box.sample(rng, CANDIDATES * max(n, 50))
    x = x[np.argsort(x[:, 0])] if d == 1 else x
    stops, _ = labels(x)
    if stops.all() or not stops.any():
        return StoppingSet.constant(half, bool(stops.all()))
    if d == 1:
        k = np.flatnonzero(stops[1:] != stops[:-1])
        turned = stops[k][:, None]
        goes, ends = np.where(turned, x[k + 1], x[k]), np.where(turned, x[k], x[k + 1])
    else:
        goes, ends = _opposite_pairs(x / half, stops, n)
        goes, ends = goes * half, ends * half
    for _ in range(50):
        middle = 0.5 * (goes + ends)
        stopped = labels(middle)[0][:, None]
        goes, ends = np.where(stopped, goes, middle), np.where(stopped, middle, ends)
    if d > 1:
        kept = _spread(goes / half, n)
        goes, ends = goes[kept], ends[kept]
    states, owners = 0.5 * (goes + ends), labels(ends)[1]
    normals = _normals(box, labels, states, rng)
    anchors, known = (x, stops) if d > 1 else (x[:0], stops[:0])
    return StoppingSet(half, states, normals, owners, anchors, known)


def _opposite_pairs(z: Array, stops: NDArray[np.bool_], n: int) -> tuple[Array, Array]:
    """4 n pairs of states with different labels, close to each other."""
    goes, ends = z[~stops], z[stops]
    far, at = KDTree(ends).query(goes)
    near = np.argsort(far)[: 4 * n]
    return goes[near], ends[np.asarray(at)[near]]


def joined(one: StoppingSet, other: StoppingSet) -> StoppingSet:
    """Both surfaces as one."""
    return replace(
        one,
        states=np.concatenate([one.states, other.states]),
        normals=np.concatenate([one.normals, other.normals]),
        owners=np.concatenate([one.owners, other.owners]),
    )


def _spread(z: Array, n: int) -> NDArray[np.int64]:
    """n of the states z, each in turn the farthest from those before."""
    chosen, far = [0], np.linalg.norm(z - z[0], axis=1)
    while len(chosen) < min(n, len(z)):
        chosen.append(int(far.argmax()))
        far = np.minimum(far, np.linalg.norm(z - z[chosen[-1]], axis=1))
    return np.array(chosen)


def _normals(
    box: Box, labels: Labels, states: Array, rng: np.random.Generator
) -> Array:
    """Unit normals (n, d) of the scaled box, towards where one goes on."""
    n, d = states.shape
    moves = rng.standard_normal((DIRECTIONS, d))
    moves *= BALL / np.linalg.norm(moves, axis=1)[:, None]
    moves = np.concatenate([moves, -moves])
    x = (states[:, None] + 0.5 * box.width * moves).reshape(-1, d)
    inside = box.contains(x)
    x = np.clip(x, np.asarray(box.low), np.asarray(box.high))
    votes = np.where(labels(x)[0], -1.0, 1.0) * inside
    normals = (votes.reshape(n, -1, 1) * moves).sum(1)
    size = np.linalg.norm(normals, axis=1)[:, None]
    return np.where(size > 0, normals / np.maximum(size, 1e-300), np.eye(d)[:1])


def resampled(
    payoffs: Payoffs, stopping: StoppingSet, n: int, rng: np.random.Generator
) -> StoppingSet:
    """The same set by n states evenly spread; those at the horizon are kept."""
    if isinstance(stopping, LevelSet):
        return stopping.sampled(n)

    def labels(x: Array) -> tuple[NDArray[np.bool_], Owners]:
        return stopping.stops(x), stopping.owner_at(x)

    found = sampled_surface(payoffs.box, labels, n, rng)
    if not len(found.states):
        return found
    # The nearest normal is better than one counted from labels.
    kept = stopping.normals[stopping.nearest(found.states)]
    agree = (kept * found.normals).sum(1) > 0
    found = replace(found, normals=np.where(agree[:, None], kept, found.normals))
    pinned = is_pinned(payoffs, stopping)
    return joined(found, stopping.only(pinned)) if pinned.any() else found


def is_pinned(payoffs: Payoffs, stopping: StoppingSet) -> NDArray[np.bool_]:
    """States of the surface at the horizon, which do not move, (n,)."""
    if not isinstance(payoffs.problem, TimedProblem):
        return np.zeros(len(stopping.states), bool)
    return stopping.states[:, -1] >= np.asarray(payoffs.box.high)[-1]


def advanced(
    payoffs: Payoffs, stopping: StoppingSet, model: ValueModel, reach: float
) -> tuple[StoppingSet, Array, Array]:
    """The surface moved into the valley of u, at most `reach` half widths.

    Returns the set, by how far each of the old states moved (half widths), and the
    depth of u there. States that leave the box, or pass through a piece of the other
    kind, are dropped: their piece has gone.
    """
    ways = _conormals(payoffs, stopping, model)
    shift, depth = _valley(payoffs, stopping, model, ways, reach)
    shift[is_pinned(payoffs, stopping)] = 0.0
    moved = stopping.states + shift[:, None] * ways * stopping.half
    turned = _turned(payoffs, stopping, model, moved)
    return _placed(payoffs, stopping, moved, turned, reach), shift, depth


def advanced_by_slopes(
    payoffs: Payoffs, stopping: StoppingSet, model: ValueModel, reach: float,
    gain: float = 1.0,
) -> tuple[StoppingSet, Array]:  # fmt: skip
    """The surface moved by `gain` times Newton's step, from slopes of u on it alone.

    There ``u = 0``, so that across it the equation gives the curvature,
    ``|sigma' n|^2 u_nn / 2 = rho psi - r - L^a psi - f . n u_n``, and the valley lies
    at the distance ``-u_n / u_nn``: no model is asked beyond the surface, where one
    learned from paths knows nothing. Where stopping loses the surface gives way by
    `reach`, the longest Newton step in half widths. Returns the set and the moves.
    """
    y, half, n = stopping.states, stopping.half, stopping.normals
    ways = _conormals(payoffs, stopping, model)
    problem = replace(payoffs.problem, stop=None)
    a = greedy_policy(problem, model, y)
    sides = payoffs.sides[stopping.owners]
    psi_slope = payoffs.derivatives(y, stopping.owners)[0]
    slope = ((model.gradient(y) - psi_slope) * half * n).sum(1) * sides
    loss = np.zeros(len(y))
    for k in range(len(payoffs.stops)):
        here = stopping.owners == k
        loss[here] = payoffs.loss_of_waiting(k, y[here])
    loss *= row_scale(problem, y, a)
    drift = (np.asarray(problem.drift_at(y, a)) / half * n).sum(1)
    sigma = np.asarray(problem.diffusion_at(y, a)) / half[:, None]
    noise = (np.einsum("nik,ni->nk", sigma, n) ** 2).sum(1)
    bend = 2.0 * (loss - drift * slope) * (n * ways).sum(1)
    full = np.abs(slope) * noise >= reach * np.abs(bend)
    step = -slope * noise / np.where(full, 1.0, bend)
    shift = np.where(full, -reach * np.sign(slope), np.clip(step, -reach, reach))
    shift = np.where(bend > 0, shift, -reach)
    shift[~ways.any(1)] = 0.0
    shift = gain * _mean_of_neighbours(stopping, shift)
    shift[is_pinned(payoffs, stopping)] = 0.0
    moved = y + shift[:, None] * ways * half
    turned = _planes(stopping, moved / half)
    return _placed(payoffs, stopping, moved, turned, reach), shift


def _neighbours(z: Array) -> NDArray[np.int64]:
    """Every state's nearest ones, itself included, (n, k)."""
    n, d = z.shape
    if d == 1:
        return np.arange(n)[:, None]
    k = min(n, SMOOTH * d)
    return np.asarray(KDTree(z).query(z, k)[1], dtype=np.int64).reshape(n, k)


def _mean_of_neighbours(stopping: StoppingSet, shift: Array) -> Array:
    """Shifts (n,) averaged along the sheet: each alone follows a network's noise."""
    near = _neighbours(stopping.states / stopping.half)
    normals = stopping.normals
    same = (normals[near] * normals[:, None]).sum(-1) > 0.5
    return (shift[near] * same).sum(1) / same.sum(1)


def _planes(stopping: StoppingSet, z: Array) -> Array:
    """Normals (n, d) of the planes through neighbours, on the side of the old ones."""
    n, d = z.shape
    old = stopping.normals
    if d == 1 or n <= SMOOTH * d:
        return old
    near = z[_neighbours(z)]
    spread = near - near.mean(1, keepdims=True)
    _, axes = np.linalg.eigh(np.einsum("nki,nkj->nij", spread, spread))
    normals = axes[:, :, 0]
    along = (normals * old).sum(1)
    return np.where(
        np.abs(along)[:, None] > 0.7, normals * np.sign(along)[:, None], old
    )


def _placed(
    payoffs: Payoffs, stopping: StoppingSet, moved: Array, turned: Array, reach: float
) -> StoppingSet:
    """The surface at `moved` with normals `turned`, without states that have gone."""
    box, half = payoffs.box, stopping.half
    kept = box.contains(moved) & ~_crossed(stopping, moved, reach)
    kept &= ~_stray(moved / half, turned) | is_pinned(payoffs, stopping)
    found = stopping.only(kept)
    if kept.any():
        found = found.moved(moved[kept], turned[kept])
    return found


def _stray(z: Array, normals: Array) -> NDArray[np.bool_]:
    """States (n,) that lie off the planes of most of their neighbours."""
    n, d = z.shape
    if d == 1 or n <= 3 * NEAR * d:
        return np.zeros(n, bool)
    near = np.asarray(KDTree(z).query(z, NEAR * d + 1)[1])[:, 1:]
    steps = z[:, None] - z[near]
    off = np.abs((steps * normals[near]).sum(-1))
    return np.median(off - STRAY * np.linalg.norm(steps, axis=-1), axis=1) > 0


def _crossed(stopping: StoppingSet, moved: Array, reach: float) -> NDArray[np.bool_]:
    """States (n,) that moved through a sheet of the surface that faces them.

    The piece between the two sheets, where one stopped or went on, has vanished.
    """
    z, y, normals = (
        stopping.states / stopping.half,
        moved / stopping.half,
        stopping.normals,
    )
    pairs = KDTree(z).query_pairs(2.5 * reach, output_type="ndarray")
    i, j = pairs[(normals[pairs[:, 0]] * normals[pairs[:, 1]]).sum(1) < -0.3].T
    crossed = np.zeros(len(z), bool)
    for one, two in ((i, j), (j, i)):
        before = ((z[one] - z[two]) * normals[two]).sum(1)
        after = ((y[one] - y[two]) * normals[two]).sum(1)
        gone = before * after < 0
        crossed[one[gone]] = crossed[two[gone]] = True
    return crossed


def _conormals(payoffs: Payoffs, stopping: StoppingSet, model: ValueModel) -> Array:
    """Unit vectors (n, d) along ``sigma sigma' n``: where noise crosses the surface."""
    problem, y = replace(payoffs.problem, stop=None), stopping.states
    a = greedy_policy(problem, model, y)
    sigma = np.asarray(problem.diffusion_at(y, a)) / stopping.half[:, None]
    ways = np.einsum("nik,njk,nj->ni", sigma, sigma, stopping.normals)
    size = np.linalg.norm(ways, axis=1)[:, None]
    still = size <= 1e-9 * (sigma**2).sum((1, 2))[:, None]
    return np.where(still, 0.0, ways / np.where(still, 1.0, size))


def _valley(
    payoffs: Payoffs, stopping: StoppingSet, model: ValueModel, ways: Array,
    reach: float,
) -> tuple[Array, Array]:  # fmt: skip
    """Downhill along every way to the first minimum of u: where, and u there."""
    box, y, half = payoffs.box, stopping.states, stopping.half
    low, high = np.asarray(box.low), np.asarray(box.high)

    def u(s: Array) -> Array:
        x = y + s[:, None] * ways * half
        found = payoffs.excess(model, np.clip(x, low, high), stopping.owners)
        return np.where(box.contains(x), found, np.inf)

    grid = np.linspace(-reach, reach, SEARCH)
    table = np.stack([u(np.full(len(y), s)) for s in grid], -1)
    rows, at = np.arange(len(y)), np.full(len(y), SEARCH // 2)
    for _ in range(SEARCH):
        left, right = np.maximum(at - 1, 0), np.minimum(at + 1, SEARCH - 1)
        here, before, after = (table[rows, k] for k in (at, left, right))
        down = np.where((before < here) & (before <= after), left, at)
        at = np.where((after < here) & (after < before), right, down)
    s = _golden(u, grid[np.maximum(at - 1, 0)], grid[np.minimum(at + 1, SEARCH - 1)])
    depth = u(s)
    return s, np.where(np.isfinite(depth), depth, 0.0)


def _golden(u: Callable[[Array], Array], low: Array, high: Array) -> Array:
    """Golden-section search on [low, high] (n,), to 1e-8 of its length."""
    ratio = 0.5 * (np.sqrt(5.0) - 1.0)
    for _ in range(40):
        one, two = high - ratio * (high - low), low + ratio * (high - low)
        less = u(one) < u(two)
        low, high = np.where(less, low, one), np.where(less, two, high)
    return 0.5 * (low + high)


def _turned(
    payoffs: Payoffs, stopping: StoppingSet, model: ValueModel, moved: Array
) -> Array:
    """Normals at the moved states: on the best surface ``hess u = k n n'``.

    The old normal is kept where u does not bend that way, or bends elsewhere.
    """
    old, d = stopping.normals, stopping.states.shape[1]
    if d == 1:
        return old
    half, owners = stopping.half, stopping.owners
    box = payoffs.box
    x = np.clip(moved, np.asarray(box.low), np.asarray(box.high))
    _, hess = differences(lambda y: payoffs.excess(model, y, owners), box, x, 1e-3)
    bends, axes = np.linalg.eigh(hess * half[:, None] * half)
    top = axes[:, :, -1]
    along = (top * old).sum(1)
    good = (np.abs(along) > 0.7) & (bends[:, -1] > 0) & ~is_pinned(payoffs, stopping)
    return np.where(good[:, None], top * np.sign(along)[:, None], old)
