"""What a verdict keeps for its pictures: arrays on a slice, paths, training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hjbpde import Box, Grid

from .candidate import Subject
from .excursion import Excursion
from .regret import Regret

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Evidence:
    """Candidate and reference on the region's nodes, in 3-D and more on a slice.

    `axes` are one or two coordinate arrays; every array below has their shape,
    controls one more axis (m). `fixed` maps the other axes to their coordinate.
    Missing answers are None.
    """

    axes: tuple[Array, ...]
    fixed: Mapping[int, float]
    value: Array | None
    reference: Array
    bar: Array
    control: Array | None
    reference_control: Array | None
    regret: Array | None
    excursion: Excursion | None
    candidate_report: Mapping[str, Any] = field(default_factory=dict)
    reference_report: Mapping[str, Any] = field(default_factory=dict)
    state_names: tuple[str, ...] = ()


def evidence_of(
    subject: Subject,
    reference: Any,
    grid: Grid,
    region: Box,
    regret: Regret | None,
    excursion: Excursion | None,
) -> Evidence:
    """Evaluate both answers on the slice through the region's centre."""
    axes, fixed, points = slice_of(grid, region)
    flat = points.reshape(-1, grid.dimension)
    shape = points.shape[:-1]

    def shaped(array: Any) -> Array:
        return np.asarray(array, float).reshape(*shape, *np.shape(array)[1:])

    bar = reference.error_at(flat) if hasattr(reference, "error_at") else np.inf
    controls = controls_on(subject, reference, flat)
    regret_map = None
    if regret is not None and regret.map is not None:
        regret_map = shaped(regret.grid.interpolate(regret.map, flat))
    report = subject.report
    return Evidence(
        axes=axes,
        fixed=fixed,
        value=shaped(subject.value(flat)) if subject.has_value else None,
        reference=shaped(reference.value_at(flat)),
        bar=shaped(np.broadcast_to(bar, len(flat))),
        control=None if controls is None else shaped(controls[0]),
        reference_control=None if controls is None else shaped(controls[1]),
        regret=regret_map,
        excursion=excursion,
        candidate_report={} if report is None else report.to_dict(),
        reference_report=reference.report.to_dict(),
    )


def controls_on(
    subject: Subject, reference: Any, x: Array
) -> tuple[Array, Array] | None:
    """Both policies at x (n, d); None without controls."""
    if subject.problem.n_controls == 0:
        return None
    return subject.control(x)[0], np.asarray(reference.control_at(x))


def slice_of(
    grid: Grid, region: Box
) -> tuple[tuple[Array, ...], dict[int, float], Array]:
    """Axes shown (at most two), the other coordinates, and the points (*shape, d)."""
    low, high = np.asarray(region.low), np.asarray(region.high)
    shown = []
    for k in range(min(grid.dimension, 2)):
        axis = grid.axes[k]
        inner = axis[(axis > low[k]) & (axis < high[k])]
        shown.append(np.r_[low[k], inner, high[k]])
    fixed = {k: float(region.centre[k]) for k in range(2, grid.dimension)}
    mesh = np.meshgrid(*shown, indexing="ij")
    rest = [np.full(mesh[0].shape, fixed[k]) for k in sorted(fixed)]
    return tuple(shown), fixed, np.stack([*mesh, *rest], axis=-1)
