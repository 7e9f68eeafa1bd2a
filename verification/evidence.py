"""What a verdict keeps for its pictures: arrays on a slice, paths, training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hjbpde import Box, ControlProblem, Grid

from .excursion import Excursion
from .measure import Setting
from .moves import moves_of
from .reference import Instant, running
from .regret import Losses, Regret
from .subject import subject_of
from .when import When

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Slice:
    """Candidate and reference at one time and in one mode, arrays shaped like the axes.

    Controls have one more axis (m), an adversary's follow; moves have one for the state
    moved to (d), NaN where it is left alone. Missing answers are None;
    where the process has ended all are NaN. `when` tells the time and the mode.
    """

    when: When
    value: Array | None
    reference: Array
    bar: Array
    control: Array | None
    reference_control: Array | None
    regret: Array | None
    adversary_regret: Array | None = None
    move: Array | None = None
    reference_move: Array | None = None

    @property
    def time(self) -> float | None:
        """Its calendar time, with a horizon."""
        return self.when.time

    @property
    def mode(self) -> int | None:
        """Its mode, where there are modes."""
        return self.when.mode

    @property
    def larger_regret(self) -> Array | None:
        """Of both players' regrets the larger one, node by node."""
        if self.regret is None or self.adversary_regret is None:
            return self.regret
        return np.maximum(self.regret, self.adversary_regret)


@dataclass(frozen=True, eq=False)
class Evidence:
    """Candidate and reference on the region's nodes, in 3-D and more on a slice.

    `axes` are one or two coordinate arrays; `fixed` maps the other axes to their
    coordinate; `slices` holds what was found at every time judged.
    """

    axes: tuple[Array, ...]
    fixed: Mapping[int, float]
    slices: tuple[Slice, ...]
    excursion: Excursion | None
    candidate_report: Mapping[str, Any] = field(default_factory=dict)
    reference_report: Mapping[str, Any] = field(default_factory=dict)
    control_names: tuple[str, ...] = ()


def evidence_of(
    setting: Setting, losses: Losses | None, excursion: Excursion | None
) -> Evidence:
    """Evaluate both answers on the slice through the region's centre."""
    axes, fixed, points = slice_of(setting.grid, setting.region)
    none: Sequence[Regret | None] = [None] * len(setting.instants)
    regrets = replies = none
    if losses is not None and losses.missing is None:
        regrets, replies = losses.regrets, losses.replies or none
    report = setting.subject.report
    return Evidence(
        axes=axes,
        fixed=fixed,
        slices=tuple(
            slice_at(instant, points, pair)
            for instant, *pair in zip(setting.instants, regrets, replies, strict=True)
        ),
        excursion=excursion,
        candidate_report={} if report is None else report.to_dict(),
        reference_report=setting.reference.report.to_dict(),
        control_names=names_of(setting.problem),
    )


def names_of(problem: ControlProblem) -> tuple[str, ...]:
    """What controls are called in pictures, an adversary's b."""
    mb = 0 if problem.adversary is None else problem.adversary.dimension
    sides = ("a", problem.n_controls), ("b", mb)
    return tuple(f"{side}_{{{i + 1}}}" for side, m in sides for i in range(m))


def slice_at(
    instant: Instant, points: Array, regrets: Sequence[Regret | None]
) -> Slice:
    """Both answers at one time on `points` (*shape, d), and both sides' regrets."""
    flat, shape = points.reshape(-1, points.shape[-1]), points.shape[:-1]
    runs = running(instant.problem, flat)
    x = flat[runs]

    def shaped(array: Any) -> Array:
        out = np.full((len(flat), *np.shape(array)[1:]), np.nan)
        out[runs] = array
        # Where no control reaches an exit the value is infinite: nothing to draw.
        out[np.isinf(out)] = np.nan
        return out.reshape(*shape, *out.shape[1:])

    subject, reference = instant.subject, instant.reference
    bars = np.full(len(flat), np.nan)
    bars[runs] = instant.bar_at(x)
    bars = bars.reshape(shape)
    controls = None
    if subject.joint.n_controls:
        controls = subject.choices(x), instant.reference_choices(x)
    moves: list[Array | None] = [None, None]
    if instant.problem.impulse is not None:
        both = subject, subject_of(reference, instant.problem)
        moves = [shaped(moves_of(who, x)) for who in both]
    lost = [
        None
        if regret is None or regret.map is None
        else shaped(regret.grid.interpolate(regret.map, x))
        for regret in regrets
    ]
    return Slice(
        when=instant.when,
        value=shaped(subject.value(x)) if subject.has_value else None,
        reference=shaped(reference.value_at(x)),
        bar=bars,
        control=None if controls is None else shaped(controls[0]),
        reference_control=None if controls is None else shaped(controls[1]),
        regret=lost[0],
        adversary_regret=lost[1],
        move=moves[0],
        reference_move=moves[1],
    )


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
