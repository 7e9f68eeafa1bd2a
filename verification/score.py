"""check_score: a score network against the exact score of a known mixture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hjbpde import ProblemError
from hjbpde.real_numbers import real_array

TIMES = (0.01, 0.03, 0.1, 0.3, 1.0)
"""Forward times checked by default, as far as the horizon goes, and the horizon."""


@dataclass(frozen=True)
class ScoreVerdict:
    """Whether a score is right, where not, and what it costs.

    Parameters
    ----------
    status : str
        "agree" or "differ".
    reasons : tuple of str
        Every rule that decided, with its number and time.
    errors : mapping of float to float
        Forward time to ``(E |s - s*|^2 / E |s*|^2)^1/2`` under p_t.
    identity : neural.Identity
        ``J(u) - V`` beside half the squared distance to u*: the verification
        identity of the control ``u = sigma s``. The excess is the divergence (in
        nats) between the paths of u and those of the exact reverse process, so it
        bounds that between the laws of the samples.
    tolerance : float
    """

    status: str
    reasons: tuple[str, ...]
    errors: Mapping[float, float]
    identity: Any
    tolerance: float

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and dictionaries."""
        return {
            "status": self.status,
            "reasons": list(self.reasons),
            "errors": {f"{t:g}": e for t, e in self.errors.items()},
            "identity": str(self.identity),
            "tolerance": self.tolerance,
        }

    def __str__(self) -> str:
        rows = [f"  t = {t:<6g} error {e:.4f}" for t, e in self.errors.items()]
        reasons = [f"  {text}" for text in self.reasons]
        head = f"score: {self.status} (tolerance {self.tolerance:g}, L2 under p_t)"
        return "\n".join([head, *reasons, *rows, f"  {self.identity}"])


def check_score(
    module: Any,
    problem: Any,
    *,
    times: Sequence[float] | None = None,
    tolerance: float = 2e-2,
    points: int = 20_000,
    paths: int = 1000,
    steps: int = 100,
    seed: int = 0,
) -> ScoreVerdict:
    """Judge a score: its error under p_t at `times`, and the verification identity.

    Parameters
    ----------
    module : torch.nn.Module, neural.LearnedScore or callable
        ``module(y (n, d), t (n,)) -> (n, d)``, grad log p_t; see `neural.as_score`.
    problem : neural.ReverseDiffusion
        With a Gaussian mixture as target, so that the score is known exactly.
    times : sequence of float, optional
        Forward times in (0, horizon]; default .01, .03, .1, .3, 1 and the horizon.
    tolerance : float
        Relative, > 0.
    points : int
        Draws of p_t at each time.
    paths, steps : int
        Of the simulated identity.

    Raises
    ------
    ProblemError
        Times out of range, a module that fails or returns another shape, a problem
        without an exact score.
    """
    import neural  # only this check brings torch in

    size = real_array(tolerance, "check_score: tolerance")
    if size.ndim or not (np.isfinite(size) and size > 0):
        raise ProblemError(f"check_score: tolerance = {tolerance}; give one > 0.")
    least = {"points": (points, 1), "paths": (paths, 2), "steps": (steps, 1)}
    for name, (count, few) in {**least, "seed": (seed, 0)}.items():
        whole = isinstance(count, int | np.integer) and not isinstance(count, bool)
        if not whole or count < few:
            raise ProblemError(
                f"check_score: {name} = {count!r}; give a whole number, {few} or more."
            )
    if not isinstance(problem, neural.ReverseDiffusion):
        raise ProblemError(
            f"check_score: the problem is a {type(problem).__name__}; give a "
            "neural.ReverseDiffusion, such as neural.reverse_diffusion()."
        )
    score, horizon = neural.as_score(module, problem), problem.horizon
    default = sorted({*(t for t in TIMES if t < horizon), horizon})
    asked = real_array(default if times is None else times, "check_score: times")
    if (
        asked.ndim != 1
        or not len(asked)
        or not ((asked > 0) & (asked <= horizon)).all()
    ):
        raise ProblemError(f"check_score: times must lie in (0, {horizon:g}].")
    rng = np.random.default_rng(seed)
    errors = {float(t): _error(score, problem, float(t), points, rng) for t in asked}
    found = neural.identity(
        problem,
        lambda x, t: problem.noise(t) * score(x, max(horizon - t, float(asked.min()))),
        paths=paths, steps=steps, seed=seed,
    )  # fmt: skip
    reasons = [
        f"at t = {t:g} the score is {e:.3g} off, {e / tolerance:.2g} times the "
        f"tolerance.{_hint(score, problem, t, e, rng)}"
        for t, e in errors.items()
        if not e <= tolerance
    ]
    if not found.holds:
        reasons.append(f"the verification identity fails: {found}.")
    if reasons:
        return ScoreVerdict("differ", tuple(reasons), errors, found, tolerance)
    text = f"every error is within {tolerance:g} and the verification identity holds."
    return ScoreVerdict("agree", (text,), errors, found, tolerance)


def _error(score: Any, problem: Any, t: float, n: int, rng: Any) -> float:
    law = problem.law(t)
    y = law.sample(n, rng)
    exact = law.score(y)
    return float(np.sqrt(((score(y, t) - exact) ** 2).sum() / (exact**2).sum()))


def _hint(score: Any, problem: Any, t: float, error: float, rng: Any) -> str:
    """The usual mistakes, recognised by what would repair them."""
    law = problem.law(t)
    y = law.sample(2000, rng)
    given, exact = score(y, t), law.score(y)
    size = float((exact**2).sum())
    repairs = {
        "it has the wrong sign": -given,
        "it predicts the noise eps: the score is -eps / s(t)": (
            -given / float(problem.process.spread(t))
        ),
    }
    for words, repaired in repairs.items():
        left = float(np.sqrt(((repaired - exact) ** 2).sum() / size))
        if left < 0.2 * error:
            return f" It looks as if {words}."
    return ""
