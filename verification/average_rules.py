"""The rules of the verdict on long-run averages: what is claimed, and what is lost."""

from __future__ import annotations

import numpy as np

from .long_run import LongRun
from .regret import Regret
from .ruling import ACCUSING, Finding, Ruling


def rule_claim(
    ruling: Ruling, long_run: LongRun, claimed: float | None, tolerance: float
) -> None:
    """The average that the candidate claims, if it does, against the reference's."""
    if claimed is None or long_run.average is None:
        return
    off, bar = abs(claimed - long_run.average), long_run.error
    numbers = (
        f"the long-run average {claimed:.6g} is off by {off / long_run.scale:.3g} of "
        f"the averages' scale {long_run.scale:.4g} from {long_run.average:.6g}"
    )
    if off - bar > tolerance * long_run.scale:
        text = f"{numbers}, where {tolerance:g} + its bar {bar / long_run.scale:.2g}"
        ruling.faults.append(Finding(f"{text} are allowed."))
    elif not off + bar <= tolerance * long_run.scale:
        text = f"{numbers}, which is known to {bar / long_run.scale:.2g} only"
        ruling.doubt(f"{text}: a finer reference would decide.")


def rule_lasting_regret(
    ruling: Ruling, regret: Regret, long_run: LongRun, tolerance: float
) -> None:
    """What the policy loses a unit of time, by where the state starts."""
    loss, start = regret.worst()
    bar, s, averages = regret.largest_bar(), long_run.scale, regret.averages
    assert averages is not None
    apart = averages.parts > 1
    where, place = (start, f" from {ruling.place(start)} on") if apart else (None, "")
    numbers = (
        f"{loss:.4g} per unit time in the long run{place}, {loss / s:.3g} of the "
        f"averages' scale {s:.4g}"
    )
    if loss - ACCUSING * bar > tolerance * s:
        text = f"the policy loses {numbers} (bar {bar / s:.2g}, allowed {tolerance:g})."
        ruling.faults.append(Finding(text, where))
        if apart:
            ruling.faults.append(Finding(_apart(regret)))
    elif not loss + bar <= tolerance * s:
        why = f"a finer grid would decide against {tolerance:g}."
        if averages.error > tolerance * s:
            why = (
                "the state hardly ever passes from one part of the domain to another, "
                f"so that the policy's average is enclosed to {averages.error / s:.2g} "
                "only."
            )
        text = f"the policy loses {numbers} +- {bar / s:.2g}: {why}"
        ruling.doubts.append(Finding(text, where))


def _apart(regret: Regret) -> str:
    """What happens under a policy that has several averages."""
    averages = regret.averages
    assert averages is not None
    low, high = float(np.min(averages.by_start)), float(np.max(averages.by_start))
    return (
        f"under the policy the state falls into {averages.parts} parts that never "
        f"meet, with averages from {low:.4g} to {high:.4g}."
    )
