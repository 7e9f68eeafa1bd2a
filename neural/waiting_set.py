"""A stopping set in many states: where waiting is learned to be worth less than psi.

No surface is sampled, so that the number of states does not matter: at a state the
holder of a right compares psi with the learned value W of going on for a while.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hjbpde.errors import ProblemError
from hjbpde.greedy import greedy_control

from .stopping_payoff import WIDE, Payoffs
from .stopping_set import StoppingSet
from .value_model import ValueModel

Array = NDArray[np.float64]
Owners = NDArray[np.int64]
LATE = 0.25 + 0.5826**2
"""E[R^2] of the overshoot R of a Gaussian random walk of step 1 over a far level: with
u'' / 2 = 1 beyond it, u = R^2 is the mean time spent there until the walk is seen there
(Dynkin). Moments: Siegmund, Sequential Analysis (1985), section X.4."""


@dataclass(frozen=True, eq=False)
class WaitingSet(StoppingSet):
    """Stop where the holder of a right has psi better than W, and waiting loses.

    Parameters
    ----------
    payoffs : Payoffs or None
        None after loading without the problem; then nothing can be asked.
    model : ValueModel or None
        W. None: wherever waiting a moment loses.
    """

    payoffs: Payoffs | None = None
    model: ValueModel | None = None

    @classmethod
    def of(cls, payoffs: Payoffs, model: ValueModel | None = None) -> WaitingSet:
        """The set of a value of going on, or the first one."""
        none = StoppingSet.constant(0.5 * payoffs.box.width, False)
        return cls(**vars(none), payoffs=payoffs, model=model)

    @property
    def is_rooted(self) -> bool:
        """Whether with a horizon its last state is -sqrt(1 - t/T), not t."""
        return False

    @property
    def is_nowhere(self) -> bool:
        """Whether it is known that nobody stops anywhere."""
        return False

    def judged(self, x: Array) -> tuple[NDArray[np.bool_], Owners]:
        """Whether one stops at x (n, d), and by which right, both (n,)."""
        return self._compared(x)[:2]

    def settled(self, x: Array, late: Array) -> tuple[NDArray[np.bool_], Array]:
        """Whether one stops at x (n, d), and what it pays who looks every `late` (n,).

        psi and what was lost since the path entered the set: it was there for
        `LATE` of the time between two looks on average.
        """
        stops, owners, loss = self._compared(x)
        paid, sides = np.zeros(len(x)), self.rights.sides[owners[stops]]
        paid[stops] = self.rights.at(x[stops], owners[stops])
        paid[stops] += LATE * late[stops] * sides * loss[stops]
        return stops, paid

    def _compared(self, x: Array) -> tuple[NDArray[np.bool_], Owners, Array]:
        """Whether one stops, by which right, and what waiting a moment loses, (n,)."""
        payoffs, losses = self.rights, np.zeros(len(x))
        stops, owners = np.zeros(len(x), bool), np.zeros(len(x), np.int64)
        value = None if self.model is None else self.model.value(x)
        for k, side in enumerate(payoffs.sides):
            able = ~stops
            if value is not None:
                able &= side * (value - payoffs.of(k, x)) <= 0
            here = np.flatnonzero(able)
            loss = loss_of_a_moment(payoffs, k, x[here])
            here, loss = here[loss > 0], loss[loss > 0]
            stops[here], owners[here], losses[here] = True, k, loss
        return stops, owners, losses

    def signed(self, x: Array) -> Array:
        """-1 where one stops, 1 elsewhere, x (n, d), (n,)."""
        return np.where(self.judged(x)[0], -1.0, 1.0)

    def owner_at(self, x: Array) -> Owners:
        """Which right is used at x (n, d); 0 where none is, (n,)."""
        return self.judged(x)[1]

    @property
    def rights(self) -> Payoffs:
        if self.payoffs is None:
            raise ProblemError(
                "where one stops is found by comparing with the payoffs, which the "
                "problem knows: neural.load(path, problem=...)."
            )
        return self.payoffs

    def arrays(self) -> dict[str, Array]:
        """Everything needed to rebuild it beside problem and model."""
        return {**super().arrays(), "waiting": np.ones(1)}


def loss_of_a_moment(payoffs: Payoffs, k: int, x: Array) -> Array:
    """``rho psi - sup_a { r + L^a psi }`` at x (n, d) for the k-th holder, (n,).

    As `Payoffs.loss_of_waiting`, by differences along drift and noise alone: 2 k + 2
    values of psi where the Hessian takes 2 d^2.
    """
    if not len(x):
        return np.zeros(0)
    problem, box = replace(payoffs.problem, stop=None), payoffs.box
    half = 0.5 * box.width
    x = np.clip(
        x, np.asarray(box.low) + WIDE * half, np.asarray(box.high) - WIDE * half
    )
    owners = np.full(len(x), k)
    a = np.zeros((len(x), problem.n_controls))
    if problem.n_controls:
        needed = callable(problem.diffusion)
        p, hess = payoffs.slopes(x)[:, k], None
        if needed:
            hess = payoffs.derivatives(x, owners, WIDE)[1]
        a = greedy_control(problem, x, p, hess)

    def psi(y: Array) -> Array:
        return payoffs.of(k, y)

    def along(ways: Array) -> tuple[Array, Array, Array]:
        """psi a step of WIDE to either side along ways (n, d), and the step (n,)."""
        length = np.linalg.norm(ways / half, axis=1)
        step = WIDE / np.maximum(length, 1e-300)
        move = np.where(length > 0, step, 0.0)[:, None] * ways
        return psi(box.clip(x + move)), psi(box.clip(x - move)), step

    middle = psi(x)
    up, down, step = along(np.asarray(problem.drift_at(x, a)))
    gain = np.asarray(problem.payoff_at(x, a)) + 0.5 * (up - down) / step
    sigma = np.asarray(problem.diffusion_at(x, a))
    for j in range(sigma.shape[-1]):
        ways = np.broadcast_to(sigma[..., j], x.shape)
        up, down, step = along(ways)
        gain = gain + 0.5 * (up - 2.0 * middle + down) / step**2
    rho = np.asarray(problem.discount_at(x))
    return payoffs.sides[k] * (rho * middle - gain)
