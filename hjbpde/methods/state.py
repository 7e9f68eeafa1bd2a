"""Everything known on one grid while it is being solved."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..coefficients import Coefficients
from ..correlation import Correlation
from ..errors import ProblemError
from ..events import Stop
from ..faces import Faces
from ..game_tables import GameTables
from ..grid import Grid
from ..improvement import initial_policy
from ..jump_rates import JumpRates
from ..kernels.tridiagonal import TIE
from ..kernels.upwind import assemble
from ..linear import Ladder, Rows, default_ladder, off_axes_ladder
from ..multigrid import spacings
from ..off_axes import OffAxes
from ..problem import ControlProblem
from ..tabulate import Tables

Array = NDArray[np.float64]


@dataclass(eq=False)
class GridState:
    """Everything known on one grid; fields fill up as the solve goes on."""

    grid: Grid
    faces: Faces
    tables: Tables | GameTables
    scheme: int
    V: Array
    a: Array
    ladder: Ladder
    bounds: list[float] = field(default_factory=list)
    status: str = ""
    under: Coefficients | None = None
    amplification: float | None = None
    """max w of A w = 1 where it was solved for; 1 / rho_min bounds it elsewhere."""

    held: NDArray[np.bool_] | None = None
    """Nodes (N,) where stopping beat going on when rights to stop were last asked."""

    least: Array | None = None
    """psi (*shape) where the maximiser may stop: V stays at or above it."""
    most: Array | None = None
    """psi (*shape) where the minimiser may stop: V stays at or below it."""

    @property
    def rho_min(self) -> float:
        """Smallest discount rate; without discount, the rate of leaving by noise."""
        least = float(np.min(self.tables.rho))
        if least > 0 or self.under is None:
            return least or 1.0
        widths = np.asarray(self.grid.domain.width)[:, None]
        leaving = np.sum(np.broadcast_to(self.under.D, self.under.f.shape), axis=0)
        return float(np.mean(leaving) * (np.pi / np.max(widths)) ** 2) or 1.0

    @property
    def noise(self) -> Correlation | None:
        """Moves along offsets, where noise is correlated between axes."""
        return self.tables.noise

    @property
    def off_axes(self) -> OffAxes | None:
        """Rates off the axes: correlated noise and jumps."""
        return self.tables.off_axes

    @property
    def jumps(self) -> JumpRates | None:
        """The jumps of the state, where it has any."""
        return None if self.off_axes is None else self.off_axes.jumps

    @property
    def may_stop(self) -> bool:
        """Whether somebody may stop the process."""
        return self.least is not None or self.most is not None

    def settle_stops(self, residual: Array, rows: Rows) -> NDArray[np.bool_]:
        """Nodes (N,) where stopping beats going on; V is set to psi there.

        Going on is worth ``V + R / (c + sum of weights)``, what one relaxation of
        the row would make of it: a comparison in the units of V. Where nothing moves,
        nothing is paid and nothing discounted, whoever may stop does; so do ties
        without discount, which round-off would break for going on for ever.
        """
        weight = rows.c + rows.lower.sum(0) + rows.upper.sum(0) + rows.cross_weight
        with np.errstate(divide="ignore", invalid="ignore"):
            on = (self.V.ravel() + residual / weight).reshape(self.V.shape)
        idle = np.isnan(on)
        undiscounted = (rows.c == 0).reshape(self.V.shape)
        slack = np.where(undiscounted, TIE * np.abs(self.V), 0.0)
        stopped = np.zeros(self.V.shape, bool)
        for psi, better in ((self.least, 1.0), (self.most, -1.0)):
            if psi is not None:
                here = (better * (psi - on) > -slack) | (idle & ~stopped)
                self.V = np.where(here, psi, self.V)
                stopped |= here
        if self.faces.fixed_mask is not None:
            stopped &= ~self.faces.fixed_mask
            self.faces.set_fixed(self.V)
        self.held = held = stopped.ravel()
        return held

    @property
    def ends_by_stops_alone(self) -> bool:
        """Whether only rights to stop can end what is not discounted somewhere."""
        return self.may_stop and float(np.min(self.tables.rho)) == 0.0

    def stopped_nodes(self) -> NDArray[np.bool_]:
        """Nodes (*shape) where V sits on a payoff somebody may stop for."""
        out = np.zeros(self.grid.shape, bool)
        for psi in (self.least, self.most):
            if psi is not None:
                out |= np.abs(self.V - psi) <= 1e-12 * self.scale
        return out

    def obstacles(self) -> tuple[Array, Array]:
        """psi from below and above for the fused kernel, one entry where absent."""
        return (
            np.array([-np.inf]) if self.least is None else self.least.ravel(),
            np.array([np.inf]) if self.most is None else self.most.ravel(),
        )

    def algebraic(self) -> float:
        """Bound of |V - V_h| from the last residual."""
        last = self.bounds[-1]
        if self.amplification is None:
            return last
        return last * self.rho_min * self.amplification

    @property
    def scale(self) -> float:
        """sup |V|."""
        return float(np.max(np.abs(self.V))) or 1.0

    def spread_rho(self) -> Array:
        """The discount on every node, a fresh array."""
        return np.array(np.broadcast_to(self.tables.rho, (self.grid.size,)))

    def rows(self, under: Coefficients) -> tuple[Rows, Array, Array]:
        """Rows before folding, and the weights that folding will change."""
        d, n = under.f.shape
        lower, upper = np.empty((d, n)), np.empty((d, n))
        shape = np.array(self.grid.shape, np.int64)
        assemble(
            self.scheme, shape, *spacings(self.grid), under.f, under.D, lower, upper
        )
        rows = Rows(
            self.grid, self.faces, lower, upper, self.spread_rho(), under.f, under.D,
            self.scheme,
        )  # fmt: skip
        if self.off_axes is not None:
            rows.cross, rows.cross_D = self.off_axes.rates, self.off_axes.own
            rows.c += self.off_axes.lost
            rows.far = self.off_axes.jumps is not None
        return rows, lower, upper

    def folded(self, under: Coefficients) -> tuple[Rows, Array]:
        """Rows with the faces folded in, and their right-hand side."""
        rows, lower, upper = self.rows(under)
        rhs = under.r.copy()
        if self.off_axes is not None:
            rhs += self.off_axes.payoff()
        self.faces.fold(lower, upper, rows.c, rhs)
        return rows, rhs


def on_nodes(grid: Grid, a: Array) -> Array:
    """A policy (m, N) as an array (*shape, m)."""
    return np.ascontiguousarray(a.T.reshape(*grid.shape, len(a)))


class Held(Protocol):
    """Whatever has a value on a grid that rights to stop hold."""

    V: Array
    least: Array | None
    most: Array | None

    @property
    def grid(self) -> Grid: ...


def set_obstacles(
    problem: ControlProblem, state: Held, stops: tuple[Stop, ...] | None = None
) -> None:
    """psi of rights to stop on the nodes, and V moved to its right side.

    `stops`: those that hold now, by default all of them.
    """
    stops = problem.stops if stops is None else stops
    state.least = state.most = None
    nodes = state.grid.nodes() if stops else np.empty(0)
    for stop in stops:
        psi = problem.sign * np.asarray(stop.payoff(nodes), float)
        try:
            psi = np.broadcast_to(psi, state.grid.shape).copy()
        except ValueError:
            raise ProblemError(
                f"'stop': the payoff has shape {psi.shape} for states of shape "
                f"{nodes.shape}; expected one number a state, {state.grid.shape}."
            ) from None
        if not np.isfinite(psi).all():
            bad = nodes[tuple(np.argwhere(~np.isfinite(psi))[0])]
            raise ProblemError(f"'stop': the payoff is not finite at x = {bad}.")
        if stop.by == "controller":
            state.least, state.V = psi, np.maximum(state.V, psi)
        else:
            state.most, state.V = psi, np.minimum(state.V, psi)
    if state.least is not None and state.most is not None:
        crossed = state.least > state.most
        if crossed.any():
            raise ProblemError(
                "'stop': the controller's payoff is better than what the adversary "
                f"may settle at, first at x = {nodes[tuple(np.argwhere(crossed)[0])]}."
            )


def check_terminal(grid: Grid, terminal: Array, held: Array) -> None:
    """Refuse terminal values (*shape) that rights to stop move, to `held`.

    Raises
    ------
    ProblemError
        Naming where they do so most: worth more at T than T itself pays is a mistake.
    """
    moved = np.abs(held - terminal)
    if moved.max() > 1e-9 * max(float(np.abs(terminal).max()), 1e-300):
        worst = np.unravel_index(int(moved.argmax()), moved.shape)
        x = grid.nodes()[worst]
        raise ProblemError(
            f"'stop': at the horizon stopping beats the terminal payoff, most at x = "
            f"{x} by {moved[worst]:.3g}, so the value would jump there. Where that "
            "is meant, say so: let terminal be the better of the two."
        )


def make_state(
    problem_faces: Faces,
    tables: Tables | GameTables,
    scheme: int,
    V: Array | None = None,
    a: Array | None = None,
) -> GridState:
    """A state at V (0 by default) and policy a."""
    grid = problem_faces.grid
    if V is None:
        V = np.zeros(grid.shape)
        problem_faces.set_fixed(V)
    if a is None:
        a = initial_policy(tables, grid.size)
    tables = tables.on(problem_faces)
    off = tables.off_axes is not None
    ladder = off_axes_ladder(grid) if off else default_ladder(grid)
    return GridState(grid, problem_faces, tables, scheme, V, a, ladder)
