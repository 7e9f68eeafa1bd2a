"""Pages and JSON of a verdict (kind: contract)."""

from __future__ import annotations

import base64
import json
import re
import stat
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

import hjbpde as hjb
from verification import Candidate, Verdict, cross_check
from verification.report.figures import training_series
from verification.report.index import Entry, write_index
from verification.report.json import write_json

CASES = ("solution", "value", "policy", "nan", "flat")


@cache
def verdict_of(case: str) -> Verdict:
    if case == "flat":
        problem = hjb.catalogue.get("manufactured", dimension=2)
        assert problem.exact is not None
        return cross_check(Candidate(problem.exact.value), hjb.solve(problem, (41, 41)))
    problem = hjb.catalogue.get("lqr")
    exact, reference = problem.exact, hjb.solve(problem, 101)
    assert exact is not None
    candidates = {
        "solution": reference,
        "value": Candidate(exact.value),
        "policy": Candidate(control=exact.control),
        "nan": Candidate(lambda x: np.where(x[..., 0] > 1, np.nan, exact.value(x))),
    }
    return cross_check(candidates[case], reference)


@pytest.mark.parametrize("case", CASES)
def test_the_page_is_self_contained(case: str, tmp_path: Path) -> None:
    verdict = verdict_of(case)
    path = verdict.to_html(tmp_path / "deep" / "page.html")
    text = path.read_text(encoding="utf-8")
    assert verdict.status in text and text.rstrip().endswith("</html>")
    assert not re.search(r"<script|<link|src=\"(?!data:)|url\(", text)
    pictures = re.findall(r"data:image/svg\+xml;base64,([^\"]+)", text)
    assert len(pictures) >= 2
    for picture in pictures:
        ElementTree.fromstring(base64.b64decode(picture))
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [p.name for p in path.parent.iterdir()] == ["page.html"]


@pytest.mark.parametrize("case", CASES)
def test_the_json_is_valid_and_holds_the_verdict(case: str, tmp_path: Path) -> None:
    verdict = verdict_of(case)
    text = verdict.to_json(tmp_path / "verdict.json").read_text(encoding="utf-8")

    def refuse(token: str) -> None:
        raise AssertionError(f"{token} is not JSON")

    content = json.loads(text, parse_constant=refuse)
    assert content["status"] == verdict.status
    assert content["value_error"] == verdict.value_error
    assert content["reasons"] == list(verdict.reasons)


@pytest.mark.parametrize("case", CASES)
def test_a_verdict_prints_in_a_few_lines_and_plots(case: str) -> None:
    verdict = verdict_of(case)
    assert len(str(verdict).splitlines()) <= 8
    assert len(verdict.plot().axes) >= 3


def test_the_same_verdict_makes_the_same_page(tmp_path: Path) -> None:
    pages = [
        verdict_of("value").to_html(tmp_path / f"{i}.html").read_bytes()
        for i in range(2)
    ]
    assert pages[0] == pages[1]


def test_text_is_escaped(tmp_path: Path) -> None:
    entry = Entry.failed("<b>", "least-squares", "a < b & c")
    text = write_index([entry], tmp_path / "index.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;" in text and "a &lt; b &amp; c" in text


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = write_json({"a": 1}, tmp_path / "x.json")
    with pytest.raises(UnicodeEncodeError):
        write_json({"a": "\ud800"}, path)
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_numbers_that_are_not_finite_become_null(tmp_path: Path) -> None:
    content = {"a": np.array([1.0, np.nan]), "b": np.inf, "c": np.int64(3)}
    path = write_json(content, tmp_path / "x.json")
    assert json.loads(path.read_text(encoding="utf-8")) == {
        "a": [1.0, None],
        "b": None,
        "c": 3,
    }


def test_training_histories_of_both_forms_are_read() -> None:
    rows = [{"iteration": 1, "loss": 1.0, "note": "x"}, {"iteration": 2, "loss": 0.1}]
    assert list(training_series(rows)) == ["loss"]
    assert list(training_series({"loss": [1.0, 0.5, None], "flat": [1, 1, 1]})) == [
        "loss"
    ]
    assert training_series(None) == {}
