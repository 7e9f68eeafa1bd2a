"""The payoffs psi of the rights to stop, with derivatives and what waiting loses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hjbpde.errors import ProblemError
from hjbpde.events import Stop
from hjbpde.greedy import greedy_control
from hjbpde.problem import ControlProblem
from hjbpde.sets import Box

from .stopping_set import SettledExit, StoppingSet
from .time_state import TimedProblem
from .value_model import ValueModel, row_scale

Array = NDArray[np.float64]
Owners = NDArray[np.int64]
WIDE = 0.02
"""Step, over half the box, at which a kink of psi is felt as one."""
FINE = 1e-4
"""Step, over half the box, of derivatives that are handed out."""


@dataclass(frozen=True, eq=False)
class Payoffs:
    """psi of every right to stop; their holders' sides are +1 where V stays above.

    Parameters
    ----------
    problem : ControlProblem
        With the field stop.
    """

    problem: ControlProblem

    @property
    def stops(self) -> tuple[Stop, ...]:
        """The rights to stop, one or two."""
        return self.problem.stops

    @property
    def sides(self) -> Array:
        """+1 where V is kept at or above psi, -1 where at or below: one a right."""
        holders = [1.0 if s.by == "controller" else -1.0 for s in self.stops]
        return self.problem.sign * np.array(holders)

    @property
    def box(self) -> Box:
        """The domain."""
        assert self.problem.domain is not None
        return self.problem.domain

    def of(self, k: int, x: Array) -> Array:
        """psi of the k-th right at x (n, d), shape (n,).

        Raises
        ------
        ProblemError
            A wrong shape, or not finite, with the state.
        """
        psi = np.asarray(self.stops[k].payoff(x), dtype=float)
        try:
            psi = np.broadcast_to(psi, (len(x),))
        except ValueError:
            raise ProblemError(
                f"'stop': the payoff has shape {psi.shape} for states of shape "
                f"{x.shape}; expected one number a state."
            ) from None
        if not np.isfinite(psi).all():
            bad = x[int(np.flatnonzero(~np.isfinite(psi))[0])]
            raise ProblemError(f"'stop': the payoff is not finite at x = {bad}.")
        return psi

    def at(self, x: Array, owners: Owners) -> Array:
        """psi of the owner's right at x (n, d), shape (n,)."""
        out = np.zeros(len(x))
        for k in range(len(self.stops)):
            here = owners == k
            out[here] = self.of(k, x[here])
        return out

    def all_at(self, x: Array) -> Array:
        """psi of every right at x (n, d), shape (n, rights)."""
        return np.stack([self.of(k, x) for k in range(len(self.stops))], 1)

    def slopes(self, x: Array) -> Array:
        """grad psi of every right at x (n, d), shape (n, rights, d)."""
        box = self.box
        h = 0.5 * FINE * box.width
        x = np.clip(x, np.asarray(box.low) + h, np.asarray(box.high) - h)
        out = np.empty((len(x), len(self.stops), x.shape[1]))
        for i, step in enumerate(np.diag(h)):
            out[:, :, i] = self.all_at(x + step) - self.all_at(x - step)
        return out / (2.0 * h)

    def kept(self, x: Array, value: Array) -> Array:
        """`value` (n,) at x (n, d), moved to its side of every psi."""
        for k, side in enumerate(self.sides):
            psi = self.of(k, x)
            value = np.maximum(value, psi) if side > 0 else np.minimum(value, psi)
        return value

    def excess(self, model: ValueModel, x: Array, owners: Owners) -> Array:
        """By how much going on is better than stopping for the owner, (n,)."""
        return self.sides[owners] * (model.value(x) - self.at(x, owners))

    def derivatives(
        self, x: Array, owners: Owners, step: float = FINE
    ) -> tuple[Array, Array]:
        """grad psi (n, d) and hess psi (n, d, d) by central differences."""
        return differences(lambda y: self.at(y, owners), self.box, x, step)

    def loss_of_waiting(self, k: int, x: Array) -> Array:
        """``rho psi - sup_a { r + L^a psi }`` over `row_scale`, for the holder, (n,).

        Only where it is positive may one stop. A kink that no right can be used at
        makes it very negative, because the differences are wide.
        """
        problem = replace(self.problem, stop=None)
        psi, owners = self.of(k, x), np.full(len(x), k)
        p, hess = self.derivatives(x, owners, WIDE)
        needed = hess if callable(problem.diffusion) else None
        a = greedy_control(problem, x, p, needed)
        drift = (np.asarray(problem.drift_at(x, a)) * p).sum(-1)
        sigma = np.asarray(problem.diffusion_at(x, a))
        bend = 0.5 * np.einsum("nik,njk,nij->n", sigma, sigma, hess)
        rho = np.asarray(problem.discount_at(x))
        gap = rho * psi - np.asarray(problem.payoff_at(x, a)) - drift - bend
        return self.sides[k] * gap / row_scale(problem, x, a)

    def running_until(self, stopping: StoppingSet) -> ControlProblem:
        """The problem that ends on entering `stopping` and takes psi there."""
        if stopping.is_nowhere:
            return replace(self.problem, stop=None, exact=None)
        leaving = SettledExit(
            stopping.signed,
            lambda x: self.at(x, stopping.owner_at(x)),
            stopping.states,
            box_around(self.problem, stopping),
        )
        return replace(self.problem, stop=None, exact=None, exit=leaving)

    def check(self, x: Array) -> None:
        """Refuse payoffs that cross at one of the states x (n, d).

        Raises
        ------
        ProblemError
            Naming the first such state.
        """
        psi = [self.of(k, x) for k in range(len(self.stops))]
        if len(psi) < 2:
            return
        lower, upper = psi if self.sides[0] > 0 else psi[::-1]
        if (lower > upper).any():
            raise ProblemError(
                "'stop': the controller's payoff is better than what the adversary "
                f"may settle at, first at x = {x[int(np.argmax(lower > upper))]}."
            )


def rights_of(problem: ControlProblem) -> Payoffs:
    """The payoffs of a problem; with a horizon on states (x, t)."""
    return Payoffs(problem if problem.horizon is None else TimedProblem.of(problem))


def box_around(problem: ControlProblem, stopping: StoppingSet) -> Box:
    """The box around where one goes on, a little wider; time keeps its axis."""
    box = problem.domain
    assert box is not None
    x = np.concatenate([box.sample(np.random.default_rng(0), 4096), stopping.states])
    x = x[stopping.signed(x) > -1e-9]
    if not len(x):
        return box
    room = 0.05 * (x.max(0) - x.min(0))
    low = np.maximum(x.min(0) - room, np.asarray(box.low))
    high = np.minimum(x.max(0) + room, np.asarray(box.high))
    if isinstance(problem, TimedProblem):
        low[-1], high[-1] = np.asarray(box.low)[-1], np.asarray(box.high)[-1]
    return Box(low, high)


def differences(
    function: Callable[[Array], Array], box: Box, x: Array, step: float
) -> tuple[Array, Array]:
    """Gradient (n, d) and Hessian (n, d, d) of a function inside the box.

    Central differences over `step` times half the width; next to faces they are
    taken one step inside.
    """
    d = x.shape[1]
    h = 0.5 * step * box.width
    low, high = np.asarray(box.low) + h, np.asarray(box.high) - h
    x = np.clip(x, low, high)
    moves = np.diag(h)
    middle = function(x)
    up = np.stack([function(x + move) for move in moves], -1)
    down = np.stack([function(x - move) for move in moves], -1)
    hess = np.zeros((len(x), d, d))
    for i in range(d):
        hess[:, i, i] = (up[:, i] - 2 * middle + down[:, i]) / h[i] ** 2
        for j in range(i):
            same, cross = moves[i] + moves[j], moves[i] - moves[j]
            mixed = function(x + same) + function(x - same)
            mixed = mixed - function(x + cross) - function(x - cross)
            hess[:, i, j] = hess[:, j, i] = mixed / (4 * h[i] * h[j])
    return (up - down) / (2 * h), hess
