"""The figures of a verdict and of a convergence study."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hjbpde import Paths
from hjbpde.plotting import (
    BLUE,
    ERROR_MAP,
    GREEN,
    GREY,
    INK,
    LINES,
    ORANGE,
    PINK,
    draw_map,
    new_figure,
    styled,
)

from ..convergence import Study
from ..evidence import Evidence
from ..verdict import Verdict

Array = NDArray[np.float64]

FLOOR = 1e-12
"""Errors below this share of the scale are drawn at it."""
SHOWN_DECADES = 1e-4
"""Error maps end here below their largest error, so that its shape can be seen."""


@styled
def verdict_figure(verdict: Verdict) -> Any:
    """Candidate against reference, error against its bar, regret: one figure."""
    evidence = _evidence(verdict)
    if len(evidence.axes) == 1:
        figure, axes = new_figure(1, 3, 13.2, 3.6)
        _value_line(axes[0, 0], evidence)
        _error_line(axes[0, 1], verdict, evidence)
        _regret_line(axes[0, 2], verdict, evidence)
    else:
        figure, axes = new_figure(1, 3, 13.2, 3.9)
        _value_map(axes[0, 0], evidence)
        _error_map(axes[0, 1], verdict, evidence)
        _regret_map(axes[0, 2], verdict, evidence)
    title = f"{verdict.name or 'cross-check'}: {verdict.status}"
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, weight="bold")
    return figure


@styled
def value_figure(verdict: Verdict) -> Any:
    """Candidate and reference values, the bar drawn."""
    evidence = _evidence(verdict)
    if len(evidence.axes) == 1:
        figure, axes = new_figure(1, 1, 6.4, 3.9)
        _value_line(axes[0, 0], evidence)
        return figure
    figure, axes = new_figure(1, 2, 12.6, 4.8)
    pair = (("Candidate", evidence.value), ("Reference", evidence.reference))
    limits = _range_of(*(values for _, values in pair if values is not None))
    for panel, (who, values) in zip(axes[0], pair, strict=True):
        if values is None:
            panel.set_axis_off()
            continue
        draw_map(panel, evidence.axes, values, who, limits=limits)
    _name_axes(axes, evidence)
    return figure


@styled
def error_figure(verdict: Verdict) -> Any:
    """|candidate - reference| against the reference's bar and the tolerance."""
    evidence = _evidence(verdict)
    if len(evidence.axes) == 1:
        figure, axes = new_figure(1, 1, 6.4, 3.9)
        _error_line(axes[0, 0], verdict, evidence)
        return figure
    figure, axes = new_figure(1, 2, 12.6, 4.8)
    _error_map(axes[0, 0], verdict, evidence)
    bar = evidence.bar / verdict.scale
    title = "Reference's bar / s"
    draw_map(axes[0, 1], evidence.axes, bar, title, colours=ERROR_MAP, log=True)
    _name_axes(axes, evidence)
    return figure


@styled
def control_figure(verdict: Verdict) -> Any | None:
    """Candidate and reference policies; None without controls."""
    evidence = _evidence(verdict)
    mine, theirs = evidence.control, evidence.reference_control
    if mine is None or theirs is None:
        return None
    m = mine.shape[-1]
    if len(evidence.axes) == 1:
        figure, axes = new_figure(m, 1, 6.4, 3.9 if m == 1 else 2.6 * m)
        for i, panel in enumerate(axes[:, 0]):
            _control_line(panel, evidence.axes[0], mine[:, i], theirs[:, i], i)
        return figure
    shown = min(m, 3)
    figure, axes = new_figure(2, shown, 12.6, 9.6 if shown < 3 else 7.2)
    for i in range(shown):
        limits = _range_of(mine[..., i], theirs[..., i])
        for row, (who, a) in enumerate((("Candidate", mine), ("Reference", theirs))):
            title = f"{who} $a_{{{i + 1}}}$"
            draw_map(axes[row, i], evidence.axes, a[..., i], title, limits=limits)
    _name_axes(axes, evidence)
    return figure


@styled
def regret_figure(verdict: Verdict) -> Any | None:
    """What the policy costs, over the region; None where it was not computed."""
    evidence = _evidence(verdict)
    if evidence.regret is None:
        return None
    if len(evidence.axes) == 1:
        figure, axes = new_figure(1, 1, 6.4, 3.9)
        _regret_line(axes[0, 0], verdict, evidence)
        return figure
    figure, axes = new_figure(1, 1, 6.4, 4.9)
    _regret_map(axes[0, 0], verdict, evidence)
    _name_axes(axes, evidence)
    return figure


@styled
def paths_figure(verdict: Verdict) -> Any | None:
    """Sample paths under both policies and the same noise, and what they collect."""
    excursion = _evidence(verdict).excursion
    if excursion is None:
        return None
    mine, theirs = excursion.shown, excursion.shown_reference
    figure, axes = new_figure(1, 2, 12.6, 4.2)
    for paths, colour, label in (
        (theirs, INK, "reference"),
        (mine, ORANGE, "candidate"),
    ):
        _paths_panel(axes[0, 0], paths, colour, label)
        _reward_panel(axes[0, 1], paths, colour, label)
    axes[0, 0].set(title="Paths, same noise", xlabel="time $t$", ylabel="state $x_1$")
    axes[0, 1].set(
        title="Cumulative discounted payoff",
        xlabel="time $t$",
        ylabel=r"$\int_0^t e^{-\rho s} r\,ds$",
    )
    for panel in axes[0]:
        panel.legend(loc="best")
    return figure


@styled
def training_figure(verdict: Verdict) -> Any | None:
    """Everything numeric that training recorded; None without a history."""
    details = _evidence(verdict).candidate_report.get("details", {})
    series = training_series(details.get("history"))
    if not series:
        return None
    runs = runs_of(details["history"], len(next(iter(series.values()))))
    columns = min(len(series), 3)
    rows = -(-len(series) // columns)
    figure, axes = new_figure(rows, columns, 12.6, 3.1 * rows)
    for i, (name, values) in enumerate(series.items()):
        panel, colour = axes.flat[i], LINES[i % len(LINES)]
        known = np.isfinite(values)
        for run in runs:
            held = run[known[run]]
            mark = "o" if len(held) < 40 else ""
            panel.plot(held + 1, values[held], color=colour, lw=1.6, marker=mark, ms=3)
        positive = values[known & (values > 0)]
        if positive.size == known.sum() and positive.max() > 30 * positive.min():
            panel.set_yscale("log")
        panel.set(title=name.replace("_", " "), xlabel="entry of the history")
    for panel in axes.ravel()[len(series) :]:
        panel.set_axis_off()
    return figure


def training_series(history: Any) -> dict[str, Array]:
    """Numeric columns of a history, a list of dictionaries or one of lists."""
    if isinstance(history, dict):
        columns = history
    elif history and isinstance(history[0], dict):
        names = dict.fromkeys(name for entry in history for name in entry)
        columns = {n: [entry.get(n, np.nan) for entry in history] for n in names}
    else:
        return {}
    out = {}
    for name, values in columns.items():
        try:
            array = np.array([np.nan if v is None else float(v) for v in values])
        except (TypeError, ValueError):
            continue
        if array.size > 1 and np.isfinite(array).sum() > 1 and np.nanstd(array) > 0:
            out[str(name)] = array
    return {name: v for name, v in out.items() if name not in ("iteration", "step")}


def runs_of(history: Any, n: int) -> list[NDArray[np.intp]]:
    """Entry numbers of each run: a new one begins where the iteration falls."""
    if isinstance(history, dict) or "iteration" not in history[0]:
        return [np.arange(n)]
    count = np.array([float(entry.get("iteration", 0)) for entry in history])
    return np.split(np.arange(n), np.flatnonzero(np.diff(count) < 0) + 1)


@styled
def study_figure(study: Study) -> Any:
    """Errors and error bars against the step, with slopes to compare."""
    figure, axes = new_figure(1, 1, 6.0, 4.2)
    panel = axes[0, 0]
    h = study.steps
    known = study.errors > 0
    panel.loglog(h[known], study.errors[known], "o-", color=BLUE, label="error")
    bars = np.where(study.error_bars > 0, study.error_bars, np.nan)
    panel.loglog(h, bars, "s--", color=ORANGE, label="error bar")
    start = float(np.nanmax(study.errors))
    for order, dots in ((1, ":"), (2, "-.")):
        if start > 0:
            line = start * (h / h[0]) ** order
            panel.loglog(h, line, dots, color=GREY, label=f"order {order}")
    panel.set(
        title=f"{study.name or 'study'}: order {study.order:.2f}",
        xlabel="step / width of the domain",
        ylabel="error / sup|V|",
    )
    panel.legend()
    return figure


# --- panels ---------------------------------------------------------------------


def _evidence(verdict: Verdict) -> Evidence:
    assert verdict.evidence is not None
    return verdict.evidence


def _name_axes(axes: Any, evidence: Evidence) -> None:
    where = ", ".join(f"$x_{{{k + 1}}}={c:.3g}$" for k, c in evidence.fixed.items())
    for panel in axes.ravel():
        if where:
            panel.set_xlabel(f"$x_1$   ({where})")


def _range_of(*arrays: Array) -> tuple[float, float] | None:
    """Common colour limits; None where nothing is finite."""
    known = np.concatenate([a[np.isfinite(a)].ravel() for a in arrays])
    return (float(known.min()), float(known.max())) if known.size else None


def _value_line(panel: Any, evidence: Evidence) -> None:
    x, truth, bar = evidence.axes[0], evidence.reference, evidence.bar
    bar = np.where(np.isfinite(bar), bar, 0.0)
    panel.plot(x, truth, color=BLUE, lw=3, alpha=0.55, label="reference")
    panel.fill_between(
        x, truth - bar, truth + bar, color=BLUE, alpha=0.25, lw=0, label="its bar"
    )
    if evidence.value is not None:
        panel.plot(x, evidence.value, color=ORANGE, lw=1.6, ls="--", label="candidate")
    panel.set(title="Value", xlabel="state $x$", ylabel="$V(x)$")
    panel.set_xlim(x[0], x[-1])
    panel.legend(loc="best")


def _error_line(panel: Any, verdict: Verdict, evidence: Evidence) -> None:
    x, s = evidence.axes[0], verdict.scale
    bar = np.maximum(evidence.bar / s, FLOOR)
    if evidence.value is not None:
        e = np.abs(evidence.value - evidence.reference) / s
        panel.semilogy(x, np.maximum(e, FLOOR), color=ORANGE, label="error $e/s$")
    panel.semilogy(x, bar, color=BLUE, lw=1.4, label="reference's bar $u/s$")
    panel.fill_between(x, FLOOR, bar, color=BLUE, alpha=0.15, lw=0)
    panel.axhline(verdict.tolerance, color=INK, ls=":", lw=1.4, label="tolerance")
    panel.set(title="Error", xlabel="state $x$", ylabel="share of the scale")
    panel.set_xlim(x[0], x[-1])
    # Room above for the legend.
    panel.set_ylim(FLOOR, 100 * max(verdict.tolerance, panel.get_ylim()[1] / 10))
    panel.legend(loc="best")


def _regret_line(panel: Any, verdict: Verdict, evidence: Evidence) -> None:
    panel.set(title="Regret", xlabel="state $x$", ylabel="loss / scale")
    if evidence.regret is None:
        panel.text(0.5, 0.5, "not computed", ha="center", transform=panel.transAxes)
        return
    x, loss = evidence.axes[0], evidence.regret / verdict.scale
    panel.semilogy(x, np.maximum(loss, FLOOR), color=GREEN, label="regret")
    panel.axhline(verdict.tolerance, color=INK, ls=":", lw=1.4, label="tolerance")
    bar = verdict.details.get("regret_bar")
    if bar is not None and np.isfinite(bar):
        panel.axhline(max(bar, FLOOR), color=PINK, lw=1.2, label="its bar")
    panel.set_xlim(x[0], x[-1])
    panel.legend(loc="best")


def _control_line(panel: Any, x: Array, mine: Array, theirs: Array, i: int) -> None:
    panel.plot(x, theirs, color=BLUE, lw=3, alpha=0.55, label="reference")
    panel.plot(x, mine, color=ORANGE, lw=1.6, ls="--", label="candidate")
    title = f"Control $a_{{{i + 1}}}$"
    panel.set(title=title, xlabel="state $x$", ylabel=f"$a_{{{i + 1}}}(x)$")
    panel.set_xlim(x[0], x[-1])
    spread = float(max(np.ptp(theirs), np.ptp(mine)))
    middle = 0.5 * float(theirs.max() + theirs.min())
    if spread < 0.02 * abs(middle):
        # A constant policy would otherwise fill the panel with its round-off.
        panel.set_ylim(middle - 0.1 * abs(middle), middle + 0.1 * abs(middle))
    panel.legend(loc="best")


def _value_map(panel: Any, evidence: Evidence) -> None:
    shown = evidence.reference if evidence.value is None else evidence.value
    who = "Reference" if evidence.value is None else "Candidate"
    draw_map(panel, evidence.axes, shown, f"{who} value")


def _error_map(panel: Any, verdict: Verdict, evidence: Evidence) -> None:
    if evidence.value is None:
        bar = evidence.bar / verdict.scale
        draw_map(panel, evidence.axes, bar, "Reference's bar / s", colours=ERROR_MAP)
        return
    e = np.abs(evidence.value - evidence.reference) / verdict.scale
    title = f"Error / s (tolerance {verdict.tolerance:g})"
    e = np.maximum(e, max(FLOOR, SHOWN_DECADES * float(e.max())))
    draw_map(panel, evidence.axes, e, title, colours=ERROR_MAP, log=True)
    if verdict.where is not None and not evidence.fixed:
        panel.plot(*verdict.where[:2], "x", color="white", ms=9, mew=2)


def _regret_map(panel: Any, verdict: Verdict, evidence: Evidence) -> None:
    if evidence.regret is None:
        panel.text(0.5, 0.5, "not computed", ha="center", transform=panel.transAxes)
        return
    loss = evidence.regret / verdict.scale
    draw_map(panel, evidence.axes, loss, "Regret / s", colours=ERROR_MAP)


def _paths_panel(panel: Any, paths: Paths, colour: str, label: str) -> None:
    few = paths.states[:8, :, 0].T
    panel.plot(paths.times, few, color=colour, lw=0.8, alpha=0.55)
    panel.plot([], [], color=colour, label=label)


def _reward_panel(panel: Any, paths: Paths, colour: str, label: str) -> None:
    mean = paths.rewards.mean(axis=0)
    error = paths.rewards.std(axis=0) / np.sqrt(len(paths.rewards))
    panel.plot(paths.times, mean, color=colour, lw=1.8, label=f"{label}, mean")
    panel.fill_between(
        paths.times, mean - 2 * error, mean + 2 * error, color=colour, alpha=0.18, lw=0
    )
