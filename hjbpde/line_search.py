"""Where a Hamiltonian bends: the best control along lines, and along the bends.

Slopes are seen from both sides. A line is followed on the side that rises to the top of
its parabola, with stops wherever the Hamiltonian may bend before it: where the scheme
changes sides, which is at a known drift, and at controls that are 0. The maximum of a
piecewise smooth concave function is found along the edges of its pieces: these are
lines, too.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .control_search import STEP, ControlSearch

Array = NDArray[np.float64]
Indices = NDArray[np.intp]
ROUNDS = 12
FAR = 1e3
"""Longest way along a line, in widths, where the box is infinite."""


def climb(search: ControlSearch, scan: bool) -> None:
    """Newton's steps, then lines; with `scan` the other hills are climbed, too."""
    rivals = search.scan_box() if scan else []
    search_lines(search, search.newton())
    rivals += beyond_bends(search) if scan else []
    if any(one.nodes.size for one in rivals):
        all_of_them = ControlSearch.joined(rivals)
        search_lines(all_of_them, all_of_them.newton())
        search.challenge(all_of_them)


def search_lines(search: ControlSearch, nodes: Indices) -> None:
    """Rounds along the axes of the controls and along bends, while they gain."""
    for _ in range(ROUNDS):
        if not nodes.size:
            return
        part = search.taken(nodes)
        before = part.best.copy()
        _round(part)
        search.put(nodes, part)
        nodes = nodes[part.gained(before)]


def beyond_bends(search: ControlSearch) -> list[ControlSearch]:
    """Hills right behind a bend, at the nodes that see one.

    Where V is convex between its neighbours the scheme makes a valley where the drift
    changes sides. From the best control the nearest such place of every axis of the
    state is looked up, and followed beyond where the Hamiltonian rises there.
    """
    a, width, m = search.a, search.width, len(search.a)
    inward = np.where(a + STEP * width <= search.high, STEP, -STEP)
    tried = [
        a + np.where(np.arange(m)[:, None] == i, inward * width, 0) for i in range(m)
    ]
    seen = search.look([a, *tried])
    levels = search.hamiltonian.bends(seen.D[0], search.nodes)
    turning = (seen.f[1:] - seen.f[0]) / inward[:, None]
    out = []
    for level, k in itertools.product(levels, range(turning.shape[1])):
        normal = turning[:, k]
        size = (normal**2).sum(0)
        gap = (level[k] - seen.f[0][k]) / np.where(size > 0, size, 1.0)
        foot = a + gap * normal * width
        ahead = foot + STEP * _unit(gap * normal) * width
        within = (size > 0) & ((search.low <= ahead) & (ahead <= search.high)).all(0)
        nodes = np.flatnonzero(within & (foot != a).any(0))
        if not nodes.size:
            continue
        part = search.taken(nodes)
        value = part.look([foot[:, nodes], ahead[:, nodes]]).value
        hills = replace(part, a=ahead[:, nodes], best=value[1])
        out.append(hills.taken(np.flatnonzero(value[1] > value[0])))
    return out


def _round(part: ControlSearch) -> None:
    width, turning = part.width, []
    for axis in np.eye(len(part.a)):
        turning.append(_along(part, axis[:, None] * width))
    for direction in _edges(np.stack(turning)):
        _along(part, direction * width)


def _edges(turning: Array) -> list[Array]:
    """Directions (m, n) along which bends of the Hamiltonian meet.

    turning (m, d, n): the drift's change along the axes of the controls. A bend leaves
    a component of the drift or a control as it is; m - 1 of them leave a line, of which
    the axes are some. With more than three controls: the axes, projected on each bend.
    """
    m, d, n = turning.shape
    bends = [_unit(turning[:, k]) for k in range(d)]
    if m == 2:
        return [np.stack([-v, u]) for u, v in bends]
    axes = [np.repeat(one[:, None], n, axis=1) for one in np.eye(m)]
    if m == 3:
        pairs = [*itertools.combinations(bends, 2), *itertools.product(bends, axes)]
        return [_unit(np.cross(one, two, axis=0)) for one, two in pairs]
    shadows = itertools.product(bends if m > 1 else [], axes)
    return [_unit(axis - (axis * bend).sum(0) * bend) for bend, axis in shadows]


def _unit(vectors: Array) -> Array:
    """Vectors (m, n) of length 1, or 0 where nothing but round-off is left."""
    size = np.sqrt((vectors**2).sum(0))
    return np.where(size > 1e-8, vectors / np.maximum(size, 1e-8), 0.0)


def _along(part: ControlSearch, direction: Array) -> Array:
    """Search a + t direction on both sides; the drift's change with t, (d, n)."""
    line = _Line.of(part, direction)
    top = line.top()
    stops = line.stops(line.sign, np.maximum(top, np.minimum(2 * STEP, line.ahead)))
    # Bends so near that the differences cannot see them are tried behind as well.
    stops += line.stops(-line.sign, np.minimum(2 * STEP, line.behind))
    ways = [line.sign * top, 0.25 * line.sign * top, *stops] if top.any() else stops
    part.offer(line.a + t * direction for t in ways)
    return line.turning


@dataclass(eq=False)
class _Line:
    """a + t direction, and what the Hamiltonian does there near t = 0.

    sign (n,): the side that rises more; slope and bend: first and second derivative on
    it; ahead, behind: the room on it and on the other; f, turning (d, n): the drift and
    its change with t.
    """

    part: ControlSearch
    a: Array
    direction: Array
    sign: Array
    slope: Array
    bend: Array
    ahead: Array
    behind: Array
    f: Array
    turning: Array
    levels: Array

    @classmethod
    def of(cls, part: ControlSearch, direction: Array) -> _Line:
        """The line through the best controls so far."""
        a, here = part.a.copy(), part.best
        room = _room(part, direction)
        near = np.minimum(STEP, 0.5 * room)
        right, left = near[0], -near[1]
        seen = part.look(
            a + t * direction for t in (right, 2 * right, left, 2 * left, 0.0)
        )
        one, two = seen.value[[0, 2]], seen.value[[1, 3]]
        h = np.where(near > 0, near, 1.0)
        with np.errstate(invalid="ignore"):
            slope = (4 * one - two - 3 * here) / (2 * h)
            bend = np.nan_to_num(((two - one) - (one - here)) / h**2)
            rise = one - here
        slope = np.where((near > 0) & np.isfinite(slope), slope, -np.inf)
        # A bend between the two values of a side may feign a rise: then the nearer.
        both = (slope > 0).all(0)
        forward = np.where(both, rise[0] >= rise[1], slope[0] >= slope[1])
        side, other = np.where(forward, 0, 1)[None], np.where(forward, 1, 0)[None]

        def on(pair: Array, which: NDArray[np.int64] = side) -> Array:
            return np.take_along_axis(pair, which, 0)[0]

        span = right - left
        turning = (seen.f[0] - seen.f[2]) / np.where(span > 0, span, 1.0)
        levels = part.hamiltonian.bends(seen.D[4], part.nodes)
        return cls(
            part, a, direction, np.where(forward, 1.0, -1.0), on(slope), on(bend),
            on(room), on(room, other), seen.f[4], turning, levels,
        )  # fmt: skip

    def top(self) -> Array:
        """t (n,) >= 0 where the parabola ahead is highest, 0 where nothing rises."""
        curved = self.bend < 0
        top = np.where(curved, self.slope / np.where(curved, -self.bend, 1), self.ahead)
        return np.where(self.slope > 0, np.minimum(top, self.ahead), 0.0)

    def stops(self, sign: Array, reach: Array) -> list[Array]:
        """Signed t (n,) with 0 < |t| < reach where the Hamiltonian may bend, else 0.

        Of every axis of the state the first such drift, met twice: at the rate seen at
        t = 0, then corrected by what the drift is there; and controls that are 0.
        """
        way = sign * self.direction
        with np.errstate(divide="ignore", invalid="ignore"):
            zeros = -self.a / way
            found = list(np.where((zeros > 0) & (zeros < reach), zeros, 0.0))
            if len(self.levels):
                found += self._turns(sign, reach)
        return [sign * t for t in found if t.any()]

    def _turns(self, sign: Array, reach: Array) -> list[Array]:
        t = (self.levels - self.f) / (sign * self.turning)
        t = np.where((t > 1e-12) & (t < reach), t, np.inf)
        which = np.argmin(t, axis=0)[None]
        first = np.take_along_axis(t, which, 0)[0]
        level = np.take_along_axis(self.levels, which, 0)[0]
        met = np.isfinite(first)
        first = np.where(met, first, 0.0)
        some = [k for k in range(len(first)) if met[k].any()]
        if not some:
            return []
        seen = self.part.look(self.a + first[k] * sign * self.direction for k in some)
        out = []
        for k, f in zip(some, seen.f, strict=True):
            miss = (level[k] - f[k]) / (sign * self.turning[k])
            better = np.where(met[k], first[k] + np.nan_to_num(miss), 0.0)
            out += [first[k], np.clip(better, 0.0, reach)]
        return out


def _room(part: ControlSearch, direction: Array) -> Array:
    """How far a may go forwards and backwards within the box, (2, n)."""
    up, down = part.high - part.a, part.a - part.low
    with np.errstate(divide="ignore", invalid="ignore"):
        ahead = np.where(direction > 0, up, down) / np.abs(direction)
        behind = np.where(direction > 0, down, up) / np.abs(direction)
    reach = np.where(direction == 0, np.inf, np.stack([ahead, behind]))
    return np.clip(reach.min(axis=1), 0.0, FAR)
