"""A run of `Residual` as a checkpoint, see `neural.checkpoint`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from hjbpde.boundary import Dirichlet, Robin
from hjbpde.problem import ControlProblem

from ..ansatz import set_weights, weights_of
from ..checkpoint import Checkpoint, adam_arrays
from ..ends import Ends, face_data
from ..probe import sample_controls
from ..sampling import FacePoints
from .levenberg import FIRST_DAMPING

if TYPE_CHECKING:
    from .residual_run import ResidualRun

Array = NDArray[np.float64]
PLACES = 8


@dataclass
class Place:
    """Where a run stands: steps of Adam, the level of noise, and policies done at it.

    Parameters
    ----------
    random : dict
        State of the random numbers from which the present states were drawn.
    since : int
        Policies since the residual last fell.
    damping : float
        Of the next Levenberg-Marquardt step.
    """

    random: Any
    level: int = 0
    adam_step: int = 0
    policies: int = 0
    since: int = 0
    damping: float = FIRST_DAMPING


def checkpoint_of(run: ResidualRun, seed: int) -> Checkpoint:
    """The file that the options name, for this problem, start and seed."""
    rules = [type(rule).__name__ for rule in run.target.faces.values()]
    identity = f"{run.options}, seed {seed}, faces {rules}, {run.words}"
    x = run.held_out[:PLACES]
    numbers = [numbers_of(run.target, x, run.ends), run.policy(x).ravel()]
    return Checkpoint.at(
        run.options.checkpoint, "Residual", identity, np.concatenate(numbers)
    )


def numbers_of(problem: ControlProblem, x: Array, ends: Ends) -> Array:
    """What the functions of a problem are at a few states x (n, d), one row."""
    box = problem.domain
    assert box is not None
    rng = np.random.default_rng(0)
    a = sample_controls(problem, x, rng)
    parts = [
        box.low,
        box.high,
        problem.drift_at(x, a),
        problem.diffusion_at(x, a),
        problem.discount_at(x),
        problem.payoff_at(x, a),
        ends.x[:PLACES],
        ends.data[:PLACES],
        [problem.sign],
    ]
    for face, rule in problem.faces.items():
        if isinstance(rule, Dirichlet | Robin):
            at = FacePoints.draw(box, face, PLACES, rng).x
            parts.append(face_data(rule.g, at, face))
        if isinstance(rule, Robin):
            parts.append([rule.alpha, rule.beta])
    return np.concatenate([np.asarray(part, dtype=float).ravel() for part in parts])


def keep(run: ResidualRun, fit: torch.optim.Optimizer | None = None) -> None:
    """Write the run; `fit` is Adam's state while it trains."""
    arrays = {
        "weights": weights_of(run.model.net),
        "best": weights_of(run.best.net),
        "last": run.last,
    }
    if fit is not None:
        arrays |= adam_arrays("adam", fit)
    state = {
        "place": asdict(run.place),
        "history": run.history,
        "status": run.status,
        "best_residual": run.best_residual,
    }
    run.checkpoint.keep(arrays, state)


def resume(run: ResidualRun) -> dict[str, Any]:
    """Bring a run that has just begun to where its file left it.

    Returns the arrays of the file, of which Adam takes its own; none without a file.
    """
    found = run.checkpoint.resume()
    if found is None:
        return {}
    arrays, state = found
    set_weights(run.model.net, arrays["weights"])
    set_weights(run.best.net, arrays["best"])
    run.last = arrays["last"]
    run.place, run.history = Place(**state["place"]), state["history"]
    run.status, run.best_residual = state["status"], state["best_residual"]
    return arrays
