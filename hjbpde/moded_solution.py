"""The solution of a problem that switches between modes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from .density import checked, long_run, start_mass, transported
from .errors import ProblemError
from .faces import Faces
from .interpolation import Interpolant
from .mdp import MDP
from .problem import ControlProblem
from .simulate import Paths
from .solution import GridSolution

Array = NDArray[np.float64]


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

    def _leading(self) -> dict[str, NDArray[Any]]:
        return {"mode": np.arange(self.n_modes)}

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
        q = self._rates()
        K = self.n_modes
        own = sp.csr_matrix(sp.block_diag([self.mode(k).generator() for k in range(K)]))
        free = self._free_nodes().astype(float)
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
        mass[order] = long_run(self.generator()[order][:, order])
        return mass.reshape(K, *self.grid.shape) / self.node_volumes()

    def density(self, t: float, start: Any = None, mode: int = 0) -> Array:
        """Density of state and mode a time t after the start, (K, *shape).

        As `GridSolution.density`, with every path in `mode` at time 0; an array
        (K, *shape) says how the start is spread over the modes.
        """
        self._need_problem("density").require_only("density", "exit", "modes")
        self.mode(mode)
        free, volumes = self._free_nodes(), self.node_volumes()
        if not callable(start) and np.shape(start) == free.shape:
            mass = checked(np.asarray(start, float) * volumes, free)
        else:
            mass = np.zeros(free.shape)
            mass[mode] = start_mass(self.grid, volumes, free[mode], start)
        mass = transported(self.generator(), free.ravel(), mass.ravel(), t)
        return mass.reshape(free.shape) / volumes

    def _free_nodes(self) -> NDArray[np.bool_]:
        """Nodes (K, *shape) where the process goes on."""
        problem = self._need_problem("density")
        free = np.ones((self.n_modes, *self.grid.shape), bool)
        for k in range(self.n_modes):
            fixed = Faces.of(problem.in_mode(k), self.grid).fixed_mask
            if fixed is not None:
                free[k] = ~fixed
        return free

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
    stopping, opinion = solution.stopping, solution.second_opinion
    return GridSolution(
        problem=None if solution.problem is None else _alone(solution, k),
        grid=solution.grid,
        value=solution.value[k],
        control=solution.control[k],
        error_bar=solution.error_bar[k],
        report=solution.report,
        scheme=solution.scheme,
        second_opinion=None if opinion is None else opinion[k],
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
