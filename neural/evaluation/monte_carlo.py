"""The article's policy iteration: Monte Carlo evaluation, networks for V and a."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from hjbpde.boundary import Extrapolate
from hjbpde.errors import MethodMismatch, ProblemError
from hjbpde.problem import ControlProblem
from hjbpde.progress import bar_over, last_of

from ..admissible import admissible_start, timed_start
from ..networks import check_tensors
from ..options import check_count, check_file, check_number, check_widths
from ..outcome import Outcome
from ..time_state import TimedProblem
from .actor import Actor, Ascent, GreedyFit
from .resume import keep_run, resume_run
from .steppers import EulerMaruyama, Heun, Stepper
from .stopping_paths import is_waiting, learn_stopping
from .training import Training

Array = NDArray[np.float64]

PLAIN: dict[str, Any] = {
    "paths": 1024, "hidden": (64, 64), "value_steps": 300, "max_policies": 30
}  # fmt: skip
WAITING: dict[str, Any] = {
    "paths": 4096, "hidden": (32, 32), "value_steps": 100, "max_policies": 24
}  # fmt: skip
"""Beside rights to stop in five and more states: targets there scatter more, and the
options above fit their noise."""


@dataclass(frozen=True)
class MonteCarlo:
    """Regress V on discounted payoffs of simulated paths, tail bootstrapped.

    Targets ``int_0^T e^(-rho s) r ds + e^(-rho T) V(X_T)`` minus the martingale
    ``int e^(-rho s) grad V . sigma dW``; then the actor follows the network's own
    gradient (and Hessian, where the noise is controlled). Weak order of the stepper in
    dt; statistical error like ``paths^-1/2``; the constant part of V contracts by
    ``e^(-rho T)`` a policy.

    Paths end where they enter an exit region or reach a face with a given value, also
    between two steps (`crossing`): order 1 there. Without discount they are followed
    until 99 % of them have ended, the others bootstrapped. With a horizon time is one
    more state of V(x, t), paths end exactly at T in equal steps of dt or less, and the
    answer's policy is the greedy one of V.

    Where a path passes an artificial face it ends, and V goes on with the slope and
    bend that it has there: order 3/2. Two last fits of V are by L-BFGS, to several
    batches at once, until states set apart gain nothing more; the first of them
    follows long paths, because V as a whole comes to rest slowly.

    With rights to stop paths end where they enter the present set and take psi; each
    policy moves the set's surface one Newton step towards smooth fit, found from the
    network's slopes on it (`stopping_paths`). In five and more states, time included,
    no surface is sampled: one stops where psi is better than the learned value of
    waiting (`waiting`), looked at every dt; measured in up to 20 states. There the
    network has psi among its inputs, and fresh paths say in the report how far V is
    from what policy and rule earn. No `checkpoint`.

    On a face with a state constraint paths are held by the best control that leads
    across none, from the moment on at which a step would cross it (`walls`); the
    order is the stepper's without noise, else 1.

    Parameters
    ----------
    paths : int, optional
        Paths a policy, each from its own random state (antithetic pairs share
        their noise, not their start); by default 1024, and 4096 beside rights to stop
        in five and more states, time included.
    dt : float
    horizon : float, optional
        T; default 2 / rho while the first policy is evaluated (nothing to bootstrap
        from), then 1 / (2 rho); with an exit no longer than the first policy's paths
        last. With a horizon of the problem's own, until that.
    stepper : Heun or EulerMaruyama
    control_variate : bool
    hidden : sequence of int, optional
        Widths of both networks; by default (64, 64), there (32, 32).
    value_steps, policy_steps : int, optional
        Adam steps a policy; by default 300, there 100, and 100.
    learning_rate : float
        At the start; falls tenfold over the run.
    max_policies : int, optional
        By default 30, there 24.
    tolerance : float
        On the relative change of V and policy, both, six policies in a row.
    checkpoint : str or Path, optional
        File written after every policy; a run that finds it goes on from there and
        gives the bits of one that was never interrupted.
    richardson : bool
        Simulate every path with dt and dt/2 on the same noise and extrapolate with
        the paths' order: the leading term of the bias is gone, for 3 times the work.
    actor : GreedyFit or Ascent
        How the policy network follows V.
    common_random_numbers : bool
        Every policy starts its paths at the same states and on the same noise, so
        that policies differ by themselves alone and the run settles on one sample;
        the last fit then draws new ones.
    precision : torch.dtype
        In which the networks are trained, torch.float64 or torch.float32. Payoffs,
        targets and the answer are float64.
    device : str
        Where the networks are trained, as torch names it.

    Raises
    ------
    ProblemError
        Options out of range. MethodMismatch: a face whose rule paths cannot follow, a
        checkpoint with a right to stop.

    Source: equations (1) and (2) of the article's section on model-based policy
    iteration; the control variate after Zhou, Han and Lu, SIAM J. Sci. Comput. 43
    (2021), arXiv 2102.11379.
    """

    paths: int = None  # type: ignore[assignment]
    dt: float = 0.05
    horizon: float | None = None
    stepper: Stepper = field(default_factory=Heun)
    control_variate: bool = True
    hidden: Sequence[int] = None  # type: ignore[assignment]
    value_steps: int = None  # type: ignore[assignment]
    policy_steps: int = 100
    learning_rate: float = 5e-3
    max_policies: int = None  # type: ignore[assignment]
    tolerance: float = 1e-2
    checkpoint: str | Path | None = field(default=None, repr=False)
    richardson: bool = False
    actor: Actor = field(default_factory=GreedyFit)
    common_random_numbers: bool = False
    precision: torch.dtype = torch.float64
    device: str = "cpu"
    takes: ClassVar[tuple[str, ...]] = ("exit", "horizon", "stop")

    def __post_init__(self) -> None:
        for name in ("paths", "value_steps", "policy_steps", "max_policies"):
            if getattr(self, name) is not None:
                check_count("MonteCarlo", name, getattr(self, name))
        for name in ("dt", "learning_rate", "tolerance"):
            check_number("MonteCarlo", name, getattr(self, name))
        if self.hidden is not None:
            check_widths("MonteCarlo", self.hidden)
        if self.horizon is not None:
            check_number("MonteCarlo", "horizon", self.horizon, self.dt, equal=True)
        check_file("MonteCarlo", self.checkpoint)
        if not isinstance(self.stepper, Heun | EulerMaruyama):
            raise ProblemError("MonteCarlo: stepper must be Heun() or EulerMaruyama().")
        if not isinstance(self.actor, GreedyFit | Ascent):
            raise ProblemError("MonteCarlo: actor must be GreedyFit() or Ascent().")
        check_tensors("MonteCarlo", self.precision, self.device)

    def filled(self, problem: ControlProblem) -> MonteCarlo:
        """The same with the options that were left out, as this problem wants them."""
        wanted = WAITING if is_waiting(problem) else PLAIN
        missing = {k: v for k, v in wanted.items() if getattr(self, k) is None}
        return replace(self, **missing)

    def learn(
        self, problem: ControlProblem, start: Any, seed: int, progress: bool
    ) -> Outcome:
        """Roll out, fit V, take the greedy step, until nothing moves."""
        for face, rule in problem.faces.items():
            if isinstance(rule, Extrapolate):
                raise MethodMismatch(
                    f"MonteCarlo: paths cannot follow {type(rule).__name__} at {face}. "
                    "Use a grid, or Dirichlet, Reflecting, Robin or no rule there."
                )
        options = self.filled(problem)
        if problem.stop is not None:
            return learn_stopping(options, problem, start, seed, progress)
        rng = np.random.default_rng(seed)
        if problem.horizon is None:
            policy, words = admissible_start(problem, start, rng)
        else:
            problem, given = TimedProblem.of(problem), problem
            policy, words = timed_start(given, problem, start, rng)
        self.actor.check(problem)
        training = Training(options, problem, policy, rng, seed)
        path = None if self.checkpoint is None else Path(self.checkpoint)
        if path is not None:
            resume_run(training, path)
        steps = range(len(training.history), options.max_policies)
        if training.status == "converged":
            steps = range(0)
        for _ in bar_over(
            steps, steps, progress, "policy", lambda: last_of(training.history)
        ):
            over = training.step()
            if path is not None and training.status != "diverged":
                keep_run(training, path)
            if over:
                break
        training.polish()
        return training.outcome(words)
