"""Error bars with what the same steps do on boxes whose artificial faces are far."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..error_bar import ErrorBar
from ..grid import Grid
from ..methods.bounds import region_mask
from ..methods.ergodic import centred
from ..methods.larger_box import LargerBox, require_settled
from ..problem import ControlProblem
from .average import AverageSystem, Averaging, average_cut, chain
from .bar import truncation
from .impulse import Impulses
from .nested import Nested, Pages
from .system import System

Array = NDArray[np.float64]


def judged(nested: Nested, systems: list[System]) -> tuple[ErrorBar, dict[str, Any]]:
    """The bar of the finest grid's values, and the details of the report."""
    bar, details = nested.bound(systems), nested.details(systems)
    inner = region_mask(systems[-1].levels[0])
    if bar.truncation is None or not _looks_beyond(nested):
        return bar, details
    if not isinstance(nested, Averaging):
        (bar,) = _larger(nested, systems).widened([bar], inner)
        return bar, details
    own, cut = nested.average_errors(systems)
    if np.isfinite(own):
        fine = chain(systems)[-1]
        both = [bar, _constant(own / fine.rate, cut / fine.rate, bar.total.shape)]
        bar, average = _averaging(nested, systems).widened(both, inner)
        error = fine.rate * float(np.max(average.total[..., inner]))
        details = {**details, "average_error": error}
    return bar, details


def _looks_beyond(nested: Nested) -> bool:
    """Whether larger boxes are afforded: moves in three states take minutes on one."""
    few = type(nested) is Impulses or type(nested) is Averaging
    return type(nested) is Nested or (few and nested.problem.dimension < 3)


def _larger(nested: Nested, systems: list[System]) -> LargerBox:
    """The same steps on the same cells with the artificial faces farther off."""

    def solved(wider: ControlProblem, wide: Grid, level: int) -> tuple[Array, Array]:
        last = _on(nested, systems[level], wider, wide)
        return last.V, truncation(last)

    grids, values = [one.grid for one in systems], [one.V for one in systems]
    return LargerBox(nested.problem, grids, values, solved)


def _averaging(nested: Averaging, systems: list[System]) -> LargerBox:
    """Values (2, *shape): the relative value, and the average over the rate of mixing.

    The first is 0 at the centre of the problem's own domain on every box.
    """
    fine = chain(systems)[-1]
    domain, rate, average = fine.grid.domain, fine.rate, fine.average

    def both(one: AverageSystem) -> Array:
        V = centred(one.grid, one.level.V, domain)
        return np.stack([V, np.full_like(V, (one.average - average) / rate)])

    def solved(wider: ControlProblem, wide: Grid, level: int) -> tuple[Array, Array]:
        last = _on(nested, systems[level], wider, wide)
        assert isinstance(last, AverageSystem)
        felt = truncation(last)[0]
        return both(last), np.stack(
            [felt, np.full_like(felt, average_cut(last) / rate)]
        )

    found = chain(systems)
    return LargerBox(
        nested.problem,
        [one.grid for one in found],
        [both(one) for one in found],
        solved,
    )


def _on(nested: Nested, system: System, wider: ControlProblem, wide: Grid) -> System:
    """The finest system of a larger box, by steps as long as those of `system`."""
    pages, step = nested.pages, system.looks[0].delta
    same = replace(nested.method, step=step)
    there = Pages(pages.file, f"{pages.part}{wider.name} on {wider.domain} by {step} ")
    last = type(nested)(wider, wide, same, there).solve()[-1]
    require_settled(last.status)
    return last


def _constant(own: float, cut: float, shape: tuple[int, ...]) -> ErrorBar:
    """The bar of a number, at every node."""
    return ErrorBar(np.full(shape, own + cut), {}, None, truncation=np.full(shape, cut))
