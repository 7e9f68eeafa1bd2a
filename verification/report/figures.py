"""The figures of a verdict and of a convergence study."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hjbpde.plotting import (
    BLUE,
    GREY,
    INK,
    LINES,
    ORANGE,
    draw_map,
    new_figure,
    styled,
)

from ..convergence import Study
from ..evidence import Evidence, Slice
from ..verdict import Verdict
from .panels import (
    bar_map,
    control_line,
    error_line,
    error_map,
    name_axes,
    paths_panel,
    range_of,
    regret_line,
    regret_map,
    reward_panel,
    side_map,
    value_line,
    value_map,
    when,
)

Array = NDArray[np.float64]

WIDE, HIGH = 12.6, 3.9
"""Inches of a picture across the page, and of one row of it."""


@styled
def verdict_figure(verdict: Verdict) -> Any:
    """Candidate against reference, error against its bar, regret; a row a time."""
    evidence = _evidence(verdict)
    n, flat = len(evidence.slices), len(evidence.axes) > 1
    figure, axes = new_figure(n, 3, 13.2, (3.9 if flat else 3.6) * n)
    for row, piece in zip(axes, evidence.slices, strict=True):
        (value_map if flat else value_line)(row[0], evidence, piece)
        (error_map if flat else error_line)(row[1], verdict, evidence, piece)
        (regret_map if flat else regret_line)(row[2], verdict, evidence, piece)
    title = f"{verdict.name or 'cross-check'}: {verdict.status}"
    average = verdict.details.get("average", {}).get("reference")
    if average is not None:
        title += f", long-run average {average:.4g} per unit time"
    figure.suptitle(title, x=0.01, ha="left", fontsize=13, weight="bold")
    return figure


@styled
def value_figure(verdict: Verdict) -> Any:
    """Candidate and reference values, the bar drawn."""
    evidence = _evidence(verdict)
    if len(evidence.axes) == 1:
        figure, axes = _a_panel_each(evidence)
        for panel, piece in zip(axes, evidence.slices, strict=True):
            value_line(panel, evidence, piece)
        return figure
    figure, columns = _two_panels_each(evidence)
    for panels, piece in zip(columns, evidence.slices, strict=True):
        pair = (("Candidate", piece.value), ("Reference", piece.reference))
        limits = range_of(*(values for _, values in pair if values is not None))
        for panel, (who, values) in zip(panels, pair, strict=True):
            if values is None:
                panel.set_axis_off()
                continue
            title = who + when(piece)
            draw_map(panel, evidence.axes, values, title, limits=limits)
    name_axes(columns, evidence)
    return figure


@styled
def error_figure(verdict: Verdict) -> Any:
    """|candidate - reference| against the reference's bar and the tolerance."""
    evidence = _evidence(verdict)
    if len(evidence.axes) == 1:
        figure, axes = _a_panel_each(evidence)
        for panel, piece in zip(axes, evidence.slices, strict=True):
            error_line(panel, verdict, evidence, piece)
        return figure
    figure, columns = _two_panels_each(evidence)
    for panels, piece in zip(columns, evidence.slices, strict=True):
        error_map(panels[0], verdict, evidence, piece)
        bar_map(panels[1], verdict, evidence, piece)
    name_axes(columns, evidence)
    return figure


@styled
def control_figure(verdict: Verdict) -> Any | None:
    """Candidate and reference policies; None without controls."""
    evidence = _evidence(verdict)
    first, n = evidence.slices[0], len(evidence.slices)
    if first.control is None or first.reference_control is None:
        return None
    m = first.control.shape[-1]
    if len(evidence.axes) == 1:
        wide = 6.4 if n == 1 else WIDE
        figure, axes = new_figure(m, n, wide, HIGH if m == 1 else 2.6 * m)
        for i in range(m):
            for panel, piece in zip(axes[i], evidence.slices, strict=True):
                control_line(panel, evidence, piece, i)
        return figure
    shown = min(m, 3)
    if n == 1:
        figure, axes = new_figure(2, shown, WIDE, 9.6 if shown < 3 else 7.2)
        pairs = axes.T
    else:
        # A row of pictures for every policy and control, a column a time.
        figure, axes = new_figure(2 * shown, n, WIDE, 6.4 * shown)
        pairs = axes.reshape(shown, 2, n).transpose(0, 2, 1).reshape(-1, 2)
    cells = [(i, piece) for i in range(shown) for piece in evidence.slices]
    for panels, (i, piece) in zip(pairs, cells, strict=True):
        _control_maps(panels, evidence, piece, i)
    name_axes(axes, evidence)
    return figure


def _control_maps(panels: Any, evidence: Evidence, piece: Slice, i: int) -> None:
    """One control of both policies over two axes, in the same colours."""
    assert piece.control is not None and piece.reference_control is not None
    mine, theirs = piece.control[..., i], piece.reference_control[..., i]
    limits = range_of(mine, theirs)
    pair = (("Candidate", mine), ("Reference", theirs))
    for panel, (who, a) in zip(panels, pair, strict=True):
        title = f"{who} ${evidence.control_names[i]}${when(piece)}"
        draw_map(panel, evidence.axes, a, title, limits=limits)


@styled
def regret_figure(verdict: Verdict) -> Any | None:
    """What the policy costs, over the region; None where it was not computed."""
    evidence = _evidence(verdict)
    if any(piece.regret is None for piece in evidence.slices):
        return None
    flat = len(evidence.axes) > 1
    if flat and evidence.slices[0].adversary_regret is not None:
        return _both_regrets(verdict, evidence)
    figure, axes = _a_panel_each(evidence, 4.9 if flat else HIGH)
    for panel, piece in zip(axes, evidence.slices, strict=True):
        (regret_map if flat else regret_line)(panel, verdict, evidence, piece)
    if flat:
        name_axes(axes, evidence)
    return figure


def _both_regrets(verdict: Verdict, evidence: Evidence) -> Any:
    """What each player's strategy costs, beside each other for every time."""
    figure, rows = _two_panels_each(evidence)
    for panels, piece in zip(rows, evidence.slices, strict=True):
        side_map(panels[0], verdict, evidence, piece, "controller")
        side_map(panels[1], verdict, evidence, piece, "adversary")
    name_axes(rows, evidence)
    return figure


def _a_panel_each(evidence: Evidence, high: float = HIGH) -> tuple[Any, Any]:
    """A figure with one panel for every time, and its panels."""
    n = len(evidence.slices)
    if n == 1:
        figure, axes = new_figure(1, 1, 6.4, high)
        return figure, axes.ravel()
    columns = 2 if n <= 4 else 3
    rows = -(-n // columns)
    figure, axes = new_figure(rows, columns, WIDE, HIGH * rows)
    for panel in axes.ravel()[n:]:
        panel.set_axis_off()
    return figure, axes.ravel()[:n]


def _two_panels_each(evidence: Evidence) -> tuple[Any, Any]:
    """A figure with two panels for every time, beside each other: (n, 2)."""
    n = len(evidence.slices)
    return new_figure(n, 2, WIDE, 4.8 * n)


@styled
def paths_figure(verdict: Verdict) -> Any | None:
    """Sample paths under both policies and the same noise, and what they collect."""
    excursion = _evidence(verdict).excursion
    if excursion is None:
        return None
    mine, theirs = excursion.shown, excursion.shown_reference
    lasting = "average" in verdict.details
    figure, axes = new_figure(1, 2, 12.6, 4.2)
    for paths, colour, label in (
        (theirs, INK, "reference"),
        (mine, ORANGE, "candidate"),
    ):
        paths_panel(axes[0, 0], paths, colour, label)
        reward_panel(axes[0, 1], paths, colour, label)
    axes[0, 0].set(title="Paths, same noise", xlabel="time $t$", ylabel="state $x_1$")
    axes[0, 1].set(
        title="Cumulative payoff" if lasting else "Cumulative discounted payoff",
        xlabel="time $t$",
        ylabel=r"$\int_0^t r\,ds$" if lasting else r"$\int_0^t e^{-\rho s} r\,ds$",
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


def _evidence(verdict: Verdict) -> Evidence:
    assert verdict.evidence is not None
    return verdict.evidence
