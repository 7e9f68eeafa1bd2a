"""The figure of where candidate and reference move the state at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hjbpde.plotting import BLUE, INK, ORANGE, draw_map, new_figure, styled

from ..evidence import Evidence
from ..verdict import Verdict
from .panels import name_axes, range_of

Array = NDArray[np.float64]


@styled
def moves_figure(verdict: Verdict) -> Any | None:
    """The states moved to; None where the state cannot be moved."""
    evidence = verdict.evidence
    assert evidence is not None
    piece = evidence.slices[0]
    if piece.move is None or piece.reference_move is None:
        return None
    if len(evidence.axes) == 1:
        return _lines(evidence.axes[0], piece.move[:, 0], piece.reference_move[:, 0])
    return _maps(evidence, piece.move, piece.reference_move)


def _lines(x: Array, mine: Array, theirs: Array) -> Any:
    """Where the state goes from every state of a line; itself where it stays."""
    figure, axes = new_figure(1, 1, 6.4, 3.9)
    panel = axes[0, 0]
    panel.plot(x, x, color=INK, lw=0.8, ls=":", label="left alone")
    panel.plot(x, theirs, color=BLUE, lw=3, alpha=0.55, label="reference")
    panel.plot(x, mine, color=ORANGE, lw=1.6, ls="--", label="candidate")
    panel.set(title="Moves at once", xlabel="state $x$", ylabel="moved to $y(x)$")
    panel.set_xlim(x[0], x[-1])
    panel.legend(loc="best")
    return figure


def _maps(evidence: Evidence, mine: Array, theirs: Array) -> Any:
    """How far the state is moved over two axes; blank where it is left alone."""
    figure, axes = new_figure(1, 2, 12.6, 4.8)
    here = np.stack(np.meshgrid(*evidence.axes, indexing="ij"), axis=-1)
    far = [np.sqrt(((y[..., :2] - here) ** 2).sum(axis=-1)) for y in (mine, theirs)]
    limits = range_of(*far)
    for panel, who, length in zip(
        axes[0], ("Candidate", "Reference"), far, strict=True
    ):
        draw_map(panel, evidence.axes, length, f"{who}: moved by", limits=limits)
    name_axes(axes, evidence)
    return figure
