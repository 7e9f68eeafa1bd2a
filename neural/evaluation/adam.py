"""Adam on the mean square of the residual: from random weights into a valley."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..checkpoint import set_adam
from ..exit_region import exit_value
from ..outcome import GreedyPolicy
from ..value_model import greedy_policy
from .equation import EXIT, Equation
from .network_rows import on_lift, on_network
from .residual_resume import keep

if TYPE_CHECKING:
    from .residual_run import ResidualRun

REDRAW = 100


def adam_stage(run: ResidualRun, arrays: Mapping[str, Any]) -> None:
    """Train `run`'s network in place, at the first level of its noise.

    The controls are those of the run's policy while it evaluates one, and maximised
    anew at every step with ``direct=True``; they are constants for the gradient, as
    the envelope theorem allows. The moments of an interrupted run are in `arrays`.
    """
    options, net = run.options, run.model.net
    n = max(32, sum(v.numel() for v in net.parameters()))
    adam = torch.optim.Adam(net.parameters(), options.learning_rate)
    set_adam("adam", adam, arrays)
    run.rng.bit_generator.state = run.place.random
    for step in range(run.place.adam_step, options.adam_steps):
        share = step / max(options.adam_steps - 1, 1)
        if step % REDRAW == 0:
            _keep(run, step, adam)
            equation = run.draw(n)
            kept = run.keep_at(equation)
            a = run.policy(equation.x)
        for group in adam.param_groups:
            group["lr"] = options.learning_rate * 0.1**share
        if options.direct:
            a = greedy_policy(run.problem, run.model, equation.x, kept=kept)
        adam.zero_grad()
        loss = mean_square_residual(run, equation, a)
        (loss + mean_square_misfit(run, equation)).backward()
        adam.step()
    run.policy = GreedyPolicy(run.problem, run.model)
    _keep(run, options.adam_steps, adam)


def _keep(run: ResidualRun, step: int, adam: torch.optim.Optimizer) -> None:
    """Write the run before the states of `step` are drawn."""
    run.place.adam_step, run.place.random = step, run.rng.bit_generator.state
    keep(run, adam)


def mean_square_residual(
    run: ResidualRun, equation: Equation, a: np.ndarray
) -> torch.Tensor:
    """Mean of ((rho V - r - L^a V) / row scale)^2 inside, one scalar."""
    f, sigma, rho, payoff, rows = equation.tables(a)
    terms = run.model, equation.x, rho, -f, sigma, -1.0
    values = on_network(*terms).taylor(run.model.net)[0]
    known = torch.from_numpy(np.ascontiguousarray(on_lift(*terms) - payoff))
    return (((values + known) / torch.from_numpy(rows)) ** 2).mean()


def mean_square_misfit(run: ResidualRun, equation: Equation) -> torch.Tensor:
    """Mean of (V - g)^2 on the surface of an exit, one scalar; 0 without an exit."""
    model, total = run.model, torch.zeros((), dtype=torch.float64)
    for points, _, face in equation.faces:
        if face == EXIT:
            at = model.frame(points.x)
            known = at.value - exit_value(run.problem, points.x)
            bump, gap = torch.from_numpy(at.jet[0]), torch.from_numpy(known)
            u = model.net(torch.from_numpy(at.z))[:, 0]
            total = total + ((bump * u + gap) ** 2).mean()
    return total
