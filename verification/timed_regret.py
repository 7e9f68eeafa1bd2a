"""What strategies of time cost, on one monotone operator marched to today."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hjbpde import Box, ControlProblem, Grid, HJBError
from hjbpde.fixed_policy import Beside, march_beside
from hjbpde.fixed_strategy import Side, march_answered
from hjbpde.switching_policy import march_switching

from .reference import running
from .regret import Losses, Regret, Tables, change_by_halving, within
from .strategy import has_finite_sets
from .subject import Subject
from .timed_rules import InModes, OnNodes, Rules, rules_of
from .when import When

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

TABLES = 17
"""Times at which both policies are kept for simulation."""


def timed_losses(
    subject: Subject, grid: Grid, region: Box, times: Array, steps: int
) -> Losses:
    """The regret at `times` of strategies of time, by implicit upwind steps.

    All values are marched together (`march_beside`, with an adversary
    `march_answered`), so that their differences are >= 0 and hold no discretisation
    noise; the bar is their change from the grid and the steps twice as coarse.
    """
    problem, end = subject.problem, float(subject.problem.horizon or 0.0)
    inside = within(grid, region) & running(subject.at(0.0).problem, grid.nodes())
    keep = np.union1d(times, np.linspace(0, end, TABLES))
    rules = rules_of(subject, grid, inside)
    try:
        found = _marched(problem, grid, rules, keep, steps)
    except HJBError as cause:
        none = _none(rules, times, str(cause))
        return Losses((none,) if problem.modes is None else none.by_mode(), None)
    coarse = _coarser(subject, grid, inside, times, steps)
    regrets = [_regrets(rules[s], found[s], coarse, times) for s in rules]
    if problem.modes is not None:
        # No path switches between modes yet, so that nobody asks for tables.
        return Losses(regrets[0], None)
    policies, bests = ([getattr(b, name) for b in found.values()]
                       for name in ("policy", "best_policy"))  # fmt: skip
    both = (np.concatenate(found, axis=-1) for found in (policies, bests))
    tables = Tables(grid, keep, *both, nearest=has_finite_sets(problem))
    return Losses(regrets[0], tables, regrets[1] if len(regrets) > 1 else ())


def _marched(
    problem: ControlProblem, grid: Grid, rules: Rules, times: Array, steps: int
) -> dict[Side, Beside]:
    if problem.adversary is not None:
        return march_answered(problem, grid, rules, times, steps)
    rule = rules["controller"]
    if isinstance(rule, InModes):
        switching = rule.switching
        return {"controller": march_switching(problem, grid, switching, times, steps)}
    return {"controller": march_beside(problem, grid, rule.alone, times, steps)}


def _coarser(
    subject: Subject, grid: Grid, inside: Mask, times: Array, steps: int
) -> dict[Side, Beside] | None:
    """The same on a grid and steps twice as coarse."""
    if min(grid.shape) < 5:
        return None
    coarse = grid.coarsened()
    kept = np.ix_(*(grid.kept(k) for k in range(grid.dimension)))
    rules = rules_of(subject, coarse, inside[kept])
    try:
        return _marched(subject.problem, coarse, rules, times, steps // 2)
    except HJBError:
        return None


def _regrets(
    rule: OnNodes, found: Beside, coarse: dict[Side, Beside] | None, times: Array
) -> tuple[Regret, ...]:
    """One regret a time; the bar is |change| of the loss from the coarser march."""
    grid, problem = rule.grid, rule.subject.problem
    sign = problem.sign * (1.0 if rule.side == "controller" else -1.0)

    def lost(beside: Beside, t: float) -> Array:
        i = int(np.searchsorted(beside.times, t))
        return np.maximum(sign * (beside.best[i] - beside.own[i]), 0.0)

    out = []
    for t in times:
        i, fine = int(np.searchsorted(found.times, t)), lost(found, t)
        bar = np.full(fine.shape, np.inf)
        if coarse is not None:
            bar = change_by_halving(grid, fine, lost(coarse[rule.side], t))
        fixed = grid, rule.inside, found.policy[i], found.best_policy[i], rule.moved
        regret = Regret(*fixed, fine, bar, when=When(float(t)))
        out += regret.by_mode() if isinstance(rule, InModes) else [regret]
    return tuple(out)


def _none(rules: Rules, times: Array, note: str) -> Regret:
    """No regret: a strategy is not finite, or could not be followed."""
    rule = next((r for r in rules.values() if r.bad is not None), None)
    rule = rule or next(iter(rules.values()))
    start = float(times[0]), np.zeros_like(rule.moved)
    t, policy = start if rule.bad is None else rule.bad
    nothing = None, rule.moved, None, None, note
    return Regret(rule.grid, rule.inside, policy, *nothing, when=When(t))
