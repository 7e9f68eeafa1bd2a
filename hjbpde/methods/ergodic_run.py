"""One whole solve of a long-run average: nested grids, error bars, solution."""

from __future__ import annotations

import time
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ..error_bar import NESTED_SAFETY, ErrorBar, nested_estimate, truncation_bar
from ..grid import Grid
from ..problem import ControlProblem
from ..report import Report
from ..solution import GridSolution
from .bounds import region_mask
from .ergodic import (
    VANISHING,
    AverageState,
    centred,
    solve_average,
    with_discount,
)
from .larger_box import LargerBox, require_settled
from .nested import RunOptions
from .policy_iteration import EPS, PolicyIteration

Array = NDArray[np.float64]


def run_average(
    problem: ControlProblem,
    grid: Grid,
    method: PolicyIteration,
    options: RunOptions,
    policy: Array | None = None,
) -> GridSolution:
    """The average and the relative value, each with its error bar.

    Those of the best policy, or of a fixed one (N, m).
    """
    start = time.perf_counter()
    found = solve_average(problem, grid, method, options, policy)
    solved = time.perf_counter()
    fine = found[-1]
    bar, average_error = _bars(found)
    if policy is None and np.isfinite(average_error):
        box = _larger(problem, found, method, options)
        bar, average_error = _beyond(box, bar, average_error, fine)
    seconds = {"solve": solved - start, "error bar": time.perf_counter() - solved}
    control = np.ascontiguousarray(fine.state.a.T) if policy is None else policy
    return GridSolution(
        problem=problem,
        grid=grid,
        value=problem.sign * fine.centred(),
        control=control.reshape(*grid.shape, problem.n_controls),
        error_bar=bar.total,
        report=_report(problem, found, method, (bar, average_error), seconds),
        scheme=method.scheme,
        artificial_axes=problem.artificial_axes,
        average=problem.sign * fine.average,
    )


def _bars(found: list[AverageState]) -> tuple[ErrorBar, float]:
    """The bar of the relative value (*shape), and of the average."""
    fine = found[-1]
    state, last = fine.state, found[-3:]
    if state.status == "not converged" or len(last) < 3:
        unknown = np.full(state.grid.shape, np.inf)
        why = "the iteration did not converge" if len(last) == 3 else "too few grids"
        return ErrorBar(unknown, {}, None, (f"no bar: {why}",)), np.inf
    values = [one.centred() for one in last]
    nested = nested_estimate(values, [one.state.grid for one in last], 2.0)
    # What slopes at artificial faces do while the state mixes once; an estimate.
    state.tables = with_discount(fine.plain, fine.rate)
    cut = truncation_bar(state, values[-1])
    inner = region_mask(state)
    rounding = 8 * EPS * state.scale
    algebraic = 2.0 * fine.residual / fine.rate
    parts = {
        "discretisation": float(np.max(nested.bar[inner])),
        "truncation": float(np.max(cut[inner])),
        "algebraic": algebraic,
        "round-off": rounding,
    }
    total = nested.bar + 2.0 * cut + algebraic + rounding
    far, near = (abs(b.average - a.average) for a, b in pairwise(last))
    order = np.clip(np.log2((far + 1e-300) / (near + 1e-300)), 1.0, 2.0)
    off = NESTED_SAFETY * max(near, far / 4.0) / (2.0**order - 1.0)
    off += fine.residual + rounding * fine.rate
    value = ErrorBar(total, parts, nested.order, truncation=2.0 * cut)
    return value, off + _truncated(fine, values[-1])


def _beyond(
    box: LargerBox, bar: ErrorBar, average_error: float, fine: AverageState
) -> tuple[ErrorBar, float]:
    """Both bars with what larger boxes tell."""
    inner = region_mask(fine.state)
    cut = np.full(bar.total.shape, _truncated(fine, fine.centred()) / fine.rate)
    whole = np.full_like(cut, average_error / fine.rate)
    value, average = box.widened(
        [bar, ErrorBar(whole, {}, None, truncation=cut)], inner
    )
    return value, fine.rate * float(np.max(average.total[inner]))


def _larger(
    problem: ControlProblem,
    found: list[AverageState],
    method: PolicyIteration,
    options: RunOptions,
) -> LargerBox:
    """Values (2, *shape): the relative value, and the average over the rate of mixing.

    The first is 0 at the centre of the problem's own domain on every box.
    """
    rate, average = found[-1].rate, found[-1].average
    domain = found[-1].state.grid.domain

    def both(one: AverageState) -> Array:
        V = centred(one.state.grid, one.state.V, domain)
        return np.stack([V, np.full_like(V, (one.average - average) / rate)])

    def solved(wider: ControlProblem, wide: Grid, _: int) -> tuple[Array, Array]:
        last = solve_average(wider, wide, method, options.on(wider))[-1]
        require_settled(last.state.status)
        values = both(last)
        felt = np.full_like(values, _truncated(last, values[0]) / rate)
        last.state.tables = with_discount(last.plain, last.rate)
        felt[0] = 2.0 * truncation_bar(last.state, values[0])
        return values, felt

    grids = [one.state.grid for one in found]
    return LargerBox(problem, grids, [both(one) for one in found], solved)


def _truncated(fine: AverageState, V: Array) -> float:
    """What wrong slopes at artificial faces do to the average, from the centre."""
    slow = VANISHING * fine.rate
    fine.state.tables = with_discount(fine.plain, slow)
    return slow * float(truncation_bar(fine.state, V).ravel()[V.size // 2])


def _report(
    problem: ControlProblem,
    found: list[AverageState],
    method: PolicyIteration,
    bars: tuple[ErrorBar, float],
    seconds: dict[str, float],
) -> Report:
    fine, (bar, average_error) = found[-1].state, bars
    average = problem.sign * found[-1].average
    checks = [
        f"long-run average {average:.10g}, error at most {average_error:.2g}",
        "the average lies between the least and the largest entry of r + L V, to "
        f"{found[-1].residual:.2g}",
        f"linear solves by {fine.ladder.name}",
    ]
    for (axis, side), rule in problem.faces.items():
        if rule is None:
            checks.append(f"face ({axis}, {side}) is artificial")
    return Report(
        status=fine.status,
        method=f"{method.name}, long-run average",
        iterations=len(fine.bounds),
        residuals=tuple(fine.bounds),
        seconds=seconds,
        checks=(*checks, *bar.notes),
        fallbacks=tuple(
            dict.fromkeys(t for o in found for t in o.state.ladder.fallbacks)
        ),
        error_parts=bar.parts,
        observed_order=bar.observed_order,
        details={
            "grids": [list(one.state.grid.shape) for one in found],
            "average_error": average_error,
        },
    )
