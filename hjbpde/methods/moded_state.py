"""All modes of a problem on one grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..grid import Grid
from ..linear import Rows
from ..tabulate import QuadraticTables, Tables
from .memory import recall_result, result_of
from .policy_iteration import residual_of, round_off_floor
from .state import GridState

Array = NDArray[np.float64]


@dataclass(eq=False)
class ModedState:
    """All modes on one grid; the states share the grid, each has its own V and a."""

    states: list[GridState]
    plain: list[Tables]
    rates: Array
    rho: float
    bounds: list[float] = field(default_factory=list)
    status: str = ""
    gains: Array | None = None
    """What the other modes added to the payoffs last, (K, N)."""

    def memory(self) -> dict[str, Any]:
        """A grid that is solved, for the checkpoint."""
        out: dict[str, Any] = {
            f"mode {k}.{name}": values
            for k, state in enumerate(self.states)
            for name, values in result_of(state).items()
        }
        out |= {"bounds": np.array(self.bounds), "status": np.array(self.status)}
        return out if self.gains is None else {**out, "gains": self.gains}

    def recall(self, memory: Mapping[str, Any]) -> None:
        """The inverse of `memory`, for modes that have just been made."""
        for k, state in enumerate(self.states):
            own = f"mode {k}."
            recall_result(
                state,
                {n.removeprefix(own): memory[n] for n in memory if n.startswith(own)},
            )
        self.bounds, self.status = memory["bounds"].tolist(), str(memory["status"])
        if "gains" in memory:
            self._gain(memory["gains"])

    def _gain(self, gains: Array) -> None:
        self.gains = gains
        for k, state in enumerate(self.states):
            state.tables = _gaining(self.plain[k], gains[k])

    @property
    def grid(self) -> Grid:
        """The grid of every mode."""
        return self.states[0].grid

    @property
    def values(self) -> Array:
        """V of all modes, flat, (K, N)."""
        return np.stack([state.V.ravel() for state in self.states])

    @property
    def scale(self) -> float:
        """sup |V| over all modes."""
        return max(state.scale for state in self.states)

    def coupling(self) -> Array:
        """sum_j q_kj (V_j - V_k) in differences, (K, N)."""
        V = self.values
        out = np.zeros_like(V)
        for k in range(len(V)):
            for j in range(len(V)):
                rate = self.rates[:, k, j]
                if j != k and rate.any():
                    out[k] += rate * (V[j] - V[k])
        return out

    def residuals(
        self, scan: bool = False, polish: bool = True
    ) -> tuple[Array, list[Rows]]:
        """Improve every mode; residuals (K, N) of the whole system, and the rows."""
        out, rows = np.empty((len(self.states), self.grid.size)), []
        for state in self.states:
            state.faces.set_fixed(state.V)
        self._gain(self.coupling())
        for k, state in enumerate(self.states):
            out[k], own = residual_of(state, scan, polish)
            rows.append(own)
        return out, rows

    def bound(self, residuals: Array) -> float:
        """Bound of |V - V_h| over all modes (comparison principle)."""
        return float(np.max(np.abs(residuals))) / self.ending

    def floor(self, rows: list[Rows]) -> float:
        """What rounding leaves of the bound."""
        each = zip(self.states, rows, strict=True)
        return max(round_off_floor(s, r) * s.rho_min / self.ending for s, r in each)

    @property
    def ending(self) -> float:
        """Smallest discount rate; without discount, the rate of leaving by noise."""
        return self.rho or min(state.rho_min for state in self.states)

    def move(self, corrections: Array) -> None:
        """V + correction in every mode."""
        for state, correction in zip(self.states, corrections, strict=True):
            state.V = state.V + correction.reshape(state.grid.shape)

    def free_rates(self) -> Array:
        """The rates without those of nodes where V is given: fixed, or held."""
        tied = np.zeros((len(self.states), self.grid.size), bool)
        for k, state in enumerate(self.states):
            if state.faces.fixed_mask is not None:
                tied[k] |= state.faces.fixed_mask.ravel()
            if state.may_stop and state.held is not None:
                tied[k] |= state.held
        if not tied.any():
            return self.rates
        return self.rates * ~tied.T[:, :, None]


def _gaining(tables: Tables, gain: Array) -> Tables:
    if isinstance(tables, QuadraticTables):
        return replace(tables, r0=tables.r0 + gain)
    return tables.gaining(gain)
