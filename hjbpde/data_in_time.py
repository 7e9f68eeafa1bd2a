"""Where data jump, bend or pass quickly in time, so that steps can begin there.

Halved time grids share the step in which a jump of the data hides: all miss the same,
and their differences cannot show it. So data are sampled in time, at a few states and
controls. A fourth difference falls with the fourth power of the spacing where they are
smooth, with the first at a kink, not at all at a jump; places where it falls more
slowly than smooth data let it are followed down to the time itself.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .boundary import Dirichlet, Robin
from .held import held, keywords
from .probe import random_control
from .problem import _OF_TIME, ControlProblem
from .sets import Finite

Array = NDArray[np.float64]
Sample = Callable[[float], Array]
Interval = tuple[float, float, float]
"""How badly its ends stand for what is between, as a negative number, and the ends."""
INTERVALS = 1024
"""Of the first samples: what comes and goes within one may stay unseen."""
STATES = 12
"""Drawn from the domain, each with a control of its own."""
CUT = 4
"""Parts into which a spacing is cut at each closer look."""
SMOOTH_FALL = CUT**-2.5
"""Smooth data let a fourth difference fall by more than this at a closer look."""
SEEN = 1e-5
"""Fourth difference, relative to the data, from which a place is looked at closer."""
FINEST = 1e-15
"""Spacing, as a share of the horizon, down to which a jump is followed."""
TOGETHER = 1e-8
"""Times as near as this share of the horizon are one."""
EARLIER = 1e-13
"""Share of the horizon from a jump back to a time that is before it."""
WIDTH = 8
"""Fourth differences looked at together."""
INSIDE = 0.75
"""Spacings from the middle of a fourth difference to the kink that it shows best."""
MOST_SAMPLES = 30_000
"""What is not followed by then is left to the error bar."""
EVEN, MOST_BETWEEN = 32, 256
"""Intervals within which fast data are sought, and times put there in all, where the
steps of a method are not known before."""
WELL_FOLLOWED = 3e-3
"""How much straight lines between steps may miss, integrated, relative to the data."""


@dataclass(frozen=True, eq=False)
class Breaks:
    """Calendar times inside (0, T), increasing, at which data jump or bend.

    Of a jump the first time after it, at which data are those that follow.
    """

    times: Array
    horizon: float

    @classmethod
    def none(cls) -> Breaks:
        """There are none."""
        return cls(np.empty(0), 1.0)

    @property
    def slack(self) -> float:
        """Times as near are taken for one."""
        return TOGETHER * self.horizon

    def beside(self, goals: Array, least: float = 0.0) -> Array:
        """Those farther than `least`, and than `slack`, from 0, T and all `goals`."""
        known = np.r_[0.0, self.horizon, goals]
        away = np.abs(self.times[:, None] - known).min(axis=1)
        return self.times[away > max(least, self.slack)]

    def before(self, t: float) -> float:
        """t, or where data jump or bend at t a time just before that.

        A step back from t ends in data that are those before a jump.
        """
        near = np.abs(self.times - t) <= self.slack
        if not near.any():
            return t
        return min(t, float(self.times[near][0])) - EARLIER * self.horizon


@dataclass(eq=False)
class DataInTime:
    """The data of a problem with a horizon, sampled as functions of time alone.

    Samples (p,) are relative to the mean in time of the largest of their function.
    """

    horizon: float
    parts: list[Sample]
    scale: Array
    times: Array
    samples: Array

    @classmethod
    def of(cls, problem: ControlProblem) -> DataInTime:
        """Every function that names t, at states and controls drawn once."""
        end, parts = float(problem.horizon or 0.0), list(_parts(problem))
        times = np.linspace(0.0, end, INTERVALS + 1)
        if not parts:
            return cls(end, parts, np.ones(0), times, np.zeros((times.size, 0)))
        columns = [np.stack([part(float(t)) for t in times]) for part in parts]
        means = [float(np.abs(each).mean(axis=0).max()) or 1.0 for each in columns]
        scale = np.repeat(means, [each.shape[1] for each in columns])
        return cls(end, parts, scale, times, np.concatenate(columns, axis=1) / scale)

    def at(self, t: float) -> Array:
        """The samples at calendar time t, (p,)."""
        return np.concatenate([part(t) for part in self.parts]) / self.scale

    def breaks(self) -> Breaks:
        """Where data jump or bend."""
        times = np.sort(_Search(self).run() if self.parts else [])
        near = np.diff(times, append=np.inf) <= TOGETHER * self.horizon
        inside = (times > 0.0) & (times < self.horizon)
        return Breaks(times[~near & inside], self.horizon)

    def followed(self, goals: Array, breaks: Breaks) -> Array:
        """The calendar times `goals`, the breaks beside them and times between them.

        The latter where data move fast, however long the steps of a method are.
        """
        marks = np.union1d(goals, breaks.beside(goals))
        even = np.union1d(marks, np.linspace(0.0, self.horizon, EVEN + 1))
        between = self.between(even, MOST_BETWEEN)
        return np.union1d(even, between) if between.size else marks

    def between(self, steps: Array, most: int) -> Array:
        """At most `most` times between the calendar times `steps`, increasing.

        Intervals are halved, the worst first, until straight lines between the times
        follow the data to `WELL_FOLLOWED` of their integral.
        """
        heap: list[Interval] = []
        found: list[float] = []
        for a, b in pairwise(steps.tolist()) if self.parts else ():
            self._weigh(heap, a, b)
        while heap and len(found) < most:
            _, a, b = heapq.heappop(heap)
            middle = 0.5 * (a + b)
            found.append(middle)
            self._weigh(heap, a, middle)
            self._weigh(heap, middle, b)
        return np.array(found, dtype=float)

    def _weigh(self, heap: list[Interval], a: float, b: float) -> None:
        """Put the interval on the heap if a straight line does not follow the data."""
        # Just before b: where data jump at b, those of the interval end so.
        left, right = self.at(a), self.at(b - 1e-9 * (b - a))
        first, last = np.searchsorted(self.times, (a, b), side="right")
        inside, shown = self.times[first : last - 1], self.samples[first : last - 1]
        if inside.size < 4:
            inside = a + (b - a) * np.array([0.25, 0.5, 0.75])
            shown = np.stack([self.at(float(t)) for t in inside])
        share = ((inside - a) / (b - a))[:, None]
        miss = np.abs(shown - (1.0 - share) * left - share * right).max()
        lost = float(miss) * (b - a) / self.horizon
        if lost > WELL_FOLLOWED:
            heapq.heappush(heap, (-lost, a, b))


@dataclass(eq=False)
class _Window:
    """Equally spaced times, samples (n, p) there, and how rough they looked before."""

    times: Array
    samples: Array
    rough: float

    @property
    def spacing(self) -> float:
        return float(self.times[1] - self.times[0])


class _Search:
    """Follows places at which data are not smooth, all of them a look at a time."""

    def __init__(self, data: DataInTime) -> None:
        self.data = data
        self.left = MOST_SAMPLES
        self.found: list[float] = []

    def run(self) -> list[float]:
        """Times at which data jump or bend, some of them twice."""
        first = _Window(self.data.times, self.data.samples, 0.0)
        windows = list(self._rough(first, SEEN))
        while windows:
            windows = [new for one in windows for new in self._closer(one)]
        return self.found

    def _closer(self, window: _Window) -> list[_Window]:
        """What is rough of a window cut finer; what is known of it is kept."""
        if window.spacing < CUT * FINEST * self.data.horizon:
            return self._settled(window)
        finer = self._cut(window)
        if finer is None:
            return []
        peak = float(_fourth(finer.samples).max())
        if peak < SMOOTH_FALL * window.rough:
            return []
        if peak <= SEEN:
            return self._settled(finer)
        return list(self._rough(finer, max(SEEN, SMOOTH_FALL * window.rough)))

    @staticmethod
    def _rough(window: _Window, least: float) -> Iterator[_Window]:
        """Parts of a window whose fourth differences are larger than that."""
        F = _fourth(window.samples)
        seen = np.flatnonzero(least < F)
        gaps = np.flatnonzero(np.diff(seen) > 1) + 1
        for group in np.split(seen, gaps) if seen.size else []:
            for first in range(0, group.size, WIDTH):
                part = group[first : first + WIDTH]
                # Difference j is one of samples j to j + 4.
                cut = slice(int(part[0]), int(part[-1]) + 5)
                yield _Window(
                    window.times[cut], window.samples[cut], float(F[part].max())
                )

    def _cut(self, window: _Window) -> _Window | None:
        """The window with spacings cut into `CUT`, unless samples have run out."""
        count = CUT * (window.times.size - 1) + 1
        self.left -= count - window.times.size
        if self.left < 0:
            return None
        times = np.linspace(window.times[0], window.times[-1], count)
        times[::CUT] = window.times
        samples = np.empty((count, window.samples.shape[1]))
        for k in range(count):
            known = k % CUT == 0
            samples[k] = (
                window.samples[k // CUT] if known else self.data.at(float(times[k]))
            )
        return _Window(times, samples, window.rough)

    def _settled(self, window: _Window) -> list[_Window]:
        """Keep the time of the jump or kink; nothing is left to look at."""
        if window.spacing < CUT * FINEST * self.data.horizon:
            steps = np.abs(np.diff(window.samples, axis=0)).max(axis=1)
            # A little later, so that T - (T - t) is still after the jump.
            late = 2.0 * FINEST * self.data.horizon
            self.found.append(float(window.times[int(steps.argmax()) + 1]) + late)
        else:
            self.found.extend(_kink(window))
        return []


def _kink(window: _Window) -> list[float]:
    """Where the lines on both sides of the largest fourth difference meet.

    Nowhere if they meet outside of it: the kink is in the window beside.
    """
    F = np.abs(np.diff(window.samples, 4, axis=0))
    j, p = np.unravel_index(F.argmax(), F.shape)
    c, h = window.samples[j : j + 5, p], window.spacing
    left, right = c[1] - c[0], c[4] - c[3]
    # Both lines in units of h from the middle sample.
    apart = (c[3] - right) - (c[1] + left)
    share = float(apart / (left - right)) if left != right else 0.0
    return [float(window.times[j + 2]) + h * share] if abs(share) <= INSIDE else []


def _fourth(samples: Array) -> Array:
    """The largest fourth differences of samples (n, p), (n - 4,)."""
    return np.abs(np.diff(samples, 4, axis=0)).max(axis=1)


def _parts(problem: ControlProblem) -> Iterator[Sample]:
    """Every function that names t as a function of t alone, flat."""
    assert problem.domain is not None
    rng = np.random.default_rng(0)
    low, high = (
        np.asarray(side, dtype=float)
        for side in (problem.domain.low, problem.domain.high)
    )
    x = low + (high - low) * rng.random((STATES, problem.dimension))
    a, b = (_drawn(box, x, rng) for box in (problem.controls, problem.adversary))
    modes = [None] if problem.modes is None else range(problem.modes.n)
    for k in modes:
        for field in _OF_TIME:
            function = held(getattr(problem, field), mode=k, b=b)
            yield from _sampled(function, (x,) if field == "discount" else (x, a))
        for (axis, side), rule in problem.faces.items():
            if isinstance(rule, Dirichlet | Robin):
                on = x.copy()
                on[:, axis] = (low if side == "low" else high)[axis]
                yield from _sampled(held(rule.g, mode=k), (on,))
        for stop in problem.stops:
            yield from _sampled(held(stop.payoff, mode=k), (x,))
        if problem.exit is not None:
            yield from _sampled(held(problem.exit.value, mode=k), (x,))
    if problem.jumps is not None:
        for name in ("rate", "displacements", "weights"):
            yield from _sampled(getattr(problem.jumps, name), (x,))


def _drawn(box: Any, x: Array, rng: np.random.Generator) -> Array:
    """An admissible control of one player at every state, (n, m)."""
    if box is None:
        return np.zeros((len(x), 0))
    if isinstance(box, Finite):
        return box.sample(rng, len(x))
    low, high = box.bounds_at(x)
    shape = (len(x), box.dimension)
    low, high = (
        np.broadcast_to(np.asarray(one, float), shape).T for one in (low, high)
    )
    return np.ascontiguousarray(random_control(low, high, rng).T)


def _sampled(function: Any, arguments: tuple[Array, ...]) -> Iterator[Sample]:
    """The function of t that it is at these arguments, if it names t."""
    if "t" not in keywords(function):
        return

    def at(t: float) -> Array:
        with np.errstate(all="ignore"):
            found = np.asarray(function(*arguments, t=t), dtype=float)
        return np.nan_to_num(found, posinf=0.0, neginf=0.0).ravel()

    yield at
