"""The verdict: a status, its reasons, and every number behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hjbpde import Box

from .evidence import Evidence
from .when import When

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Verdict:
    """What a cross-check found. Errors are relative to the problem's scale s.

    Parameters
    ----------
    status : str
        "agree", "differ" or "inconclusive".
    reasons : tuple of str
        Every rule that decided, with its number and place.
    value_error : float or None
        ``max e / s`` over all points, e = |candidate - reference|.
    gradient_error : float or None
        ``max_k |d_k e| width_k / osc V`` away from kinks.
    control_error : float or None
        ``max_i |a_i - a_i^ref| / max |a_i^ref|``; shown, never decides.
    regret : float or None
        ``max (V - V^policy) / s`` on the nodes of the region (with cost: reversed);
        with an adversary V^policy is what the policy is worth against its best reply;
        in the long run ``average - average^policy`` over `loss_scale`.
    adversary_regret : float or None
        ``max (V^b - V) / s`` (with cost: reversed), V^b what the controller can get
        against the adversary's strategy b. None without an adversary.
    residual : float or None
        ``max |rho V - V_t - max_a H| / (rate s)`` between the nodes, rate = rho for
        discounted problems; shown, never decides.
    reference_error : float
        ``max u / s``, u = the reference's error bar.
    mean_removed_error : float or None
        As value_error, after the mean error is removed.
    where : array (d,) or None
        The point that decided, or that of the largest value error.
    time : float or None
        Its calendar time, with a horizon.
    mode : int or None
        Its mode, where there are modes.
    resolution : array (d,)
        A fault wider than this box cannot lie between the points.
    tolerance, scale : float
        Relative tolerance, and s (its largest value).
    region : Box
    n_points : int
    details : mapping
        Further numbers: regret bar, Hamiltonian gap, projection, exits, grid, averages;
        with a horizon or modes also ``slices``, the errors at every time and in each.
    """

    status: str
    reasons: tuple[str, ...]
    value_error: float | None
    gradient_error: float | None
    control_error: float | None
    regret: float | None
    residual: float | None
    reference_error: float
    mean_removed_error: float | None
    where: Array | None
    resolution: Array
    tolerance: float
    scale: float
    region: Box
    n_points: int
    name: str = ""
    time: float | None = None
    mode: int | None = None
    adversary_regret: float | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    evidence: Evidence | None = field(default=None, repr=False)

    @property
    def loss_scale(self) -> float:
        """What regret is relative to: s, in the long run the averages' own scale."""
        return float(self.details.get("average", {}).get("scale", self.scale))

    def __str__(self) -> str:
        title = f"{self.name}: {self.status}" if self.name else self.status
        lines = [f"{title} (tolerance {self.tolerance:g} of scale {self.scale:.4g})"]
        lines += [f"  {reason}" for reason in self.reasons]
        shown: tuple[tuple[str, float | None], ...] = (
            ("value", self.value_error),
            ("gradient", self.gradient_error),
            ("control", self.control_error),
            ("regret", self.regret),
            ("residual", self.residual),
            ("reference's own", self.reference_error),
        )
        if self.adversary_regret is not None:
            shown += (("adversary's regret", self.adversary_regret),)
        lines.append("  errors: " + ", ".join(f"{k} {_short(v)}" for k, v in shown))
        if "average" in self.details:
            lines.append(f"  {said_of(self.details['average'])}")
        sides = " x ".join(f"{side:.2g}" for side in self.resolution)
        pieces = self.details.get("slices", ())
        times = dict.fromkeys(p["time"] for p in pieces if p["time"] is not None)
        when = f" at t = {', '.join(f'{t:.4g}' for t in times)}" if times else ""
        modes = [p for p in pieces if p["mode"] is not None]
        when += f" in {len({p['mode'] for p in modes})} modes" if modes else ""
        lines += [f"  {text}" for text in map(_of_mode, modes)]
        lines.append(
            f"  {self.n_points} points{when}; a fault narrower than {sides} can hide"
        )
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and dictionaries; None where not finite."""
        names = (
            "name", "status", "reasons", "value_error", "gradient_error",
            "control_error", "regret", "adversary_regret", "residual",
            "reference_error", "mean_removed_error", "where", "time", "mode",
            "resolution", "tolerance", "scale", "n_points", "details",
        )  # fmt: skip
        out = {name: plain(getattr(self, name)) for name in names}
        out["region"] = {"low": plain(self.region.low), "high": plain(self.region.high)}
        return out

    def plot(self) -> Any:
        """A matplotlib figure: candidate against reference, error against its bar."""
        from .report.figures import verdict_figure

        return verdict_figure(self)

    def to_html(self, path: str | Path) -> Path:
        """Write a self-contained page; returns its path."""
        from .report.html import write_html

        return write_html(self, path)

    def to_json(self, path: str | Path) -> Path:
        """Write `to_dict` as JSON; returns its path."""
        from .report.json import write_json

        return write_json(self.to_dict(), path)


def said_of(average: Mapping[str, Any]) -> str:
    """The long-run averages of a verdict's details in a line."""
    known, claimed = average["reference"], average["claimed"]
    parts = ["long-run average per unit time: reference "]
    parts[0] += "unknown" if known is None else f"{known:.6g} +- {average['error']:.2g}"
    parts += [] if claimed is None else [f"claimed {claimed:.6g}"]
    if "policy" in average:
        low, high = average["policy"]
        one = average["parts"] == 1
        own = f"{low:.6g}" if one else f"{low:.6g} to {high:.6g}, by where it starts"
        best = average["best_policy"]
        parts.append(
            f"on the regret's grid {best:.6g} and the candidate's policy {own}"
        )
    return ", ".join([*parts, f"losses relative to {average['scale']:.4g}"])


def _of_mode(piece: Mapping[str, Any]) -> str:
    """The errors of one mode in a line."""
    shown = ("value", "value_error"), ("gradient", "gradient_error")
    shown += (("control", "control_error"), ("regret", "regret"))
    shown += (("residual", "residual"),)
    errors = ", ".join(f"{label} {_short(piece[name])}" for label, name in shown)
    return f"{When(piece['time'], piece['mode'])}: {errors}"


def plain(value: Any) -> Any:
    """`value` in JSON's own types; numbers that are not finite become None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if value is None or isinstance(value, str | bool | int):
        return value
    return str(value)


def _short(number: float | None) -> str:
    return "-" if number is None else f"{number:.2g}"
