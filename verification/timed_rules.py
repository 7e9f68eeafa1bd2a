"""A candidate's strategies on the nodes at any time, for a march to follow."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hjbpde import Grid, HJBError
from hjbpde.fixed_strategy import Decision, Moment, Side
from hjbpde.interpolation import Interpolant

from .strategy import NearestPolicy, in_modes, policies_in_modes, reply_of
from .subject import Subject
from .ties import controls_toward, replies_toward

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


class NotFinite(HJBError):
    """Raised inside a march to end it at the first control that is no number."""


@dataclass(eq=False)
class OnNodes:
    """One side's strategy inside the region, the best one elsewhere.

    `moved` (*shape, m) is how far its controls lay outside their set so far, `bad` the
    first time and table with one that is not finite.
    """

    side: Side
    subject: Subject
    grid: Grid
    inside: Mask
    moved: Array = field(init=False)
    bad: tuple[float, Array] | None = None

    def __post_init__(self) -> None:
        problem, m = self.subject.problem, self.subject.problem.n_controls
        if self.side == "adversary":
            assert problem.adversary is not None
            m = problem.adversary.dimension
        self.moved = np.zeros((*self.grid.shape, m))

    def alone(self, t: float, control: Array, stops: Mask) -> tuple[Array, Mask]:
        """Controls and stops at time t of a controller without an adversary."""
        now = self.subject.at(t)
        x = self.grid.nodes()[self.inside]
        found = controls_toward(now, x, control[self.inside])
        control = self._placed(t, control, *found)
        stops = stops.copy()
        stops[self.inside] = now.stops(x)
        return control, stops

    def __call__(self, moment: Moment) -> Decision:
        """The strategy at one moment of a game."""
        if self.side == "controller":
            policy, stops = self.alone(moment.time, moment.control, moment.stops)
            return Decision(policy, stops, NearestPolicy(self.grid, policy))
        now, x = self.subject.at(moment.time), self.grid.nodes()[self.inside]
        found = replies_toward(now, x, now.control(x)[0], moment.reply[self.inside])
        policy = self._placed(moment.time, moment.reply, *found)
        table = NearestPolicy(self.grid, policy)
        reply = reply_of(now, table, self.inside, _Game(moment.value))
        return Decision(policy, moment.stops, reply)

    def _placed(self, t: float, best: Array, own: Array, moved: Array) -> Array:
        """The candidate's controls inside, the best ones elsewhere."""
        table = best.copy()
        table[self.inside] = own
        if not np.isfinite(table).all():
            self.bad = (t, table)
            raise NotFinite("not finite")
        self.moved[self.inside] = np.maximum(self.moved[self.inside], moved)
        return table


@dataclass(eq=False)
class InModes(OnNodes):
    """The same for the policies of all modes, (K, *shape, m)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.moved = np.stack([self.moved] * self.subject.problem.modes.n)

    def switching(self, t: float, control: Array) -> tuple[Array, Any]:
        """Controls at time t, on the nodes and as a function of x and mode."""
        now = self.subject.at(t)
        policy, moved = policies_in_modes(now, self.grid, self.inside, control)
        if not np.isfinite(policy).all():
            self.bad = (t, policy)
            raise NotFinite("not finite")
        self.moved = np.maximum(self.moved, moved)
        return policy, in_modes(self.grid, policy)


Rules = dict[Side, OnNodes]


def rules_of(subject: Subject, grid: Grid, inside: Mask) -> Rules:
    """The strategies of every side that the problem has."""
    if subject.problem.modes is not None:
        return {"controller": InModes("controller", subject, grid, inside)}
    sides: tuple[Side, ...] = ("controller",)
    if subject.problem.adversary is not None:
        sides = ("controller", "adversary")
    return {side: OnNodes(side, subject, grid, inside) for side in sides}


@dataclass(frozen=True, eq=False)
class _Game:
    """A game's value on the nodes at one time, asked like a solution."""

    value: Interpolant

    def value_at(self, x: Array) -> Array:
        return self.value.cubic(x)

    def gradient_at(self, x: Array) -> Array:
        return self.value.gradient(x)

    def control_at(self, x: Array) -> Array:
        raise NotImplementedError("only the slopes of the value are asked for.")
