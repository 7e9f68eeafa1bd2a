"""One whole solve with modes: nested grids, error bar, solution."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..error_bar import ErrorBar, nested_estimate, truncation_bar
from ..exit_surface import surface_miss
from ..grid import Grid
from ..moded_solution import ModedSolution
from ..problem import ControlProblem
from ..report import Report
from .bounds import kinked_bound, region_mask
from .corrections import Corrections
from .larger_box import LargerBox, require_settled
from .moded_state import ModedState
from .modes import solve_moded
from .nested import RunOptions
from .policy_iteration import EPS, PolicyIteration
from .run import with_surface
from .state import GridState

Array = NDArray[np.float64]

ENDS_INSIDE = (
    "Richardson refused: where the process may end inside the domain, errors depend on "
    "how cells are cut"
)


def run_modes(
    problem: ControlProblem, grid: Grid, method: PolicyIteration, options: RunOptions
) -> ModedSolution:
    """Solve all modes on nested grids and bound the error."""
    start = time.perf_counter()
    found = solve_moded(problem, grid, method, options)
    solved = time.perf_counter()
    fine = found[-1]
    values, bars, notes = _extrapolated(found, method)
    if fine.status != "not converged":
        box = _larger(problem, found, method, options)
        bars = box.widened(bars, region_mask(fine.states[0]))
    bars = _with_surfaces(bars, problem, fine)
    seconds = {"solve": solved - start, "error bar": time.perf_counter() - solved}
    m = problem.n_controls
    return ModedSolution(
        problem=problem,
        grid=grid,
        value=problem.sign * values,
        control=np.stack(
            [np.ascontiguousarray(s.a.T).reshape(*grid.shape, m) for s in fine.states]
        ),
        error_bar=np.stack([bar.total for bar in bars]),
        report=_report(problem, found, method, bars, (seconds, notes)),
        scheme=method.scheme,
        stopping=(
            np.stack([s.stopped_nodes() for s in fine.states])
            if problem.stops
            else None
        ),
        artificial_axes=problem.artificial_axes,
    )


def _extrapolated(
    found: list[ModedState], method: PolicyIteration
) -> tuple[Array, list[ErrorBar], list[str]]:
    """The values (K, *shape) to return, their bars, and what was refused.

    Extrapolated values are judged by extrapolated values on the coarser grids.
    """
    fine = found[-1]
    plain = np.stack([state.V for state in fine.states])
    if not method.richardson or fine.status == "not converged" or len(found) < 4:
        return plain, _bars(found), []
    if any(state.may_stop or state.faces.inside for state in fine.states):
        return plain, _bars(found), [ENDS_INSIDE]
    values, bars, corrections = [], [], Corrections()
    for k in range(len(fine.states)):
        states = [moded.states[k] for moded in found]
        last = len(states)
        better = [
            corrections.extrapolate(states[:n]) for n in range(last - 2, last + 1)
        ]
        values.append(better[-1])
        bars.append(_judged(better, states[-3:]))
    if corrections.notes:
        return plain, _bars(found), list(dict.fromkeys(corrections.notes))
    return np.stack(values), bars, []


def _judged(values: list[Array], states: list[GridState]) -> ErrorBar:
    """The bar of extrapolated values; rounding and residuals count three times.

    They are believed to be of first order, though of second where V is smooth: kinks
    lie otherwise in their cells from grid to grid.
    """
    fine = states[-1]
    nested = nested_estimate(values, [state.grid for state in states], 1.0)
    cut, inner = truncation_bar(fine, fine.V), region_mask(fine)
    part = nested.bar
    if fine.faces.fixed_mask is not None:
        part[fine.faces.fixed_mask] = 0.0
    parts = {
        "discretisation": float(np.max(part[inner])),
        "truncation": float(np.max(cut[inner])),
        "algebraic": 3.0 * fine.algebraic(),
        "round-off": 24.0 * EPS * fine.scale,
    }
    total = part + cut + parts["algebraic"] + parts["round-off"]
    return ErrorBar(total, parts, nested.order, truncation=cut)


def _bars(found: list[ModedState]) -> list[ErrorBar]:
    """The bar of every mode from its nested values.

    What is cut off by artificial faces is felt through the other modes too: the
    worst mode's answers for all of them.
    """
    fine = found[-1]
    if fine.status == "not converged":
        unknown = np.full(fine.grid.shape, np.inf)
        note = "no bar: the iteration did not converge"
        return [ErrorBar(unknown, {}, None, (note,)) for _ in fine.states]
    bars = [
        kinked_bound([moded.states[k] for moded in found])
        for k in range(len(fine.states))
    ]
    if not any(state.faces.artificial for state in fine.states):
        return bars
    worst, cut = (
        np.max([getattr(bar, name) for bar in bars], axis=0)
        for name in ("total", "truncation")
    )
    return [replace(bar, total=worst, truncation=cut) for bar in bars]


def _larger(
    problem: ControlProblem,
    found: list[ModedState],
    method: PolicyIteration,
    options: RunOptions,
) -> LargerBox:
    """All modes with the artificial faces farther off."""

    def solved(wider: ControlProblem, wide: Grid, _: int) -> tuple[Array, Array]:
        last = solve_moded(wider, wide, method, options.on(wider))[-1]
        require_settled(last.status)
        felt = [truncation_bar(state, state.V) for state in last.states]
        return _values(last), np.stack(felt)

    grids, values = [one.grid for one in found], [_values(one) for one in found]
    return LargerBox(problem, grids, values, solved)


def _values(moded: ModedState) -> Array:
    """V of all modes (K, *shape)."""
    return np.stack([state.V for state in moded.states])


def _with_surfaces(
    bars: list[ErrorBar], problem: ControlProblem, fine: ModedState
) -> list[ErrorBar]:
    """The bars with what the surfaces of all modes cost the worst of them."""
    if problem.exit is None:
        return bars
    alone = [problem.in_mode(k) for k in range(len(bars))]
    each = list(zip(alone, fine.states, strict=True))
    worst = max(surface_miss(one, state, state.V) for one, state in each)
    return [
        with_surface(bar, one, state, worst)
        for bar, (one, state) in zip(bars, each, strict=True)
    ]


def _report(
    problem: ControlProblem,
    found: list[ModedState],
    method: PolicyIteration,
    bars: list[ErrorBar],
    took: tuple[dict[str, float], list[str]],
) -> Report:
    fine = found[-1]
    line = fine.grid.dimension == 1 and not fine.grid.periodic[0]
    how = (
        "block tridiagonal elimination"
        if line
        else "block Gauss-Seidel over the modes, every residual measured"
    )
    checks = [f"{len(fine.states)} modes evaluated together by {how}"]
    for (axis, side), rule in problem.faces.items():
        if rule is None:
            checks.append(f"face ({axis}, {side}) is artificial in every mode")
    names = {name for bar in bars for name in bar.parts}
    parts = {n: max(bar.parts.get(n, 0.0) for bar in bars) for n in sorted(names)}
    orders = [bar.observed_order for bar in bars if bar.observed_order is not None]
    ladders = [s.ladder.fallbacks for moded in found for s in moded.states]
    return Report(
        status=fine.status,
        method=method.name,
        iterations=len(fine.bounds),
        residuals=tuple(fine.bounds),
        seconds=took[0],
        checks=(*checks, *dict.fromkeys(n for bar in bars for n in bar.notes)),
        fallbacks=tuple(dict.fromkeys([t for s in ladders for t in s] + took[1])),
        error_parts=parts,
        observed_order=min(orders, default=None),
        details={"grids": [list(moded.grid.shape) for moded in found]},
    )
