"""Model-free Q-learning in continuous time, from transitions alone."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hjbpde.boundary import Reflecting, StateConstraint
from hjbpde.errors import MethodMismatch, ProblemError
from hjbpde.problem import ControlProblem
from hjbpde.report import Report
from hjbpde.sets import Box

from .checkpoint import Checkpoint
from .networks import check_tensors
from .options import check_count, check_file, check_number
from .outcome import Outcome
from .q_networks import Batch, Fitting, QNetworks, train_little_q
from .q_task import QTask, linear_policy, network_value, policy_of, quadratic_value
from .quadratic_q import (
    Moments,
    QuadraticAnswer,
    Regression,
    solve_fitted_q,
    solve_little_q,
)
from .solution import LearnedSolution
from .td_networks import train_td
from .transitions import Transitions, sample_transitions

Array = NDArray[np.float64]
BLOCKS = 10
"""Jackknife blocks behind the policy's standard error."""


@dataclass(frozen=True)
class LinearQuadratic:
    """V and Q quadratic: regressions in closed form, milliseconds, any dimension."""


@dataclass(frozen=True)
class LittleQ:
    """``r + (L^a - rho) V - q = 0`` with ``max_a q = 0``, in expectation.

    Parameters
    ----------
    order : 1 or 2
        Of the difference that stands for L^a V: bias O(dt^order), noise
        ``(n dt)^-1/2``. Order 2 needs controls held for two steps.
    approximator : LinearQuadratic or QNetworks

    Source: Jia and Zhou, JMLR 24 (2023) 161, equations 20-21 (q and its martingale
    characterisation); order 2 after Zhu, PhiBE, arXiv 2405.12535.
    """

    order: int = 2
    approximator: LinearQuadratic | QNetworks = field(default_factory=LinearQuadratic)

    def __post_init__(self) -> None:
        if self.order not in (1, 2):
            raise ProblemError(f"LittleQ: order = {self.order}; give 1 or 2.")
        _checked(self.approximator)


@dataclass(frozen=True)
class TemporalDifference:
    """The article's form: ``Q(x, a) ~ r dt + e^(-rho dt) max_a' Q(x', a')``.

    Q = V + dt q: the policy hangs on a part of size dt, which a fixed approximator
    loses as dt -> 0 (in the exact class it does not; it only takes 1 / (rho dt)
    sweeps for every factor e).

    Parameters
    ----------
    approximator : LinearQuadratic or QNetworks
    tolerance : float
        On the change that all further sweeps would add (linear-quadratic class).
    max_sweeps : int
    """

    approximator: LinearQuadratic | QNetworks = field(default_factory=LinearQuadratic)
    tolerance: float = 1e-5
    max_sweeps: int = 200_000

    def __post_init__(self) -> None:
        check_number("TemporalDifference", "tolerance", self.tolerance)
        check_count("TemporalDifference", "max_sweeps", self.max_sweeps)
        _checked(self.approximator)


def _checked(approximator: Any) -> None:
    if not isinstance(approximator, LinearQuadratic | QNetworks):
        raise ProblemError(
            f"QLearning: approximator is {approximator!r}; give "
            "neural.LinearQuadratic() or neural.QNetworks(...)."
        )


@dataclass(frozen=True)
class QLearning:
    """Learn V and the policy without calling drift, diffusion or payoff.

    Parameters
    ----------
    form : LittleQ or TemporalDifference
    transitions : Transitions, optional
        Your own; default `samples` steps of the problem's simulator, `dt` apart.
    samples : int
    dt : float
        Step of the sampled transitions; the bias falls and the noise grows as it
        does, see ``report.details["time_step_bias"]`` and ``["policy_noise"]``.
    spread : float
        How far infinite sides of the control set are explored.
    checkpoint : str or Path, optional
        File written after every sweep of networks; a run that finds it goes on from
        there and gives the bits of one that was never interrupted.
    precision : torch.dtype
        In which networks are trained, torch.float64 or torch.float32. Transitions,
        targets and the answer are float64.
    device : str
        Where networks are trained, as torch names it.

    Raises
    ------
    ProblemError
        Options out of range, a checkpoint of another run, transitions that do not
        fit the problem or do not explore. MethodMismatch: a discount that varies,
        faces that end paths with data, finite control sets.
    """

    form: LittleQ | TemporalDifference = field(default_factory=LittleQ)
    transitions: Transitions | None = None
    samples: int = 20_000
    dt: float = 0.05
    spread: float = 4.0
    checkpoint: str | Path | None = field(default=None, repr=False)
    precision: torch.dtype = torch.float64
    device: str = "cpu"

    def __post_init__(self) -> None:
        if not isinstance(self.form, LittleQ | TemporalDifference):
            raise ProblemError(
                f"QLearning: form is {self.form!r}; give neural.LittleQ(...) or "
                "neural.TemporalDifference(...)."
            )
        if self.transitions is not None and not isinstance(
            self.transitions, Transitions
        ):
            raise ProblemError("QLearning: transitions must be neural.Transitions.")
        check_number("QLearning", "dt", self.dt)
        check_count("QLearning", "samples", self.samples, 8)
        check_number("QLearning", "spread", self.spread)
        check_file("QLearning", self.checkpoint)
        check_tensors("QLearning", self.precision, self.device)
        if not isinstance(self.form.approximator, QNetworks):
            self._check_plain()

    def _check_plain(self) -> None:
        """Refuse what only networks have."""
        plain = {"checkpoint": None, "precision": torch.float64, "device": "cpu"}
        for name, value in plain.items():
            if getattr(self, name) != value:
                raise ProblemError(
                    f"QLearning: {name}= is for networks; the linear-quadratic class "
                    "takes milliseconds, in float64 and without a file. Leave it out, "
                    "or give approximator=neural.QNetworks(...)."
                )

    @property
    def label(self) -> str:
        """What runs, in words."""
        return f"Q-learning, {self.form}"

    def learn(self, problem: ControlProblem, seed: int, progress: bool) -> Outcome:
        """Sample where nothing was given, then fit."""
        _refuse(problem)
        data = self.transitions
        if data is None:
            data = sample_transitions(
                problem, self.samples, self.dt, seed=seed, hold=3, spread=self.spread
            )
        shape = (data.states.shape[1], data.controls.shape[1])
        if shape != (problem.dimension, problem.n_controls):
            raise ProblemError(
                f"QLearning: the transitions have {shape[0]} states and {shape[1]} "
                f"controls, the problem {problem.dimension} and {problem.n_controls}."
            )
        _check_states(data, problem.domain)
        task = QTask(data, float(problem.discount), problem.sign, problem.controls)
        return self._solve(task, seed, progress, problem)

    def fit(
        self,
        transitions: Transitions,
        *,
        controls: Box,
        domain: Box,
        discount: float,
        maximise: bool = True,
        seed: int = 0,
        progress: bool = False,
    ) -> LearnedSolution:
        """The same without a problem: only transitions, the sets and the discount.

        Parameters
        ----------
        maximise : bool
            True where payoffs are rewards, False where they are costs.

        Returns
        -------
        LearnedSolution with ``problem=None``; its region is the box of the states
        seen, cut to the domain.
        """
        if not isinstance(transitions, Transitions):
            raise ProblemError("QLearning.fit: transitions must be neural.Transitions.")
        check_count("QLearning.fit", "seed", seed, 0)
        check_number("QLearning.fit", "discount", discount)
        _check_box("controls", controls, transitions.controls.shape[1])
        _check_box("domain", domain, transitions.states.shape[1])
        _check_states(transitions, domain)
        began = time.perf_counter()
        task = QTask(transitions, discount, 1.0 if maximise else -1.0, controls)
        outcome = self._solve(task, seed, progress, None)
        report = Report(
            status=outcome.status,
            method=self.label,
            iterations=len(outcome.residuals),
            residuals=outcome.residuals,
            seconds={"learn": time.perf_counter() - began},
            checks=outcome.checks,
            fallbacks=outcome.fallbacks,
            details=outcome.details,
        )
        x = domain.clip(transitions.states)
        region = Box(x.min(0), x.max(0))
        return LearnedSolution(
            None, domain, region, report, outcome.model, outcome.actor
        )

    def _solve(
        self, task: QTask, seed: int, progress: bool, problem: ControlProblem | None
    ) -> Outcome:
        order = self.form.order if isinstance(self.form, LittleQ) else 1
        if order == 2 and not task.data.is_second_order:
            raise ProblemError(
                "QLearning: order=2 needs later_states (x_{t+2dt} under the same "
                "control); hold controls for two steps, or take LittleQ(order=1)."
            )
        began = time.perf_counter()
        if isinstance(self.form.approximator, QNetworks):
            outcome = self._networks(task, order, seed, progress, problem)
        else:
            outcome = self._quadratic(task, order, problem)
        return replace(outcome, seconds={"learn": time.perf_counter() - began})

    def _quadratic(
        self, task: QTask, order: int, problem: ControlProblem | None
    ) -> Outcome:
        answer = self._answer(task, order)
        noise, bias = self._spread(task, order, answer)
        details = {
            "transitions": len(task.data),
            "dt": task.data.dt,
            "policy_noise": noise,
            "time_step_bias": bias,
            "gain": (answer.gain * task.scales.spread[:, None]).tolist(),
        }
        return Outcome(
            quadratic_value(answer, task),
            linear_policy(answer, task, problem),
            "converged" if answer.converged else "not converged",
            [{"change": c} for c in answer.changes],
            answer.changes,
            details=details,
        )

    def _answer(self, task: QTask, order: int) -> QuadraticAnswer:
        posed = Regression.of(task.data, order, task.rho, task.sign, task.scales)
        answer = self._from(posed.moments(), task)
        weights = posed.weights(posed.moments(), answer.value)
        return self._from(posed.moments(weights), task)

    def _from(self, moments: Moments, task: QTask) -> QuadraticAnswer:
        if isinstance(self.form, LittleQ):
            return solve_little_q(moments)
        form = self.form
        return solve_fitted_q(
            moments, task.data.dt, task.rho, form.tolerance, form.max_sweeps
        )

    def _spread(
        self, task: QTask, order: int, answer: QuadraticAnswer
    ) -> tuple[float | None, float | None]:
        """Jackknife error of the gain, and how far the other order's gain is."""
        if not isinstance(self.form, LittleQ) or len(task.data) < 50 * BLOCKS:
            return None, None
        size, n = float(np.linalg.norm(answer.gain)) or 1.0, len(task.data)
        gains = []
        for k in range(BLOCKS):
            keep = np.ones(n, bool)
            keep[k * n // BLOCKS : (k + 1) * n // BLOCKS] = False
            part = replace(task, data=task.data.rows(keep))
            gains.append(self._answer(part, order).gain)
        around = np.stack(gains) - np.mean(gains, axis=0)
        noise = float(np.sqrt((BLOCKS - 1) / BLOCKS * (around**2).sum()) / size)
        if not task.data.is_second_order:
            return noise, None
        other = self._answer(task, 3 - order).gain
        gap = float(np.linalg.norm(other - answer.gain)) / size
        # Order 2 leaves about the square of what separates it from order 1.
        return noise, gap if order == 1 else gap**2

    def _file(self, task: QTask, seed: int) -> Checkpoint:
        """The checkpoint of these options, this seed and these transitions."""
        kind = f"{self.precision} on {self.device}"
        identity = f"{self.form}, {kind}, seed {seed}"
        return Checkpoint.at(self.checkpoint, "QLearning", identity, task.numbers())

    def _networks(
        self,
        task: QTask,
        order: int,
        seed: int,
        progress: bool,
        problem: ControlProblem | None,
    ) -> Outcome:
        options = self.form.approximator
        assert isinstance(options, QNetworks)
        generator = torch.Generator().manual_seed(seed)
        kind = {"dtype": self.precision, "device": self.device}
        data = Batch.of(task.data, order, task.sign, task.scales, **kind)
        low, high = (bound.to(**kind) for bound in task.scaled_box())
        file = self._file(task, seed)
        given = Fitting(data, options, task.rho, (low, high), generator, file, progress)
        train = train_little_q if isinstance(self.form, LittleQ) else train_td
        answer = train(given)
        good = all(torch.isfinite(p).all() for p in answer.value.parameters())
        steady = isinstance(self.form, LittleQ) and answer.changes[-1] < 0.05
        details = {
            "transitions": len(task.data),
            "dt": task.data.dt,
            "gradient_norms": list(answer.gradients),
            "layer_share": answer.layer_share,
            "saturated": task.saturation(answer),
            "rounding": task.rounding(answer, torch.finfo(self.precision).eps),
        }
        status = "converged" if steady else "not converged"
        return Outcome(
            network_value(answer, task),
            policy_of(answer.actor, task, problem),
            status if good else "diverged",
            [{"change": c} for c in answer.changes],
            answer.changes,
            details=details,
        )


def _check_box(name: str, given: Any, size: int) -> None:
    """Refuse what is no box of `size` axes with constant bounds."""
    if not isinstance(given, Box) or given.varies or given.dimension != size:
        raise ProblemError(
            f"QLearning.fit: {name} = {given}; give an hjb.Box of {size} axes with "
            "constant bounds, as the transitions have."
        )


def _check_states(data: Transitions, domain: Box | None) -> None:
    """Refuse transitions most of which start outside the domain."""
    assert domain is not None
    inside = float(domain.contains(data.states).mean())
    if inside < 0.5:
        raise ProblemError(
            f"QLearning: only {inside:.0%} of the transitions start in the domain "
            f"{domain}; nothing could be learned about the rest of it. Give "
            "transitions from the domain, or fit the domain to them."
        )


def _refuse(problem: ControlProblem) -> None:
    if callable(problem.discount):
        raise MethodMismatch("QLearning: discount must be a number, not a function.")
    if not isinstance(problem.controls, Box) or problem.controls.varies:
        raise MethodMismatch(
            "QLearning: controls must be a Box with constant bounds; a Finite set "
            "fits PolicyIteration or the grid."
        )
    for face, rule in problem.faces.items():
        if rule is not None and not isinstance(rule, Reflecting | StateConstraint):
            raise MethodMismatch(
                f"QLearning: paths end at {face} with data that transitions do not "
                "show. Use Reflecting, StateConstraint or no rule, or the grid."
            )
