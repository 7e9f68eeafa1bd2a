"""A verdict as one self-contained page: no scripts, no links, nothing to fetch."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..verdict import Verdict, said_of
from ..when import When
from .figures import (
    control_figure,
    error_figure,
    paths_figure,
    regret_figure,
    training_figure,
    value_figure,
)
from .json import write_text
from .moves import moves_figure

MEANING = {
    "agree": "The candidate matches the reference at every point looked at, with the "
    "reference's own error counted against it.",
    "differ": "The candidate is wrong beyond what the reference's own error allows.",
    "inconclusive": "The reference is not accurate enough to say; nothing was found "
    "against the candidate.",
}


COLUMNS = {
    "value_error": "value error / s",
    "reference_error": "bar of the reference",
    "gradient_error": "gradient error",
    "regret": "regret / s",
    "adversary_regret": "of the adversary",
}
"""What the page says of every time and mode."""


@dataclass(frozen=True)
class Picture:
    """One figure of the page: title, what to see in it, and the image as a data URI."""

    title: str
    caption: str
    source: str
    wide: bool = False


@dataclass(frozen=True)
class Row:
    """One measured number against what is allowed.

    `mark` is "within", "exceeds", "undecided" (its bar straddles the limit), or
    "shown" (it never decides).
    """

    name: str
    meaning: str
    measured: str
    bar: str
    allowed: str
    mark: str


def write_html(verdict: Verdict, path: str | Path) -> Path:
    """Write the verdict's page, all or nothing; returns its path."""
    return write_text(page(verdict), path)


def page(verdict: Verdict) -> str:
    """The page as text."""
    evidence = verdict.evidence
    return render(
        "page.html.j2",
        verdict=verdict,
        meaning=MEANING[verdict.status],
        rows=rows_of(verdict),
        slices=slices_of(verdict),
        pictures=pictures_of(verdict),
        facts=facts_of(verdict),
        runs=[] if evidence is None else runs_of(verdict),
    )


def render(template: str, **content: Any) -> str:
    """A template of this folder filled in; text is escaped."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**content)


def rows_of(verdict: Verdict) -> list[Row]:
    """The numbers of the verdict, each against its limit."""
    tol, details = verdict.tolerance, verdict.details
    e, u = verdict.value_error, verdict.reference_error
    p, p_bar = verdict.gradient_error, details.get("gradient_bar")
    r, r_bar = verdict.regret, details.get("regret_bar")
    theirs, average = verdict.adversary_regret, details.get("average")
    lost = "what the policy loses / s"
    if average is not None:
        lost = "what the policy loses per unit time in the long run / its scale"
    answered = "" if theirs is None else ", answered by the adversary's best reply"
    return [
        Row("Value", "max |V - V_ref| / s", short(e), short(u), f"{tol:g}",
            mark_of(e, u, tol)),
        Row("Value, mean error removed", "a constant can drown the signal",
            short(verdict.mean_removed_error), "", "", "shown"),
        Row("Gradient", "max |dV - dV_ref| width / osc V", short(p), short(p_bar),
            f"{10 * tol:g}", mark_of(p, p_bar, 10 * tol)),
        Row("Regret", f"{lost}{answered}", short(r), short(r_bar),
            f"{tol:g}", mark_of(r, r_bar, tol)),
        *([] if theirs is None else adversary_rows(verdict)),
        *([] if average is None else average_rows(average, tol)),
        Row("Paths that leave", "candidate; under the reference in the next column",
            percent(details.get("paths_leaving")),
            percent(details.get("paths_leaving_reference")), "about the same", "shown"),
        Row("Control", "max |a - a_ref| / max |a_ref|", short(verdict.control_error),
            "", "", "shown"),
        Row("Hamiltonian gap", "what a step gives away / s",
            short(details.get("hamiltonian_gap")), "", "", "shown"),
        Row("Residual", "of the equation, in units of V / s, between nodes",
            short(verdict.residual), "", "", "shown"),
    ]  # fmt: skip


def average_rows(average: Mapping[str, Any], allowed: float) -> list[Row]:
    """The long-run average that the candidate claims, if it does."""
    claimed, known, s = average["claimed"], average["reference"], average["scale"]
    if claimed is None or known is None:
        return []
    off, bar = abs(claimed - known) / s, average["error"] / s
    return [
        Row("Long-run average", "|average - average_ref| / its scale", short(off),
            short(bar), f"{allowed:g}", mark_of(off, bar, allowed)),
    ]  # fmt: skip


def adversary_rows(verdict: Verdict) -> list[Row]:
    """The numbers of a second player."""
    tol, details, loss = verdict.tolerance, verdict.details, verdict.adversary_regret
    bar = details.get("adversary_regret_bar")
    return [
        Row("Regret of the adversary", "what the controller gains on its strategy / s",
            short(loss), short(bar), f"{tol:g}", mark_of(loss, bar, tol)),
        Row("Control of the adversary", "max |b - b_ref| / max |b_ref|",
            short(details.get("adversary_control_error")), "", "", "shown"),
        Row("Hamiltonian gap of the adversary", "what its answer gives away / s",
            short(details.get("adversary_hamiltonian_gap")), "", "", "shown"),
    ]  # fmt: skip


def slices_of(verdict: Verdict) -> list[tuple[str, ...]]:
    """Time or mode and the errors there, a row a piece, after what they are called."""
    pieces, columns = verdict.details.get("slices", ()), dict(COLUMNS)
    if not pieces:
        return []
    if verdict.adversary_regret is None:
        columns.pop("adversary_regret")
    rows = [
        (str(When(piece["time"], piece["mode"])), *(short(piece[n]) for n in columns))
        for piece in pieces
    ]
    return [("", *columns.values()), *rows]


def mark_of(measured: float | None, bar: float | None, allowed: float) -> str:
    """Which side of the limit a number is on, its bar considered."""
    if measured is None:
        return "shown"
    if measured > allowed + (bar or 0.0):
        return "exceeds"
    return "within" if measured + (bar or 0.0) <= allowed else "undecided"


def pictures_of(verdict: Verdict) -> list[Picture]:
    """Every figure there is material for."""
    if verdict.evidence is None:
        return []
    flat = len(verdict.evidence.axes) > 1
    timed, two = len(verdict.evidence.slices) > 1, verdict.adversary_regret is not None
    several = flat or timed
    made = (
        ("Value", "Learned against true value, in the same colours." if flat else
         "Learned against true value. The band is the reference's own error bar; where "
         "it is too thin to see, the error panel shows it.",
         value_figure(verdict), several),
        ("Error against its bar", "Left, what decided is marked by a cross; right, how "
         "well the reference knows the value." if flat else
         "An error below the band cannot be told from the reference's own; the dotted "
         "line is the tolerance.",
         error_figure(verdict), several),
        ("Policy", "Control of the candidate, on its set, and of the reference.",
         control_figure(verdict), several),
        ("Moves", "Where the state is moved to at once, and where it is left alone.",
         moves_figure(verdict), flat),
        ("Regret", "What is lost by using the candidate's policy in the region, from "
         "the same operator as the best policy." if verdict.adversary_regret is None
         else "What each player's strategy loses in the region once the other side "
         "replies in the best way, from the same operator as the game.",
         regret_figure(verdict), several and (timed or two)),
        ("Sample paths", "Both policies feel the same noise. Right: what they have "
         "collected so far; bands are two standard errors.",
         paths_figure(verdict), True),
        ("Training", "What the learner recorded about itself.",
         training_figure(verdict), True),
    )  # fmt: skip
    return [
        Picture(title, caption, image_of(figure), wide)
        for title, caption, figure, wide in made
        if figure is not None
    ]


def image_of(figure: Any) -> str:
    """A figure as an SVG data URI, the same bytes for the same figure."""
    import matplotlib

    out = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "hjbpde"}):
        figure.savefig(out, format="svg", dpi=160, metadata={"Date": None})
    code = base64.b64encode(out.getvalue()).decode("ascii")
    return f"data:image/svg+xml;base64,{code}"


def facts_of(verdict: Verdict) -> list[tuple[str, str]]:
    """How the judging was done."""
    low, high = (coordinates(b) for b in (verdict.region.low, verdict.region.high))
    details = verdict.details
    facts = [
        ("region", f"{low} to {high}"),
        ("scale s", short(verdict.scale)),
        ("tolerance", f"{verdict.tolerance:g} s"),
        ("points", f"{verdict.n_points}: nodes, cell centres, quasi-random"),
        ("resolution", f"faults narrower than {sides(verdict.resolution)} can hide"),
        ("reference", str(details.get("reference_method", ""))),
        ("reference's grid", sides(details.get("grid", []))),
        ("seed", str(details.get("seed", ""))),
    ]
    if verdict.where is not None:
        what = "largest error at" if verdict.status == "agree" else "decided at"
        text = str(When(verdict.time, verdict.mode))
        place = coordinates(verdict.where)
        facts.insert(0, (what, f"{place}, {text}" if text else place))
    if "adversary_answers" in details:
        seen = "every choice of the controller" if details["adversary_answers"] else ""
        facts.append(("the adversary answers", seen or "the state alone"))
    if "average" in details:
        label, _, text = said_of(details["average"]).partition(": ")
        facts.append((label, text))
        facts.append(("values", "compared after their mean difference is removed"))
    if details.get("projected_control"):
        moved = short(details["projected_control"])
        facts.append(("controls outside their set", f"moved by up to {moved}"))
    return facts


def runs_of(verdict: Verdict) -> list[tuple[str, list[tuple[str, str]]]]:
    """What candidate and reference report of themselves."""
    assert verdict.evidence is not None
    reports = (
        ("Candidate's report", verdict.evidence.candidate_report),
        ("Reference's report", verdict.evidence.reference_report),
    )
    return [(title, report_lines(report)) for title, report in reports if report]


def report_lines(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The lines of a report worth showing, as label and text."""
    lines = [("status", str(report.get("status", ""))), ("method", report["method"])]
    seconds = report.get("seconds") or {}
    if seconds:
        text = ", ".join(f"{name} {float(t):.3g} s" for name, t in seconds.items())
        lines.append(("time", text))
    parts = report.get("error_parts") or {}
    if parts:
        text = ", ".join(f"{name} {float(v):.2g}" for name, v in parts.items())
        lines.append(("error bar, largest parts", text))
    if report.get("observed_order") is not None:
        lines.append(("observed order", f"{report['observed_order']:.2f}"))
    lines += [("fallback", str(text)) for text in report.get("fallbacks") or ()]
    lines += [("check", str(text)) for text in report.get("checks") or ()]
    details = report.get("details") or {}
    lines += [
        (str(name).replace("_", " "), shown(value))
        for name, value in details.items()
        if isinstance(value, str | int | float)
    ]
    return lines


def shown(value: str | int | float) -> str:
    """A detail of a report in a few characters."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def short(number: Any) -> str:
    """Two or three digits, a dash for nothing."""
    return "–" if number is None else f"{float(number):.3g}"


def percent(share: float | None) -> str:
    """A share in percent, a dash for nothing."""
    return "–" if share is None else f"{share:.0%}"


def coordinates(point: Any) -> str:
    """A point in parentheses."""
    return "(" + ", ".join(f"{float(c):.4g}" for c in point) + ")"


def sides(lengths: Any) -> str:
    """Lengths with a multiplication sign between."""
    return " × ".join(f"{float(side):.3g}" for side in lengths)
