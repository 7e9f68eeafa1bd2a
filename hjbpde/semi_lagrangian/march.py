"""Explicit marching by semi-Lagrangian steps, from the horizon back to today."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checkpoint import Page
from ..coefficients import Motion
from ..data_in_time import Breaks
from ..faces import Faces
from ..grid import Grid
from ..methods.end_slopes import Closing
from ..problem import ControlProblem
from .lookahead import Lookahead
from .memory import prefixed, under
from .method import SemiLagrangian
from .obstacles import Obstacles
from .parts import parts_of
from .step import Step
from .track import Track

Array = NDArray[np.float64]
ROUNDS = 60
"""Rounds in which steps that read early learn the values at their own time."""
SEARCHED = 1e-6
"""Share of sup|V| that all searches of a march together may leave."""


@dataclass(frozen=True)
class Clock:
    """The steps of one march: strides that all grids share, each cut into equal steps.

    ticks : ends of the strides, decreasing from T to 0, all marks among them.
    cuts : steps of a stride.
    """

    ticks: Array
    cuts: int = 1

    @classmethod
    def of(cls, marks: Array, stride: float) -> Clock:
        """Strides of at most that length between marks, which increase from 0 to T."""
        counts = np.maximum(np.ceil(np.diff(marks) / stride * (1 - 1e-9)), 1)
        pieces = [
            np.linspace(*pair, int(n) + 1)[1:]
            for pair, n in zip(pairwise(marks), counts, strict=True)
        ]
        return cls(np.concatenate([[0.0], *pieces])[::-1])

    @property
    def stride(self) -> float:
        """The longest stride."""
        return float(-np.diff(self.ticks).min())

    @property
    def steps(self) -> int:
        """Number of steps."""
        return self.cuts * (len(self.ticks) - 1)

    def within(self, later: float, t: float) -> Array:
        """Ends of the steps from `later`, at most a stride before, back to t."""
        return np.linspace(later, t, self.cuts + 1)


@dataclass(frozen=True, eq=False)
class Marched:
    """One mode's values (T, *shape), maximised, and policies (T, *shape, m).

    fastest: the largest drift (1, d) and noise (1, d, k) met, entry by entry.
    """

    look: Lookahead
    values: Array
    controls: Array
    stops: NDArray[np.bool_]
    clock: Clock
    fastest: Motion

    @property
    def grid(self) -> Grid:
        """The grid."""
        return self.look.grid

    @property
    def faces(self) -> Faces:
        """Its faces."""
        return self.look.faces

    @property
    def steps(self) -> int:
        """Number of steps to the horizon."""
        return self.clock.steps


class March:
    """All modes on one grid, without modes one, on their way to today."""

    def __init__(
        self,
        problem: ControlProblem,
        grid: Grid,
        method: SemiLagrangian,
        columns: list[int],
        breaks: Breaks,
        closing: Closing = Closing.ANCHORED,
        bent: bool = False,
    ) -> None:
        self.tracks = [
            Track(part, grid, method, columns, breaks, closing, bent)
            for part in parts_of(problem)
        ]
        self.slack, self.enough = 1e-10 * float(problem.horizon or 0.0), SEARCHED

    def run(
        self, clock: Clock, outputs: Array, page: Page | None = None
    ) -> list[Marched]:
        """March through all strides; what became of every mode.

        A march kept on `page` goes on from there.
        """
        page, strides = page or Page(), list(pairwise(clock.ticks.tolist()))
        kept = [_Kept.of(track, len(outputs)) for track in self.tracks]
        self.enough = max(SEARCHED / clock.steps, 1e-13)
        for track, one in zip(self.tracks, kept, strict=True):
            one.values[-1], one.stops[-1] = track.V, track.stopped()
            track.faces.set_fixed(track.V)
        first, cut = self._resume(page, kept)
        for n, (later, t) in enumerate(strides[first:], start=first):
            if cut == 0:
                self._between(clock, outputs, kept, later, t)
            steps = list(pairwise(clock.within(later, t).tolist()))
            for i, (start, end) in enumerate(steps[cut:], start=cut):
                page.keep(partial(self._kept, kept, n, i))
                self.step(end, start)
            cut = 0
            for i in np.flatnonzero(np.abs(outputs - t) <= self.slack).tolist():
                for track, one in zip(self.tracks, kept, strict=True):
                    one.keep(track, i)
        if first < len(strides):
            page.keep(partial(self._kept, kept, len(strides), 0), finished=True)
        return [
            one.marched(track, clock)
            for track, one in zip(self.tracks, kept, strict=True)
        ]

    def _between(
        self, clock: Clock, outputs: Array, kept: list[_Kept], later: float, t: float
    ) -> None:
        """Output times within a stride, each by steps of its own, as many.

        The same share of a stride on every grid, so that grids can be compared there.
        """
        within = (outputs > t + self.slack) & (outputs < later - self.slack)
        for i in np.flatnonzero(within).tolist():
            memory = [track.memory() for track in self.tracks]
            for start, end in pairwise(clock.within(later, float(outputs[i])).tolist()):
                self.step(end, start)
            for track, one, known in zip(self.tracks, kept, memory, strict=True):
                one.keep(track, i)
                track.recall(known)

    def _kept(self, kept: list[_Kept], stride: int, cut: int) -> dict[str, Any]:
        """All that the steps from this one on depend on, and what is kept so far."""
        out: dict[str, Any] = {"position": np.array([stride, cut])}
        for k, (track, one) in enumerate(zip(self.tracks, kept, strict=True)):
            memory = {**track.memory(), **track.seen()}
            out |= prefixed(f"mode{k}.", memory)
            out |= prefixed(f"kept{k}.", vars(one))
        return out

    def _resume(self, page: Page, kept: list[_Kept]) -> tuple[int, int]:
        """Go to where `page` left the march; the stride and the step to take next."""
        memory = page.found()
        if memory is None:
            return 0, 0
        for k, (track, one) in enumerate(zip(self.tracks, kept, strict=True)):
            known = under(f"mode{k}.", memory)
            track.recall(known)
            track.recall_seen(known)
            for name, values in vars(one).items():
                values[...] = memory[f"kept{k}.{name}"]
        stride, cut = memory["position"].tolist()
        return stride, cut

    def step(self, t: float, later: float) -> None:
        """From V at `later` to V and the policies at t, in place."""
        tracks = self.tracks
        now = np.stack([track.look_back(t, later) for track in tracks])
        V = np.stack([track.read(track.V) for track in tracks])
        known = _known(tracks, now)
        found = [track.choose(V, known, self.enough) for track in tracks]
        policies, worth, steps = zip(*found, strict=True)
        rights = [track.rights(t) for track in tracks]
        early = [
            _Early(track, step, right, now[k].ravel())
            for k, (track, step, right) in enumerate(
                zip(tracks, steps, rights, strict=True)
            )
        ]
        for one, value in zip(early, worth, strict=True):
            one.hold(value)
        _settle(early, V, now)
        for k, track in enumerate(tracks):
            track.obstacles = rights[k]
            track.advance(now[k], policies[k], t)


def _known(tracks: list[Track], now: Array) -> Array:
    """V(t) (K, *shape) as it is read there, (K, N)."""
    read = [
        track.read(V, track.look.problem) for track, V in zip(tracks, now, strict=True)
    ]
    return np.stack(read)


def _settle(early: list[_Early], V: Array, now: Array) -> None:
    """What is read before the end of the step reads what V(t) has become, in place."""
    tracks = [one.track for one in early]
    for _ in range(ROUNDS if any(one.rows.size for one in early) else 0):
        known = _known(tracks, now)
        change = max(one.renew(V, known) for one in early)
        if change <= 1e-13 * np.max(np.abs(now)):
            break


class _Early:
    """The rows of one mode's step that read V before the step ends.

    now (N,) is that mode's V(t), which is filled.
    """

    def __init__(
        self, track: Track, step: Step, rights: Obstacles | None, now: Array
    ) -> None:
        self.track, self.rights, self.now = track, rights, now
        self.rows = step.looks_early
        self.part = step.taken(self.rows)
        self.free = track.look.free

    def _held(self, values: Array, nodes: NDArray[np.intp]) -> Array:
        return values if self.rights is None else self.rights.hold(values, nodes)

    def hold(self, worth: Array) -> None:
        """Take what all free nodes are worth (n,), on the right side of payoffs."""
        self.now[self.free] = self._held(worth, self.free)

    def renew(self, V: Array, known: Array) -> float:
        """Take what the rows are worth with V(t) `known`; the largest change."""
        nodes = self.free[self.rows]
        found = self._held(self.part.value(V, self.track.look.lattice, known), nodes)
        change = np.max(np.abs(found - self.now[nodes]), initial=0.0)
        self.now[nodes] = found
        return float(change)


@dataclass(frozen=True, eq=False)
class _Kept:
    """What is kept of one mode at the output times, filled one by one."""

    values: Array
    controls: Array
    stops: NDArray[np.bool_]

    @classmethod
    def of(cls, track: Track, times: int) -> _Kept:
        shape = (times, *track.grid.shape)
        controls = np.empty((*shape, track.a.shape[1]))
        return cls(np.empty(shape), controls, np.zeros(shape, bool))

    def keep(self, track: Track, i: int) -> None:
        """Where the track is now, as output time i."""
        self.values[i], self.controls[i] = track.V, track.everywhere()
        self.stops[i] = track.stopped()

    def marched(self, track: Track, clock: Clock) -> Marched:
        """All of it, at the end of the march."""
        self.controls[-1] = track.final
        return Marched(
            track.look, self.values, self.controls, self.stops, clock, track.fastest
        )
