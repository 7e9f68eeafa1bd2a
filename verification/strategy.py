"""Strategies of one side on the nodes, and what they are worth once answered best.

A strategy held fast leaves a problem with one player less, solved here by the same
monotone operator as the whole one: node by node no strategy can do better than the
best, so what it loses is never negative.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

import hjbpde as hjb
from hjbpde import ControlProblem, Finite, Grid, GridSolution
from hjbpde.greedy import greedy_reply
from hjbpde.players import answered, followed, settled

from .nearest import nearest
from .subject import Subject
from .ties import controls_toward, replies_toward

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Side = Literal["controller", "adversary"]

# Upwind differences, because there every policy meets one and the same operator, the
# best policy's value is the largest node by node, and regret cannot be negative.
OPERATOR = hjb.PolicyIteration(scheme=hjb.Upwind(), order=1)


@dataclass(frozen=True, eq=False)
class NearestPolicy:
    """The control of the nearest node: directions are never averaged."""

    grid: Grid
    control: Array

    def __call__(self, x: Array) -> Array:
        """Controls at x (..., d), shape (..., m)."""
        return self.control[nearest(self.grid, x)]


def has_finite_sets(problem: ControlProblem) -> bool:
    """Whether one of two players chooses from a finite set."""
    sets = problem.controls, problem.adversary
    return problem.adversary is not None and any(isinstance(s, Finite) for s in sets)


@dataclass(frozen=True, eq=False)
class Strategy:
    """What one side does on the nodes, (*shape, m), and how far it was projected.

    `worth(grid)` is its value there once the other side answers in the best way, on
    the grid of the table or one with some of its nodes; a text says why there is none.
    """

    side: Side
    policy: Array
    moved: Array
    worth: Callable[[Grid], GridSolution] | str

    @property
    def sense(self) -> float:
        """+1 where a loss lowers what the controller gets, -1 where it raises it."""
        return 1.0 if self.side == "controller" else -1.0


def controllers(
    subject: Subject, left: ControlProblem | str, grid: Grid, inside: Mask, best: Array
) -> Strategy:
    """The candidate's policy inside, the best one (*shape, m) elsewhere.

    `left` is the problem with the candidate's stopping rule settled, or why it cannot
    be.
    """
    policy, moved = best.copy(), np.zeros_like(best)
    x = grid.nodes()[inside]
    policy[inside], moved[inside] = controls_toward(subject, x, best[inside])
    table = NearestPolicy(grid, policy)
    if isinstance(left, str):
        worth: Any = left
    elif left.adversary is None:
        worth = partial(_evaluated, left, table)
    else:
        worth = partial(_solved, answered(left, table))
    return Strategy("controller", policy, moved, worth)


def switching(subject: Subject, grid: Grid, inside: Mask, best: Array) -> Strategy:
    """The candidate's policies inside, the best ones (K, *shape, m) elsewhere."""
    policy, moved = policies_in_modes(subject, grid, inside, best)
    left = settled(subject.problem, in_modes(grid, policy))
    return Strategy("controller", policy, moved, partial(_solved, left))


def policies_in_modes(
    subject: Subject, grid: Grid, inside: Mask, best: Array
) -> tuple[Array, Array]:
    """The candidate's policies inside and the best (K, *shape, m) elsewhere; moved."""
    policy, moved = best.copy(), np.zeros_like(best)
    x = grid.nodes()[inside]
    for k in range(len(best)):
        found = controls_toward(subject.in_mode(k), x, best[k][inside])
        policy[k][inside], moved[k][inside] = found
    return policy, moved


def in_modes(grid: Grid, policy: Array) -> Callable[[Array, int], Array]:
    """a(x, mode) on nodes of a table (K, *shape, m)."""
    tables = [NearestPolicy(grid, one) for one in policy]
    return lambda x, mode: tables[mode](x)


def adversaries(
    subject: Subject, grid: Grid, inside: Mask, best: GridSolution
) -> Strategy:
    """The candidate's replies inside, the best ones elsewhere.

    The table holds the replies to the candidate's own choices; the worth is that of
    replies to every choice where they depend on it.
    """
    problem, x = subject.problem, grid.nodes()[inside]
    policy = np.array(best.adversary_control)  # type: ignore[attr-defined]
    moved = np.zeros_like(policy)
    a = subject.control(x)[0]
    policy[inside], moved[inside] = replies_toward(subject, x, a, policy[inside])
    table = NearestPolicy(grid, policy)
    left = followed(problem, reply_of(subject, table, inside, best))
    return Strategy("adversary", policy, moved, partial(_solved, left))


def reply_of(
    subject: Subject, table: NearestPolicy, inside: Mask, best: Any
) -> Callable[[Array, Array], Array]:
    """b(x, a) on nodes: that of the table, or one of its own to every choice."""
    if not subject.answers:
        return lambda x, a: table(x)
    return Replies.on(subject, table.grid, inside, best)


@dataclass(frozen=True, eq=False)
class Replies:
    """Replies b(x, a) on nodes: to every choice of the controller its own.

    `slopes` (*shape, d) and `bends` (*shape, d, d) are derivatives of the value for
    which replies are sought, the candidate's inside and the best one's elsewhere.
    """

    subject: Subject
    grid: Grid
    inside: Mask
    slopes: Array
    bends: Array | None

    @classmethod
    def on(cls, subject: Subject, grid: Grid, inside: Mask, best: Any) -> Replies:
        """The replies of a candidate; `best` solves the game on the grid."""
        nodes, d = grid.nodes(), grid.dimension
        slopes, bends = np.full(nodes.shape, np.nan), None
        if callable(subject.problem.diffusion):
            bends = np.full((*nodes.shape, d), np.nan)
        parts = [(Subject.of(best, subject.problem), np.ones_like(inside))]
        if subject.functions.adversary is None:
            parts.append((subject, inside))
        for who, where in parts:
            good, p, hess = who.derivatives(nodes[where])
            at = tuple(index[good] for index in np.nonzero(where))
            slopes[at] = p
            if bends is not None:
                bends[at] = hess
        return cls(subject, grid, inside, slopes, bends)

    def __call__(self, x: Array, a: Array) -> Array:
        """b at nodes x (..., d) for a (..., m), shape (..., mb)."""
        flat, choice = x.reshape(-1, x.shape[-1]), a.reshape(-1, a.shape[-1])
        at = nearest(self.grid, flat)
        bends = None if self.bends is None else self.bends[at]
        out = greedy_reply(self.subject.problem, flat, self.slopes[at], bends, choice)
        own = self.inside[at]
        if self.subject.functions.adversary is not None and own.any():
            out[own] = self.subject.reply(flat[own], choice[own])[0]
        return out.reshape(*x.shape[:-1], out.shape[-1])


def _evaluated(
    problem: ControlProblem, policy: NearestPolicy, grid: Grid
) -> GridSolution:
    return hjb.evaluate(problem, grid, policy, OPERATOR, strict=False)


def _solved(problem: ControlProblem, grid: Grid) -> GridSolution:
    return hjb.solve(problem, grid, OPERATOR, strict=False)
