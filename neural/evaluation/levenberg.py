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

from hjbpde.boundary import Dirichlet
from hjbpde.problem import ControlProblem

from ..ansatz import AnsatzNetwork, set_weights, weights_of
from ..collocation import FaceTables, face_rows, periodic_points
from ..outcome import GreedyPolicy
from ..sampling import FacePoints, interior_points
from ..start import Policy
from ..value_model import greedy_policy, row_scale
from .network_rows import NetworkTables, on_lift, on_network

Array = NDArray[np.float64]
TRIES = 6
SMALLEST, LARGEST = 1e-10, 1e3
PROBE = 0.1
"""Share of a step at which the bend of the residual is measured."""
TURN = 0.75
"""Second-order part over first, at most: beyond it the step leaves the valley."""


@dataclass(frozen=True, eq=False)
class Equation:
    """States where the equation and the faces' rules are asked to hold.

    Rows are divided by `value_model.row_scale`: they are in the units of V. Faces
    whose value the ansatz holds have no rows.
    """

    problem: ControlProblem
    x: Array
    faces: tuple[tuple[FacePoints, Array | None, tuple[int, str]], ...]

    @classmethod
    def draw(
        cls, problem: ControlProblem, n: int, rng: np.random.Generator
    ) -> Equation:
        """n states inside, ``n^((d-1)/d)`` on each face that has a row."""
        box = problem.domain
        assert box is not None
        few = max(4, round(n ** (1.0 - 1.0 / box.dimension)))
        faces: list[tuple[FacePoints, Array | None, tuple[int, str]]] = [
            (FacePoints.draw(box, face, few, rng), None, face)
            for face, rule in problem.faces.items()
            if not isinstance(rule, Dirichlet)
        ]
        faces += [
            (low, other, (low.axis, "low"))
            for low, other in periodic_points(box, few, rng)
        ]
        return cls(problem, interior_points(box, n, rng), tuple(faces))

    def rows(
        self, model: AnsatzNetwork, a: Array, policy: Policy
    ) -> tuple[Array, Array]:
        """J (N, P) and r (N,) at the controls a (n, m); the policy is for faces."""
        f, sigma, rho, payoff, scale = self._tables(a)
        inside = NetworkTables(model, self.x).equation(rho, f, sigma)
        J = [inside[:, :-1] / scale[:, None]]
        r = [(inside[:, -1] - payoff) / scale]
        for row, data in self._faces(model, policy):
            J.append(row[:, :-1])
            r.append(row[:, -1] - data)
        return np.vstack(J), np.concatenate(r)

    def residual(self, model: AnsatzNetwork, a: Array, policy: Policy) -> Array:
        """r alone, without derivatives by the weights inside."""
        f, sigma, rho, payoff, scale = self._tables(a)
        terms = model, self.x, rho, -f, sigma, -1.0
        values = on_network(*terms).taylor(model.net)[0].detach().numpy()
        r = [(values + on_lift(*terms) - payoff) / scale]
        r += [row[:, -1] - data for row, data in self._faces(model, policy)]
        return np.concatenate(r)

    def _tables(self, a: Array) -> tuple[Array, ...]:
        problem, x = self.problem, self.x
        return (
            np.asarray(problem.drift_at(x, a)),
            np.asarray(problem.diffusion_at(x, a)),
            np.asarray(problem.discount_at(x)),
            np.asarray(problem.payoff_at(x, a)),
            row_scale(problem, x, a),
        )

    def _faces(self, model: AnsatzNetwork, policy: Policy) -> list[tuple[Array, Array]]:
        out = []
        for points, other, face in self.faces:
            partner = None if other is None else NetworkTables(model, other)
            tables = FaceTables(face, points, NetworkTables(model, points.x), partner)
            row, data, _ = face_rows(self.problem, tables, policy)
            if row is not None:
                # The mean over a face weighs as much as the mean over the inside.
                weight = np.sqrt(len(self.x) / len(row))
                out.append((weight * row, weight * data))
        return out


@dataclass(eq=False)
class Marquardt:
    """The damping, kept from step to step; relative to the mean norm of a column.

    The bend of r along a step is measured by one more residual and followed to second
    order: in the narrow, curved valleys of a network's residual this allows a
    damping, and saves steps, by a factor of 10 (measured).
    """

    model: AnsatzNetwork
    lam: float = 1e-3

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
    model, last = fitter.model, np.inf
    for _ in range(steps):
        J, r = equation.rows(model, a, policy)
        cost = fitter.step(J, r, lambda: equation.residual(model, a, policy))
        if cost > 0.98 * last:
            return
        last = cost


def descend(equation: Equation, fitter: Marquardt, a: Array, policy: Policy) -> None:
    """One step on ``rho V = max_a { r + L^a V }`` itself: every trial re-maximises."""
    model, problem = fitter.model, equation.problem
    J, r = equation.rows(model, a, policy)

    def residual_of() -> Array:
        greedy = greedy_policy(problem, model, equation.x, a)
        return equation.residual(model, greedy, GreedyPolicy(problem, model))

    fitter.step(J, r, residual_of)
