"""One run of `Residual`: start, Adam, policies at every level of noise, the best."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hjbpde.point_tables import KeptTables
from hjbpde.problem import ControlProblem
from hjbpde.progress import bar_over, last_of

from ..admissible import admissible_start, timed_start
from ..ansatz import AnsatzNetwork
from ..collocation import Collocation
from ..constrained_face import DEPTH
from ..ends import Ends
from ..features import FeatureBasis
from ..networks import MLP
from ..outcome import GreedyPolicy, Outcome
from ..probe import sample_controls
from ..start import Policy
from ..time_state import TimedProblem
from ..value_model import greedy_policy, hjb_residual, row_scale
from .adam import adam_stage
from .equation import Equation, held_out_states
from .levenberg import Marquardt, descend, evaluate_policy
from .lift import bump_of, lift_of
from .network_rows import with_noise
from .residual import Residual
from .residual_resume import Place, checkpoint_of, keep, resume

Array = NDArray[np.float64]
PATIENCE = 6


def typical_sizes(
    problem: ControlProblem, x: Array, ends: Ends, rng: np.random.Generator
) -> tuple[float, float]:
    """Median rate |f / half| under random controls, and the payoff's size over it.

    The second is what V is of the order of: paid until the box is crossed or the
    discount has eaten it. With an exit noise may end it sooner, and what is taken
    there may be all there is. Time, the last state with a horizon, is no drift.
    """
    assert problem.domain is not None
    a = sample_controls(problem, x, rng)
    f = np.asarray(problem.drift_at(x, a)) / (0.5 * problem.domain.width)
    rate = float(np.median(np.linalg.norm(f, axis=1)))
    paid = float(np.median(np.abs(np.asarray(problem.payoff_at(x, a)))))
    pace = rate + float(np.asarray(problem.discount_at(x)).min())
    if problem.exit is not None:
        pace = float(np.median(row_scale(problem, x, a)))
    size = paid / max(pace, 1e-12)
    if problem.exit is not None:
        size = max(size, float(np.ptp(ends.data)))
    if isinstance(problem, TimedProblem):
        rate = float(np.median(np.linalg.norm(f[:, :-1], axis=1)))
    return max(rate, 1e-12), size if size > 0 else 1.0


class ResidualRun:
    """The state of one run."""

    def __init__(
        self, options: Residual, problem: ControlProblem, start: Any, seed: int
    ) -> None:
        self.rng, given = np.random.default_rng(seed), problem
        if given.horizon is not None:
            problem = TimedProblem.of(given)
        self.options, self.target = options, problem
        self.held_out = held_out_states(problem, 300, self.rng)
        self.ends = Ends.of(problem, self.held_out, np.random.default_rng(seed))
        rate, size = typical_sizes(problem, self.held_out, self.ends, self.rng)
        self.epsilons = (0.0,)
        if options.schedule is not None:
            self.epsilons = options.schedule.values(rate)
        self.problem = with_noise(problem, self.epsilons[0])
        bump = bump_of(given, problem, size, self.rng)
        lift, self.miss = lift_of(problem, not options.direct, self.rng)
        source = torch.Generator().manual_seed(seed)
        net = MLP(problem.dimension, 1, tuple(options.hidden), generator=source)
        self.model = AnsatzNetwork(net, lift, bump)
        self.policy: Policy = GreedyPolicy(self.problem, self.model)
        self.words = "random weights, no policy"
        if not options.direct:
            with torch.no_grad():
                net.weights[-1].zero_()
            self.policy, self.words = self._start(given, start)
        self.history: list[dict[str, Any]] = []
        self.seconds: dict[str, float] = {}
        self.status, self.best_residual = "not converged", np.inf
        self.best = self.model.copy()
        self.last = self.model.value(self.held_out)
        self.checkpoint = checkpoint_of(self, seed)
        self.place = Place(self.rng.bit_generator.state)

    def _start(self, given: ControlProblem, start: Any) -> tuple[Policy, str]:
        if isinstance(self.target, TimedProblem):
            return timed_start(given, self.target, start, self.rng)
        return admissible_start(self.problem, start, self.rng)

    def train(self, progress: bool) -> None:
        """Adam at the first level of noise, then policies at every level."""
        began = time.perf_counter()
        arrays = resume(self)
        if self.place.adam_step < self.options.adam_steps:
            adam_stage(self, arrays)
        middle = time.perf_counter()
        left = self.epsilons[self.place.level :]
        for epsilon, _ in bar_over(
            left, left, progress, "noise level", lambda: last_of(self.history)
        ):
            self.problem = with_noise(self.target, epsilon)
            self._level(epsilon, epsilon == self.epsilons[-1])
        self.seconds = {
            "adam": middle - began,
            "levenberg-marquardt": time.perf_counter() - middle,
        }

    def draw(self, n: int) -> Equation:
        """The equation at n new states; an exit has rows where no bump holds it."""
        held = self.model.bump.region is not None
        return Equation.draw(self.problem, n, self.rng, exit_rows=not held)

    def keep_at(self, equation: Equation) -> KeptTables:
        """Find out once what no weight changes at the states of a level.

        Lift and bump are kept by the model, what the problem is by the tables.
        """
        sets = (*equation.sets, self.held_out)
        self.model = self.model.beside(*sets)
        return KeptTables(self.problem, sets)

    def _level(self, epsilon: float, final: bool) -> None:
        """Policies until V settles; the best value is kept at the last level."""
        options, place, net = self.options, self.place, self.model.net
        n = round(options.points_per_weight * sum(v.numel() for v in net.parameters()))
        self.rng.bit_generator.state = place.random
        equation = self.draw(n)
        kept = self.keep_at(equation)
        model = self.model
        fitter = Marquardt(model, place.damping)
        if self.history or options.direct or options.adam_steps:
            self.policy = GreedyPolicy(self.problem, model, kept=kept)
        for k in range(place.policies, options.max_policies if final else 4):
            a = self.policy(equation.x)
            policy = self.policy
            if isinstance(policy, GreedyPolicy):
                depth = DEPTH * 0.5**k
                policy = GreedyPolicy(self.problem, model.copy(), depth, kept)
            if options.direct:
                descend(equation, fitter, a, policy)
            else:
                evaluate_policy(equation, fitter, a, policy, options.steps)
            self.policy = GreedyPolicy(self.problem, model, kept=kept)
            better = self._record(epsilon, final, kept)
            place.since = 0 if better else place.since + 1
            place.policies, place.damping = k + 1, fitter.lam
            if self._settled(k, place.since):
                break
            keep(self)
        state = self.rng.bit_generator.state
        self.place = Place(state, place.level + 1, place.adam_step)
        keep(self)

    def _settled(self, k: int, since: int) -> bool:
        """Whether the level ends after its k-th policy, and in which status."""
        tolerance, change = self.options.tolerance, self.history[-1]["value_change"]
        self.status = "not converged"
        if change <= tolerance and k:
            self.status = "converged"
        elif since >= PATIENCE:
            self.status = "stagnated" if change <= 1e3 * tolerance else "not converged"
        else:
            return False
        return True

    def _record(self, epsilon: float, final: bool, kept: KeptTables) -> bool:
        """Enter one policy; whether its residual is 10 % below the best so far."""
        x, problem, model = self.held_out, self.problem, self.model
        a = greedy_policy(problem, model, x, kept=kept)
        gaps = np.abs(hjb_residual(problem, model, x, a))
        misfit = self.ends.misfit(model)
        residual = float(np.sqrt((gaps**2).mean())) + misfit
        values = model.value(x)
        size = max(float(np.abs(values).max()), 1e-300)
        bound = float((gaps * row_scale(problem, x, a)).max())
        self.history.append(
            {
                "stage": f"epsilon {epsilon:.3g}" if epsilon else "policies",
                "iteration": len(self.history) + 1,
                "residual": residual / size,
                "residual_bound": self._bound(bound) + misfit,
                "value_change": float(np.abs(values - self.last).max()) / size,
            }
        )
        self.last = values
        better = residual < 0.9 * self.best_residual
        if final and residual < self.best_residual:
            self.best = model.copy()
            self.best_residual = residual
        return better

    def _bound(self, residual: float) -> float:
        """What a residual can do to V: over rho, else times the expected time."""
        problem, x = self.problem, self.held_out
        rho = float(np.asarray(problem.discount_at(x)).min())
        if isinstance(problem, TimedProblem):
            assert problem.domain is not None
            return residual / max(rho, 1.0 / float(problem.domain.width[-1]))
        if rho > 0:
            return residual / rho
        assert problem.domain is not None
        basis = FeatureBasis.draw(problem.domain, 60, 1.5, np.random.default_rng(0))
        system = Collocation.build(problem, basis, 3.0, np.random.default_rng(0))
        policy = GreedyPolicy(problem, self.model)
        fit = system.solve(policy, policy(system.x), 1e-9)
        times = fit.survival.value(x)
        return residual * float(times.max()) if times.min() > 0 else np.inf

    def _words_on_ends(self) -> str:
        if self.target.exit is None:
            return f"ansatz misses the given faces by {self.miss:.1e}"
        return (
            "value misses the data on the exit's surface and at the horizon by "
            f"{self.ends.misfit(self.best):.1e}"
        )

    def outcome(self) -> Outcome:
        """The best value of the last level with everything the report says."""
        last = self.history[-1]
        stop = {
            "converged": "stopped: V changed by less than the tolerance",
            "stagnated": "stopped: the residual no longer falls",
            "not converged": "stopped: policies ran out or cycle; best one kept",
        }[self.status]
        checks = [
            f"start: {self.words}",
            f"{stop} (last change {last['value_change']:.1e})",
            self._words_on_ends(),
            "a small residual is no error bar: compare with a grid (cross_check)",
        ]
        if self.epsilons[-1] > 0:
            checks.append(
                f"artificial noise left in: epsilon = {self.epsilons[-1]:.3g}"
            )
        return Outcome(
            model=self.best.beside(),
            actor=None,
            status=self.status,
            history=self.history,
            residuals=tuple(h["residual_bound"] for h in self.history),
            checks=tuple(checks),
            seconds=self.seconds,
            details={"weights": sum(v.numel() for v in self.model.net.parameters())},
        )
