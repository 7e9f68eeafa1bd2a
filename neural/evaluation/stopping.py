"""Least squares with rights to stop: the value of going on, and a surface that moves.

Every stopping set makes a problem that ends on its surface, where psi is taken. One
step solves that problem for one policy, takes the greedy policy, and moves the
surface into the valley of ``W - psi`` (`neural.free_boundary`): policy iteration in
which the rule for stopping is a part of the policy, and Newton's method for the
surface. W is smooth across the surface, V = max(W, psi) has a jump in its second
derivative there: fitting V itself by choosing at every state between its two rows
stalls at 1e-3 where this reaches 1e-7 (measured in 1-D to 3-D).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hjbpde.errors import MethodMismatch, ProblemError
from hjbpde.problem import ControlProblem
from hjbpde.progress import bar_over, last_of

from ..admissible import admissible_start, timed_start
from ..collocation import Collocation
from ..features import FeatureBasis, FeatureValue
from ..free_boundary import advanced, first_set, is_pinned, resampled
from ..outcome import GreedyPolicy, Outcome
from ..start import Policy
from ..stopping_payoff import Payoffs, box_around
from ..stopping_set import StoppingSet
from ..stopping_sketch import spacing
from ..time_state import TimedProblem, rooted
from ..value_model import hjb_residual

if TYPE_CHECKING:
    from .least_squares import LeastSquares

Array = NDArray[np.float64]
State = tuple[StoppingSet, Policy]

REACH = 0.1
"""Longest step of the surface, in half widths."""
TIMED = 1e-7
"""Least Tikhonov weight with a horizon, where a corner of the data is no smooth value:
less weight finds it again at other times, enlarged (measured on American puts)."""
STEEPER = 2.0
"""Feature scales with a horizon over those without, for the same corner: a factor of
2 to 5 in V on American puts."""
PATIENCE = 4
PROBES = 1024
"""States of the domain on which V is followed from step to step."""


def learn_stopping(
    method: LeastSquares, problem: ControlProblem, start: Any, seed: int, progress: bool
) -> Outcome:
    """Find the surface and the scale on a smaller basis, then use the full one.

    Raises
    ------
    ProblemError
        Payoffs of the wrong shape, not finite, or crossing; an inadmissible start.
    MethodMismatch
        A right to stop together with an exit, or no noise.
    """
    began, rng = time.perf_counter(), np.random.default_rng(seed)
    _refuse(problem)
    given, timed = problem, problem.horizon is not None
    if timed:
        method = _steeper(method, problem.dimension + 1)
        problem = rooted(TimedProblem.of(problem))
    payoffs = Payoffs(problem)
    payoffs.check(payoffs.box.sample(rng, PROBES))
    full, small, scales = method.sizes(problem.dimension)
    first = first_set(payoffs, _n_surface(small), rng)
    if first.everywhere:
        return _at_once(payoffs, first)
    running = payoffs.running_until(first)
    find = partial(timed_start, given) if timed else admissible_start
    policy, words = find(running, start, rng)  # type: ignore[arg-type]
    trials: list[_Run] = []
    for scale, _ in bar_over(scales, scales, progress, "feature scale"):
        run = _trial(method, payoffs, trials, (first, policy), scale, rng)
        trials.append(replace(run, seed=seed).iterate(False))
    best = min(trials, key=_badness)
    scale, middle, runs = scales[trials.index(best)], time.perf_counter(), list(trials)
    if small != full and best.best is not None:
        stopping, policy = best.state
        spread = resampled(payoffs, stopping, _n_surface(full), rng)
        basis = FeatureBasis.draw(box_around(problem, stopping), full, scale, rng)
        last = _Run(method, payoffs, basis, seed, "full", spread, policy)
        runs.append(last.iterate(progress))
        best = min(best, last, key=_badness)
    ended = time.perf_counter()
    seconds = {"scale selection": middle - began, "iteration": ended - middle}
    history = [entry for run in runs for entry in run.history]
    return best.outcome(words, history, seconds, scale)


def _steeper(method: LeastSquares, d: int) -> LeastSquares:
    """Options for a corner of the data at the horizon, in d states with time."""
    scales = method.scales
    if scales is None:
        scales = tuple(STEEPER * scale for scale in method.sizes(d)[2])
    weight = max(method.regularisation, TIMED)
    return replace(method, scales=scales, regularisation=weight)


def _trial(
    method: LeastSquares, payoffs: Payoffs, before: list[_Run], first: State,
    scale: float, rng: np.random.Generator,
) -> _Run:  # fmt: skip
    """A run on the smaller basis, from the best state of those before it."""
    small = method.sizes(payoffs.box.dimension)[1]
    good = min(before, key=_badness, default=None)
    at, box, stage = first, payoffs.box, "first"
    if good is not None:
        at, stage = good.state, "scale"
        box = box_around(payoffs.problem, at[0])
    basis = FeatureBasis.draw(box, small, scale, rng)
    return _Run(method, payoffs, basis, 0, stage, *at)


def _refuse(problem: ControlProblem) -> None:
    """Fields and data that smooth fit cannot take."""
    if problem.exit is not None:
        raise MethodMismatch(
            "neural.solve with LeastSquares takes 'stop' or 'exit', not both: state "
            "the exit by Dirichlet faces, or solve on a grid (hjbpde.solve)."
        )
    noise = problem.diffusion
    if noise is None or not (callable(noise) or np.any(noise)):
        raise MethodMismatch(
            "neural.solve with LeastSquares finds where to stop by smooth fit, which "
            "needs noise; this problem has none. Solve it on a grid (hjbpde.solve)."
        )


def _n_surface(features: int) -> int:
    """States on the surface: as many rows as an exit surface gets."""
    return max(8, features // 2)


def _badness(run: _Run) -> float:
    return run.best_residual


@dataclass(eq=False)
class _Run:
    """Steps of policy and surface on one basis; the best state is kept."""

    method: LeastSquares
    payoffs: Payoffs
    basis: FeatureBasis
    seed: int
    stage: str
    stopping: StoppingSet
    policy: Policy
    best: FeatureValue | None = None
    best_set: StoppingSet | None = None
    best_residual: float = np.inf
    status: str = "not converged"
    history: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.probes = self.payoffs.box.sample(np.random.default_rng(7), PROBES)
        self.last = np.zeros(PROBES)
        self.reach = min(REACH, spacing(self.payoffs.box.dimension))
        self.since_best, self.gap = 0, np.inf
        self.held = self.payoffs.problem.n_controls > 0 and self.stage == "first"
        self.began = time.perf_counter()

    @property
    def state(self) -> tuple[StoppingSet, Policy]:
        """The best set and its policy, to go on from."""
        if self.best is None or self.best_set is None:
            return self.stopping, self.policy
        bare = replace(self.payoffs.problem, stop=None)
        return self.best_set, GreedyPolicy(bare, self.best)

    def iterate(self, progress: bool) -> _Run:
        """Step until V settles, breaks, or cycles without getting better."""
        steps = range(self.method.max_policies)
        for k, _ in bar_over(
            steps, steps, progress, "policy and surface", lambda: last_of(self.history)
        ):
            if self._step() or self._finished(k):
                break
        return self

    def _step(self) -> bool:
        """Solve under policy and set, then improve both; whether it broke."""
        method, before = self.method, self.stopping
        problem = self.payoffs.running_until(before)
        rng = np.random.default_rng(self.seed)
        system = Collocation.build(problem, self.basis, method.points_per_feature, rng)
        a = self.policy(system.x)
        fit = system.solve(self.policy, a, method.regularisation, None)
        model = fit.value
        if not np.isfinite(model.coefficients).all():
            self.status = "diverged"
            return True
        self.policy = GreedyPolicy(replace(self.payoffs.problem, stop=None), model)
        moved, shift, depth = self._moved(before, model)
        free = ~is_pinned(self.payoffs, before)
        x = system.held_out
        gaps = np.abs(hjb_residual(problem, model, x, self.policy(x)))
        self._record(model, before, gaps, np.abs(depth[free]), np.abs(shift[free]))
        change = float(np.abs(self.policy(system.x) - a).max(initial=0.0))
        spread = max(float(np.abs(a).max(initial=0.0)), 1e-300)
        self.history[-1]["policy_change"] = change / spread
        if self._holds(_rms(gaps)):
            return False
        self.stopping = moved if self.best is model else self._shorter_step()
        return False

    def _holds(self, gap: float) -> bool:
        """Whether the surface waits for the policy: a poor start says nothing of it."""
        before, self.gap = self.gap, gap
        self.held = self.held and gap < 0.5 * before
        if self.held:
            self.since_best = 0
        return self.held

    def _moved(
        self, stopping: StoppingSet, model: FeatureValue
    ) -> tuple[StoppingSet, Array, Array]:
        if not len(stopping.states):
            return stopping, np.zeros(0), np.zeros(0)
        return advanced(self.payoffs, stopping, model, self.reach)

    def _shorter_step(self) -> StoppingSet:
        """From the best set so far, half as far: the last step made things worse."""
        assert self.best is not None and self.best_set is not None
        self.reach *= 0.5
        self.policy = self.state[1]
        return self._moved(self.best_set, self.best)[0]

    def _record(
        self, model: FeatureValue, before: StoppingSet, gaps: Array, depth: Array,
        shift: Array,
    ) -> None:  # fmt: skip
        values = settled(self.payoffs, before, model, self.probes)
        size = max(float(np.abs(values).max()), 1e-300)
        rms = float(np.hypot(_rms(gaps), _rms(depth)))
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
        if rms < 0.9 * self.best_residual:
            self.since_best = 0
        if rms < self.best_residual or self.best is None or self.held:
            self.best, self.best_set, self.best_residual = model, before, rms

    def _finished(self, k: int) -> bool:
        change = self.history[-1]["value_change"]
        if k and change <= self.method.tolerance:
            self.status = "converged"
        elif self.since_best >= PATIENCE:
            small = change <= 1e3 * self.method.tolerance
            self.status = "stagnated" if small else "not converged"
        else:
            return False
        return True

    def outcome(
        self, words: str, history: list[dict[str, Any]], seconds: Any, scale: float
    ) -> Outcome:
        """The best state with everything the report says."""
        if self.best is None or self.best_set is None:
            raise ProblemError(
                "LeastSquares: no value of going on was found whose surface settles. "
                "Check the signs of payoffs and of `by`, widen the domain, or solve "
                "on a grid (hjbpde.solve)."
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
            *_verdicts(self.payoffs, self.best_set, self.best, self.probes),
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
            details={"features": len(self.basis.bias), "feature_scale": scale},
            stopping=self.best_set,
        )


def settled(
    payoffs: Payoffs, stopping: StoppingSet, model: FeatureValue, x: Array
) -> Array:
    """V at x (n, d): psi where one stops, elsewhere W, on its side of psi."""
    stops = stopping.stops(x)
    value = payoffs.kept(x, model.value(x))
    value[stops] = payoffs.at(x[stops], stopping.owner_at(x[stops]))
    return value


def _verdicts(
    payoffs: Payoffs, stopping: StoppingSet, model: FeatureValue, x: Array
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


def _rms(values: Array) -> float:
    return float(np.sqrt((values**2).mean())) if len(values) else 0.0


def _at_once(payoffs: Payoffs, everywhere: StoppingSet) -> Outcome:
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
