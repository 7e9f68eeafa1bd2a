"""The solution of a problem that switches between modes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from .errors import ProblemError
from .faces import Faces
from .interpolation import Interpolant
from .mdp import MDP
from .problem import ControlProblem
from .simulate import Paths
from .solution import GridSolution

Array = NDArray[np.float64]
LONG_RUN_STEPS = 100


@dataclass(frozen=True, eq=False)
class ModedSolution(GridSolution):
    """Value, control and error bar in every mode.

    Parameters
    ----------
    value, error_bar : (K, *shape)
        In the units of V and the problem's own sense.
    control : (K, *shape, m)
    stopping : bool (K, *shape) or None
        Where stopping is best.
    """

    @property
    def n_modes(self) -> int:
        """Number of modes K."""
        return len(self.value)

    def mode(self, k: int) -> GridSolution:
        """The solution in mode k; its problem is discounted by the rate of leaving.

        What the other modes are worth is part of that problem's payoff, ``sum_j q_kj
        V_j(x)`` by interpolation, so that V_k alone solves it.
        """
        if k not in self._modes:
            self._modes[k] = _mode(self, int(k))
        return self._modes[k]

    def _contents(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        arrays, header = super()._contents()
        return {**arrays, "modes": np.arange(self.n_modes)}, header

    @cached_property
    def _modes(self) -> dict[int, GridSolution]:
        return {}

    def value_at(self, x: Any, mode: int = 0) -> Array:
        """V_k at x (..., d), shape (...)."""
        return self.mode(mode).value_at(x)

    def gradient_at(self, x: Any, mode: int = 0) -> Array:
        """grad V_k at x (..., d), shape (..., d)."""
        return self.mode(mode).gradient_at(x)

    def error_at(self, x: Any, mode: int = 0) -> Array:
        """The error bar at x (..., d), interpolation included."""
        return self.mode(mode).error_at(x)

    def control_at(self, x: Any, mode: int = 0) -> Array:
        """The policy at x (..., d), shape (..., m)."""
        return self.mode(mode).control_at(x)

    def generator(self) -> sp.csr_matrix:
        """The generator of state and mode, (K N, K N) CSR, modes slowest.

        Off-diagonal entries are rates >= 0; fixed (Dirichlet) nodes have zero rows.
        """
        problem, q = self._need_problem("generator"), self._rates()
        K, n = self.n_modes, self.grid.size
        own = sp.csr_matrix(sp.block_diag([self.mode(k).generator() for k in range(K)]))
        free = np.ones((K, n))
        for k in range(K):
            fixed = Faces.of(problem.in_mode(k), self.grid).fixed_mask
            if fixed is not None:
                free[k] = ~fixed.ravel()
        blocks = [
            [sp.diags(q[:, k, j] if j != k else -q[:, k].sum(-1)) for j in range(K)]
            for k in range(K)
        ]
        return sp.csr_matrix(own + sp.diags(free.ravel()) @ sp.bmat(blocks))

    def _rates(self) -> Array:
        x = self.grid.nodes().reshape(-1, self.grid.dimension)
        q = self._need_problem("generator").modes.at(x)
        return np.broadcast_to(q, (len(x), *q.shape[1:]))

    def stationary_density(self) -> Array:
        """Density of state and mode in the long run, (K, *shape).

        Solves ``L' m = 0``; its integral over the states, summed over the modes, is 1
        with the trapezoidal volumes of the nodes.

        Raises
        ------
        ProblemError
            The process may end, or it has no unique density.
        """
        problem = self._need_problem("stationary_density")
        if problem.exit is not None or any(map(_fixes, problem.faces.values())):
            raise ProblemError(
                "stationary_density: the process ends (exit or a Dirichlet face), so "
                "there is no stationary density."
            )
        K, n = self.n_modes, self.grid.size
        # Node by node, so that the factors stay as narrow as the grid allows.
        order = np.arange(K * n).reshape(K, n).T.ravel()
        mass = np.empty(K * n)
        mass[order] = _long_run(self.generator()[order][:, order])
        return mass.reshape(K, *self.grid.shape) / self.node_volumes()

    def interpolated_control(self, x: Any, mode: int = 0) -> Array:
        """Node controls of one mode at x, see `GridSolution`."""
        return self.mode(mode).interpolated_control(x)

    def gradient_error_at(self, x: Any, mode: int = 0) -> Array:
        """A bar of grad V_k at x (..., d), shape (..., d)."""
        return self.mode(mode).gradient_error_at(x)

    def as_mdp(self, controls: Any = None, dt: float | None = None) -> MDP:
        """Refused: the chain of one mode is ``solution.mode(k).as_mdp(...)``."""
        raise ProblemError("as_mdp: take one mode, solution.mode(k).as_mdp(...).")

    def simulate(
        self, x0: Any, horizon: float, dt: float, paths: int, seed: int
    ) -> Paths:
        """Refused: no path switches between modes yet.

        Raises
        ------
        ProblemError
        """
        raise ProblemError("simulate: paths that switch between modes do not exist.")

    def plot(self, mode: int = 0) -> Any:
        """A figure of one mode: value with its bar, control, error bar."""
        return self.mode(mode).plot()

    def __repr__(self) -> str:
        shape = (self.n_modes, *self.grid.shape)
        name = "" if self.problem is None else self.problem.name
        return f"ModedSolution({name!r}, shape={shape})\n{self.report}"


def _fixes(rule: Any) -> bool:
    return type(rule).__name__ == "Dirichlet"


def _mode(solution: ModedSolution, k: int) -> GridSolution:
    if not 0 <= k < solution.n_modes:
        raise ProblemError(
            f"mode {k} does not exist; the modes are 0 to {solution.n_modes - 1}."
        )
    stopping = solution.stopping
    return GridSolution(
        problem=None if solution.problem is None else _alone(solution, k),
        grid=solution.grid,
        value=solution.value[k],
        control=solution.control[k],
        error_bar=solution.error_bar[k],
        report=solution.report,
        scheme=solution.scheme,
        artificial_axes=solution.artificial_axes,
        stopping=None if stopping is None else stopping[k],
    )


def _alone(solution: ModedSolution, k: int) -> ControlProblem:
    """Mode k with the other modes' worth in its payoff."""
    problem = solution._need_problem("mode")
    modes = problem.modes
    others = [j for j in range(solution.n_modes) if j != k]
    worth = {j: Interpolant(solution.grid, solution.value[j]) for j in others}
    d = solution.grid.dimension

    def leaving(x: Any) -> Array:
        q = modes.at(np.asarray(x, float).reshape(-1, d))[:, k].sum(-1)
        return np.broadcast_to(q, (np.size(x) // d,)).reshape(np.shape(x)[:-1])

    one = problem.in_mode(k, leaving if callable(modes.rates) else -modes.rates[k, k])
    field = "reward" if problem.reward is not None else "cost"
    paid = getattr(one, field)

    def payoff(x: Any, a: Any) -> Array:
        flat = np.asarray(x, float).reshape(-1, d)
        q = modes.at(flat)
        gain = np.zeros(len(flat))
        for j in others:
            gain += q[:, k, j] * worth[j].cubic(flat)
        return paid(x, a) + np.reshape(gain, np.shape(x)[:-1])

    changed: dict[str, Any] = {field: payoff}
    return replace(one, **changed)


def _long_run(L: sp.csr_matrix) -> Array:
    """Probabilities (n,) with L' m = 0, by inverse iteration from two starts.

    Each step is where the chain is after an exponential time of mean 1 / rate.
    """
    n = int(L.get_shape()[0])
    rate = 1e-9 * float(np.max(np.abs(L.diagonal())))
    lu = sp.linalg.splu(
        sp.csc_matrix(rate * sp.identity(n) - L.T), permc_spec="NATURAL"
    )
    starts = (np.full(n, 1.0 / n), np.arange(1.0, n + 1) * 2.0 / (n * (n + 1)))
    found = []
    for mass in starts:
        for _ in range(LONG_RUN_STEPS):
            before, mass = mass, np.maximum(lu.solve(mass), 0.0)
            mass = mass / mass.sum()
            if np.sum(np.abs(mass - before)) < 1e-13:
                break
        found.append(mass)
    if not np.sum(np.abs(found[0] - found[1])) < 1e-8:
        raise ProblemError(
            "stationary_density: the controlled process has no unique stationary "
            "density (it may split into parts that never meet)."
        )
    return found[0]
