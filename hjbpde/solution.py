"""The solution on a grid: arrays, evaluators between nodes, and what follows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from .arrival import refuse_lost
from .closure import target_slopes
from .density import density_of, stationary_of
from .errors import MethodMismatch, ProblemError
from .faces import Faces
from .gradient_bar import gradient_gaps
from .greedy import greedy_control
from .grid import Grid
from .interpolation import Interpolant, beyond, filled
from .mdp import MDP
from .methods.state import GridState, make_state
from .problem import ControlProblem
from .real_numbers import real_array
from .report import Report
from .schemes import Scheme
from .sets import Box
from .simulate import Paths, simulate
from .storage import write_arrays
from .tabulate import fixed_policy_tables

Array = NDArray[np.float64]
LABEL = "hjbpde solution"
GRADIENT_SAFETY = 1.5
SWITCH = 0.25
"""Share of the control's range beyond which neighbours count as a switch."""
ON_NODES = (
    *("value", "error_bar", "control", "adversary_control"),
    *("stopping", "target", "swapped_value"),
)
"""Answers that a kind of solution may have on every node."""


@dataclass(frozen=True, eq=False)
class GridSolution:
    """Value, control and error bar on the nodes, and between them.

    Parameters
    ----------
    problem : ControlProblem or None
        None after loading without it: arrays and evaluators still work.
    grid : Grid
    value, error_bar : (*shape)
        In the units of V and in the problem's own sense (costs are costs).
    control : (*shape, m)
    report : Report
    second_opinion : (*shape), optional
        The better value that the discretisation part was measured against.
    stopping : bool (*shape), optional
        Where stopping is best, if somebody may stop; where moving at once is.
    average : float, optional
        The long-run average of a problem with ``average=True``; the value is then
        relative, 0 at the domain centre.
    """

    problem: ControlProblem | None
    grid: Grid
    value: Array
    control: Array
    error_bar: Array
    report: Report
    scheme: Scheme
    second_opinion: Array | None = None
    artificial_axes: tuple[bool, ...] = ()
    stopping: NDArray[np.bool_] | None = None
    average: float | None = None

    @property
    def region(self) -> Box:
        """Where the answer is meant to hold: the inner 75 % along artificial axes."""
        return self.grid.domain.inner(0.75, self.artificial_axes)

    @cached_property
    def _value(self) -> Interpolant:
        return Interpolant(self.grid, filled(self.value))

    @cached_property
    def _bar(self) -> Interpolant:
        return Interpolant(self.grid, filled(self.error_bar))

    @cached_property
    def _opinion(self) -> Interpolant | None:
        if self.second_opinion is None:
            return None
        return Interpolant(self.grid, self.second_opinion)

    def value_at(self, x: Any) -> Array:
        """V at x (..., d), shape (...): local cubic interpolation.

        Infinite in every cell with a corner from which the exit cannot be reached.

        Raises
        ------
        ProblemError
            A point outside the domain or not finite.
        """
        x = real_array(x, "x, at which a solution was asked,")
        found = self._value.cubic(x)
        end = np.inf if np.max(self.value) == np.inf else -np.inf
        return np.where(beyond(self.grid, x, self.value), end, found)

    def gradient_at(self, x: Any) -> Array:
        """grad V at x (..., d), shape (..., d): gradient of the local cubic.

        Zero where the value is infinite.
        """
        x = real_array(x, "x, at which a solution was asked,")
        lost = beyond(self.grid, x, self.value)[..., None]
        return np.where(lost, 0.0, self._value.gradient(x))

    def error_at(self, x: Any) -> Array:
        """The error bar at x (..., d): nodes' bar plus interpolation's own."""
        x = real_array(x, "x, at which a solution was asked,")
        found = self._bar.linear(x) + self._value.uncertainty(x)
        return np.where(beyond(self.grid, x, self.error_bar), np.inf, found)

    def gradient_error_at(self, x: Any) -> Array:
        """A bar of the gradient at x (..., d), shape (..., d); an estimate.

        Distance to the better value's gradient, plus what the local cubic leaves
        open; without a better value the bar of V over h.
        """
        x = real_array(x, "x, at which a solution was asked,")
        steps = np.array([np.median(np.diff(axis)) for axis in self.grid.axes])
        cubic = 2.0 * self._value.uncertainty(x)[..., None] / steps
        cubic = np.where(beyond(self.grid, x, self.error_bar)[..., None], np.inf, cubic)
        if self._opinion is None:
            return self._bar.linear(x)[..., None] / steps + cubic
        apart = np.stack([part.linear(x) for part in self._apart], -1)
        return GRADIENT_SAFETY * apart + cubic

    @cached_property
    def _apart(self) -> list[Interpolant]:
        assert self._opinion is not None
        found = self._value, self._opinion, self.stopping is not None
        return [Interpolant(self.grid, gap) for gap in gradient_gaps(*found)]

    def control_at(self, x: Any) -> Array:
        """The policy at x (..., d), shape (..., m).

        Maximised anew with the interpolated gradient; controls are never averaged
        across a switch. Without the problem: see `interpolated_control`.
        """
        x = real_array(x, "x, at which a solution was asked,")
        near = self.interpolated_control(x)
        if self.problem is None or self.problem.controls is None:
            return near
        flat = self.grid.domain.wrap(x.reshape(-1, self.grid.dimension))
        a = near.reshape(-1, near.shape[-1]).copy()
        # Where the value is infinite no control is best, and a cost may be infinite.
        good = ~beyond(self.grid, flat, self.value)
        a[good] = greedy_control(
            self.problem,
            flat[good],
            self.gradient_at(flat[good]),
            self._hessian_at(flat[good]) if callable(self.problem.diffusion) else None,
            a[good],
            strict=False,
        )
        return a.reshape(near.shape)

    def _hessian_at(self, x: Array) -> Array:
        """Pure second derivatives on the diagonal, (n, d, d)."""
        d = self.grid.dimension
        out = np.zeros((len(x), d, d))
        for k, bends in enumerate(self._bends):
            out[:, k, k] = bends.cubic(x)
        return out

    @cached_property
    def _bends(self) -> list[Interpolant]:
        from .defect import AxisStencil, along

        return [
            Interpolant(
                self.grid,
                along(self.grid, k, AxisStencil.of(self.grid, k, 4), self.value)[1],
            )
            for k in range(self.grid.dimension)
        ]

    def interpolated_control(self, x: Any) -> Array:
        """Node controls at x: linear where neighbours agree, else the nearest."""
        x = real_array(x, "x, at which a solution was asked,")
        m = self.control.shape[-1]
        if m == 0:
            return np.zeros((*x.shape[:-1], 0))
        smooth = np.stack([part.linear(x) for part in self._controls], -1)
        flat = self.grid.domain.wrap(x.reshape(-1, self.grid.dimension))
        index = []
        for k, axis in enumerate(self.grid.axes):
            right = np.clip(np.searchsorted(axis, flat[:, k]), 1, axis.size - 1)
            left_is_near = flat[:, k] - axis[right - 1] <= axis[right] - flat[:, k]
            index.append(np.where(left_is_near, right - 1, right))
        nearest = self.control[tuple(index)].reshape(smooth.shape)
        span = np.ptp(self.control.reshape(-1, m), axis=0)
        jump = (np.abs(smooth - nearest) > SWITCH * span).any(-1, keepdims=True)
        return np.where(jump, nearest, smooth)

    @cached_property
    def _controls(self) -> list[Interpolant]:
        return [
            Interpolant(self.grid, np.ascontiguousarray(self.control[..., i]))
            for i in range(self.control.shape[-1])
        ]

    def _need_problem(self, what: str) -> ControlProblem:
        if self.problem is None:
            raise ProblemError(
                f"{what} needs the problem: hjb.load(path, problem=...)."
            )
        return self.problem

    def _state(self, what: str) -> GridState:
        problem = self._need_problem(what)
        if not np.isfinite(self.value).all():
            raise ProblemError(
                f"{what}: the value is infinite on some nodes, from which the exit "
                "cannot be reached; shrink the domain until it is finite."
            )
        faces = Faces.of(problem, self.grid)
        a = self.control.reshape(self.grid.size, -1)
        tables = fixed_policy_tables(problem, self.grid, faces, a)
        state = make_state(faces, tables, self.scheme.code, problem.sign * self.value)
        faces.set_slopes(target_slopes(faces, state.V, choose=True))
        return state

    def generator(self) -> sp.csr_matrix:
        """L^a of the optimally controlled process, (N, N) CSR, C-order nodes.

        Always the monotone operator: off-diagonal entries are rates >= 0. Fixed
        (Dirichlet) nodes are absorbing: their rows are zero.
        """
        problem = self._need_problem("generator")
        problem.require_only("generator", "exit", "average", "jumps")
        state = self._state("generator")
        assert state.tables is not None
        rows, _ = state.folded(state.tables.under(state.a))
        matrix = sp.diags(state.spread_rho()) - rows.matrix()
        if state.faces.fixed_mask is not None:
            keep = (~state.faces.fixed_mask.ravel()).astype(float)
            matrix = sp.diags(keep) @ matrix
        return sp.csr_matrix(matrix)

    def as_mdp(self, controls: Any = None, dt: float | None = None) -> MDP:
        """The Markov chain of the monotone scheme, see `hjbpde.chain.mdp_of`."""
        from .chain import mdp_of

        problem = self._need_problem("as_mdp")
        if problem.horizon is not None:
            raise MethodMismatch(
                "as_mdp: a problem with a horizon has another chain at every time; "
                "solution.at(t).as_mdp() is that of time t, without its rights to stop."
            )
        return mdp_of(self, controls, dt)

    def stationary_density(self) -> Array:
        """Density in the long run, (*shape), see `hjbpde.density.stationary_of`."""
        return stationary_of(self)

    def density(self, t: float, start: Any = None) -> Array:
        """Density a time t after the start, see `hjbpde.density.density_of`."""
        return density_of(self, t, start)

    def _free_nodes(self) -> NDArray[np.bool_]:
        """Nodes (*shape) where the process goes on."""
        fixed = Faces.of(self._need_problem("density"), self.grid).fixed_mask
        return np.ones(self.grid.shape, bool) if fixed is None else ~fixed

    def node_volumes(self) -> Array:
        """Trapezoidal volume of every node, (*shape); sums to the domain's volume."""
        return self.grid.volumes()

    def simulate(
        self, x0: Any, horizon: float, dt: float, paths: int, seed: int
    ) -> Paths:
        """Sample paths under this policy, see `hjbpde.simulate`."""
        problem = self._need_problem("simulate")
        refuse_lost(self.grid, self.value, x0)
        return simulate(
            problem, self.interpolated_control, x0, horizon, dt, paths, seed
        )

    def save(self, path: str | Path) -> Path:
        """One labelled file: arrays, grid and report; atomically, no pickle."""
        return write_arrays(path, LABEL, *self._contents())

    def _contents(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Arrays and header of the saved file."""
        arrays: dict[str, NDArray[Any]] = {
            "value": self.value,
            "control": self.control,
            "error_bar": self.error_bar,
            **{f"axis{k}": axis for k, axis in enumerate(self.grid.axes)},
            "low": np.asarray(self.grid.domain.low),
            "high": np.asarray(self.grid.domain.high),
        }
        if self.second_opinion is not None:
            arrays["second_opinion"] = self.second_opinion
        if self.stopping is not None:
            arrays["stopping"] = self.stopping
        problem = self.problem
        header = {
            "periodic": list(self.grid.periodic),
            "artificial_axes": list(self.artificial_axes),
            "scheme": type(self.scheme).__name__,
            "sense": None if problem is None else problem.sign,
            "problem": "" if problem is None else problem.name,
            "report": self.report.to_dict(),
            "average": self.average,
        }
        return arrays, header

    def _leading(self) -> dict[str, NDArray[Any]]:
        """The axes of `value` before those of the state, and the places along them."""
        return {}

    def to_xarray(self) -> Any:
        """All answers on the nodes as an xarray Dataset (if installed).

        Axes are `time` and `mode` where there are any, then `x0`, `x1` and so on;
        controls have one more, e.g. `control_index`.
        """
        import xarray  # optional: a convenience for those who have it

        states = {f"x{k}": axis for k, axis in enumerate(self.grid.axes)}
        labels, found = {**self._leading(), **states}, {}
        for name in ON_NODES:
            values = getattr(self, name, None)
            if values is not None:
                one_more = [f"{name}_index"] if values.ndim > len(labels) else []
                found[name] = ([*labels, *one_more], values)
        return xarray.Dataset(found, coords=labels)

    def plot(self) -> Any:
        """A figure: value with its bar, control, error bar."""
        from .plotting import plot_solution

        return plot_solution(self)

    def __repr__(self) -> str:
        name = self.problem.name if self.problem is not None else "loaded"
        return f"GridSolution({name!r}, shape={self.grid.shape})\n{self.report}"
