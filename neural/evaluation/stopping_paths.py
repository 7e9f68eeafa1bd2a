"""Monte Carlo with rights to stop: paths end on a surface that moves.

Paths are stopped where they enter the present set, also between two steps
(`crossing`), and take psi: the network is fitted to what one policy and one set earn,
never more than V up to noise and time step. Then policy and set are improved, the set
by one Newton step for smooth fit (`free_boundary.advanced_by_slopes`), because the
choice between psi and the value of going on, made state by state, moves the surface by
no more than what a path sees of it within a step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hjbpde.errors import MethodMismatch
from hjbpde.problem import ControlProblem
from hjbpde.progress import bar_over, last_of
from hjbpde.sets import Box

from ..admissible import timed_start
from ..ends import Ends
from ..free_boundary import advanced_by_slopes
from ..outcome import Outcome
from ..root_clock import OnRootClock, on_plain_clock, on_root_clock
from ..start import Policy
from ..stopping_payoff import Payoffs
from ..stopping_set import SettledExit, StoppingSet
from ..time_state import TimedProblem
from ..value_model import ValueModel
from ..value_network import ValueNetwork
from .path_starts import check_states
from .surface_run import PROBES, Beginning, at_once, verdicts
from .training import Training
from .waiting import learn_waiting

if TYPE_CHECKING:
    from .monte_carlo import MonteCarlo

Array = NDArray[np.float64]
SURFACE = {1: 8, 2: 100, 3: 200, 4: 300}
"""States on the surface, by the number of states with time."""
REACH = 0.05
"""Longest Newton step of the surface, in half widths."""


def is_waiting(problem: ControlProblem) -> bool:
    """Whether psi is compared with the value of waiting, as no surface is sampled."""
    states = problem.dimension + (problem.horizon is not None)
    return problem.stop is not None and states not in SURFACE


def learn_stopping(
    options: MonteCarlo, problem: ControlProblem, start: Any, seed: int, progress: bool
) -> Outcome:
    """Alternate: paths under one policy and one set, then a better policy and set.

    Raises
    ------
    ProblemError, MethodMismatch
        As in `Beginning`, or in `learn_waiting` beyond four states; a checkpoint.
    """
    if options.checkpoint is not None:
        raise MethodMismatch(
            "MonteCarlo keeps no checkpoint where somebody may stop: the rule for "
            "stopping is not in the file. Leave checkpoint out."
        )
    options.actor.check(problem)
    rng = np.random.default_rng(seed)
    if is_waiting(problem):
        return learn_waiting(options, problem, start, seed, progress)
    d = problem.dimension + (problem.horizon is not None)
    begin = Beginning.of("MonteCarlo", problem, SURFACE[d], rng)
    if begin.first.everywhere:
        return at_once(begin.payoffs, begin.first)
    ended = StoppedProblems.of(begin)
    running = ended.until(begin.first)
    if isinstance(running, TimedProblem):
        policy, words = timed_start(problem, running, start, rng)
    else:
        policy, words = begin.policy(start, rng)
    training = StoppingTraining(options, ended, begin.first, policy, rng, seed)
    steps = range(options.max_policies)
    for _ in bar_over(
        steps, steps, progress, "policy and set", lambda: last_of(training.history)
    ):
        if training.step():
            break
    training.polish()
    return training.outcome(words)


@dataclass(frozen=True, eq=False)
class StoppedProblems:
    """The problems that end on a set, on the clock of paths.

    Parameters
    ----------
    payoffs : Payoffs
        With a horizon on the clock of `time_state.rooted`, like the sets.
    timed : TimedProblem or None
        The problem on the plain clock of paths, with a horizon.
    """

    payoffs: Payoffs
    timed: TimedProblem | None

    @classmethod
    def of(cls, begin: Beginning) -> StoppedProblems:
        """Those of a problem with its rights to stop."""
        given = begin.given
        timed = None if given.horizon is None else TimedProblem.of(given)
        return cls(begin.payoffs, timed)

    @property
    def horizon(self) -> float:
        """T."""
        assert self.timed is not None and self.timed.domain is not None
        return float(self.timed.domain.width[-1])

    def until(self, stopping: StoppingSet) -> ControlProblem:
        """The problem that ends on entering `stopping` and takes psi there."""
        running = self.payoffs.running_until(stopping)
        if self.timed is None:
            return running
        bare, settled, T = replace(self.timed, stop=None), running.exit, self.horizon
        if settled is None:
            return bare
        low, high = np.array(settled.within.low), np.array(settled.within.high)
        low[-1], high[-1] = 0.0, T
        leaving = SettledExit(
            lambda x: settled.region(on_root_clock(x, T)),
            lambda x: settled.value(on_root_clock(x, T)),
            on_plain_clock(stopping.states, T),
            Box(low, high),
        )
        return replace(bare, exit=leaving)

    def model(self, network: ValueNetwork) -> ValueModel:
        """A network of the paths' states as a value on the clock of the set."""
        return network if self.timed is None else OnRootClock(network, self.horizon)


class StoppingTraining(Training):
    """A run whose paths end on a set that moves before every policy but the first."""

    def __init__(
        self, options: MonteCarlo, ended: StoppedProblems, first: StoppingSet,
        policy: Policy, rng: np.random.Generator, seed: int,
    ) -> None:  # fmt: skip
        super().__init__(options, ended.until(first), policy, rng, seed)
        self.rollout = replace(self.rollout, fitted_share=True)
        self.ended, self.stopping, self.kept_set = ended, first, first
        self.probes = ended.payoffs.box.sample(np.random.default_rng(7), PROBES)

    def step(self) -> bool:
        """Move the surface, then improve and evaluate once; True when it is over."""
        moves = np.zeros(1)
        if self.model is not None and len(self.stopping.states):
            moves = self._move_surface()
        over = super().step()
        if self.history:
            self.history[-1] |= {
                "surface_move": float(np.abs(moves).max(initial=0.0)),
                "stopped": float(self.stopping.stops(self.probes).mean()),
            }
        return over

    def keep(self) -> None:
        """Copy networks and set: the last state known to be good."""
        super().keep()
        self.kept_set = self.stopping

    def polish(self) -> None:
        """The last, best fit; its slopes move the surface once more, all the way.

        V feels that move by its square only, its slope next to the surface in full.
        """
        super().polish()
        if self.kept is not None and len(self.kept_set.states):
            model = self.ended.model(self.kept[0])
            self.kept_set = advanced_by_slopes(
                self.ended.payoffs, self.kept_set, model, REACH
            )[0]

    def _move_surface(self) -> Array:
        """A share of Newton's step for smooth fit: 1/2, 1/3, ... from set to set.

        The network's slope is uncertain by the noise of the paths. With these shares
        the surface is the mean of all Newton steps, in which the noise averages out
        (Robbins and Monro, Ann. Math. Statist. 22 (1951)).
        """
        assert self.model is not None
        gain, model = 1.0 / (1.0 + len(self.history)), self.ended.model(self.model)
        found, moves = advanced_by_slopes(
            self.ended.payoffs, self.stopping, model, REACH, gain
        )
        self.stopping = found
        self.problem = self.ended.until(found)
        self.rollout = replace(self.rollout, problem=self.problem)
        self.check = check_states(self.problem, len(self.check), self.rng)
        self.ends = Ends.of(self.problem, self.check, self.rng)
        self.penalties = None
        return moves

    def outcome(self, words: str) -> Outcome:
        """The last good state with everything the report says, and its set."""
        self.problem = self.ended.until(self.kept_set)
        found = super().outcome(words)
        assert isinstance(found.model, ValueNetwork)
        model, payoffs = self.ended.model(found.model), self.ended.payoffs
        last = self.history[-1] if self.history else {"surface_move": 0.0}
        moved = f"the surface last moved by {last['surface_move']:.1e} half widths"
        more = verdicts(payoffs, self.kept_set, model, self.probes)
        return replace(
            found,
            model=model,
            checks=(*found.checks, moved, *more),
            stopping=self.kept_set,
        )
