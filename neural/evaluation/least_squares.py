"""Policy iteration on random features: one linear least-squares solve a policy."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hjbpde.errors import MethodMismatch, ProblemError
from hjbpde.point_tables import KeptTables
from hjbpde.problem import ControlProblem
from hjbpde.progress import bar_over, last_of
from hjbpde.state_constraint import is_constrained

from ..admissible import admissible_start, timed_start
from ..collocation import Collocation, PolicyFit, importance
from ..constrained_face import DEPTH
from ..features import FeatureBasis, FeatureValue
from ..options import check_count, check_number
from ..outcome import GreedyPolicy, Outcome
from ..start import Policy
from ..time_state import TimedProblem
from ..value_model import greedy_policy, hjb_residual, row_scale
from .held_out import held_out_error
from .stopping import learn_stopping

Array = NDArray[np.float64]

FEATURES = {1: 100, 2: 400, 3: 800, 4: 2000}
SCALES = {1: (2.0, 4.0, 8.0, 16.0), 2: (0.7, 1.0, 2.0), 3: (0.5, 0.7, 1.0)}
DEAR = 1500
"""Features from which half as many come first: a policy of theirs costs an eighth, and
saves one with all features."""
PATIENCE = 4
DAMPED_AFTER = 2
"""Policies without a smaller residual before steps are halved; below PATIENCE."""
SMALL = 1e3
"""Changes of V below this many tolerances are a floor, no cycle."""
ROUND_OFF = 1e-11
"""Residuals below this, in units of V, say nothing about which basis is better."""


@dataclass(frozen=True)
class LeastSquares:
    """Solve ``rho V = r + L^a V`` for random tanh features in float64, by QR.

    Each policy costs one least-squares problem with ``points_per_feature`` rows a
    feature, 2 N M^2 flops for M features; the greedy step is exact. Weights are in
    units of V: the value starts from constant, linear and quadratic terms as well.

    Order: spectral for smooth V in low dimension (measured relative errors 1e-12 in
    1-D, 1e-9 in 2-D, 1e-5 in 4-D; in 10-D the gradient is 5 to 9 times closer than
    `linear_quadratic`, no more); no gain where V has kinks. Needs an admissible
    start: from another the equation has further smooth solutions, with residual zero.

    The report estimates how far V may be off from the residual at new states
    (`neural.evaluation.held_out`) and says where; a run that has settled but may be off
    by more than 1e-2 of sup|V| is "not converged". Kinks and thin layers end so.

    Against limit cycles: after two policies without a smaller held-out residual, while
    V moves no less than before, every further policy is greedy for the mean of the
    last policy's value and of the one it was greedy for; after four the run stops with
    its best.

    With a horizon V(x, t) is one value of d + 1 states: rows ``rho V - V_t = r + L^a
    V`` on 32 times and V(x, T) = g(x) at the end (measured 1e-9 in 1-D, 1e-6 in 2-D);
    a kink of g limits the accuracy at all times, and across artificial faces that
    paths reach before T the value is continued smoothly, whatever lies outside.
    With an exit there are rows V = g on the surface phi = 0 (measured 1e-9 in 2-D);
    it needs noise or drift that crosses the surface everywhere, and a region whose
    holes are no smaller than the features resolve.

    On a face with a state constraint the equation itself has rows, with the maximiser
    among the controls that lead across no face (measured 1e-10 in 1-D, 3e-5 in 2-D;
    1e-5 to 6e-5 where a borrowing limit binds and V bends like a root there).

    With rights to stop, `neural.evaluation.stopping`: the value of going on is learned
    where one goes on, the surface moved until smooth fit holds (measured 1e-13 in 1-D,
    2e-8 in 2-D, 2e-6 in 3-D; American puts 1e-3 of the strike). It needs noise across
    the surface, at most eight states, four with a horizon and time included, and data
    on faces that fit psi where the surface meets them; pieces closer than features
    resolve cost digits. From five states on the surface is a level of a smooth function
    (`neural.level_set`): 1e-5 to 3e-2 in five, more in six to eight, where many runs
    end as "not converged"; the report estimates how far V may be off.

    Parameters
    ----------
    features : int, optional
        M; by dimension when None (100, 400, 800, 2000, then 1400), time counting as
        a dimension; 800 where one may stop before a horizon in one state.
    scales : sequence of float, optional
        Slopes of the features on the box scaled to [-1, 1], the best chosen by the
        HJB residual on held-out states.
    points_per_feature : float
        At least 1.2; 4 or more are taken where one may stop before a horizon in one
        state.
    regularisation : float
        Tikhonov weight relative to the system, in [0, 1e-3].
    max_policies : int
    tolerance : float
        On the change of V between policies relative to sup|V|; convergence is
        quadratic, so the last change bounds more than the iteration's own error.

    Raises
    ------
    ProblemError
        Options outside these ranges.

    Source: Meng et al., "Physics-informed neural network policy iteration", ICML
    2024 (arXiv 2402.10119), algorithm ELM-PI.
    """

    features: int | None = None
    scales: Sequence[float] | None = None
    points_per_feature: float = 1.7
    regularisation: float = 1e-11
    max_policies: int = 30
    tolerance: float = 1e-7
    takes: ClassVar[tuple[str, ...]] = ("horizon", "exit", "stop")

    def __post_init__(self) -> None:
        owner, points = "LeastSquares", self.points_per_feature
        if self.features is not None:
            check_count(owner, "features", self.features)
        check_count(owner, "max_policies", self.max_policies)
        check_number(owner, "tolerance", self.tolerance)
        check_number(owner, "points_per_feature", points, 1.2, equal=True)
        check_number(owner, "regularisation", self.regularisation, equal=True)
        if self.regularisation > 1e-3:
            raise ProblemError(
                f"{owner}: regularisation = {self.regularisation}; give 1e-3 or less."
            )
        for scale in () if self.scales is None else np.atleast_1d(self.scales):
            check_number(owner, "an entry of scales", scale)

    def learn(
        self, problem: ControlProblem, start: Any, seed: int, progress: bool
    ) -> Outcome:
        """Choose the scale on a smaller basis, then iterate on the full one."""
        if problem.stop is not None:
            if is_constrained(problem):
                raise MethodMismatch(
                    "LeastSquares: a right to stop beside a face with StateConstraint "
                    "is not taken; solve this problem on a grid (hjbpde.solve)."
                )
            return learn_stopping(self, problem, start, seed, progress)
        began, rng = time.perf_counter(), np.random.default_rng(seed)
        if problem.horizon is None:
            policy, words = admissible_start(problem, start, rng)
        else:
            problem, given = TimedProblem.of(problem), problem
            policy, words = timed_start(given, problem, start, rng)
        full, small, scales = self.sizes(problem.dimension)
        trials: list[_Run] = []
        for scale, _ in bar_over(scales, scales, progress, "feature scale"):
            basis = FeatureBasis.draw(problem.domain, small, scale, rng)  # type: ignore[arg-type]
            trials.append(self._run(problem, basis, policy, rng, False, "scale"))
        chosen = min(range(len(scales)), key=lambda k: trials[k].best_residual)
        best, middle = trials[chosen], time.perf_counter()
        for stage, count, method in self._stages(full) if small != full else ():
            if best.best is None:
                break
            coarse = best
            basis = FeatureBasis.draw(problem.domain, count, scales[chosen], rng)  # type: ignore[arg-type]
            warm = GreedyPolicy(problem, coarse.best)
            best = method._run(problem, basis, warm, rng, progress, stage)
            trials.append(best)
            if best.best_residual > max(3.0 * coarse.best_residual, ROUND_OFF):
                coarse.fallback = "the smaller basis is kept: it had less residual"
                best = coarse
        seconds = {
            "scale selection": middle - began,
            "iteration": time.perf_counter() - middle,
        }
        history = [entry for run in trials for entry in run.history]
        return best.outcome(words, history, seconds, scales[chosen])

    def sizes(self, d: int) -> tuple[int, int, tuple[float, ...]]:
        """Features in the end and for the choice of scale, and the scales, in d."""
        full = self.features or FEATURES.get(d, 1400)
        small = full if d == 1 else max(20, full // 4)
        return full, small, tuple(self.scales or SCALES.get(d, (0.35, 0.5, 0.7)))

    def _stages(self, full: int) -> tuple[tuple[str, int, LeastSquares], ...]:
        """Name, features and options of the runs that follow the choice of scale."""
        last = ("full", full, self)
        if full < DEAR:
            return (last,)
        # A full policy squares the error, so half as many digits are enough here.
        rough = replace(self, tolerance=self.tolerance**0.5)
        return ("half", full // 2, rough), last

    def _run(
        self,
        problem: ControlProblem,
        basis: FeatureBasis,
        policy: Policy,
        rng: np.random.Generator,
        progress: bool,
        stage: str,
    ) -> _Run:
        system = Collocation.build(problem, basis, self.points_per_feature, rng)
        run = _Run(problem, system, stage)
        a = policy(system.x)
        steps = range(self.max_policies)
        for k, _ in bar_over(
            steps, steps, progress, "policy", lambda: last_of(run.history)
        ):
            fit = system.solve(policy, a, self.regularisation, run.best)
            a = run.record(fit, a)
            if run.finished(self.tolerance, k):
                break
            value, a = run.next_value(fit.value, a, self.tolerance)
            policy = GreedyPolicy(problem, value, DEPTH * 0.5**k, run.kept)
        return run


@dataclass(eq=False)
class _Run:
    """One policy iteration on one basis, its best iterate and its history."""

    problem: ControlProblem
    system: Collocation
    stage: str
    best: FeatureValue = None  # type: ignore[assignment]
    best_residual: float = np.inf
    asked: FeatureValue = None  # type: ignore[assignment]
    status: str = "not converged"
    fallback: str = ""

    def __post_init__(self) -> None:
        self.history: list[dict[str, Any]] = []
        self.last = np.zeros(len(self.system.held_out))
        self.began = time.perf_counter()
        self.since_best = 0
        self.n_open = self.damped = 0
        on_faces = (face.points.x for face in self.system.faces)
        sets = (self.system.x, self.system.held_out, *on_faces)
        self.kept = KeptTables(self.problem, sets)

    def record(self, fit: PolicyFit, a: Array) -> Array:
        """Take in a new value; return its greedy controls at the points."""
        problem, x = self.problem, self.system.held_out
        model = fit.value
        self.n_open = len(fit.open_faces)
        if not np.isfinite(model.coefficients).all():
            self.status = "diverged"
            return a
        greedy = greedy_policy(problem, model, self.system.x, a, self.kept)
        at_held_out = greedy_policy(problem, model, x, kept=self.kept)
        gaps = np.abs(hjb_residual(problem, model, x, at_held_out))
        relative = gaps * importance(model, x, x)
        scale = row_scale(problem, x, at_held_out)
        misfit = self.system.ends.misfit(model)
        bound = self._bound(float((gaps * scale).max()), fit) + misfit
        values = model.value(x)
        size = max(float(np.abs(values).max()), 1e-300)
        spread = max(float(np.abs(greedy).max(initial=0.0)), 1e-300)
        residual = max(float(relative.max()), misfit)
        self.history.append(
            {
                "stage": self.stage,
                "iteration": len(self.history) + 1,
                "residual": residual / size,
                "residual_bound": bound,
                "value_change": float(np.abs(values - self.last).max()) / size,
                "policy_change": float(np.abs(greedy - a).max(initial=0.0)) / spread,
                "seconds": time.perf_counter() - self.began,
            }
        )
        self.last = values
        self.since_best += 1
        if residual < 0.9 * self.best_residual:
            self.since_best = 0
        if residual < self.best_residual:
            self.best, self.best_residual = model, residual
        return greedy

    def _bound(self, residual: float, fit: PolicyFit) -> float:
        """What a residual can do to V: over rho, else times the expected time."""
        x = self.system.held_out
        rho = float(np.asarray(self.problem.discount_at(x)).min())
        if rho > 0:
            return residual / rho
        return residual * float(fit.survival.value(x).max())

    def finished(self, tolerance: float, k: int) -> bool:
        """Stop when V settles, breaks, or cycles without getting better."""
        if self.status == "diverged":
            return True
        if k and self.history[-1]["value_change"] <= tolerance:
            self.status = "converged"
        elif self.since_best >= PATIENCE:
            small = self.history[-1]["value_change"] <= SMALL * tolerance
            self.status = "stagnated" if small else "not converged"
        else:
            return False
        return True

    def next_value(
        self, new: FeatureValue, a: Array, tolerance: float
    ) -> tuple[FeatureValue, Array]:
        """What the next policy is greedy for, and that policy (n, m) at the points.

        `new` is the value of the policy that was greedy for `asked`; a is greedy for
        `new`. Their mean, not that with the best: in a cycle of two policies the best
        comes back with every second one, and its mean with itself is no step. Once
        begun it goes on: full steps between would swing out again.
        """
        if self.damped or self._cycles(tolerance):
            mean = 0.5 * (new.coefficients + self.asked.coefficients)
            new = FeatureValue(new.basis, mean)
            a = greedy_policy(self.problem, new, self.system.x, a, self.kept)
            self.damped += 1
        self.asked = new
        return new, a

    def _words_on_faces(self) -> str:
        if isinstance(self.problem, TimedProblem):
            return (
                f"artificial faces: {self.n_open} have a say before the horizon and V "
                "is continued smoothly there; compare with a larger domain"
                if self.n_open
                else "artificial faces: none has a say before the horizon"
            )
        return (
            f"artificial faces: {self.n_open} closed by the payoff's growth, the "
            "others have no say (drift comes in fast)"
        )

    def _cycles(self, tolerance: float) -> bool:
        """Whether the residual does not fall and V moves no less than it did."""
        if self.since_best < DAMPED_AFTER or len(self.history) < 2:
            return False
        before, now = (entry["value_change"] for entry in self.history[-2:])
        return bool(now > max(SMALL * tolerance, 0.9 * before))

    def _words_on_damping(self) -> tuple[str, ...]:
        words = f"damping: {self.damped} policies were greedy for a mean of two values"
        return (words,) if self.damped else ()

    def outcome(
        self, words: str, history: list[dict[str, Any]], seconds: Any, scale: float
    ) -> Outcome:
        """The best iterate with everything the report says."""
        if self.best is None:
            raise ProblemError(
                "LeastSquares: the first policy's value is not finite. Check the "
                "functions' size on the domain, or raise `regularisation`."
            )
        n = len(self.system.tables.basis.bias)
        last = self.history[-1]
        timed = isinstance(self.problem, TimedProblem)
        stop = {
            "converged": "stopped: V changed by less than the tolerance",
            "stagnated": "stopped: the residual no longer falls (round-off floor)",
            "not converged": "stopped: policies cycle or ran out; best one kept",
            "diverged": "stopped: an iterate was not finite; last good one kept",
        }[self.status]
        off = held_out_error(self.problem, self.best)
        settled = self.status in ("converged", "stagnated")
        checks = (
            f"start: {words}",
            f"{stop} (last change {last['value_change']:.1e}, policy "
            f"{last['policy_change']:.1e})",
            str(off) if off.is_small else f"{off}; {off.remedy}",
            *self._words_on_damping(),
            self._words_on_faces(),
            "a small residual is no error bar: compare with a grid "
            + ("(hjbpde.solve)" if self.problem.special or timed else "(cross_check)"),
        )
        own = [h["residual_bound"] for h in self.history]
        return Outcome(
            model=self.best,
            actor=None,
            status="not converged" if settled and not off.is_small else self.status,
            history=history,
            residuals=tuple(own),
            checks=checks,
            fallbacks=(self.fallback,) if self.fallback else (),
            seconds=seconds,
            details={
                "features": n,
                "feature_scale": scale,
                "error_estimate": off.size,
                "error_at": list(off.place),
            },
        )
