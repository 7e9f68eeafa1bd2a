"""Denoising score matching: a control problem solved by regression."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from hjbpde.errors import ProblemError
from hjbpde.progress import bar_over, last_number
from hjbpde.real_numbers import real_array
from hjbpde.report import Report

from .checkpoint import Checkpoint, NetworkRun
from .forward_process import linear
from .networks import as_array, check_tensors, layer_share
from .options import check_count, check_file, check_number, check_widths
from .reverse_diffusion import ReverseDiffusion, sample
from .score_network import ScoreNetwork
from .score_targets import Stream, Targets

Array = NDArray[np.float64]
TAIL = 0.25
"""The share of the steps whose weights are averaged."""


@dataclass(frozen=True)
class ScoreControl:
    """Learn grad log p_t from draws of p_data.

    Minimises ``E w(t) |score(Y_t, t) + xi / s(t)|^2`` over times, data and noise, with
    ``w = s v^(3/2) / (fade D)^2``; the minimiser is the score of p_t (Vincent, Neural
    Computation 23 (2011) 1661, equation 9). Two things take out noise, not the mean:
    every draw is used with xi and -xi, whose 1/s parts cancel to leading order, and
    xi is replaced by its mean given Y_t over a pool of draws (see `posterior_mean`).

    Parameters
    ----------
    hidden : sequence of int
    steps : int
        Adam steps.
    batch : int
        Draws of (t, Y_0, xi) a step, each used twice.
    states : int
        Size of the training set, even.
    pool : int
        Draws behind its targets; 0 is plain denoising, every state used once. So is
        a pool too thin for the dimension (`Report.details["own_share"]` > .05).
    learning_rate : float
        At the start; falls to 1 % along a cosine.
    first_time : float
        Smallest t trained; the score is held there below it.
    checkpoint : str or Path, optional
        File written 50 times in a run; a run that finds it goes on from there and
        gives the bits of one that was never interrupted.
    precision : torch.dtype
        In which the network is trained, torch.float64 or torch.float32. Targets and
        the answer are float64.
    device : str
        Where the network is trained, as torch names it.

    Raises
    ------
    ProblemError
        Options out of range; in `solve`, a process without exact marginals, or a
        checkpoint of another run.
    """

    hidden: Sequence[int] = (64, 64, 64)
    steps: int = 8000
    batch: int = 256
    states: int = 40_000
    pool: int = 4_000_000
    learning_rate: float = 1e-2
    first_time: float = 5e-3
    checkpoint: str | Path | None = field(default=None, repr=False)
    precision: torch.dtype = torch.float64
    device: str = "cpu"

    def __post_init__(self) -> None:
        check_widths("ScoreControl", self.hidden)
        for name in ("steps", "batch", "states"):
            check_count("ScoreControl", name, getattr(self, name))
        check_count("ScoreControl", "pool", self.pool, 0)
        check_number("ScoreControl", "learning_rate", self.learning_rate)
        check_file("ScoreControl", self.checkpoint)
        check_tensors("ScoreControl", self.precision, self.device)
        if self.states < 2 * self.batch:
            raise ProblemError("ScoreControl: states must be at least 2 batch.")
        if not self.first_time > 0:
            raise ProblemError(
                "ScoreControl: first_time must be > 0; at t = 0 the noise has no "
                "density to match."
            )

    def solve(
        self, problem: ReverseDiffusion, *, seed: int = 0, progress: bool = False
    ) -> LearnedScore:
        """Train; the same seed gives the same bits."""
        self._check(problem)
        check_count("ScoreControl", "seed", seed, 0)
        process = linear(problem.process, "denoising score matching")
        began = time.perf_counter()
        rng = np.random.default_rng(seed)
        generator = torch.Generator().manual_seed(seed)
        points = problem.target.sample(20_000, rng)
        network = ScoreNetwork.draw(process, points, self.hidden, generator)
        network.net.to(dtype=self.precision, device=self.device)
        targets = Targets(problem, network, self.first_time)
        stream = Stream(targets, self.batch, self.states, self.pool, rng)
        numbers = np.concatenate([points[:8].ravel(), [problem.horizon]])
        identity = f"{self}, {problem.process}, seed {seed}"
        file = Checkpoint.at(self.checkpoint, "ScoreControl", identity, numbers)
        losses, norms = self._train(network, stream, file, progress)
        share = layer_share(network.net.parameters())
        network = ScoreNetwork.from_arrays(network.arrays(), process)
        report = Report(
            status="converged" if np.isfinite(losses).all() else "diverged",
            method=f"score matching, {self}",
            iterations=self.steps,
            residuals=tuple(losses),
            seconds={"learn": time.perf_counter() - began},
            details={
                "gradient_norms": norms,
                "layer_share": share,
                "first_time": self.first_time,
                "own_share": stream.share,
            },
        )
        return LearnedScore(problem, network, self.first_time, report)

    def _check(self, problem: ReverseDiffusion) -> None:
        if not isinstance(problem, ReverseDiffusion):
            raise ProblemError(
                f"ScoreControl.solve takes a ReverseDiffusion, got "
                f"{type(problem).__name__}; for a ControlProblem use neural.solve."
            )
        if self.first_time >= problem.horizon:
            raise ProblemError(
                f"ScoreControl: first_time = {self.first_time:g} is not below the "
                f"horizon {problem.horizon:g}."
            )

    def _train(
        self,
        network: ScoreNetwork,
        stream: Stream,
        file: Checkpoint,
        progress: bool,
    ) -> tuple[list[float], list[float]]:
        """Adam with a cosine rate; the weights of the last quarter are averaged."""
        weights = list(network.net.parameters())
        adam = torch.optim.Adam(weights, lr=self.learning_rate)
        mean, often = TailMean(weights, self.steps), max(self.steps // 50, 1)
        losses, sizes = [], []
        nets, fits = {"score": network.net}, {"score": adam}
        logs = {"losses": losses, "sizes": sizes}
        run = NetworkRun(file, nets, fits, rng=stream.rng, logs=logs)
        done, kept = run.resume()
        if kept:
            stream.order = kept["order"]
            mean.restore(kept)
        steps = range(done, self.steps)
        for step, _ in bar_over(
            steps, steps, progress, "step", lambda: last_number("loss", losses)
        ):
            share = 0.5 * (1.0 + np.cos(np.pi * step / self.steps))
            adam.param_groups[0]["lr"] = self.learning_rate * (0.01 + 0.99 * share)
            loss = stream.next().loss(network)
            adam.zero_grad()
            loss.backward()
            adam.step()
            mean.add(step)
            if step % often == 0:
                losses.append(float(loss.detach()))
                grads = [w.grad for w in weights if w.grad is not None]
                sizes.append(float(sum((g**2).sum() for g in grads)) ** 0.5)
                run.keep(step + 1, order=stream.order, **mean.arrays())
        mean.apply()
        return losses, [float(np.min(sizes)), float(np.max(sizes))]  # NaN stays


class TailMean:
    """The mean of a network's weights over the last quarter of its steps."""

    def __init__(self, weights: list[torch.nn.Parameter], steps: int) -> None:
        self.count = max(round(TAIL * steps), 1)
        self.weights, self.first = weights, steps - self.count
        self.total = [torch.zeros_like(w, dtype=torch.float64) for w in weights]

    def add(self, step: int) -> None:
        """Take in the weights after `step`."""
        if step >= self.first:
            for total, w in zip(self.total, self.weights, strict=True):
                total.add_(w.detach(), alpha=1.0 / self.count)

    def apply(self) -> None:
        """Put the mean in the weights' place."""
        with torch.no_grad():
            for w, total in zip(self.weights, self.total, strict=True):
                w.copy_(total)

    def arrays(self) -> dict[str, Array]:
        """What has been added so far."""
        return {f"mean{k}": as_array(total) for k, total in enumerate(self.total)}

    def restore(self, arrays: dict[str, Array]) -> None:
        """The inverse of `arrays`, in place."""
        for k, total in enumerate(self.total):
            total.copy_(torch.from_numpy(arrays[f"mean{k}"].copy()))


@dataclass(frozen=True, eq=False)
class LearnedScore:
    """A score, as a control of the reverse process.

    Parameters
    ----------
    problem : ReverseDiffusion
    network : ScoreNetwork
    first_time : float
        Forward times below it are answered as `first_time`.
    report : Report
    """

    problem: ReverseDiffusion
    network: ScoreNetwork
    first_time: float
    report: Report

    def score(self, y: Array, t: float) -> Array:
        """grad log p_t at y (n, d), forward time t in [0, T], shape (n, d).

        Raises
        ------
        ProblemError
            A time outside [0, T], or points of another dimension or not finite.
        """
        y = real_array(y, "score: y")
        if y.ndim != 2 or y.shape[1] != self.problem.dimension:
            raise ProblemError(
                f"score: points {y.shape} must be (n, {self.problem.dimension})."
            )
        if not np.isfinite(y).all():
            raise ProblemError(
                f"score: the point {y[~np.isfinite(y).all(-1)][0]} is not finite."
            )
        time = real_array(t, "score: t")
        if time.ndim or not 0.0 <= time <= self.problem.horizon * (1 + 1e-12):
            raise ProblemError(
                f"score: t = {t} is not one time in [0, {self.problem.horizon:g}]."
            )
        return self.network(y, max(float(time), self.first_time))

    def control_at(self, x: Array, t: float) -> Array:
        """u = Sigma(t) score at x (n, d), reverse time t, shape (n, d)."""
        return self.problem.noise(t) * self.score(x, self.problem.horizon - t)

    def samples(self, n: int, steps: int = 200, seed: int = 0) -> Array:
        """n draws (n, d) of the controlled reverse process at its end."""
        check_count("samples", "n", n)
        check_count("samples", "steps", steps)
        check_count("samples", "seed", seed, 0)
        return sample(self.problem, self.score, n, steps, seed)

    def save(self, path: str | Path) -> Path:
        """Write weights (safetensors) and the report to one file, all or nothing."""
        from .score_storage import save_score

        return save_score(self, path)
