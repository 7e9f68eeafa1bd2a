"""What was measured, put together as a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .evidence import evidence_of
from .excursion import Excursion
from .long_run import LongRun
from .measure import Setting, Values, joined
from .points import SamplePoints
from .policies import Policies
from .regret import Losses
from .ruling import Ruling
from .slopes import Slopes
from .subject import Subject
from .verdict import Verdict
from .when import When

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Measured:
    """Everything measured, one entry a time judged (one where stationary).

    `slopes`, `losses`, `excursion` and the entries of `policies` and `residuals` are
    None where there was nothing to measure; both lists are empty after a NaN. `unit` is
    what losses are relative to.
    """

    values: Sequence[Values]
    slopes: Sequence[Slopes] | None
    losses: Losses | None
    excursion: Excursion | None
    unit: float
    policies: Sequence[Policies | None]
    residuals: Sequence[Array | None]

    @property
    def replies(self) -> Losses | None:
        """The losses of the adversary's strategy."""
        return None if self.losses is None else self.losses.of_the_adversary

    @property
    def scale(self) -> float:
        """s, its largest value over all times."""
        return max(float(values.scale.max()) for values in self.values)


def verdict_of(
    setting: Setting, points: SamplePoints, ruling: Ruling, measured: Measured
) -> Verdict:
    """The verdict: what decided, and every number behind it."""
    findings = ruling.findings
    places = [f.where for f in findings if f.where is not None]
    place = places[0] if places else _worst(joined(measured.values))
    when = When()
    if place is not None:
        place, when = setting.instants[0].when.read(place)
    return Verdict(
        status=ruling.status,
        reasons=tuple(f.text for f in findings) or _why_agreed(setting, measured),
        **_errors(measured, points),
        where=place,
        time=when.time,
        mode=when.mode,
        resolution=points.resolution,
        tolerance=setting.tolerance,
        scale=measured.scale,
        region=setting.region,
        n_points=sum(len(values.x) for values in measured.values),
        name=setting.problem.name,
        details=_details(setting, measured, points),
        evidence=evidence_of(setting, measured.losses, measured.excursion),
    )


def _errors(
    measured: Measured, points: SamplePoints, only: int | None = None
) -> dict[str, Any]:
    """The numbers of the verdict, at all times or the one numbered `only`."""
    at = slice(None) if only is None else slice(only, only + 1)
    values, scale = measured.values[at], measured.scale
    known = all(np.isfinite(v.signed).all() for v in values)
    slopes = None if measured.slopes is None else measured.slopes[at]
    policies = [p for p in measured.policies[at] if p is not None]
    residuals = [r for r in measured.residuals[at] if r is not None]
    off = [np.abs(v.signed / v.scale).max() for v in values]
    centred = [_centred(v, points.n_nodes) for v in values]
    left = [np.abs(r) for r in residuals]
    return {
        "value_error": float(max(off)) if known else None,
        "mean_removed_error": float(max(centred)) if known else None,
        "gradient_error": None if slopes is None else _most(s.error for s in slopes),
        "control_error": _most(p.error for p in policies) if policies else None,
        "regret": _regret(measured.losses, measured.unit, only),
        "adversary_regret": _regret(measured.replies, measured.unit, only),
        "residual": _most(left) / scale if residuals else None,
        "reference_error": max(float((v.bar / v.scale).max()) for v in values),
    }


def _centred(values: Values, n_nodes: int) -> float:
    """The largest error once the mean error of the nodes is removed."""
    rest = values.signed - values.signed[:n_nodes].mean()
    return float(np.abs(rest / values.scale).max())


def _regret(losses: Losses | None, scale: float, only: int | None) -> float | None:
    if losses is None or losses.missing is not None:
        return None
    chosen = losses.regrets if only is None else losses.regrets[only : only + 1]
    return max(regret.worst()[0] for regret in chosen) / scale


def _regret_bar(measured: Measured, only: int) -> float | None:
    losses = measured.losses
    if losses is None or losses.missing is not None:
        return None
    return losses.regrets[only].largest_bar() / measured.unit


def _worst(values: Values) -> Array | None:
    if not np.isfinite(values.signed).all():
        return None
    return values.places[int(np.abs(values.signed / values.scale).argmax())]


def _why_agreed(setting: Setting, measured: Measured) -> tuple[str, ...]:
    judged = ["value, gradient"] if setting.subject.has_value else []
    judged += ["regret"] if measured.losses is not None else []
    text = " and ".join(judged)
    everywhere = "at every point"
    if setting.times is not None:
        everywhere += f" at {len(setting.times)} times"
    if setting.problem.modes is not None:
        everywhere += f" in {setting.problem.modes.n} modes"
    return (
        f"{text} within {setting.tolerance:g} of the scale {everywhere}, the "
        "reference's bar included.",
    )


def _details(
    setting: Setting, measured: Measured, points: SamplePoints
) -> dict[str, Any]:
    out: dict[str, Any] = {
        "grid": list(setting.grid.shape),
        "seed": setting.seed,
        "reference_method": setting.reference.report.method,
    }
    excursion, scale, unit = measured.excursion, measured.scale, measured.unit
    for prefix, losses in (("", measured.losses), ("adversary_", measured.replies)):
        if losses is not None and losses.missing is None:
            regret = losses.deciding(setting.tolerance * unit)
            out[f"{prefix}regret_grid"] = list(regret.grid.shape)
            out[f"{prefix}regret_bar"] = regret.largest_bar() / unit
            out[f"{prefix}projected_control"] = float(regret.moved.max(initial=0.0))
    if excursion is not None:
        out["paths_leaving"] = excursion.share
        out["paths_leaving_reference"] = excursion.reference_share
        out["horizon_simulated"] = excursion.horizon
    if measured.slopes is not None:
        out["gradient_bar"] = _most(s.bar for s in measured.slopes)
        out["kinks"] = sum(s.kinks for s in measured.slopes)
    policies = [p for p in measured.policies if p is not None]
    replies = [p.reply for p in policies if p.reply is not None]
    if policies:
        out["hamiltonian_gap"] = _most(p.gap for p in policies) / scale
    if replies:
        out["adversary_hamiltonian_gap"] = _most(p.gap for p in replies) / scale
        out["adversary_control_error"] = _most(p.error for p in replies)
        out["adversary_answers"] = setting.instants[0].subject.answers
    residuals = [r for r in measured.residuals if r is not None]
    if residuals:
        out["residual_rms"] = float(
            np.sqrt(np.nanmean(np.concatenate(residuals) ** 2)) / scale
        )
    if setting.long_run is not None:
        out["average"] = _long_run(setting.long_run, setting.subject, measured.losses)
    whens = [instant.when for instant in setting.instants]
    if whens[0].numbers:
        out["slices"] = [
            {
                "time": when.time,
                "mode": when.mode,
                **_errors(measured, points, i),
                "regret_bar": _regret_bar(measured, i),
            }
            for i, when in enumerate(whens)
        ]
    return out


def _long_run(
    long_run: LongRun, subject: Subject, losses: Losses | None
) -> dict[str, Any]:
    """Averages per unit time: reference's, candidate's, its policy's on the nodes."""
    out: dict[str, Any] = {
        "reference": long_run.average,
        "error": long_run.error,
        "scale": long_run.scale,
        "claimed": subject.average,
    }
    averages = None if losses is None else losses.regrets[0].averages
    if averages is not None:
        inside = averages.by_start[losses.regrets[0].inside]  # type: ignore[union-attr]
        out["policy"] = [float(inside.min()), float(inside.max())]
        out["best_policy"], out["parts"] = averages.best, averages.parts
    return out


def _most(arrays: Any) -> float:
    """The largest entry that is a number."""
    every = np.concatenate(list(arrays))
    known = every[~np.isnan(every)]
    return float(known.max()) if known.size else float("nan")
