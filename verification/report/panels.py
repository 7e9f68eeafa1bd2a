"""The panels of a verdict's figures: one picture of one time each."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hjbpde import Paths
from hjbpde.plotting import BLUE, ERROR_MAP, GREEN, INK, ORANGE, PINK, draw_map

from ..evidence import Evidence, Slice
from ..verdict import Verdict

Array = NDArray[np.float64]

FLOOR = 1e-12
"""Errors below this share of the scale are drawn at it."""
SHOWN_DECADES = 1e-4
"""Error maps end here below their largest error, so that its shape can be seen."""


def when(piece: Slice) -> str:
    """The time and the mode of a slice, to be put behind a title."""
    time = "" if piece.time is None else f", $t = {piece.time:.4g}$"
    return time if piece.mode is None else f"{time}, mode {piece.mode}"


def name_axes(axes: Any, evidence: Evidence) -> None:
    """Say where the axes that are not shown are held."""
    where = ", ".join(f"$x_{{{k + 1}}}={c:.3g}$" for k, c in evidence.fixed.items())
    for panel in axes.ravel():
        if where:
            panel.set_xlabel(f"$x_1$   ({where})")


def range_of(*arrays: Array) -> tuple[float, float] | None:
    """Common colour limits; None where nothing is finite."""
    known = np.concatenate([a[np.isfinite(a)].ravel() for a in arrays])
    return (float(known.min()), float(known.max())) if known.size else None


def value_line(panel: Any, evidence: Evidence, piece: Slice) -> None:
    """Candidate and reference over one axis, the reference's bar drawn."""
    x, truth, bar = evidence.axes[0], piece.reference, piece.bar
    bar = np.where(np.isfinite(bar), bar, 0.0)
    panel.plot(x, truth, color=BLUE, lw=3, alpha=0.55, label="reference")
    panel.fill_between(
        x, truth - bar, truth + bar, color=BLUE, alpha=0.25, lw=0, label="its bar"
    )
    if piece.value is not None:
        panel.plot(x, piece.value, color=ORANGE, lw=1.6, ls="--", label="candidate")
    panel.set(title=f"Value{when(piece)}", xlabel="state $x$", ylabel="$V(x)$")
    panel.set_xlim(x[0], x[-1])
    panel.legend(loc="best")


def error_line(panel: Any, verdict: Verdict, evidence: Evidence, piece: Slice) -> None:
    """The error over one axis, against the reference's bar and the tolerance."""
    x, s = evidence.axes[0], verdict.scale
    bar = np.maximum(piece.bar / s, FLOOR)
    if piece.value is not None:
        e = np.abs(piece.value - piece.reference) / s
        panel.semilogy(x, np.maximum(e, FLOOR), color=ORANGE, label="error $e/s$")
    panel.semilogy(x, bar, color=BLUE, lw=1.4, label="reference's bar $u/s$")
    panel.fill_between(x, FLOOR, bar, color=BLUE, alpha=0.15, lw=0)
    panel.axhline(verdict.tolerance, color=INK, ls=":", lw=1.4, label="tolerance")
    panel.set(
        title=f"Error{when(piece)}", xlabel="state $x$", ylabel="share of the scale"
    )
    panel.set_xlim(x[0], x[-1])
    # Room above for the legend.
    panel.set_ylim(FLOOR, 100 * max(verdict.tolerance, panel.get_ylim()[1] / 10))
    panel.legend(loc="best")


def regret_line(panel: Any, verdict: Verdict, evidence: Evidence, piece: Slice) -> None:
    """What the policies cost over one axis, each answered best."""
    lasting = "average" in verdict.details
    title = f"Regret{' per unit time' if lasting else ''}{when(piece)}"
    panel.set(title=title, xlabel="state $x$", ylabel="loss / scale")
    if piece.regret is None:
        panel.text(0.5, 0.5, "not computed", ha="center", transform=panel.transAxes)
        return
    x = evidence.axes[0]
    panel.axhline(verdict.tolerance, color=INK, ls=":", lw=1.4, label="tolerance")
    sides = ("regret", GREEN, piece.regret, "regret_bar", "-"), (
        "the adversary's", BLUE, piece.adversary_regret, "adversary_regret_bar", "--"
    )  # fmt: skip
    for label, colour, found, bar_name, line in sides:
        if found is None:
            continue
        loss = np.maximum(found / verdict.loss_scale, FLOOR)
        panel.semilogy(x, loss, line, color=colour, label=label)
        bar = verdict.details.get(bar_name)
        if bar is not None and np.isfinite(bar):
            panel.axhline(max(bar, FLOOR), color=PINK, lw=1.2, ls=line, label="its bar")
    panel.set_xlim(x[0], x[-1])
    panel.legend(loc="best")


def control_line(panel: Any, evidence: Evidence, piece: Slice, i: int) -> None:
    """One control of both policies over one axis."""
    assert piece.control is not None and piece.reference_control is not None
    x = evidence.axes[0]
    mine, theirs = piece.control[:, i], piece.reference_control[:, i]
    panel.plot(x, theirs, color=BLUE, lw=3, alpha=0.55, label="reference")
    panel.plot(x, mine, color=ORANGE, lw=1.6, ls="--", label="candidate")
    name = evidence.control_names[i]
    title = f"Control ${name}${when(piece)}"
    panel.set(title=title, xlabel="state $x$", ylabel=f"${name}(x)$")
    panel.set_xlim(x[0], x[-1])
    known = range_of(theirs, mine)
    spread, middle = (0.0, 0.0) if known is None else (np.ptp(known), np.mean(known))
    if spread < 0.02 * abs(middle):
        # A constant policy would otherwise fill the panel with its round-off.
        panel.set_ylim(middle - 0.1 * abs(middle), middle + 0.1 * abs(middle))
    panel.legend(loc="best")


def value_map(panel: Any, evidence: Evidence, piece: Slice) -> None:
    """The candidate's value, or the reference's where it has none."""
    shown = piece.reference if piece.value is None else piece.value
    who = "Reference" if piece.value is None else "Candidate"
    draw_map(panel, evidence.axes, shown, f"{who} value{when(piece)}")


def error_map(panel: Any, verdict: Verdict, evidence: Evidence, piece: Slice) -> None:
    """The error over two axes; a cross marks what decided."""
    if piece.value is None:
        bar_map(panel, verdict, evidence, piece)
        return
    e = np.abs(piece.value - piece.reference) / verdict.scale
    title = f"Error / s (tolerance {verdict.tolerance:g}){when(piece)}"
    known = range_of(e)
    least = 0.0 if known is None else SHOWN_DECADES * known[1]
    e = np.maximum(e, max(FLOOR, least))
    draw_map(panel, evidence.axes, e, title, colours=ERROR_MAP, log=True)
    here = (piece.time, piece.mode) == (verdict.time, verdict.mode)
    if verdict.where is not None and not evidence.fixed and here:
        panel.plot(*verdict.where[:2], "x", color="white", ms=9, mew=2)


def bar_map(panel: Any, verdict: Verdict, evidence: Evidence, piece: Slice) -> None:
    """How well the reference knows the value, over two axes."""
    bar, title = piece.bar / verdict.scale, f"Reference's bar / s{when(piece)}"
    draw_map(panel, evidence.axes, bar, title, colours=ERROR_MAP, log=True)


def regret_map(panel: Any, verdict: Verdict, evidence: Evidence, piece: Slice) -> None:
    """What the policy costs over two axes; of two players' the larger cost."""
    if piece.regret is None:
        panel.text(0.5, 0.5, "not computed", ha="center", transform=panel.transAxes)
        return
    _loss_map(panel, verdict, evidence, piece, piece.larger_regret)


def side_map(
    panel: Any, verdict: Verdict, evidence: Evidence, piece: Slice, whose: str
) -> None:
    """What one player's strategy costs over two axes, answered best."""
    mine = whose == "controller"
    loss = piece.regret if mine else piece.adversary_regret
    _loss_map(panel, verdict, evidence, piece, loss, f", {whose}")


def _loss_map(
    panel: Any, verdict: Verdict, evidence: Evidence, piece: Slice, loss: Any,
    whose: str = "",
) -> None:  # fmt: skip
    lasting = ", per unit time" if "average" in verdict.details else whose
    loss, title = loss / verdict.loss_scale, f"Regret / s{lasting}{when(piece)}"
    draw_map(panel, evidence.axes, loss, title, colours=ERROR_MAP)


def paths_panel(panel: Any, paths: Paths, colour: str, label: str) -> None:
    """A few paths of the first state."""
    few = paths.states[:8, :, 0].T
    panel.plot(paths.times, few, color=colour, lw=0.8, alpha=0.55)
    panel.plot([], [], color=colour, label=label)


def reward_panel(panel: Any, paths: Paths, colour: str, label: str) -> None:
    """The mean payoff collected so far, with two standard errors."""
    mean = paths.rewards.mean(axis=0)
    error = paths.rewards.std(axis=0) / np.sqrt(len(paths.rewards))
    panel.plot(paths.times, mean, color=colour, lw=1.8, label=f"{label}, mean")
    panel.fill_between(
        paths.times, mean - 2 * error, mean + 2 * error, color=colour, alpha=0.18, lw=0
    )
