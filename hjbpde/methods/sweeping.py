"""Fast sweeping for first-exit problems without noise and without discount.

``min_a { l(x, a) + f(x, a) . grad V } = 0`` outside ``{phi <= 0}``, V = g on it: the
least cost, or with l = 1 the least time, to reach the region. Where the reachable
velocities form a ball of radius c(x) this is the eikonal equation ``c |grad V| = l``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ProblemError
from ..kernels.feet import controlled_sweep
from ..kernels.sweeping import PAD, eikonal_sweep

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Sweeping:
    """Gauss-Seidel sweeps in alternating orders; one to four dimensions.

    Eikonal equations are solved to second order where smooth (first at kinks), factored
    at a point source. Other drift is followed along arcs of constant control: monotone,
    first order at worst. Uniform grids; ``diffusion=None`` and ``discount=0``. Paths
    end on `Dirichlet` faces; all others are walls: no path leaves the domain.

    Parameters
    ----------
    order : {1, 2}
        Of the eikonal stencil; 1 is monotone.
    candidates : int
        Controls tried along each axis of a control box where its corners alone are not
        known to be enough.
    reach : int
        Most cells of one arc of constant control.
    tolerance : float
        Largest relative change of the last cycle.
    max_cycles : int
        Cycles of 2^d sweeps before giving up.
    """

    order: int = 2
    candidates: int = 64
    reach: int = 16
    tolerance: float = 1e-9
    max_cycles: int = 200

    def __post_init__(self) -> None:
        if self.order not in (1, 2):
            raise ProblemError(f"Sweeping: order is {self.order}; use 1 or 2.")
        for name, least in (("candidates", 2), ("reach", 1), ("max_cycles", 1)):
            if getattr(self, name) < least:
                raise ProblemError(f"Sweeping: {name} must be {least} or more.")
        if not 0.0 < self.tolerance < 1.0:
            raise ProblemError("Sweeping: tolerance must lie between 0 and 1.")


@dataclass(frozen=True)
class Swept:
    """Values on the nodes, infinite where the target cannot be reached.

    `best` numbers the minimising control of each node (-1: none), None for an eikonal
    equation; `changes` holds the largest change of each cycle.
    """

    value: Array
    changes: tuple[float, ...]
    converged: bool
    best: NDArray[np.int64] | None = None

    def memory(self) -> dict[str, NDArray[Any]]:
        """For the checkpoint."""
        changes, converged = np.array(self.changes), np.array(self.converged)
        out = {"value": self.value, "changes": changes, "converged": converged}
        return out if self.best is None else {**out, "best": self.best}

    @classmethod
    def recalled(cls, memory: Mapping[str, NDArray[Any]]) -> Swept:
        """As `memory` left it."""
        changes = tuple(memory["changes"].tolist())
        best = memory.get("best")
        return cls(memory["value"], changes, bool(memory["converged"]), best)


@dataclass(eq=False)
class Layout:
    """How node arrays (*shape) become padded flat ones, and back."""

    shape: tuple[int, ...]
    periodic: tuple[bool, ...]

    @property
    def padded(self) -> tuple[int, ...]:
        """Shape with two layers on every side."""
        return tuple(n + 2 * PAD for n in self.shape)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Shape and strides of the padded array, (2, d)."""
        strides = np.cumprod([1, *self.padded[:0:-1]])[::-1]
        return np.array([self.shape, strides], np.int64)

    def fill(self, values: Array, outside: float) -> Array:
        """Padded flat copy with a constant around; periodic axes are copied."""
        out = np.pad(values, PAD, constant_values=outside)
        self.close(out)
        return out.ravel()

    def extend(self, values: Array) -> Array:
        """Padded flat copy that repeats the nearest node; periodic axes are copied."""
        out = np.pad(values, PAD, mode="edge")
        self.close(out)
        return np.ascontiguousarray(out).ravel()

    def close(self, out: Array) -> None:
        """Copy both ends of each periodic axis into the padding of a padded array."""
        for axis, periodic in enumerate(self.periodic):
            if periodic:
                view, n = np.moveaxis(out, axis, 0), self.shape[axis]
                view[:PAD] = view[n : n + PAD]
                view[n + PAD :] = view[PAD : 2 * PAD]

    def mark_ends(self, due: Mask) -> None:
        """Set what reads the other end of a periodic axis in a padded array."""
        for axis, periodic in enumerate(self.periodic):
            if periodic:
                view = np.moveaxis(due, axis, 0)
                view[: 2 * PAD] = view[-2 * PAD :] = True

    def core(self, flat: NDArray[Any]) -> NDArray[Any]:
        """The nodes of a padded flat array, (*shape), a copy."""
        inner = tuple(slice(PAD, -PAD) for _ in self.shape)
        return flat.reshape(self.padded)[inner].copy()


def cycles(
    sweep: Callable[[int], float],
    layout: Layout,
    values: Array,
    tolerance: Callable[[], float],
    most: int,
    due: Mask | None = None,
) -> tuple[list[float], bool]:
    """Cycles of 2^d sweeps until one changes no value by more than the tolerance.

    The kernel marks neighbours `due` node by node; what reaches a node through the end
    of a periodic axis is marked here.
    """
    changes: list[float] = []
    for _ in range(most):
        worst = 0.0
        for flips in range(1 << len(layout.shape)):
            worst = max(worst, sweep(flips))
            if any(layout.periodic):
                layout.close(values.reshape(layout.padded))
                if due is not None:
                    layout.mark_ends(due.reshape(layout.padded))
        changes.append(worst)
        if worst <= tolerance():
            return changes, True
    return changes, False


def sweep_eikonal(
    known: Array,
    slowness: Array,
    spacing: Array,
    periodic: tuple[bool, ...],
    method: Sweeping,
    factor: tuple[Array, Array] | None = None,
) -> Swept:
    """|grad T| = s with T given where `known` is finite.

    Parameters
    ----------
    known, slowness : (*shape)
        An infinite slowness is an obstacle.
    spacing : (d,)
    factor : (*shape) and (d, *shape), optional
        T0 and its gradient: only T - T0 is differenced.
    """
    layout, d = Layout(known.shape, periodic), known.ndim
    wall = ~np.isfinite(slowness)
    T = layout.fill(np.where(wall, np.inf, known), np.inf)
    frozen = np.pad(np.isfinite(known) | wall, PAD, constant_values=True).ravel()
    s = layout.fill(np.where(wall, 0.0, slowness), 0.0)
    T0, slopes = np.zeros(1), np.zeros((d, 1))
    if factor is not None:
        T0 = layout.fill(factor[0], 0.0)
        slopes = np.stack([layout.fill(g, 0.0) for g in factor[1]])
    scratch, order = np.zeros((2, d)), np.zeros((2, d), np.int64)
    shape, strides = layout.sizes

    def limit() -> float:
        finite = T[np.isfinite(T)]
        return method.tolerance * float(np.max(np.abs(finite), initial=1e-300))

    changes: list[float] = []
    converged = False
    for second in (False, True)[: method.order]:
        # The second order needs an upwind start only: one first-order cycle is enough.
        most = 1 if second is False and method.order == 2 else method.max_cycles
        due = ~frozen

        def sweep(flips: int, second: bool = second, due: Mask = due) -> float:
            return eikonal_sweep(
                T, frozen, due, s, spacing, shape, strides, flips, second,
                factor is not None, T0, slopes, scratch, order,
            )  # fmt: skip

        more, converged = cycles(sweep, layout, T, limit, most, due)
        changes += more
    return Swept(layout.core(T), tuple(changes), converged)


@dataclass(frozen=True)
class ArcTables:
    """What arcs need on the nodes: drift (A, d, *shape), cost (A or 1, *shape).

    An infinite cost under every control is an obstacle; phi <= 0 the target, where the
    value is g (finite everywhere; outside it is only read next to the target).
    on_faces (*shape): the value given on faces of the domain, infinite elsewhere.
    """

    drift: Array
    cost: Array
    phi: Array
    g: Array
    on_faces: Array | float = np.inf


def sweep_arcs(
    tables: ArcTables,
    spacing: Array,
    periodic: tuple[bool, ...],
    method: Sweeping,
    rate: float,
) -> Swept:
    """T = min over controls and stops of cost + T(stop), as w = exp(-rate T)."""
    layout, phi = Layout(tables.phi.shape, periodic), tables.phi
    wall = ~np.isfinite(tables.cost).all(axis=0)
    inside = phi <= 0
    given = np.where(inside, tables.g, tables.on_faces)
    low = float(given.min()) if np.isfinite(given).any() else 0.0
    gain = np.exp(-rate * (tables.g - low))
    W = layout.fill(np.where(wall, 0.0, np.exp(-rate * (given - low))), 0.0)
    frozen = np.pad(np.isfinite(given) | wall, PAD, constant_values=True).ravel()
    f = np.stack([[layout.extend(part) for part in one] for one in tables.drift])
    charge = np.where(wall, 0.0, tables.cost)
    cost = np.stack([layout.extend(one) for one in charge])
    level, gain = layout.extend(phi), layout.extend(gain)
    blocked = layout.fill(wall.astype(float), 0.0)
    sizes, d = layout.sizes, phi.ndim
    closed, best = np.array(periodic, bool), np.full(W.size, -1, np.int64)
    corners = np.array(
        [sum(int(sizes[1, k]) for k in range(d) if c >> k & 1) for c in range(1 << d)]
    )
    scratch = np.zeros((5, d)), np.zeros(1 << d), np.zeros(d, np.int64)
    changes: list[float] = []
    converged = False
    for reach in sorted({1, method.reach}):

        def sweep(flips: int, reach: int = reach) -> float:
            return controlled_sweep(
                W, frozen, f, cost, level, gain, blocked, rate, spacing, sizes, closed,
                corners, reach, flips, best, *scratch,
            )  # fmt: skip

        # One-cell steps only prepare the long ones.
        last = reach == method.reach
        small = method.tolerance if last else max(1e-3, method.tolerance)
        more, converged = cycles(sweep, layout, W, lambda s=small: s, method.max_cycles)
        changes += more
    w = layout.core(W)
    value = np.full(w.shape, np.inf)
    value[w > 0] = low - np.log(w[w > 0]) / rate
    return Swept(value, tuple(changes), converged, layout.core(best))
