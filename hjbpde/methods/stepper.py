"""One problem with a horizon on one grid, an implicit step of Euler at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ..errors import NotConverged, ProblemError
from ..events import Stop
from ..faces import Faces
from ..game_tables import GameTables, tables_of
from ..grid import Grid
from ..interpolation import Interpolant
from ..jump_rates import JumpRates
from ..problem import ControlProblem
from ..schemes import Scheme
from ..tabulate import GeneralTables, QuadraticTables, Tables
from .corrections import one_sided
from .end_slopes import Closing, EndSlopes
from .face_controls import complete_ends, greedy_everywhere
from .game_iteration import play
from .kinked_data import Kinks, averaged
from .policy_iteration import fits_fused, iterate, iterate_fused
from .state import (
    GridState,
    check_terminal,
    make_state,
    on_nodes,
    set_obstacles,
)

Array = NDArray[np.float64]
STEP_TOLERANCE = 1e-11


@dataclass(eq=False)
class Stepper:
    """One problem on one grid, one implicit step at a time."""

    problem: ControlProblem
    grid: Grid
    scheme: int
    state: GridState
    base: Tables | GameTables | None
    end_slopes: EndSlopes
    closing: Closing = Closing.ANCHORED
    bent: bool = False
    """Whether V is as far off beyond artificial faces as it may be (`OffAxes.miss`)."""
    kinks: Kinks = Kinks.NONE
    """The worst that V has had at the horizon or after a date."""
    unexercised: Array = field(default_factory=lambda: np.empty(0))
    begun: tuple[Array, Kinks] | None = None
    """V averaged at the horizon, the same in every run on this grid, and its kinks."""

    @classmethod
    def of(
        cls,
        problem: ControlProblem,
        grid: Grid,
        scheme: Scheme,
        closing: Closing = Closing.ANCHORED,
        before: Stepper | None = None,
    ) -> Stepper:
        """At the horizon, with the terminal value.

        `before` is another run on this grid, whose jumps and averages are used again.
        """
        last = problem.slice_at(end_of(problem), 1.0)
        faces = Faces.of(last, grid)
        tables = tables_of(last, grid, faces)
        nodes = grid.nodes()
        terminal = problem.sign * np.asarray(problem.terminal_at(nodes), float)
        if not np.isfinite(terminal).all():
            bad = np.argwhere(~np.isfinite(terminal))[0]
            raise ProblemError(f"'terminal' is not finite at x = {nodes[tuple(bad)]}.")
        if before is not None and problem.jumps is not None:
            known = before.known_jumps()
            tables = tables.on(faces, None if known is None else known.on(faces))
        state = make_state(faces, tables, scheme.code, terminal.copy())
        set_obstacles(problem, state, problem.stops_at(end_of(problem)))
        check_terminal(grid, terminal, state.V)
        base = None if problem.depends_on_time else state.tables
        own = EndSlopes.of(faces, terminal)
        out = cls(problem, grid, scheme.code, state, base, own, closing)
        out.begun = None if before is None else before.begun
        return out

    @property
    def parts(self) -> list[Stepper]:
        """Itself: there is one mode."""
        return [self]

    @property
    def value(self) -> Array:
        """V (*shape) where the march has come to, maximised."""
        return self.state.V

    def step(self, t: float, dt: float) -> None:
        """From V(t + dt) to V(t)."""
        self.prepare(t, dt)
        state = self.state
        if fits_fused(state):
            iterate_fused(state, STEP_TOLERANCE, 100, 0)
        elif isinstance(state.tables, GameTables):
            play(state, 1e-9, 100, np.inf, 0)
        else:
            iterate(state, 1e-9, 100, slope_updates=0, scan=False)
        self.check(t, dt)

    def prepare(self, t: float, dt: float) -> None:
        """Set the state up as the stationary problem of the step to t."""
        state, rate = self.state, 1.0 / dt
        tables = self.base
        if tables is None:
            now = self.problem.slice_at(t, 1.0)
            tables = tables_of(now, self.grid, state.faces)
            tables = tables.on(state.faces, self.known_jumps())
        source = rate * state.V.ravel()
        if self.bent and state.off_axes is not None:
            source = source + state.off_axes.miss(state.V)
        if self.problem.data_depend_on_time:
            self._renew(t)
        elif self.problem.dates:
            set_obstacles(self.problem, state, self._always(self.problem))
        rho = tables.rho - 1.0 + rate
        state.tables = _stepped(tables, rho, source)
        self.close()
        state.bounds.clear()

    def close(self) -> None:
        """Set the slopes at artificial faces by V as it is."""
        faces = self.state.faces
        if faces.artificial:
            faces.set_slopes(self.end_slopes.at(faces, self.state.V, self.closing))

    def check(self, t: float, dt: float) -> None:
        """Refuse what a step to t did not solve.

        Raises
        ------
        NotConverged
            Naming the time, the step and the grid.
        """
        state = self.state
        if not np.isfinite(state.V).all() or state.status == "not converged":
            raise NotConverged(
                f"the step at t = {t:.6g} (dt = {dt:.3g}) on the grid "
                f"{self.grid.shape} did not converge. Likely controls that tie over a "
                "wide region, or a value growing without bound; try more steps, "
                "hjb.Upwind(), or a smaller domain."
            )

    def one_sided(self) -> float:
        """Share of nodes where some weight of the last step was not central."""
        # The fused kernel keeps no coefficients.
        self.state.under = self.state.tables.under(self.state.a)
        return one_sided(self.state)

    def known_jumps(self) -> JumpRates | None:
        """The jumps of the last step, where they are those of every step."""
        off, jumps = self.state.off_axes, self.problem.jumps
        moving = jumps is None or jumps.depends_on_time
        return None if moving or off is None else off.jumps

    def _renew(self, t: float) -> None:
        """Face data, exit values and stopping payoffs of time t."""
        now = self.problem.at_time(t)
        self.state.faces.renew(now)
        if self.state.off_axes is not None:
            self.state.off_axes.renew(now)
        # A guess that meets them: fixed nodes are read, never solved for.
        self.state.V = self.state.V.copy()
        self.state.faces.set_fixed(self.state.V)
        set_obstacles(now, self.state, self._always(now))

    @staticmethod
    def _always(problem: ControlProblem) -> tuple[Stop, ...]:
        """The rights to stop that hold throughout a step, not at dates only."""
        return tuple(stop for stop in problem.stops if stop.dates is None)

    def exercise(self, t: float) -> None:
        """Where t is a date: V moved to the right side of the stops that hold then."""
        if self._is_date(t):
            self.unexercised = self.state.V
            set_obstacles(self.problem, self.state, self.problem.stops_at(t))
            self.state.faces.set_fixed(self.state.V)

    def soften(self, t: float) -> None:
        """After the terminal time or a date: V averaged around the kinks it has there.

        Along axes with noise, which has forgotten them a little earlier. Where somebody
        may stop at any time V must not pass what stopping pays, and is left.
        """
        at_end = t >= end_of(self.problem)
        if self._always(self.problem) or not (at_end or self._is_date(t)):
            return
        if not at_end:
            V, kinks = self._averaged(self._exercised(t))
        else:
            self.begun = self.begun or self._averaged(self._terminal)
            V, kinks = self.begun
        self.state.V, self.kinks = V.copy(), max(self.kinks, kinks)

    def _averaged(self, data: Callable[[Array], Array]) -> tuple[Array, Kinks]:
        """V at its nodes, which is that of data(x), averaged around kinks."""
        state = self.state
        noise = state.tables.under(state.a).D
        axes = [k for k, D in enumerate(noise) if np.min(D) > 0]
        return averaged(data, self.grid, state.V, axes, state.faces.fixed_mask)

    def _terminal(self, x: Array) -> Array:
        """The terminal value at any states, maximised."""
        found = np.asarray(self.problem.terminal_at(x), dtype=float)
        return self.problem.sign * found

    def _exercised(self, t: float) -> Callable[[Array], Array]:
        """V after the date t at any states, between the nodes by cubics of V before."""
        going_on = Interpolant(self.grid, self.unexercised)

        def value(x: Array) -> Array:
            found = going_on.cubic(x)
            for stop in self.problem.stops_at(t):
                psi = self.problem.sign * np.asarray(stop.payoff(x), dtype=float)
                better = np.maximum if stop.by == "controller" else np.minimum
                found = better(found, psi)
            return found

        return value

    def _is_date(self, t: float) -> bool:
        slack = 1e-12 * end_of(self.problem)
        return any(abs(t - date) <= slack for date in self.problem.dates)

    def control(self) -> Array:
        """The last step's control, (*shape, m); before any, that of the terminal V.

        An adversary's controls follow the controller's.
        """
        state = self.state
        if state.bounds:
            complete_ends(state)
        else:
            self.close()
            state.a = greedy_everywhere(state)
        return on_nodes(self.grid, state.a)

    def stopped(self) -> NDArray[np.bool_]:
        """Nodes (*shape) where somebody stops."""
        return self.state.stopped_nodes()


def _stepped(
    tables: Tables | GameTables, rho: Array, source: Array
) -> Tables | GameTables:
    """The tables of one step: discounted by rho, with a payoff (N,) added."""
    if isinstance(tables, GeneralTables):
        return replace(tables, rho=rho, source=source)
    if isinstance(tables, QuadraticTables):
        return replace(tables, rho=rho, r0=tables.r0 + source)
    return replace(tables, joint=_stepped(tables.joint, rho, source))


def end_of(problem: ControlProblem) -> float:
    assert problem.horizon is not None
    return float(problem.horizon)
