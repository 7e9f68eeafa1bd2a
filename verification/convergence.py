"""Convergence studies: errors, orders and error bars over a sequence of grids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import numpy as np
from numpy.typing import NDArray

import hjbpde as hjb
from hjbpde import Box, ControlProblem, Grid, GridSolution, ProblemError
from hjbpde.progress import bar_over

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Study:
    """What a convergence study found; every array has one entry a grid.

    Parameters
    ----------
    shapes : tuple of shapes
    steps : (n,)
        Largest spacing, geometric mean over the axes.
    errors : (n,)
        ``max |V_h - V|`` on the nodes of the inner region, relative to ``scale``.
    orders : (n - 1,)
        ``log(e_i / e_{i+1}) / log(h_i / h_{i+1})``; NaN where an error is 0.
    error_bars : (n,)
        The largest error bar there, relative to ``scale``.
    covered : (n,)
        Share of those nodes whose bar covers the error.
    reference : str
        What the errors were measured against.
    reference_error : float
        The reference's own bar, 0 for a closed form.
    scale : float
        sup|V| of the reference over the region.
    """

    shapes: tuple[tuple[int, ...], ...]
    steps: Array
    errors: Array
    orders: Array
    error_bars: Array
    covered: Array
    seconds: Array
    reference: str
    reference_error: float
    scale: float
    name: str = ""

    @property
    def order(self) -> float:
        """Least-squares slope of log error against log step."""
        known = self.errors > 0
        if known.sum() < 2:
            return float("nan")
        return float(
            np.polyfit(np.log(self.steps[known]), np.log(self.errors[known]), 1)[0]
        )

    @property
    def worst(self) -> float:
        """The largest error of all grids."""
        return float(self.errors.max())

    def table(self) -> str:
        """Columns of text: shape, error, order, error bar, nodes covered, seconds."""
        rows = [f"{'shape':>14} {'error':>9} {'order':>6} {'bar':>9} {'covered':>8}"]
        for i, shape in enumerate(self.shapes):
            order = f"{self.orders[i - 1]:6.2f}" if i else f"{'':6}"
            rows.append(
                f"{'x'.join(map(str, shape)):>14} {self.errors[i]:9.2e} {order} "
                f"{self.error_bars[i]:9.2e} {self.covered[i]:8.1%}"
            )
        rows.append(
            f"relative to {self.scale:.4g}; against {self.reference}"
            + (f" (bar {self.reference_error:.1e})" if self.reference_error else "")
        )
        return "\n".join(rows)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and dictionaries."""
        from .verdict import plain

        names = (
            "name", "shapes", "steps", "errors", "orders", "error_bars", "covered",
            "seconds", "reference", "reference_error", "scale", "order",
        )  # fmt: skip
        return {name: plain(getattr(self, name)) for name in names}

    def plot(self) -> Any:
        """A matplotlib figure: error and error bar against the step, both log."""
        from .report.figures import study_figure

        return study_figure(self)


def convergence_study(
    problem: ControlProblem,
    shapes: Sequence[int | Sequence[int]],
    method: Any = None,
    reference: Any = None,
    *,
    progress: bool = False,
) -> Study:
    """Solve on every shape and compare with one reference, today with a horizon.

    Parameters
    ----------
    problem : ControlProblem
    shapes : sequence of shapes, coarse to fine
        At least two.
    method : PolicyIteration, optional
    reference : Solution or callable x (..., d) -> (...), optional
        Default: the problem's exact value; without one, the finest solution, whose
        own error bar is stated. With a horizon: at t = 0.

    Raises
    ------
    ProblemError
        Fewer than two shapes, or an unusable reference.
    MethodMismatch
        A problem with several values a state (modes), or with impulses.
    """
    problem.require_only(
        "convergence_study",
        *("exit", "stop", "dates", "average", "adversary", "horizon"),
    )
    assert problem.domain is not None
    shapes = list(shapes)
    if len(shapes) < 2:
        raise ProblemError(
            f"convergence_study: {len(shapes)} shapes; an order needs at least two, "
            "such as [101, 201, 401]."
        )
    grids = [Grid(problem.domain, shape) for shape in shapes]
    labels = ["x".join(map(str, grid.shape)) for grid in grids]
    solved = [
        _solved(problem, grid, method)
        for grid, _ in bar_over(grids, labels, progress, problem.name or "study")
    ]
    compared, truth, label, own = _reference_of(problem, solved, reference)
    return _study(problem, compared, truth, label, own)


def _solved(problem: ControlProblem, grid: Grid, method: Any) -> GridSolution:
    """The solution on one grid, of today where there is a horizon."""
    if problem.horizon is None:
        return hjb.solve(problem, grid, method)
    solution = hjb.solve(problem, grid, method, times=[0.0])
    assert isinstance(solution, hjb.TimedSolution)
    return solution.at(0.0)


def _reference_of(
    problem: ControlProblem, solved: list[GridSolution], reference: Any
) -> tuple[list[GridSolution], Any, str, Any]:
    if reference is None and problem.exact is not None:
        label = f"the exact value ({problem.exact.source})"
        return solved, _today(problem, problem.exact.value), label, None
    if reference is None:
        finest = solved[-1]
        shape = "x".join(map(str, finest.grid.shape))
        return solved[:-1], finest.value_at, f"the solution on {shape}", finest.error_at
    if hasattr(reference, "value_at"):
        own = getattr(reference, "error_at", None)
        return solved, reference.value_at, "the solution given", own
    if callable(reference):
        return solved, reference, "the function given", None
    raise ProblemError(
        f"convergence_study: reference is a {type(reference).__name__}; give a "
        "Solution, a function of points (..., d), or nothing."
    )


def _today(problem: ControlProblem, value: Any) -> Any:
    """The exact value at t = 0: a function of x alone, or of x and t."""
    if problem.horizon is None or "t" not in signature(value).parameters:
        return value
    return lambda x: value(x, t=0.0)


def _study(
    problem: ControlProblem,
    solved: list[GridSolution],
    truth: Any,
    label: str,
    own: Any,
) -> Study:
    # One scale for every grid: that of the finest, whose nodes hold most of them.
    scale = _scale(solved[-1], truth)
    own_error = 0.0 if own is None else _largest_on(solved[-1], own) / scale
    rows = [_row(solution, truth, scale, own_error) for solution in solved]
    steps, errors, bars, covered, seconds = np.array(rows).T
    with np.errstate(divide="ignore", invalid="ignore"):
        orders = np.log(errors[:-1] / errors[1:]) / np.log(steps[:-1] / steps[1:])
    return Study(
        shapes=tuple(s.grid.shape for s in solved),
        steps=steps,
        errors=errors,
        orders=np.where(np.isfinite(orders), orders, np.nan),
        error_bars=bars,
        covered=covered,
        seconds=seconds,
        reference=label,
        reference_error=own_error,
        scale=scale,
        name=problem.name,
    )


def _scale(solution: GridSolution, truth: Any) -> float:
    return _largest_on(solution, truth) or 1.0


def _largest_on(solution: GridSolution, function: Any) -> float:
    x = solution.grid.nodes()[_inside(solution.grid, solution.region)]
    return float(np.abs(np.asarray(function(x))).max())


def _row(
    solution: GridSolution, truth: Any, scale: float, own_error: float
) -> tuple[float, ...]:
    """Step, error, bar, share of the nodes covered, and seconds of one grid."""
    grid = solution.grid
    inside = _inside(grid, solution.region)
    error = np.abs(solution.value[inside] - np.asarray(truth(grid.nodes()[inside])))
    bar = solution.error_bar[inside]
    shares = [
        np.diff(axis).max() / width
        for axis, width in zip(grid.axes, grid.domain.width, strict=True)
    ]
    step = float(np.prod(shares) ** (1 / len(shares)))
    covered = float((error <= bar + own_error * scale).mean())
    seconds = sum(float(t) for t in solution.report.seconds.values())
    return step, float(error.max()) / scale, float(bar.max()) / scale, covered, seconds


def _inside(grid: Grid, region: Box) -> NDArray[np.bool_]:
    slack = 1e-12 * float(region.width.max())
    return Box(region.low, region.high).contains(grid.nodes(), slack)
