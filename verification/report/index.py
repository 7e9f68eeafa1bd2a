"""The page that lists several verdicts and links to each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..verdict import Verdict
from .html import render, short
from .json import write_text


@dataclass(frozen=True)
class Entry:
    """One line of the index; `page` and `json` are names beside it, "" for none."""

    problem: str
    method: str
    status: str
    reason: str
    value_error: str = "–"
    reference_error: str = "–"
    regret: str = "–"
    seconds: str = "–"
    page: str = ""
    json: str = ""

    @classmethod
    def of(
        cls, verdict: Verdict, method: str, seconds: float, page: str, json: str
    ) -> Entry:
        """The line of a verdict."""
        return cls(
            problem=verdict.name,
            method=method,
            status=verdict.status,
            reason=verdict.reasons[0],
            value_error=short(verdict.value_error),
            reference_error=short(verdict.reference_error),
            regret=short(verdict.regret),
            seconds=f"{seconds:.1f} s",
            page=page,
            json=json,
        )

    @classmethod
    def failed(cls, problem: str, method: str, reason: str) -> Entry:
        """The line of a run that ended in an error."""
        return cls(problem, method, "failed", reason)


def write_index(entries: Sequence[Entry], path: str | Path) -> Path:
    """Write the index page, all or nothing; returns its path."""
    return write_text(render("index.html.j2", entries=list(entries)), path)
