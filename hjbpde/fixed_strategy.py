"""Values of one player's strategy in time, answered best, beside that of the game.

A strategy held fast leaves a problem of one player, whose steps are those of the game
with the same monotone weights and slopes on faces: node by node and step by step the
strategy is worth no more than the best one, whatever the grid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .errors import MethodMismatch
from .fixed_policy import Beside, controllers_stops, in_time, steps_back
from .grid import Grid
from .interpolation import Interpolant
from .methods.marching import output_times
from .methods.stepper import Stepper
from .players import answered, followed
from .problem import ControlProblem
from .schemes import Upwind
from .sets import ControlSet, Finite

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Side = Literal["controller", "adversary"]


class Moment(NamedTuple):
    """The game on the nodes at one time, in the problem's sense.

    `value` (*shape); `control` (*shape, m) and `reply` (*shape, mb) are the best ones,
    `stops` (*shape) where the controller stops.
    """

    time: float
    value: Interpolant
    control: Array
    reply: Array
    stops: Mask


class Decision(NamedTuple):
    """One side's strategy at one time: on the nodes, where it stops, as a function.

    `strategy` is a(x) of the controller or b(x, a) of the adversary, asked at nodes;
    only the controller's stops are looked at.
    """

    policy: Array
    stops: Mask
    strategy: Callable[..., Any]


Rule = Callable[[Moment], Decision]


def march_answered(
    problem: ControlProblem,
    grid: Grid,
    rules: Mapping[Side, Rule],
    times: Array,
    steps: int,
) -> dict[Side, Beside]:
    """March the game and the strategies, each answered best, from the horizon to today.

    Parameters
    ----------
    rules : for each side judged, what it does at a moment
    times : (T,), calendar times to keep
    steps : implicit steps to the horizon, first order upwind in space

    Returns
    -------
    For each side its strategy's value beside that of the game.

    Raises
    ------
    MethodMismatch
        A problem without a horizon, or with fields that implicit marching lacks.
    NotConverged
        A step whose value cannot be found.
    """
    problem.require_only("march_answered", "horizon", "exit", "stop", "adversary")
    if problem.horizon is None or problem.adversary is None:
        raise MethodMismatch("march_answered needs a horizon and an adversary.")
    outputs = output_times(problem, times)
    game = Stepper.of(problem, grid, Upwind())
    sides: dict[Side, Answer] = {s: Answer.to(s, problem, game) for s in rules}
    kept: dict[Side, list[Any]] = {
        side: [(sides[side].value, game.state.V, None)] for side in rules
    }
    for t, dt, kept_there in steps_back(problem, outputs, steps):
        game.step(t, dt)
        moment = _moment(problem, game, t)
        for side, answer in sides.items():
            decision = rules[side](moment)
            answer.follow(decision, t, dt)
            if kept_there:
                best = moment.control if side == "controller" else moment.reply
                pair = (decision, best, moment.stops)
                kept[side].append((answer.value, game.state.V, pair))
    return {side: _beside(problem, outputs, kept[side]) for side in rules}


def _moment(problem: ControlProblem, game: Stepper, t: float) -> Moment:
    u, m = game.control(), problem.n_controls
    value = Interpolant(game.grid, problem.sign * game.state.V)
    return Moment(t, value, u[..., :m], u[..., m:], controllers_stops(game.state))


def _beside(problem: ControlProblem, times: Array, kept: list[Any]) -> Beside:
    """What was kept from the horizon back, forward in time."""
    # At the horizon nothing is decided: the last decisions stand there.
    (own, best, _), (_, _, last) = kept[0], kept[1]
    kept = [(own, best, last), *kept[1:]]
    values = in_time([(own, best) for own, best, _ in kept])
    controls = in_time([(d.policy, a) for _, _, (d, a, _) in kept])
    stops = in_time([(d.stops, ended) for _, _, (d, _, ended) in kept])
    V = problem.sign * values
    return Beside(times, V[0], V[1], controls[0], controls[1], stops[0], stops[1])


@dataclass(eq=False)
class Answer(Stepper):
    """The best answer to one side's strategy, a step at a time."""

    side: Side = "controller"
    game: Any = None
    given: list[Callable[..., Any]] = field(default_factory=list)
    """The strategy of the step under way, alone."""
    stops: Mask | None = None
    obstacles: tuple[Any, Any] | None = None

    @staticmethod
    def to(side: Side, problem: ControlProblem, game: Stepper) -> Answer:
        """At the horizon, before any decision."""
        given = [_some(problem, side)]
        if side == "controller":
            left = answered(problem, lambda x, t: given[0](x))
        else:
            left = followed(problem, lambda x, a, t: given[0](x, a))
        out = Answer.of(left, game.grid, Upwind())
        assert isinstance(out, Answer)
        out.side, out.game, out.given = side, game, given
        return out

    @property
    def turn(self) -> float:
        """-1 where the sense is that of the adversary, who answers."""
        return -1.0 if self.side == "controller" else 1.0

    @property
    def value(self) -> Array:
        """V (*shape) in the maximising sense of the game."""
        return self.turn * self.state.V

    def follow(self, decision: Decision, t: float, dt: float) -> None:
        """One step after the game's, the strategy held at `decision`."""
        self.given[0], self.stops = decision.strategy, decision.stops
        self.step(t, dt)

    def prepare(self, t: float, dt: float) -> None:
        """As `Stepper.prepare`; the controller's stops are those decided."""
        if self.obstacles is not None:
            self.state.least, self.state.most = self.obstacles
        super().prepare(t, dt)
        least, most = self.obstacles = self.state.least, self.state.most
        if self.side == "adversary" or most is None:
            return
        # Who answers lets go where the strategy goes on, and is held where it stops.
        self.state.most = None
        if self.stops is not None and self.stops.any():
            floor = -np.inf if least is None else least
            self.state.most = np.where(self.stops, most, np.inf)
            self.state.least = np.where(self.stops, most, floor)

    def close(self) -> None:
        """The slopes at artificial faces are those of the game."""
        theirs = self.game.state.faces.artificial
        self.state.faces.set_slopes([self.turn * face.slope for face in theirs])


def _some(problem: ControlProblem, side: Side) -> Callable[..., Any]:
    """Any admissible strategy: at the horizon nothing is decided yet."""
    controls = problem.controls if side == "controller" else problem.adversary
    return lambda x, a=None: some_controls(controls, x)


def some_controls(controls: ControlSet | None, x: Array) -> Array:
    """Controls of a set at x (..., d), near 0 where that is in it: (..., m)."""
    if controls is None:
        return np.zeros((*x.shape[:-1], 0))
    middle: Any = 0.0
    if isinstance(controls, Finite):
        middle = controls.points[0]
    else:
        low, high = controls.bounds_at(x)
        middle = np.clip(0.0, np.asarray(low), np.asarray(high))
    return np.broadcast_to(middle, (*x.shape[:-1], controls.dimension))
