"""Policy iteration in which the rule for stopping is a part of the policy.

Every stopping set makes a problem that ends on its surface, where psi is taken. One
step solves that problem for one policy, takes the greedy policy, and moves the
surface into the valley of ``W - psi`` (`neural.free_boundary`), Newton's method for
the surface. How the value W of going on is found is the evaluator's matter.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from hjbpde.errors import MethodMismatch, ProblemError
from hjbpde.held import keywords
from hjbpde.problem import ControlProblem
from hjbpde.progress import bar_over, last_of

from ..admissible import admissible_start, timed_start
from ..features import FeatureBasis, FeatureValue
from ..first_set import first_set
from ..free_boundary import advanced, is_pinned, resampled
from ..level_set import LevelSet
from ..outcome import GreedyPolicy, Outcome
from ..start import Policy
from ..stopping_payoff import Payoffs
from ..stopping_set import StoppingSet
from ..stopping_sketch import spacing
from ..time_state import TimedProblem, rooted
from ..value_model import ValueModel, hjb_residual

Array = NDArray[np.float64]
State = tuple[StoppingSet, Policy]

REACH = 0.1
"""Longest step of the surface, in half widths."""
PATIENCE = 4
PROBES = 1024
"""States of the domain on which V is followed from step to step."""


@dataclass(frozen=True, eq=False)
class Evaluated:
    """W of one policy and one set, found at states x (n, d) under controls a (n, m).

    No fit has seen the states `held_out` (k, d).
    """

    model: ValueModel
    x: Array
    a: Array
    held_out: Array

    @property
    def is_finite(self) -> bool:
        """Whether every number of the model is finite."""
        return all(np.isfinite(part).all() for part in self.model.arrays().values())


@dataclass(frozen=True, eq=False)
class Beginning:
    """The rights to stop of a problem `given` and a first, rough set.

    With a horizon the problem of `payoffs` is on the clock of `time_state.rooted`.
    """

    given: ControlProblem
    payoffs: Payoffs
    first: StoppingSet

    @classmethod
    def of(
        cls, name: str, given: ControlProblem, surface: int, rng: np.random.Generator
    ) -> Beginning:
        """Check `given` and find a set by about `surface` states; `name` is for errors.

        Raises
        ------
        ProblemError
            Payoffs of the wrong shape, not finite, or crossing.
        MethodMismatch
            A right to stop together with an exit, no noise, or too many states.
        """
        refuse(name, given)
        problem = given
        if given.horizon is not None:
            problem = rooted(TimedProblem.of(given))
        payoffs = Payoffs(problem)
        payoffs.check(payoffs.box.sample(rng, PROBES))
        return cls(given, payoffs, first_set(payoffs, surface, rng))

    def policy(self, start: Any, rng: np.random.Generator) -> tuple[Policy, str]:
        """The policy to start from, on the clock of `payoffs`, and how it was found.

        Raises
        ------
        ProblemError
            An inadmissible start.
        """
        running = self.payoffs.running_until(self.first)
        if not isinstance(running, TimedProblem):
            return admissible_start(running, start, rng)
        return timed_start(self.given, running, self._on_root_clock(start), rng)

    def _on_root_clock(self, start: Any) -> Any:
        if start is None or "t" not in keywords(start):
            return start
        horizon = float(self.given.horizon or 0.0)
        return lambda x, t: start(x, t=horizon * (1.0 - t * t))


class Evaluator(Protocol):
    """How the value of going on is found for one policy and one set."""

    @property
    def name(self) -> str:
        """What errors call it."""
        ...

    @property
    def is_inexact(self) -> bool:
        """Whether it only gets closer from step to step.

        Its policies then go on where the residual falls no further, and the surface
        waits until it has stopped falling fast.
        """
        ...

    def evaluate(self, problem: ControlProblem, policy: Policy, seed: int) -> Evaluated:
        """W of `policy` in a problem that ends on the surface of the set."""
        ...

    def details(self) -> Mapping[str, Any]:
        """What the report says of its size."""
        ...


@dataclass(eq=False)
class SurfaceRun:
    """Steps of policy and surface with one evaluator; the best state is kept.

    Parameters
    ----------
    evaluator : Evaluator
    payoffs : Payoffs
    limits : (int, float)
        Steps at most, and the change of V over sup|V| at which they end.
    seed : int
    stage : str
        In the history; the surface waits for the policy where it is "first".
    stopping, policy
        The state to begin with.
    """

    evaluator: Evaluator
    payoffs: Payoffs
    limits: tuple[int, float]
    seed: int
    stage: str
    stopping: StoppingSet
    policy: Policy
    best: ValueModel | None = None
    best_set: StoppingSet | None = None
    best_residual: float = np.inf
    status: str = "not converged"
    history: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.probes = self.payoffs.box.sample(np.random.default_rng(7), PROBES)
        self.last = np.zeros(PROBES)
        self.reach = min(REACH, spacing(self.payoffs.box.dimension))
        self.since_best, self.gap, self.waited = 0, np.inf, False
        poor = self.payoffs.problem.n_controls > 0 or self.evaluator.is_inexact
        self.held = poor and self.stage == "first"
        self.began = time.perf_counter()

    @property
    def state(self) -> tuple[StoppingSet, Policy]:
        """The best set and its policy, to go on from."""
        if self.best is None or self.best_set is None:
            return self.stopping, self.policy
        bare = replace(self.payoffs.problem, stop=None)
        return self.best_set, GreedyPolicy(bare, self.best)

    def iterate(self, progress: bool) -> SurfaceRun:
        """Step until V settles, breaks, or cycles without getting better."""
        steps = range(self.limits[0])
        for k, _ in bar_over(
            steps, steps, progress, "policy and surface", lambda: last_of(self.history)
        ):
            if self._step() or self._finished(k):
                break
        return self

    def _step(self) -> bool:
        """Solve under policy and set, then improve both; whether it broke."""
        before = self.stopping
        problem = self.payoffs.running_until(before)
        found = self.evaluator.evaluate(problem, self.policy, self.seed)
        model = found.model
        if not found.is_finite:
            self.status = "diverged"
            return True
        self.policy = GreedyPolicy(replace(self.payoffs.problem, stop=None), model)
        moved, shift, depth = self._moved(before, model)
        free = ~is_pinned(self.payoffs, before)
        x = found.held_out
        gaps = np.abs(hjb_residual(problem, model, x, self.policy(x)))
        self._record(model, before, gaps, np.abs(depth[free]), np.abs(shift[free]))
        change = float(np.abs(self.policy(found.x) - found.a).max(initial=0.0))
        spread = max(float(np.abs(found.a).max(initial=0.0)), 1e-300)
        self.history[-1]["policy_change"] = change / spread
        if self._holds(rms(gaps)):
            return False
        self.stopping = moved if self.best is model else self._shorter_step()
        return False

    def _holds(self, gap: float) -> bool:
        """Whether the surface waits for the policy: a poor start says nothing of it."""
        before, self.gap, self.waited = self.gap, gap, self.held
        self.held = self.held and gap < 0.5 * before
        if self.held:
            self.since_best = 0
        return self.held

    def _moved(
        self, stopping: StoppingSet, model: ValueModel
    ) -> tuple[StoppingSet, Array, Array]:
        if not len(stopping.states):
            return stopping, np.zeros(0), np.zeros(0)
        return advanced(self.payoffs, stopping, model, self.reach)

    def _shorter_step(self) -> StoppingSet:
        """From the best set so far, half as far: the last step made things worse."""
        assert self.best is not None and self.best_set is not None
        self.reach *= 0.5
        if not self.evaluator.is_inexact:
            self.policy = self.state[1]
        return self._moved(self.best_set, self.best)[0]

    def _record(
        self, model: ValueModel, before: StoppingSet, gaps: Array, depth: Array,
        shift: Array,
    ) -> None:  # fmt: skip
        values = settled(self.payoffs, before, model, self.probes)
        size = max(float(np.abs(values).max()), 1e-300)
        holes = rms(self._seen_on_the_surface(before, model))
        both = float(np.sqrt(rms(gaps) ** 2 + rms(depth) ** 2 + holes**2))
        worst = max(gaps.max(), depth.max(initial=0.0))
        rho = float(np.asarray(self.payoffs.problem.discount_at(self.probes)).min())
        self.history.append(
            {
                "stage": self.stage,
                "iteration": len(self.history) + 1,
                "residual": worst / size,
                "residual_bound": worst / rho if rho > 0 else worst,
                "value_change": float(np.abs(values - self.last).max()) / size,
                "surface_move": float(shift.max(initial=0.0)),
                "stopped": float(before.stops(self.probes).mean()),
                "seconds": time.perf_counter() - self.began,
            }
        )
        self.last = values
        self.since_best += 1
        if both < 0.9 * self.best_residual:
            self.since_best = 0
        if both < self.best_residual or self.best is None or self.held:
            self.best, self.best_set, self.best_residual = model, before, both

    def _seen_on_the_surface(self, stopping: StoppingSet, model: ValueModel) -> Array:
        """``W - psi``, to be 0, wherever one begins to stop, (n,).

        That is not only at the states that W was fitted to: one state that has gone
        astray opens a hole with a rim of no states, where W is anything (measured on
        American puts: V wrong by its own size, with a residual of 1e-3).
        """
        whole = isinstance(stopping, LevelSet) or stopping.states.shape[1] == 1
        if whole or not len(stopping.states):
            return np.zeros(0)
        rng, n = np.random.default_rng(7), len(stopping.states)
        rim = resampled(self.payoffs, stopping, n, rng)
        rim = rim.only(~is_pinned(self.payoffs, rim))
        return self.payoffs.excess(model, rim.states, rim.owners)

    def _finished(self, k: int) -> bool:
        change = self.history[-1]["value_change"]
        if k and change <= self.limits[1] and not self.waited:
            self.status = "converged"
        elif self.since_best >= PATIENCE + 2 * self.evaluator.is_inexact:
            small = change <= 1e3 * self.limits[1]
            self.status = "stagnated" if small else "not converged"
        else:
            return False
        return True

    def outcome(
        self, words: str, history: list[dict[str, Any]], seconds: Any
    ) -> Outcome:
        """The best state with everything the report says."""
        if self.best is None or self.best_set is None:
            raise ProblemError(
                f"{self.evaluator.name}: no value of going on was found whose surface "
                "settles. Check the signs of payoffs and of `by`, widen the domain, or "
                "solve on a grid (hjbpde.solve)."
            )
        last = self.history[-1]
        stop = {
            "converged": "stopped: V changed by less than the tolerance",
            "stagnated": "stopped: the residual no longer falls (round-off floor)",
            "not converged": "stopped: sets cycle or ran out; the best one is kept",
            "diverged": "stopped: an iterate was not finite; last good one kept",
        }[self.status]
        checks = (
            f"start: {words}",
            f"{stop} (last change {last['value_change']:.1e}, surface moved "
            f"{last['surface_move']:.1e} half widths)",
            *verdicts(self.payoffs, self.best_set, self.best, self.probes),
            "a small residual is no error bar: compare with a grid (hjbpde.solve)",
        )
        return Outcome(
            model=self.best,
            actor=None,
            status=self.status,
            history=history,
            residuals=tuple(h["residual_bound"] for h in self.history),
            checks=checks,
            seconds=seconds,
            details=self.evaluator.details(),
            stopping=self.best_set,
        )


def settled(
    payoffs: Payoffs, stopping: StoppingSet, model: ValueModel, x: Array
) -> Array:
    """V at x (n, d): psi where one stops, elsewhere W, on its side of psi."""
    stops = stopping.stops(x)
    value = payoffs.kept(x, model.value(x))
    value[stops] = payoffs.at(x[stops], stopping.owner_at(x[stops]))
    return value


def verdicts(
    payoffs: Payoffs, stopping: StoppingSet, model: ValueModel, x: Array
) -> tuple[str, ...]:
    """What share of states x stops, and where either choice looks wrong."""
    stops, owners = stopping.stops(x), stopping.owner_at(x)
    size = max(float(np.abs(settled(payoffs, stopping, model, x)).max()), 1e-300)
    below = 0.0
    if not stops.all():
        below = float(-payoffs.excess(model, x[~stops], owners[~stops]).min()) / size
    rash = np.zeros(len(x), bool)
    for k in range(len(payoffs.stops)):
        here = stops & (owners == k)
        rash[here] = payoffs.loss_of_waiting(k, x[here]) < -1e-6 * size
    text = f"stopped: {stops.mean():.1%} of the domain"
    if below > 1e-6:
        text += f"; going on is worth less than psi by up to {below:.1e} somewhere"
    if rash.any():
        text += f"; on {rash.mean():.1%} waiting a moment would gain"
    return (text,)


def rms(values: Array) -> float:
    """Root of the mean square, 0 of nothing."""
    return float(np.sqrt((values**2).mean())) if len(values) else 0.0


def at_once(payoffs: Payoffs, everywhere: StoppingSet) -> Outcome:
    """Waiting loses at every state: V = psi, there is nothing to learn."""
    basis = FeatureBasis.draw(payoffs.box, 1, 1.0, np.random.default_rng(0))
    return Outcome(
        model=FeatureValue(basis, np.zeros(basis.size)),
        actor=None,
        status="converged",
        history=[],
        residuals=(0.0,),
        checks=("stopped: everywhere, since waiting a moment loses at every state",),
        stopping=everywhere,
    )


def refuse(name: str, problem: ControlProblem) -> None:
    """Fields and data that smooth fit cannot take."""
    if problem.exit is not None:
        raise MethodMismatch(
            f"neural.solve with {name} takes 'stop' or 'exit', not both: state "
            "the exit by Dirichlet faces, or solve on a grid (hjbpde.solve)."
        )
    if any(stop.dates is not None for stop in problem.stops):
        raise MethodMismatch(
            f"neural.solve with {name} knows no dates of a right to stop: it takes "
            "rights that hold at any time. Solve on a grid (hjbpde.solve)."
        )
    noise = problem.diffusion
    if noise is None or not (callable(noise) or np.any(noise)):
        raise MethodMismatch(
            f"neural.solve with {name} finds where to stop by smooth fit, which "
            "needs noise; this problem has none. Solve it on a grid (hjbpde.solve)."
        )
