"""Adam on the mean square of the residual: from random weights into a valley."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from ..outcome import GreedyPolicy
from ..value_model import greedy_policy, row_scale
from .levenberg import Equation
from .network_rows import on_lift, on_network

if TYPE_CHECKING:
    from .residual_run import ResidualRun

REDRAW = 100


def adam_stage(run: ResidualRun) -> None:
    """Train `run`'s network in place, at the first level of its noise.

    The controls are those of the run's policy while it evaluates one, and maximised
    anew at every step with ``direct=True``; they are constants for the gradient, as
    the envelope theorem allows.
    """
    options, model = run.options, run.model
    n = max(32, sum(v.numel() for v in model.net.parameters()))
    adam = torch.optim.Adam(model.net.parameters(), options.learning_rate)
    for step in range(options.adam_steps):
        share = step / max(options.adam_steps - 1, 1)
        if step % REDRAW == 0:
            equation = Equation.draw(run.problem, n, run.rng)
            a = run.policy(equation.x)
        for group in adam.param_groups:
            group["lr"] = options.learning_rate * 0.1**share
        if options.direct:
            a = greedy_policy(run.problem, model, equation.x)
        adam.zero_grad()
        mean_square_residual(run, equation, a).backward()
        adam.step()
    run.policy = GreedyPolicy(run.problem, model)


def mean_square_residual(
    run: ResidualRun, equation: Equation, a: np.ndarray
) -> torch.Tensor:
    """Mean of ((rho V - r - L^a V) / row scale)^2 inside, one scalar."""
    problem, x = equation.problem, equation.x
    f, sigma = (
        np.asarray(problem.drift_at(x, a)),
        np.asarray(problem.diffusion_at(x, a)),
    )
    rho, payoff = (
        np.asarray(problem.discount_at(x)),
        np.asarray(problem.payoff_at(x, a)),
    )
    terms = run.model, x, rho, -f, sigma, -1.0
    values = on_network(*terms).taylor(run.model.net)[0]
    known = torch.from_numpy(np.ascontiguousarray(on_lift(*terms) - payoff))
    scale = torch.from_numpy(row_scale(problem, x, a))
    return (((values + known) / scale) ** 2).mean()
