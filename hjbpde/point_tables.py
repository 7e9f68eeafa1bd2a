"""Drift, noise and payoff at scattered points, in the form that maximisers read."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .probe import control_range, fit_quadratic
from .problem import ControlProblem
from .sets import Box
from .tabulate import GeneralTables, QuadraticTables, Tables

Array = NDArray[np.float64]


def tables_at(
    problem: ControlProblem, x: Array, bounds: tuple[Array, Array] | None = None
) -> Tables:
    """Tables at scattered points x (n, d), closed-form where that holds.

    `bounds`, low and high (m, n), take the place of the control box.
    """
    rho, one = np.ones(1), np.zeros((problem.n_controls, 1))
    if not isinstance(problem.controls, Box):
        return GeneralTables(problem, x, one, one, rho, None)
    low, high = control_range(problem, x) if bounds is None else bounds
    low, high = np.ascontiguousarray(low), np.ascontiguousarray(high)
    fit = fit_quadratic(problem, x, low, high, np.random.default_rng(0))
    if fit.structure.closed_form:
        return QuadraticTables(
            fit.f0, fit.B, fit.D, fit.r0, fit.r1, fit.R, low, high, rho
        )
    return GeneralTables(problem, x, low, high, rho, None, fit.structure.note)


@dataclass(frozen=True, eq=False)
class KeptTables:
    """Tables at a run's own sets of points, each made when first asked for.

    What greedy steps read of the problem does not depend on V, and finding it out
    takes m^2/2 questions a step in m controls. A set is known by its array, which
    nobody writes into; the tables live as long as the run that holds this.
    """

    problem: ControlProblem
    sets: tuple[Array, ...]
    _made: dict[int, Tables] = field(default_factory=dict, repr=False)

    def at(self, x: Array) -> Tables:
        """Tables at x (n, d), kept where x is one of the sets."""
        for k, own in enumerate(self.sets):
            if own is x:
                if k not in self._made:
                    self._made[k] = tables_at(self.problem, x)
                return self._made[k]
        return tables_at(self.problem, x)
