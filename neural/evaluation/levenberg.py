"""Levenberg-Marquardt on the residuals of the equation, float64, by QR.

Each step solves ``min |J dw + r|^2 + lam^2 |dw|^2`` (Marquardt, J. SIAM 11, 1963,
equation 15), and adds the second-order turn of Transtrum and Sethna (arXiv 1201.5885,
equation 25). Where the maximiser moves, its change has no first-order effect on the
equation: the same J serves a fixed policy and the greedy one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import qr, solve_triangular

from ..ansatz import AnsatzNetwork, set_weights, weights_of
from ..outcome import GreedyPolicy
from ..start import Policy
from ..value_model import greedy_policy
from .equation import Equation, Rows

Array = NDArray[np.float64]
TRIES = 6
SMALLEST, FIRST_DAMPING, LARGEST = 1e-10, 1e-3, 1e3
PROBE = 0.1
"""Share of a step at which the bend of the residual is measured."""
TURN = 0.75
"""Second-order part over first, at most: beyond it the step leaves the valley."""


@dataclass(eq=False)
class Marquardt:
    """The damping, kept from step to step; relative to the mean norm of a column.

    The bend of r along a step is measured by one more residual and followed to second
    order: in the narrow, curved valleys of a network's residual this allows a
    damping, and saves steps, by a factor of 10 (measured).
    """

    model: AnsatzNetwork
    lam: float = FIRST_DAMPING

    def step(self, J: Array, r: Array, residual_of: Callable[[], Array]) -> float:
        """Lower ``|r|^2``; returns the cost after, the old one where nothing helps.

        `residual_of` is asked with the trial weights in place.
        """
        before, old = float(r @ r), weights_of(self.model.net)
        P = J.shape[1]
        R = np.asarray(qr(np.c_[J, -r], mode="r", check_finite=False)[0])[: P + 1]
        mean = float(np.linalg.norm(J)) / np.sqrt(P)
        for _ in range(TRIES):
            factor = _damped(R, self.lam * mean)
            move = solve_triangular(factor[:P, :P], factor[:P, P])
            set_weights(self.model.net, old + PROBE * move)
            bend = (residual_of() - r) / PROBE - J @ move
            push = solve_triangular(factor[:P, :P], J.T @ bend, trans=1)
            turn = -solve_triangular(factor[:P, :P], push) / PROBE
            if np.linalg.norm(turn) <= TURN * np.linalg.norm(move):
                set_weights(self.model.net, old + move + turn)
                after = residual_of()
                if np.isfinite(after).all() and after @ after < before:
                    self.lam = max(self.lam / 3.0, SMALLEST)
                    return float(after @ after)
            self.lam = min(self.lam * 4.0, LARGEST)
        set_weights(self.model.net, old)
        return before


def _damped(R: Array, size: float) -> Array:
    """Triangular factor of the rows R and `size` times the identity."""
    P = R.shape[1] - 1
    stacked = np.zeros((len(R) + P, P + 1), order="F")
    stacked[: len(R)] = R
    stacked[len(R) + np.arange(P), np.arange(P)] = size
    return np.asarray(qr(stacked, mode="r", overwrite_a=True, check_finite=False)[0])


def evaluate_policy(
    equation: Equation, fitter: Marquardt, a: Array, policy: Policy, steps: int
) -> None:
    """Steps on ``rho V = r + L^a V`` at fixed controls, until the cost settles."""
    rows, last = Rows(equation, fitter.model, a, policy), np.inf
    for _ in range(steps):
        cost = fitter.step(*rows.with_jacobian(), rows.residual)
        if cost > 0.98 * last:
            return
        last = cost


def descend(equation: Equation, fitter: Marquardt, a: Array, policy: Policy) -> None:
    """One step on ``rho V = max_a { r + L^a V }`` itself: every trial re-maximises."""
    model, problem = fitter.model, equation.problem
    J, r = Rows(equation, model, a, policy).with_jacobian()
    kept = policy.kept if isinstance(policy, GreedyPolicy) else None

    def residual_of() -> Array:
        greedy = greedy_policy(problem, model, equation.x, a, kept)
        present = GreedyPolicy(problem, model, kept=kept)
        after = Rows(equation, model, greedy, present).residual()
        # Under another policy an artificial face may gain or lose its say, and rows.
        if len(after) != len(r):
            after = Rows(equation, model, greedy, policy).residual()
        return after

    fitter.step(J, r, residual_of)
