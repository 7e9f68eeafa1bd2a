"""The long-run average and the relative value of the semi-Lagrangian chain.

    V(x) = max_a { tau (r(m, a) - lambda) + mean_b V(x_b) },   V(domain centre) = 0

with tau the time that the step takes, delta unless a wall shortens it: a semi-Markov
chain (Puterman, Markov Decision Processes (1994), section 11.4). Every policy is
evaluated at once, V held at one node and lambda unknown in its place. The discount of
a slow clock, 1e-3 of the rate at which the state mixes, keeps the system regular where
a policy on the way splits the chain in two; it acts on the change of V alone, so that
nothing of it is left in the limit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from ..error_bar import ErrorBar, nested_estimate
from ..methods.bounds import region_mask
from ..methods.ergodic import VANISHING, centred
from ..problem import ControlProblem
from .bar import Caution, bound, order_believed, truncation
from .level import Level
from .nested import Nested, sampled
from .system import System, solve_rows

Array = NDArray[np.float64]
LONG_RUN = Caution(lowest=0.5, factor=2.0, felt=2.0)
"""Nothing discounts what goes wrong on the way until the state has mixed: errors of
both signs add up from everywhere, here and at the centre, and differences between
grids that are no asymptotic ones yet may cancel."""
ONE_NUMBER = 3.0
"""Factor on differences of the average, which has no neighbours to show that one of
them changes its sign; Roache's for orders that nothing confirms (J. Fluids Eng. 116
(1994) 405)."""


@dataclass(eq=False)
class AverageSystem(System):
    """One grid: the relative value, and the average that every step is charged."""

    average: float = 0.0

    @property
    def level(self) -> Level:
        """The one mode."""
        return self.levels[0]

    def charge(self, average: float) -> None:
        """Take this average off what steps pay, per unit of time."""
        self.average = self.level.look.toll = average

    @property
    def durations(self) -> Array:
        """How long the steps of the policy take, (N,)."""
        look = self.level.look
        return look.step(self.level.a).share * look.delta

    @property
    def rate(self) -> float:
        """The rate at which the state crosses the domain under the policy."""
        go = self.level.look.motion_under(self.level.a)
        return mixing_rate(go.f, go.sigma, self.grid.domain.width)

    @property
    def least_loss(self) -> float:
        """Share of a difference of two values that a step forgets."""
        return -float(np.expm1(-self.rate * self.level.look.delta))

    def felt(self) -> sp.csr_matrix:
        """The rows, discounted at the rate at which the state mixes."""
        return _discounted(self.rows()[0], self.rate * self.durations)

    def evaluate(self) -> float:
        """V and the average of the policy; how much they changed."""
        level = self.level
        rows, rhs = self.rows()
        change, gain = self.pinned(rows, rhs - rows @ level.V.ravel())
        level.V = level.V + change.reshape(level.V.shape)
        self.charge(self.average + gain)
        return max(float(np.max(np.abs(change))), abs(gain) / self.rate)

    def pinned(self, rows: sp.csr_matrix, rhs: Array) -> tuple[Array, float]:
        """w (N,), 0 at the middle node, and g with ``rows w + tau g = rhs``."""
        tau = self.durations
        size, middle = float(np.mean(tau)), tau.size // 2
        slow = _discounted(rows, VANISHING * self.rate * tau)
        others = np.ones(tau.size)
        others[middle] = 0.0
        column = (tau / size, (np.arange(tau.size), np.full(tau.size, middle)))
        charged = sp.csr_matrix(column, shape=rows.shape)
        system = sp.csr_matrix(slow @ sp.diags_array(others) + charged)
        found, self.solver = solve_rows(system, rhs, np.zeros(tau.size))
        gain, found[middle] = float(found[middle]) / size, 0.0
        return found, gain

    def memory(self) -> dict[str, NDArray[Any]]:
        """As of every system, with the average."""
        return {**super().memory(), "average": np.array(self.average)}

    def recall(self, memory: Mapping[str, NDArray[Any]]) -> None:
        """The inverse of `memory`."""
        super().recall(memory)
        self.charge(float(memory["average"]))


def _discounted(rows: sp.csr_matrix, exponents: Array) -> sp.csr_matrix:
    """``I - exp(-exponents) P`` from the rows ``I - P``."""
    stays = sp.diags_array(np.exp(-exponents))
    whole = sp.identity(exponents.size, format="csr")
    return sp.csr_matrix(whole - stays @ (whole - rows))


def mixing_rate(f: Array, sigma: Array, width: Any) -> float:
    """The rate of crossing a domain by drift f (n, d) and noise (n, d, k), on average
    over states.
    """
    width = np.asarray(width)
    rates = (sigma**2).sum(axis=2) / width**2 + np.abs(f) / width
    return float(np.mean(np.max(rates, axis=1))) or 1.0


@dataclass(eq=False)
class Averaging(Nested):
    """The solve of a long-run average, begun with a discount at the rate of mixing."""

    @cached_property
    def opening(self) -> ControlProblem:
        """The discounted problem that policies start from."""
        assert self.problem.domain is not None
        f, sigma = sampled(self.problem, self.grids[0])
        rate = mixing_rate(f, sigma, self.problem.domain.width)
        return replace(self.problem, average=False, discount=rate, exact=None)

    def settle(self, system: System, updates: int) -> None:
        """Solve one grid; its value is 0 at the domain centre."""
        super().settle(system, updates)
        (level,) = system.levels
        level.V = centred(level.grid, level.V)

    def joined(self, levels: list[Level], before: System) -> System:
        """A system that starts from the average before, or from the discounted V."""
        system = AverageSystem(levels)
        if isinstance(before, AverageSystem):
            system.charge(before.average)
        else:
            rho = before.looks[0].problem.discount
            system.charge(float(rho) * float(np.median(before.V)))
        return system

    def bound(self, systems: list[System]) -> ErrorBar:
        """The bar of the relative value."""
        if len(systems) < 2:
            unknown = np.full(systems[-1].V.shape, np.inf)
            return ErrorBar(unknown, {}, None, ("no bar: too few grids",))
        return bound(systems, self.method.order, LONG_RUN)

    def answers(self, systems: list[System]) -> dict[str, Any]:
        """The average, in the problem's own sense."""
        return {"average": self.problem.sign * chain(systems)[-1].average}

    def details(self, systems: list[System]) -> dict[str, Any]:
        """How wrong the average can be."""
        return {"average_error": sum(self.average_errors(systems))}

    def average_errors(self, systems: list[System]) -> tuple[float, float]:
        """What the cells, and what artificial faces may do to the average."""
        found = chain(systems)
        unsettled = any(one.status == "not converged" for one in found)
        if len(found) < 2 or unsettled:
            return np.inf, 0.0
        return average_error(found, self.method.order), average_cut(found[-1])


def chain(systems: list[System]) -> list[AverageSystem]:
    return [system for system in systems if isinstance(system, AverageSystem)]


def average_cut(system: AverageSystem) -> float:
    """What wrong slopes at artificial faces pay in the long run."""
    moved = system.rate * system.durations * truncation(system)[0].ravel()
    return abs(system.pinned(system.rows()[0], moved)[1])


def average_error(systems: list[AverageSystem], order: int) -> float:
    """How wrong the average of the finest grid can be, but for artificial faces.

    Differences between grids, as for V, but no less than what is wrong with V itself
    in the time that the state mixes in, because one number may agree on all grids by
    coincidence; what policies may still change.
    """
    fine = systems[-1]
    near, far = abs(fine.average - systems[-2].average), 0.0
    lowest, highest = LONG_RUN.lowest, order_believed(list(systems), order)
    seen = lowest
    if len(systems) > 2:
        far = abs(systems[-2].average - systems[-3].average)
        seen = float(np.log2((far + 1e-300) / (near + 1e-300)))
    seen = float(np.clip(seen, lowest, highest))
    off = ONE_NUMBER * max(near, far / 2.0**highest) / (2.0**seen - 1.0)
    values, grids = [one.level.V for one in systems], [one.grid for one in systems]
    wrong = nested_estimate(values, grids, highest, lowest, lowest).bar
    off = max(off, fine.rate * float(np.mean(wrong[region_mask(fine.level)])))
    rounding = 64 * np.finfo(float).eps * fine.scale / fine.level.look.delta
    return off + fine.rate * fine.algebraic + float(rounding)
