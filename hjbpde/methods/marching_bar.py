"""How wrong marched values are: differences between step sizes and between grids.

An extrapolation takes the leading error out of the value before it, so its distance d
to that value is the error of *that* value, not its own. Its own is smaller by about
the factor by which d is smaller than the correction before it, as long as corrections
fall like a geometric series. They do so for smooth data only: with kinks in the
terminal value, or a right to stop, the whole of d is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d, uniform_filter1d

from ..error_bar import SAFETY, neighbour_maximum
from ..grid import Grid
from ..interpolation import Interpolant
from ..offsets import evenly_spaced
from .kinked_data import Kinks

Array = NDArray[np.float64]
LEAST_SHARE = 0.15
"""Share of d kept in space where the series is plain: twice the 1/15 of theory."""
MOST_SHARE = 0.4
"""The same at most where kinks were averaged, after which the series is plain."""
LEAST_SHARE_IN_TIME = 0.1
LEAST_SHARE_AFTER_DATES = 0.4
"""The same in time where dates made kinks, each of which starts a series anew."""
FLOOR = 0.05
"""Share of the largest d around that is kept at least: d changes its sign."""
TREND = 4.0
"""Times d / d_before; for step errors c_j dt^j with like ratios of the c_j it is 2."""
REACH = 1 / 16
"""Part of an axis over which trends are read: noise spreads errors of the steps."""
SMOOTH = 3.0
"""Interpolation errors of smooth data fall fourfold from grid to grid, kinks halve."""

KINK_SHARE = 0.25
"""Share of a kink's jump of slope, times h, that a nodal value may miss."""
UNRESOLVED = 0.375
"""Of second differences a halving leaves 1/4 where V is smooth, 1/2 at kinks."""
FEWEST = 7
"""Nodes of the coarsest grid, on every axis, from which on high orders are believed."""
SLOWEST = 0.5
"""Order of h at which upwinding smears kinks."""


@dataclass(frozen=True, eq=False)
class InTime:
    """Values (T, *shape) on one grid, extrapolated in the step: the last three.

    `before` and `earlier` are what `best` is compared with; earlier is None where no
    trend can be seen. `is_central`: every weight of the scheme was. `may_stop`:
    somebody may stop at any time; `has_dates`: at dates, where V gets kinks; `kinks`:
    what became of them at the horizon and at dates. With K modes there are K rows a
    time, (T K, *shape). `adapted`: steps follow the data, and corrections need not fall
    like a series until they are much smaller than what the data do.
    """

    grid: Grid
    best: Array
    before: Array
    earlier: Array | None
    is_central: bool
    may_stop: bool = False
    has_dates: bool = False
    kinks: Kinks = Kinks.NONE
    modes: int = 1
    adapted: bool = False

    @property
    def ends(self) -> Array:
        """The terminal values, (modes, *shape)."""
        return self.best[-self.modes :]

    def bar(self, smooth: bool) -> Array:
        """The part of the bar that the time steps answer for, (T, *shape)."""
        last = _widened(self.best - self.before, self.grid)
        if self.adapted:
            return SAFETY * self._filled(self._beside(last))
        if self.kinks is Kinks.NONE and not (self.may_stop or self.has_dates):
            if self.earlier is None or not smooth:
                return SAFETY * self._beside(last)
        elif self.earlier is None:
            return SAFETY * self._filled(last)
        wide, first = _spread(last), _spread(np.abs(self.before - self.earlier))
        if not smooth:
            if self.has_dates and self.kinks is Kinks.AVERAGED:
                last = last * _share(wide, first, LEAST_SHARE_AFTER_DATES)
            return SAFETY * self._filled(last)
        # Where the last correction happens to change its sign in time, the one before
        # it tells how large it is elsewhere.
        usual = wide.max() / max(float(first.max()), np.finfo(float).tiny)
        last = np.maximum(wide, usual * first)
        return SAFETY * last * _share(last, first, LEAST_SHARE_IN_TIME)

    @staticmethod
    def _filled(changes: Array) -> Array:
        """`changes` (T, *shape) without the gaps where they change their sign."""
        return np.maximum(changes, LEAST_SHARE_IN_TIME * _spread(changes))

    def _beside(self, changes: Array) -> Array:
        """The largest of changes (T, *shape) at the output times next to each."""
        in_time = changes.reshape(-1, self.modes, *changes.shape[1:])
        wide = maximum_filter1d(in_time, 3, axis=0, mode="nearest")
        # Nothing has changed yet at the horizon itself.
        return np.concatenate([wide[:-1], in_time[-1:]]).reshape(changes.shape)


@dataclass(frozen=True, eq=False)
class Answer:
    """The value returned (T, *shape), its bar without truncation, and the bar's parts.

    `opinion` is what gradients of the value are measured against.
    """

    value: Array
    bar: Array
    parts: dict[str, float]
    opinion: Array | None

    @classmethod
    def of(
        cls, value: Array, space: Array, in_time: Array, opinion: Array | None
    ) -> Answer:
        """With the bar's two parts, both (T, *shape)."""
        parts = {"discretisation": float(np.max(space)), "time": float(np.max(in_time))}
        return cls(value, space + in_time, parts, opinion)

    def corrected_by(self, better: Answer) -> tuple[Answer, NDArray[np.bool_]]:
        """The better one where this one allows for it, (T, *shape); and where.

        A correction leads no farther than both bars; that of a monotone march is
        known to be too small at single nodes, so that its surroundings count.
        """
        apart = np.abs(better.value - self.value)
        taken = apart <= SAFETY * (better.bar + _spread(self.bar))
        value = np.where(taken, better.value, self.value)
        bar = np.where(taken, better.bar, np.maximum(self.bar, apart))
        parts = better.parts if taken.any() else self.parts
        opinion = self.opinion
        if opinion is not None and better.opinion is not None:
            opinion = np.where(taken, better.opinion, opinion)
        return Answer(value, bar, parts, opinion), taken


@dataclass(frozen=True, eq=False)
class InSpace:
    """Marched values on nested grids, from coarse to fine."""

    levels: list[InTime]

    def answer(self, order: int) -> Answer:
        """The value returned, and its bar.

        ``order=4`` extrapolates ``V_h + (V_h - V_2h) / 3`` where both grids are
        central; everything else is returned as it was marched. Where the coarser grid
        ends in cells that are not two of the finer, leading errors are left there: the
        bar covers all that was added.
        """
        fine = self.levels[-1]
        in_time = fine.bar(self.is_smooth)
        if len(self.levels) == 1:
            whole = np.full_like(fine.best, np.max(np.abs(fine.best)))
            return Answer.of(fine.best, whole, in_time, None)
        step = self.gap(-1)
        size = _widened(step, fine.grid)
        # One extrapolated at first order is off by as much the other way.
        other = fine.best + step
        if not self.is_central:
            missed = np.maximum(SAFETY * self._slowly(size, 1), self._kinked())
            return Answer.of(fine.best, missed, in_time, other)
        rest = self._rest(step, size)
        if order < 4:
            missed = SAFETY * (size / 3.0 + rest)
            return Answer.of(fine.best, missed, in_time, other)
        missed = rest if fine.grid.halves else size / 3.0 + rest
        value = fine.best + step / 3.0
        return Answer.of(value, SAFETY * missed, in_time, fine.best)

    @property
    def is_central(self) -> bool:
        """Whether the scheme was, on the two finest grids: these are extrapolated."""
        return all(level.is_central for level in self.levels[-2:])

    def corrected(self) -> Answer:
        """The same of marches whose steps are corrected, of order 4 where V is smooth.

        No more than order 2 is believed: faces with slopes, and kinks that noise blurs
        over a few cells, are felt by smooth nodes as well, and the coarsest grid is
        often too coarse to show an order. On stretched axes, where differences are of
        order 2, order 1 is, as on grids too coarse for more.
        """
        fine, step = self.levels[-1], self.gap(-1)
        size = _widened(step, fine.grid)
        even = all(evenly_spaced(fine.grid, k) for k in range(fine.grid.dimension))
        order = 2 if even and min(self.levels[0].grid.shape) >= FEWEST else 1
        missed = np.maximum(SAFETY * self._slowly(size, order), self._kinked())
        return Answer.of(fine.best, missed, fine.bar(self.is_smooth), fine.best - step)

    def gap(self, at: int) -> Array:
        """V_h - V_2h on the nodes of level `at`, cubic between the coarse ones."""
        fine, coarse = self.levels[at], self.levels[at - 1]
        gaps = _on_coarse(fine.best, fine.grid) - coarse.best
        nodes = fine.grid.nodes()
        return np.stack([Interpolant(coarse.grid, gap).cubic(nodes) for gap in gaps])

    @property
    def kinks(self) -> Kinks:
        """The worst on any of the grids."""
        return max(level.kinks for level in self.levels)

    @cached_property
    def is_smooth(self) -> bool:
        """Whether the march began smooth, kinks averaged away, and nobody may stop."""
        fine = self.levels[-1]
        if fine.may_stop or fine.has_dates or len(self.levels) < 3:
            return False
        if self.kinks > Kinks.NONE:
            return self.kinks is Kinks.AVERAGED
        misses = []
        for coarse, fine in pairwise(self.levels):
            ends = carried(coarse.ends, coarse.grid, fine.grid)
            misses.append(float(np.max(np.abs(ends - fine.ends))))
        return misses[0] >= SMOOTH * misses[1]

    def _slowly(self, size: Array, order: int) -> Array:
        """What is missed by the last differences (T, *shape) of a scheme of some order.

        Errors h^p are ``1 / (2^p - 1)`` times the last difference: 1 at order 1, more
        where upwinding smears kinks, down to order 1/2 (Kuznetsov's bound).
        """
        if len(self.levels) < 3:
            return size
        coarse, fine = self.levels[-2].grid, self.levels[-1].grid
        before = carried(_widened(self.gap(-2), coarse), coarse, fine)
        # Less is left by coincidence only; nodes turn from upwind to central, too.
        size = np.maximum(size, before * 2.0 ** (-3 if order == 1 else -6))
        if order > 1:
            # Differences change their sign.
            size = np.maximum(size, FLOOR * _spread(size))
        first = _spread(before)
        last = np.maximum(_spread(size), np.finfo(float).tiny)
        return size / (np.clip(first / last, 2.0**SLOWEST, 2.0**order) - 1.0)

    def _kinked(self) -> Array:
        """What nodal values miss at kinks that their grids do not resolve.

        How wrong a node is depends on where the kink lies in its cell, which may be
        alike on two grids. A kink is where second differences, summed over three
        nodes, do not fall with the square of h; then they are the jump of the slope
        times h.
        """
        fine, coarse = self.levels[-1], self.levels[-2]
        bent = _bending(fine.best, fine.grid)
        wide = carried(_bending(coarse.best, coarse.grid), coarse.grid, fine.grid)
        return KINK_SHARE * _widened(
            np.where(bent > UNRESOLVED * wide, bent, 0.0), fine.grid
        )

    def _rest(self, step: Array, size: Array) -> Array:
        """What the extrapolated value still misses, from three grids or a guess."""
        fine = self.levels[-1]
        if len(self.levels) < 3:
            return 0.5 * size / 3.0
        coarse = self.levels[-2].grid
        previous = self.levels[-2].best + self.gap(-2) / 3.0
        miss = _on_coarse(fine.best + step / 3.0, fine.grid) - previous
        rest = carried(_widened(miss, coarse), coarse, fine.grid)
        if fine.may_stop:
            return rest
        wide = _spread(rest)
        if self.kinks is Kinks.JUMPS_AVERAGED:
            return np.maximum(rest, LEAST_SHARE * wide)
        if self.kinks is not Kinks.AVERAGED and not self.is_smooth:
            # Two grids may cut the cells of the kinks alike and differ little.
            return np.maximum(rest, size / 3.0)
        share = _share(wide, _spread(size), LEAST_SHARE)
        if self.kinks is Kinks.AVERAGED:
            share = np.minimum(share, MOST_SHARE)
        return np.maximum(rest * share, FLOOR * wide)


def _bending(values: Array, grid: Grid) -> Array:
    """|second differences| of values (T, *shape), summed over three nodes; the largest
    of all axes, in units of V."""
    found = np.zeros_like(values)
    for k, (axis, around) in enumerate(zip(grid.axes, grid.periodic, strict=True), 1):
        if axis.size < 5:
            continue
        if around:
            bent = np.abs(np.roll(values, 1, k) - 2.0 * values + np.roll(values, -1, k))
        else:
            V = np.moveaxis(values, k, -1)
            h = np.diff(axis)
            slopes = np.diff(V, axis=-1) / h
            inner = np.abs(np.diff(slopes, axis=-1)) * np.minimum(h[1:], h[:-1])
            # Nothing is known on faces; a bend of 0 there would make their
            # neighbours' look like kinks.
            ends = [(0, 0)] * (V.ndim - 1) + [(1, 1)]
            bent = np.moveaxis(np.pad(inner, ends, mode="edge"), -1, k)
        mode = "wrap" if around else "nearest"
        found = np.maximum(found, 3.0 * uniform_filter1d(bent, 3, axis=k, mode=mode))
    return found


def carried(values: Array, coarse: Grid, fine: Grid) -> Array:
    """Values (T, *shape) of a coarse grid, linear on the nodes of a fine one."""
    nodes = fine.nodes()
    return np.stack([Interpolant(coarse, v).linear(nodes) for v in values])


def _spread(values: Array) -> Array:
    """The largest of values (T, *shape) within `REACH` of every axis."""
    for axis, n in enumerate(values.shape[1:], start=1):
        window = 2 * max(1, round(REACH * n)) + 1
        values = maximum_filter1d(values, window, axis=axis, mode="nearest")
    return values


def _share(last: Array, first: Array, least: float) -> Array:
    """Share of the correction `last` that is believed to be left."""
    tiny = np.finfo(float).tiny
    return np.clip(TREND * last / np.maximum(first, tiny), least, 1.0)


def _on_coarse(values: Array, fine: Grid) -> Array:
    kept = np.ix_(*[fine.kept(k) for k in range(fine.dimension)])
    return values[(slice(None), *kept)]


def _widened(differences: Array, grid: Grid) -> Array:
    """|differences| (T, *shape), the largest among neighbours."""
    return np.stack([neighbour_maximum(v, grid) for v in np.abs(differences)])
