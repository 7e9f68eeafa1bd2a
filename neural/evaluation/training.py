"""One Monte Carlo run: roll out, fit V, fit the policy, judge, keep."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from hjbpde.errors import ProblemError
from hjbpde.problem import ControlProblem

from ..ends import Ends
from ..networks import MLP, gradient_size, layer_share, like
from ..outcome import HeldActor, Outcome
from ..start import Policy
from ..time_state import TimedProblem
from ..value_model import hjb_residual
from ..value_network import PolicyNetwork, ValueNetwork
from .actor import Schedule, scaled_actor
from .face_penalty import ExitPenalty, FacePenalty, face_penalties
from .first_guess import changes_sign, first_guess, relinked
from .fitting import fit, refuse_lost, settle
from .path_starts import check_states, path_horizons, path_starts
from .rollout import Rollout
from .walls import Walls

if TYPE_CHECKING:
    from .monte_carlo import MonteCarlo

Array = NDArray[np.float64]
SETTLED = 6
"""Policies in a row that must change little before the run may stop."""
FLOOR = 5.0
"""Changes up to this many tolerances, at the end, are the noise of the paths."""
WARM_UP = 8
"""Evaluations of the first policy at most, before the first improvement."""
NOISE = 0.03
"""Scatter of the targets about V, relative to sup|V|, that allows an improvement."""
SETTLING = 3
"""How many times `value_steps` the last fit of V may take after Adam's."""
LONG = 2
"""Batches of long paths that say how far V as a whole is still off."""
POLISHED = 20
"""How many times longer the last policy is fitted: by then it only follows V."""
LOOSE = (
    "; artificial faces hand them the network's own value, so that V is hardly "
    "determined there: state a rule or widen the domain"
)


class Training:
    """The state of one run."""

    def __init__(
        self,
        options: MonteCarlo,
        problem: ControlProblem,
        policy: Policy,
        rng: np.random.Generator,
        seed: int,
    ) -> None:
        assert problem.domain is not None
        self.options, self.problem, self.policy = options, problem, policy
        self.rng, self.seed = rng, seed
        self.check = check_states(problem, 256, rng)
        rate = float(np.asarray(problem.discount_at(self.check)).min())
        rollout = Rollout(problem, options.stepper, options.dt, options.dt)
        self.horizons = path_horizons(rollout, options.horizon, rate, policy)
        self.horizon = self.horizons.later
        self.rollout = replace(
            rollout,
            horizon=self.horizon,
            control_variate=options.control_variate,
            richardson=options.richardson,
        )
        self.ends = Ends.of(problem, self.check, rng)
        source = torch.Generator().manual_seed(seed)
        d, m = problem.dimension, problem.n_controls
        kind = {"dtype": options.precision, "device": options.device}
        self.value_net = MLP(d, 1, options.hidden, generator=source).to(**kind)
        self.policy_net = MLP(d, max(m, 1), options.hidden, generator=source).to(**kind)
        self.value_adam = torch.optim.Adam(self.value_net.parameters())
        self.policy_adam = torch.optim.Adam(self.policy_net.parameters())
        self.model: ValueNetwork | None = None
        self.penalties: list[FacePenalty | ExitPenalty] | None = None
        self.faces_random: Any = None
        self.history: list[dict[str, Any]] = []
        self.status, self.settled, self.began = "not converged", 0, time.perf_counter()
        self.kept: tuple[ValueNetwork, PolicyNetwork | None] | None = None
        self.scale = 0.0
        self.warm_up_noise, self.gradient_norms = list[float](), list[float]()

    def warm_up(self) -> None:
        """Evaluate the first policy until the control variate has removed the noise.

        An improvement on noise may leave the admissible policies for good.
        """
        rollout = replace(self.rollout, horizon=self.horizons.first)
        for _ in range(WARM_UP):
            x = self.starts(self.rng)
            targets, _ = rollout.payoffs(self._followed(), self.model, x, self.rng)
            if self._broken(targets):
                break
            if self.model is None:
                self.model, targets = self.first_guess(x, targets)
            self._fit_value(x, targets)
            assert self.model is not None
            values = self.model.value(x)
            refuse_lost(values, self.options.learning_rate)
            noise = float((targets - values).std() / np.abs(values).max())
            self.warm_up_noise.append(noise)
            if len(self.warm_up_noise) > 2 and noise < NOISE:
                break

    def starts(self, rng: np.random.Generator) -> Array:
        """The states that the paths of a policy start from, (n, d)."""
        return path_starts(self.problem, self.options.paths, rng)

    def first_guess(self, x: Array, targets: Array) -> tuple[ValueNetwork, Array]:
        """The model, and what it is fitted to first, from targets (n,) at x (n, d)."""
        return first_guess(self.value_net, self.problem, x, targets, self.ends)

    def step(self) -> bool:
        """Improve and evaluate once; True when the run is over."""
        if self.model is None:
            self.warm_up()
            if self.model is None:
                self.status = "diverged"
                return True
            self._improve()
            self.keep()
        rng = self._random()
        x = self.starts(rng)
        targets, stopped = self.rollout.payoffs(self._followed(), self.model, x, rng)
        if self._broken(targets):
            self.status = "diverged"
            return True
        assert self.model is not None
        before, a_before = self.model.value(self.check), self._followed()(self.check)
        loss = self._fit_value(x, targets)
        if self._broken(self.model.value(self.check)):
            self.status = "diverged"
            return True
        self._improve()
        self._record(before, a_before, loss, stopped)
        self.keep()
        return self.status == "converged"

    def polish(self) -> None:
        """Fit V to the end, to several batches at once, and let the actor follow.

        The noise of one batch bends the network where the next would bend it back.
        Where the first policy's paths were longer than later ones, such paths are
        fitted first: what V's constant part still lacked when the run stopped falls
        by e^(-rho T) of that T at once.
        """
        if self.status == "diverged" or not self.history:
            return
        changes = ("value_change", "policy_change")
        late = [h[name] for h in self.history[-SETTLED:] for name in changes]
        if (
            self.status == "not converged"
            and max(late) < FLOOR * self.options.tolerance
        ):
            self.status = "stagnated"
        stages = [(self.horizons.later, 2 * SETTLED)]
        if self.horizons.first > self.horizons.later:
            stages.insert(0, (self.horizons.first, LONG))
        batches: list[tuple[Array, Array]] = []
        for horizon, count in stages:
            batches += [self._batch(horizon) for _ in range(count)]
            if not self._settle(batches, self._batch(horizon)):
                return
            self.keep()

    def _settle(
        self, batches: list[tuple[Array, Array]], apart: tuple[Array, Array]
    ) -> bool:
        """Fit V to batches of states and targets and let the actor follow, to the end.

        One more batch says when to stop. False where something is not finite.
        """
        x, targets = (np.concatenate(part) for part in zip(*batches, strict=True))
        if self._broken(targets) or self._broken(apart[1]):
            return False
        self._fit_value(x, targets)
        steps = SETTLING * self.options.value_steps
        settle(
            self.value_net, self._rows(x, targets), self._rows(*apart), steps,
            self._terms(),
        )  # fmt: skip
        self._improve(POLISHED)
        assert self.model is not None
        return not self._broken(self.model.value(self.check))

    def _followed(self) -> Policy:
        """The policy that paths follow: on constrained faces none leads across."""
        if self.model is None or not isinstance(self.policy, PolicyNetwork):
            return self.policy
        return HeldActor(self.problem, self.policy, self.model)

    def _random(self) -> np.random.Generator:
        """What a policy's starts and noise are drawn from."""
        if self.options.common_random_numbers:
            return np.random.default_rng((self.seed, 1))
        return self.rng

    def _batch(self, horizon: float) -> tuple[Array, Array]:
        """Fresh states and their targets under the present policy, paths that long."""
        x = self.starts(self.rng)
        rollout = replace(self.rollout, horizon=horizon)
        return x, rollout.payoffs(self._followed(), self.model, x, self.rng)[0]

    def _record(
        self, before: Array, a_before: Array, loss: float, stopped: float
    ) -> None:
        """What changed at the states set aside, and whether it has settled."""
        assert self.model is not None
        values, a = self.model.value(self.check), self._followed()(self.check)
        residual = hjb_residual(self.problem, self.model, self.check, a)
        size = max(float(np.abs(values).max()), 1e-300)
        spread = max(float(np.abs(a).max(initial=0.0)), 1e-300)
        moved = float(np.abs(values - before).max()) / size
        turned = float(np.abs(a - a_before).max(initial=0.0)) / spread
        self.history.append(
            {
                "stage": "monte carlo",
                "iteration": len(self.history) + 1,
                "residual": float(np.sqrt((residual**2).mean())) / size,
                "residual_bound": float(np.abs(residual).max()),
                "value_loss": loss,
                "value_change": moved,
                "policy_change": turned,
                "stopped_share": stopped,
                "seconds": time.perf_counter() - self.began,
            }
        )
        small = max(moved, turned) < self.options.tolerance
        self.settled = self.settled + 1 if small else 0
        if self.settled >= SETTLED:
            self.status = "converged"

    def _broken(self, targets: Array) -> bool:
        if not np.isfinite(targets).all():
            return True
        size = float(np.abs(targets).max())
        self.scale = self.scale or size
        return size > 1e3 * self.scale

    def _rates(self) -> tuple[float, float]:
        """The learning rate falls tenfold over the run, and again in each fit."""
        share = len(self.history) / self.options.max_policies
        rate = self.options.learning_rate * 0.1**share
        return rate, rate / 10.0

    def _rows(self, x: Array, targets: Array) -> tuple[torch.Tensor, torch.Tensor]:
        """What the value network reads and is to say at states x (n, d)."""
        assert self.model is not None
        wanted = self.model.asked(x, targets)[:, None]
        return self.model.scaled(x), like(self.value_net, wanted)

    def _terms(self) -> list[partial[torch.Tensor]]:
        """What the rules of faces and an exit add to the loss."""
        assert self.model is not None
        if self.penalties is None:
            self.faces_random = self.rng.bit_generator.state
            self.penalties = face_penalties(self.problem, self.model, self.rng)
        return [partial(penalty, model=self.model) for penalty in self.penalties]

    def _fit_value(self, x: Array, targets: Array) -> float:
        assert self.model is not None
        anew = not self.warm_up_noise
        if changes_sign(self.model, targets):
            self.model, self.penalties, anew = relinked(self.model, targets), None, True
        steps = self.options.value_steps * (5 if anew else 1)
        wanted = self.model.asked(x, targets)[:, None]
        z, terms = self.model.scaled(x), self._terms()
        net, adam = self.value_net, self.value_adam
        loss = fit(net, adam, z, wanted, steps, self._rates(), terms)
        self.gradient_norms.append(gradient_size(net.parameters()))
        return loss

    def _improve(self, longer: int = 1) -> None:
        """Let the actor follow the value."""
        if not self.problem.n_controls:
            return
        assert self.model is not None
        x = self.starts(self.rng)
        # On a constrained face the actor learns its limit from inside: what holds
        # the state there may differ, and is found anew (`_followed`).
        x = Walls.of(self.problem).beside(x)
        steps, actor = longer * self.options.policy_steps, self.policy
        if not isinstance(actor, PolicyNetwork):
            actor = scaled_actor(self.policy_net, self.problem, self.model, x)
            steps *= 5
        schedule = Schedule(steps, self._rates())
        self.options.actor.improve(actor, self.model, x, self.policy_adam, schedule)
        self.policy = actor

    def keep(self) -> None:
        """Copy the networks: the last state known to be good."""
        assert self.model is not None
        model = self.model.copied()
        actor = None
        if isinstance(self.policy, PolicyNetwork):
            actor = PolicyNetwork.from_arrays(self.policy.arrays(), self.problem)
        self.kept = model, actor

    def time_step_bias(self) -> float:
        """Relative change of V between dt and dt/2 on one Brownian path, scaled to dt.

        ``|V_dt - V_(dt/2)| (1 + 1/(2^p - 1))`` over sup|V|, p the order of the paths;
        with Richardson that of dt/2, which the extrapolation has taken away; the
        largest over states, or the mean where paths meet a surface: whether they
        do is drawn for each step size alone, and one state's gap is mostly noise.
        """
        assert self.kept is not None
        model, actor = self.kept
        policy = self.policy
        if actor is not None:
            policy = HeldActor(self.problem, actor, model)
        x = np.repeat(self.check[:64], 8, axis=0)
        k = self.problem.diffusion_at(x[:1], policy(x[:1])).shape[-1]
        draw = partial(self.rng.standard_normal, (len(x), k))
        pair = self.rollout.pair(policy, model, x, self.rng, draw)
        one, two = (paths.finish(policy) for paths in pair)
        meets = bool(pair[0].surfaces) or self.rollout.rule is not None
        gap = (one - two).reshape(1 if meets else 64, -1).mean(1)
        factor = 2.0**self.rollout.order
        share = (1.0 if self.options.richardson else factor) / (factor - 1.0)
        size = max(float(np.abs(model.value(self.check)).max()), 1e-300)
        return float(np.abs(gap).max()) * share / size

    def _loose(self, stopped_share: float) -> bool:
        """Whether many paths end where nothing but V itself says what follows."""
        rules = self.problem.faces.values()
        return stopped_share > 0.05 and any(rule is None for rule in rules)

    def _remarks(self, bias: float) -> list[str]:
        """Time step, last changes and faces, in words."""
        step = f"at dt = {self.options.dt:g}, from dt and dt/2 on the same noise"
        remarks = [f"time step: bias of V about {bias:.1e} of sup|V| {step}"]
        if self.horizons.words:
            remarks.append(self.horizons.words)
        if len(self.ends.x):
            assert self.kept is not None
            misfit = self.ends.misfit(self.kept[0])
            remarks.append(f"V misses what it is given at its ends by {misfit:.1e}")
        if self.history:
            last = self.history[-1]
            stopped = last["stopped_share"]
            remarks += [
                f"last change of V {last['value_change']:.1e} of sup|V|, of the policy "
                f"{last['policy_change']:.1e}",
                f"paths stopped at a face: {stopped:.1%}"
                + (LOOSE if self._loose(stopped) else ""),
            ]
        return remarks

    def outcome(self, words: str) -> Outcome:
        """The last good state with everything the report says."""
        if self.kept is None:
            raise ProblemError(
                "MonteCarlo: the payoff of the first policy is not finite along its "
                "paths. Start from another policy, shorten dt, or look for a payoff "
                "that blows up inside the domain."
            )
        trained = time.perf_counter()
        bias = self.time_step_bias()
        stop = {
            "converged": "stopped: value and policy settled",
            "stagnated": "stopped: all policies used, moving by sampling noise only",
            "not converged": "stopped: all policies used, still moving",
            "diverged": "stopped: targets blew up; the last good state is kept",
        }[self.status]
        model, actor = self.kept
        timed = isinstance(self.problem, TimedProblem)
        return Outcome(
            model=model,
            # With a horizon the answer's policy is the greedy one of V(x, t).
            actor=None if timed else actor,
            status=self.status,
            history=self.history,
            residuals=tuple(h["residual_bound"] for h in self.history),
            checks=(f"start: {words}", stop, *self._remarks(bias)),
            seconds={
                "training": trained - self.began,
                "time-step bias": time.perf_counter() - trained,
            },
            details={
                "time_step_bias": bias,
                "horizon": self.horizon,
                "warm_up_noise": self.warm_up_noise,
                "gradient_norms": self.gradient_norms,
                "layer_share": layer_share(self.value_net.parameters()),
            },
        )
