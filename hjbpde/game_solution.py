"""Solutions of two-player games: both controls, and what the order of play is worth."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from .errors import MethodMismatch
from .greedy import greedy_pair
from .mdp import MDP
from .players import one_player
from .simulate import Paths
from .solution import GridSolution
from .timed_solution import TimedSolution, nearest_kept

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class GameSolution(TimedSolution):
    """Value, bar and both controls at calendar times 0 <= t <= T.

    Parameters
    ----------
    adversary_control : (T, *shape, mb)
        The best reply to the first player's control.
    isaacs_gap : float
        Largest difference at t = 0 that the order of the players makes in the
        Hamiltonian; 0 where Isaacs' condition holds.
    """

    adversary_control: Array = field(default_factory=lambda: np.zeros(0))
    isaacs_gap: float = 0.0

    def at(self, t: float) -> StationaryGameSolution:
        """Value, bar and both controls at time t, linear between the times kept."""
        found = self._snapshot(t, StationaryGameSolution)
        assert isinstance(found, StationaryGameSolution)
        if not found.adversary_control.size:
            b = self.adversary_control[nearest_kept(self.times, t)]
            found = replace(found, adversary_control=b, isaacs_gap=self.isaacs_gap)
            self._snapshots[float(t)] = found
        return found

    def adversary_control_at(self, x: Any, t: float = 0.0) -> Array:
        """The adversary's reply to the policy at x (..., d), shape (..., mb)."""
        now = self.at(t)
        return now.interpolated_both(x)[..., now.control.shape[-1] :]

    def simulate(
        self, x0: Any, horizon: float, dt: float, paths: int, seed: int
    ) -> Paths:
        """Sample paths under both policies; their controls are (a, b) side by side."""
        joint = TimedSolution(**_as_one_player(self, TimedSolution))
        return joint.simulate(x0, horizon, dt, paths, seed)

    def _contents(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        arrays, header = super()._contents()
        own = {
            "adversary_control": self.adversary_control,
            "isaacs_gap": np.asarray(self.isaacs_gap),
        }
        return {**arrays, **own}, header


@dataclass(frozen=True, eq=False, repr=False)
class StationaryGameSolution(GridSolution):
    """Value, bar and both controls of a stationary game.

    Parameters
    ----------
    adversary_control : (*shape, mb)
        The best reply to ``control``.
    isaacs_gap : float
        Largest difference on the nodes that the order of play makes in the Hamiltonian
        at the gradient of V, in the units of the payoff; 0 where Isaacs' condition
        holds.
    swapped_value : (*shape), optional
        Where that gap matters, the value of the monotone scheme with the order of play
        swapped: ``inf_b sup_a`` with reward, ``sup_b inf_a`` with cost.
    """

    adversary_control: Array = field(default_factory=lambda: np.zeros(0))
    isaacs_gap: float = 0.0
    swapped_value: Array | None = None

    @cached_property
    def joint(self) -> GridSolution:
        """The same solution with both policies as those of one player, (a, b)."""
        return GridSolution(**_as_one_player(self, GridSolution))

    def control_at(self, x: Any) -> Array:
        """The controller's policy at x (..., d), shape (..., m).

        Chosen anew with the interpolated gradient; without the problem: see
        `interpolated_control`.
        """
        return self._both_at(x)[0]

    def adversary_control_at(self, x: Any) -> Array:
        """The adversary's reply at x (..., d), shape (..., mb)."""
        return self._both_at(x)[1]

    def _both_at(self, x: Any) -> tuple[Array, Array]:
        x = np.asarray(x, dtype=float)
        m = self.control.shape[-1]
        near = self.interpolated_both(x)
        if self.problem is not None:
            flat = self.grid.domain.wrap(x.reshape(-1, self.grid.dimension))
            noisy = callable(self.problem.diffusion)
            hess = self._hessian_at(flat) if noisy else None
            start = near.reshape(-1, near.shape[-1])
            both = greedy_pair(self.problem, flat, self.gradient_at(flat), hess, start)
            near = both.reshape(near.shape)
        return near[..., :m], near[..., m:]

    def interpolated_both(self, x: Any) -> Array:
        """Node controls of both players at x, (..., m + mb)."""
        return self.joint.interpolated_control(x)

    def generator(self) -> sp.csr_matrix:
        """L^{a,b} of the process under both policies, see `GridSolution.generator`."""
        return self.joint.generator()

    def stationary_density(self) -> Array:
        """Density in the long run under both policies, (*shape)."""
        return self.joint.stationary_density()

    def density(self, t: float, start: Any = None) -> Array:
        """Density a time t after the start under both policies."""
        return self.joint.density(t, start)

    def simulate(
        self, x0: Any, horizon: float, dt: float, paths: int, seed: int
    ) -> Paths:
        """Sample paths under both policies; their controls are (a, b) side by side."""
        return self.joint.simulate(x0, horizon, dt, paths, seed)

    def as_mdp(self, controls: Any = None, dt: float | None = None) -> MDP:
        """Refused: a chain with two players is no Markov decision process.

        Raises
        ------
        MethodMismatch
        """
        raise MethodMismatch(
            "as_mdp does not know the field 'adversary': a chain with two players is "
            "no Markov decision process. solution.generator() is the chain under both."
        )

    def _contents(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        arrays, header = super()._contents()
        arrays["adversary_control"] = self.adversary_control
        arrays["isaacs_gap"] = np.asarray(self.isaacs_gap)
        if self.swapped_value is not None:
            arrays["swapped_value"] = self.swapped_value
        return arrays, header


def _as_one_player(
    solution: GameSolution | StationaryGameSolution, kind: type[GridSolution]
) -> dict[str, Any]:
    """Fields of a solution of another kind, with both policies as one player's."""
    shared = {f: getattr(solution, f) for f in kind.__dataclass_fields__}
    if solution.problem is not None:
        shared["problem"] = one_player(solution.problem)
    both = [solution.control, solution.adversary_control]
    return {**shared, "control": np.concatenate(both, axis=-1)}
